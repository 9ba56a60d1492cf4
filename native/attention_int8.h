// A group's part where keys and values are int8 and nothing is unpacked.
//
// A query is two digits, so a score is an exact integer times the query's and the key's scale. A
// value's scale is folded into its weight; what comes out is rounded to 16 bits against the largest
// of the group, and its two bytes are again two rows of an exact product. Integer sums are the same
// from any instruction, so few rows and many may take different ones.
//
// The file that includes this has defined, for its instruction set,
//   int8_group_scores(digits, group, rows, scores)
//       scores[row * 128 + key], s8 times u8, of the group's keys; digits are [row * padded]
//   int8_mix_group(weights, group, rows, mixed)
//       mixed[row * padded + d], u8 times s8, over the group's values
// for `rows` digit rows, two per query; rows beyond, up to the tile's 32, may be read and written, and
// mean nothing. The weights of block b are at [row * kWeightStride + 32 + 64 * b], with zeros in the 32
// bytes before and after, so that 64 bytes from there or from 32 earlier serve as one half each of a
// tile that reads two half tiles of values.
#pragma once

#include "int8_group.h"
#include "kv_block.h"

namespace salver {
namespace {

// 32 numbers rounded to whole ones in [0, 65535]: their high bytes, and their low ones.
SALVER_INLINE void store_digits(F16 first, F16 second, std::uint8_t* high, std::uint8_t* low) {
  const I16 a = reinterpret_cast<I16>(first + kToLowBits), b = reinterpret_cast<I16>(second + kToLowBits);
  store_byte_of<1>(a, b, high);
  store_byte_of<0>(a, b, low);
}

struct Int8Tile {
  static constexpr int kAtOnce = 3;  // rows whose softmax is taken side by side, to hide latencies

  alignas(64) std::uint8_t digits[2 * kQueryRows * kMaxHeadDim];
  alignas(64) std::int32_t scores[2 * kQueryRows * kKeyGroup];
  alignas(64) std::uint8_t weights[2 * kQueryRows * kWeightStride];
  alignas(64) std::int32_t sums[2 * kQueryRows * kMaxHeadDim];
  alignas(64) float mixed[kQueryRows * kMaxHeadDim];
  alignas(64) float rows[kAtOnce][kKeyGroup];  // scores, then weights
  float steps[kQueryRows];                     // of the weights
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

  SALVER_INLINE void pass(const AttentionTask& task, int first, int blocks) {
    const Int8Group group(task, first, blocks);
    int8_group_scores(digits, group, 2 * task.rows, scores);
    for (int i = 0; i < task.rows; i += kAtOnce) {
      if (task.rows - i >= 3) weigh_rows<3>(task, i, first * kBlockTokens, group);
      else if (task.rows - i == 2) weigh_rows<2>(task, i, first * kBlockTokens, group);
      else weigh_rows<1>(task, i, first * kBlockTokens, group);
    }
    int8_mix_group(weights, group, 2 * task.rows, sums);
    const int padded = task.padded_dim;
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

  // Queries [query, query + N): their scores into weights times their values' scales.
  template <int N>
  SALVER_INLINE void weigh_rows(const AttentionTask& task, int query, int first_key, const Int8Group& group) {
    const int count = (group.keys + kLanes - 1) / kLanes * kLanes;
    F16 most[N];
    score_rows<N>(task, query, first_key, count, group, most);
    F16 maximum[N], total[N];
    for (int n = 0; n < N; ++n) {
      softmax[query + n] = {largest(most[n]), 0};
      // A row that sees nothing here has no weights, rather than those of infinity less infinity.
      const bool blind = softmax[query + n].maximum == -__builtin_inff();
      maximum[n] = splat(blind ? 0 : softmax[query + n].maximum);
      total[n] = F16{};
    }
    I16 largest_bits[N] = {};
    for (int i = 0; i < count; i += kLanes) {
      const int block = i / kBlockTokens, key = i % kBlockTokens;
      const F16 scale = load(group.key_scales(block) + kBlockTokens + key);
      if (query == 0) fetch_later_values(group, block, key);
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) {
        const F16 weight = exp_of_small(load(rows[n] + i) - maximum[n]);
        total[n] += weight;
        const F16 scaled = weight > 0 ? weight * scale : splat(0);  // an unseen slot's scale may be anything
        largest_bits[n] = larger(reinterpret_cast<I16>(scaled) & 0x7fffffff, largest_bits[n]);
        store(rows[n] + i, scaled);
      }
    }
    Levels levels[N];
    for (int n = 0; n < N; ++n) {
      softmax[query + n].total = sum(total[n]);
      levels[n] = levels_of_largest(__builtin_bit_cast(float, largest(largest_bits[n])), 65535.0F);
      steps[query + n] = levels[n].scale;
      if (count % kBlockTokens != 0) store(rows[n] + count, F16{});
    }
    for (int i = 0; i < count; i += kBlockTokens) {
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) {
        const F16 inverse = splat(levels[n].inverse);
        std::uint8_t* to = weights + 2 * (query + n) * kWeightStride + 32 + i * 2;
        store_digits(load(rows[n] + i) * inverse, load(rows[n] + i + kLanes) * inverse, to, to + kWeightStride);
      }
    }
  }

  // What the later block has where this one has the values of these 16 keys and of the others that nobody sees:
  // while the softmax keeps the vector units busy the memory would else be idle.
  static SALVER_INLINE void fetch_later_values(const Int8Group& group, int block, int key) {
    const int half = kLanes * group.padded;
    group.fetch_later(block, group.values(block) + (key != 0 ? half : 0), group.ends_in_half(block) ? 2 * half : half);
  }

  template <int N>
  SALVER_INLINE void score_rows(const AttentionTask& task, int query, int first_key, int count,
                                const Int8Group& group, F16* most) {
    Sight sight[N];
    bool all_visible = true;
    U16 shift[N];  // unsigned: a row that is not finite has any sum, and its scores are NaN anyway
    for (int n = 0; n < N; ++n) {
      sight[n] = {position_of(task, query + n), task.window};
      all_visible &= sight[n].all(first_key, count);
      shift[n] = (U16{} + static_cast<std::uint32_t>(scales[query + n].sum)) << 7;  // keys are 128 too high
      most[n] = splat(-__builtin_inff());
    }
    for (int i = 0; i < count; i += kLanes) {
      const F16 scale = load(group.key_scales(i / kBlockTokens) + i % kBlockTokens);
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) {
        const std::int32_t* high = scores + 2 * (query + n) * kKeyGroup + i;
        const U16 digits = (reinterpret_cast<U16>(load_ints(high)) << 8) +
                           reinterpret_cast<U16>(load_ints(high + kKeyGroup)) - shift[n];
        F16 score = to_float(reinterpret_cast<I16>(digits)) * (scale * (scales[query + n].scale * task.scale));
        if (!all_visible) score = sight[n].masked(score, first_key + i);
        store(rows[n] + i, score);
        most[n] = larger(score, most[n]);
      }
    }
  }
};

}  // namespace
}  // namespace salver
