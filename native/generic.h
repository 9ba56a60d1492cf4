// The inner products in portable vectors: right on every machine, fast on none.
#pragma once

#include "int8_group.h"
#include "kernels.h"
#include "vec.h"

namespace salver {
namespace {

// Lane c of a row of a tile holds four int8 of channel c.
SALVER_INLINE I16 add_four(I16 sum, I16 weights, const std::uint8_t* a) {
  sum += (weights << 24 >> 24) * std::int32_t(a[0]);
  sum += (weights << 16 >> 24) * std::int32_t(a[1]);
  sum += (weights << 8 >> 24) * std::int32_t(a[2]);
  return sum + (weights >> 24) * std::int32_t(a[3]);
}

template <typename Leaving>
[[maybe_unused]] void generic_int8_sums(const std::uint8_t* a, std::size_t stride, int rows, const std::int8_t* panel,
                                        int k_tiles, Ahead /*ahead*/, std::int32_t* sums, Held<std::int32_t>& /*held*/,
                                        Leaving& /*leaving*/) {
  for (int row = 0; row < rows; ++row) {
    const std::uint8_t* values = a + row_offset(row, stride);
    I16 first{}, second{};
    const std::int8_t* tile = panel;
    for (int kt = 0; kt < k_tiles; ++kt, tile += 2 * kTileBytes, values += kTileBytes) {
      for (int i = 0; i < 16; ++i) {
        first = add_four(first, load_ints(tile + i * 64), values + i * 4);
        second = add_four(second, load_ints(tile + kTileBytes + i * 64), values + i * 4);
      }
    }
    store_ints(sums + row * kPanel, first);
    store_ints(sums + row * kPanel + kLanes, second);
  }
}

// The bf16 pairs of 16 lanes, as floats.
SALVER_INLINE F16 evens(const void* p) { return reinterpret_cast<F16>(load_ints(p) << 16); }
SALVER_INLINE F16 odds(const void* p) {
  return reinterpret_cast<F16>(load_ints(p) & static_cast<std::int32_t>(0xffff0000));
}

SALVER_INLINE F16 add_pair(F16 sum, const void* pairs, const std::uint16_t* a) {
  return fma(odds(pairs), splat(from_bf16(a[1])), fma(evens(pairs), splat(from_bf16(a[0])), sum));
}

template <typename Leaving>
[[maybe_unused]] void generic_bf16_sums(const std::uint8_t* a, std::size_t stride, int rows, const std::uint16_t* panel,
                                        int k_tiles, Ahead /*ahead*/, float* sums, Held<float>& /*held*/, Leaving& /*leaving*/) {
  for (int row = 0; row < rows; ++row) {
    const std::uint8_t* values = a + row_offset(row, stride);
    F16 first{}, second{};
    const std::uint16_t* tile = panel;
    for (int kt = 0; kt < k_tiles; ++kt, tile += kTileBytes, values += kTileBytes) {
      const auto* value = reinterpret_cast<const std::uint16_t*>(values);
      for (int i = 0; i < 16; ++i, value += 2) {
        first = add_pair(first, tile + i * 32, value);
        second = add_pair(second, tile + 512 + i * 32, value);
      }
    }
    store(sums + row * kPanel, first);
    store(sums + row * kPanel + kLanes, second);
  }
}

[[maybe_unused]] void generic_block_scores(const std::uint16_t* queries, int padded, const std::uint16_t* keys, int rows,
                          float* scores) {
  for (int row = 0; row < rows; ++row, queries += padded, scores += kKeyGroup) {
    F16 first{}, second{};
    for (int pair = 0; pair < padded / 2; ++pair) {
      first = add_pair(first, keys + pair * 32, queries + pair * 2);
      second = add_pair(second, keys + padded * 16 + pair * 32, queries + pair * 2);
    }
    store(scores, first);
    store(scores + kLanes, second);
  }
}

[[maybe_unused]] void generic_mix_group(const std::uint16_t* weights, const std::uint16_t* const* values, int blocks,
                       int padded, int rows, float* mixed) {
  for (int row = 0; row < rows; ++row, weights += kKeyGroup, mixed += padded) {
    for (int d = 0; d < padded; d += kLanes) {
      F16 sum{};
      for (int block = 0; block < blocks; ++block) {
        const std::uint16_t* tile = values[block] + d * kBlockTokens;
        for (int pair = 0; pair < kBlockTokens / 2; ++pair) {
          sum = add_pair(sum, tile + pair * 32, weights + block * kBlockTokens + pair * 2);
        }
      }
      store(mixed + d, sum);
    }
  }
}

// Lane c of a row of keys holds four u8 of key c.
SALVER_INLINE I16 add_four_digits(I16 sum, I16 keys, const std::int8_t* a) {
  sum += (keys & 255) * std::int32_t(a[0]);
  sum += (keys >> 8 & 255) * std::int32_t(a[1]);
  sum += (keys >> 16 & 255) * std::int32_t(a[2]);
  return sum + (keys >> 24 & 255) * std::int32_t(a[3]);
}

[[maybe_unused]] void generic_int8_group_scores(const std::uint8_t* digits, const Int8Group& group, int rows,
                                                std::int32_t* scores) {
  const int padded = group.padded;
  for (int i = 0; i < group.blocks; ++i) group.fetch_later(i, group.at[i], kBlockTokens * padded);
  for (int row = 0; row < rows; ++row, digits += padded, scores += kKeyGroup) {
    const auto* signed_digits = reinterpret_cast<const std::int8_t*>(digits);
    for (int key = 0; key < group.keys; key += kLanes) {
      const std::uint8_t* tile = group.at[key / kBlockTokens] + key % kBlockTokens * padded;
      I16 sum{};
      for (int four = 0; four < padded / 4; ++four) {
        sum = add_four_digits(sum, load_ints(tile + four * 64), signed_digits + four * 4);
      }
      store_ints(scores + key, sum);
    }
  }
}

[[maybe_unused]] void generic_int8_mix_group(const std::uint8_t* weights, const Int8Group& group, int rows,
                                             std::int32_t* mixed) {
  for (int row = 0; row < rows; ++row, weights += kWeightStride, mixed += group.padded) {
    for (int d = 0; d < group.padded; d += kLanes) {
      I16 sum{};
      for (int block = 0; block < group.blocks; ++block) {
        const std::uint8_t* tile = group.values(block) + d * kBlockTokens;
        for (int four = 0; four < group.fours(block); ++four) {
          sum = add_four(sum, load_ints(tile + four * 64), weights + 32 + block * 64 + four * 4);
        }
      }
      store_ints(mixed + d, sum);
    }
  }
}

}  // namespace
}  // namespace salver
