// A group's part where keys and values are int8 and nothing is unpacked.
//
// A query is two digits, so a score is an exact integer times the query's and the key's scale. A
// value's scale is folded into its weight; what comes out is rounded to 16 bits against the largest
// of the group, and its two bytes are again two rows of an exact product. Integer sums are the same
// from any instruction, so few rows and many may take different ones.
//
// The file that includes this has defined, for its instruction set,
//   int8_block_scores(digits, padded, keys, rows, scores)
//       scores[row * 128 + 0..31], s8 times u8, of one block's keys; digits are [row * padded]
//   int8_mix_group(weights, values, blocks, padded, rows, mixed)
//       mixed[row * padded + d], u8 times s8, over the values of `blocks` blocks
// for `rows` digit rows, two per query; rows beyond, up to the tile's 32, may be read and written, and
// mean nothing. The weights of block b are at [row * kWeightStride + 32 + 64 * b], with zeros in the 32
// bytes before and after, so that 64 bytes from there or from 32 earlier serve as one half each of a
// tile that reads two half tiles of values.
#pragma once

#include "attention_part.h"
#include "kv_block.h"

namespace salver {
namespace {

struct Int8Tile {
  alignas(64) std::uint8_t digits[2 * kQueryRows * kMaxHeadDim];
  alignas(64) std::int32_t scores[2 * kQueryRows * kKeyGroup];
  alignas(64) std::uint8_t weights[2 * kQueryRows * kWeightStride];
  alignas(64) std::int32_t sums[2 * kQueryRows * kMaxHeadDim];
  alignas(64) float mixed[kQueryRows * kMaxHeadDim];
  alignas(64) float row[kKeyGroup];  // scores, then weights
  SoftmaxPart softmax[kQueryRows];
  QueryScale scales[kQueryRows];

  SALVER_INLINE void gather(const AttentionTask& task) {
    const int padded = task.padded_dim;
    for (int i = 0; i < task.rows; ++i) {
      const std::uint8_t* query = query_of(task, i);
      __builtin_memcpy(digits + 2 * i * padded, query, 2 * padded);
      __builtin_memcpy(scales + i, query + 2 * padded, sizeof(QueryScale));
    }
    for (int i = 0; i < 2 * task.rows; ++i) {
      for (int gap = 0; gap < kWeightStride; gap += 64) __builtin_memset(weights + i * kWeightStride + gap, 0, 32);
    }
  }

  SALVER_INLINE void pass(const AttentionTask& task, int first, int blocks, int end_block) {
    const int padded = task.padded_dim;
    const std::int8_t* values[kGroupBlocks];
    const float* key_scales[kGroupBlocks];
    for (int i = 0; i < blocks; ++i) {
      fetch_later(task, first + i, end_block, 0);
      const std::uint8_t* keys = block_of(task, first + i);
      values[i] = reinterpret_cast<const std::int8_t*>(keys + kBlockTokens * padded);
      key_scales[i] = reinterpret_cast<const float*>(keys + 2 * kBlockTokens * padded);
      int8_block_scores(digits, padded, keys, 2 * task.rows, scores + i * kBlockTokens);
    }
    float steps[kQueryRows];
    for (int i = 0; i < task.rows; ++i) {
      const Sight sight = {position_of(task, i), task.window};
      const float maximum = score_row(i, blocks, first * kBlockTokens, sight, task.scale, key_scales);
      softmax[i].maximum = maximum;
      softmax[i].total = 0;
      steps[i] = weigh_row(i, blocks, key_scales);
    }
    for (int i = 0; i < blocks; ++i) fetch_later(task, first + i, end_block, 1);
    int8_mix_group(weights, values, blocks, padded, 2 * task.rows, sums);
    for (int i = 0; i < task.rows; ++i) {
      const std::int32_t* high = sums + 2 * i * padded;
      for (int d = 0; d < padded; d += kLanes) store(mixed + i * padded + d, number(high + d, padded) * steps[i]);
    }
  }

 private:
  // The integer of two digit rows' sums.
  static SALVER_INLINE F16 number(const std::int32_t* high, int low) {
    return to_float((load_ints(high) << 8) + load_ints(high + low));
  }

  // One query's scores into `row`; returns the largest.
  SALVER_INLINE float score_row(int query, int blocks, int first_key, Sight sight, float scale,
                                const float* const* key_scales) {
    const bool all_visible = sight.all(first_key, blocks * kBlockTokens);
    const I16 shift = (I16{} + scales[query].sum) << 7;  // keys are 128 too high
    const float step = scales[query].scale * scale;
    const std::int32_t* high = scores + 2 * query * kKeyGroup;
    F16 most = splat(-__builtin_inff());
    for (int i = 0; i < blocks * kBlockTokens; i += kLanes) {
      const I16 whole = (load_ints(high + i) << 8) + load_ints(high + kKeyGroup + i) - shift;
      F16 score = to_float(whole) * (load(key_scales[i / kBlockTokens] + i % kBlockTokens) * step);
      if (!all_visible) score = sight.masked(score, first_key + i);
      store(row + i, score);
      most = larger(score, most);
    }
    return largest(most);
  }

  // `row` into weights times their values' scales, in steps of what this returns.
  SALVER_INLINE float weigh_row(int query, int blocks, const float* const* key_scales) {
    const float maximum = softmax[query].maximum;
    std::uint8_t* high = weights + 2 * query * kWeightStride + 32;
    const int count = blocks * kBlockTokens;
    if (maximum == -__builtin_inff()) {
      for (int i = 0; i < 2 * blocks; ++i) __builtin_memset(high + i / 2 * 64 + i % 2 * kWeightStride, 0, 32);
      return 0;
    }
    F16 total{};
    I16 most{};
    for (int i = 0; i < count; i += kLanes) {
      const F16 weight = exp(load(row + i) - maximum);
      total += weight;
      const F16 scale = load(key_scales[i / kBlockTokens] + kBlockTokens + i % kBlockTokens);
      const F16 scaled = weight > 0 ? weight * scale : splat(0);  // the scale of an unseen slot may be anything
      const I16 bits = reinterpret_cast<I16>(scaled) & 0x7fffffff;
      most = bits > most ? bits : most;
      store(row + i, scaled);
    }
    softmax[query].total = sum(total);
    const Levels levels = levels_of_largest(largest_of(most), 65535.0F);
    for (int i = 0; i < count; i += kLanes) {
      const I16 whole = round_to_int(load(row + i) * levels.inverse);
      std::uint8_t* to = high + i / kBlockTokens * 64 + i % kBlockTokens;
      store_bytes(to, (whole >> 8) & 255);
      store_bytes(to + kWeightStride, whole & 255);
    }
    return levels.scale;
  }
};

}  // namespace
}  // namespace salver
