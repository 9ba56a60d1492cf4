// The products of attention in AMX tiles: 0..3 hold sums, 4..5 rows, 6..7 keys or values.
#pragma once

#include <immintrin.h>

#include "vnni.h"

namespace salver {
namespace {

constexpr int kFewDigitRows = 8;  // up to here VNNI is faster than tiles

// gcc's tile loads do not say that they read memory: stores before them must be made first.
SALVER_INLINE void settle_memory() { asm volatile("" ::: "memory"); }

void block_scores(const std::uint16_t* queries, int padded, const std::uint16_t* keys, int /*rows*/,
                  float* scores) {
  settle_memory();
  _tile_zero(0);
  _tile_zero(1);
  for (int d = 0; d < padded; d += 32) {
    _tile_loadd(4, queries + d, padded * 2);
    _tile_loadd(6, keys + d * 16, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, keys + (padded + d) * 16, 64);
    _tile_dpbf16ps(1, 4, 7);
  }
  _tile_stored(0, scores, kKeyGroup * sizeof(float));
  _tile_stored(1, scores + kLanes, kKeyGroup * sizeof(float));
}

void mix_group(const std::uint16_t* weights, const std::uint16_t* const* values, int blocks, int padded, int /*rows*/,
               float* mixed) {
  settle_memory();
  for (int d = 0; d < padded; d += 32) {
    _tile_zero(0);
    _tile_zero(1);
    for (int block = 0; block < blocks; ++block) {
      _tile_loadd(4, weights + block * kBlockTokens, kKeyGroup * 2);
      _tile_loadd(6, values[block] + d * kBlockTokens, 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(7, values[block] + (d + kLanes) * kBlockTokens, 64);
      _tile_dpbf16ps(1, 4, 7);
    }
    _tile_stored(0, mixed + d, padded * sizeof(float));
    _tile_stored(1, mixed + d + kLanes, padded * sizeof(float));
  }
}

// Heads of 64 dimensions need each tile of digits once for all blocks.
void int8_group_scores(const std::uint8_t* digits, const Int8Group& group, int rows, std::int32_t* scores) {
  if (rows <= kFewDigitRows) return vnni_int8_group_scores(digits, group, rows, scores);
  const int padded = group.padded;
  constexpr int kStride = kKeyGroup * sizeof(std::int32_t);
  settle_memory();
  for (int block = 0; block < group.blocks; ++block, scores += kBlockTokens) {
    const std::uint8_t* keys = group.at[block];
    const bool load_digits = block == 0 || padded > 64;
    group.fetch_later(block, keys, kBlockTokens * padded);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int d = 0; d < padded; d += 64) {
      if (load_digits) _tile_loadd(4, digits + d, padded);
      _tile_loadd(6, keys + d * 16, 64);
      _tile_dpbsud(0, 4, 6);
      _tile_loadd(7, keys + (padded + d) * 16, 64);
      _tile_dpbsud(1, 4, 7);
      if (rows <= 16) continue;
      if (load_digits) _tile_loadd(5, digits + 16 * padded + d, padded);
      _tile_dpbsud(2, 5, 6);
      _tile_dpbsud(3, 5, 7);
    }
    _tile_stored(0, scores, kStride);
    _tile_stored(1, scores + kLanes, kStride);
    if (rows <= 16) continue;
    _tile_stored(2, scores + 16 * kKeyGroup, kStride);
    _tile_stored(3, scores + 16 * kKeyGroup + kLanes, kStride);
  }
}

// A tile of values is two half tiles, so weights come twice: beside zeros after, and zeros before.
void int8_mix_group(const std::uint8_t* weights, const Int8Group& group, int rows, std::int32_t* mixed) {
  if (rows <= kFewDigitRows) return vnni_int8_mix_group(weights, group, rows, mixed);
  settle_memory();
  const int padded = group.padded;
  const int stride = padded * sizeof(std::int32_t);
  for (int d = 0; d < padded; d += 32) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int block = 0; block < group.blocks; ++block) {
      const std::uint8_t* weight = weights + block * 64;
      _tile_loadd(6, group.values(block) + d * kBlockTokens, 64);
      _tile_loadd(4, weight + 32, kWeightStride);
      _tile_dpbusd(0, 4, 6);
      _tile_loadd(5, weight, kWeightStride);
      _tile_dpbusd(1, 5, 6);
      if (rows <= 16) continue;
      _tile_loadd(4, weight + 16 * kWeightStride + 32, kWeightStride);
      _tile_dpbusd(2, 4, 6);
      _tile_loadd(5, weight + 16 * kWeightStride, kWeightStride);
      _tile_dpbusd(3, 5, 6);
    }
    _tile_stored(0, mixed + d, stride);
    _tile_stored(1, mixed + d + kLanes, stride);
    if (rows <= 16) continue;
    _tile_stored(2, mixed + 16 * padded + d, stride);
    _tile_stored(3, mixed + 16 * padded + d + kLanes, stride);
  }
}

}  // namespace
}  // namespace salver
