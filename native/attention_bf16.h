// A group's part where keys, values, queries and weights are bf16.
//
// The file that includes this has defined, for its instruction set,
//   block_scores(queries, padded, keys, rows, scores)
//       scores[row * 128 + 0..31] of one block's keys
//   mix_group(weights, values, blocks, padded, rows, mixed)
//       mixed[row * padded + d], over the values of `blocks` blocks; weights are [row * 128 + key]
// Rows beyond `rows`, up to the tile's 16, may be read and written, and mean nothing.
#pragma once

#include "attention_part.h"

namespace salver {
namespace {

// Turn one row's scores of `count` keys into weights and, where `rest` is not null, what rounding
// left out of them.
SALVER_INLINE SoftmaxPart weigh_row(float* scores, int count, int first_key, Sight sight, float scale,
                                    std::uint16_t* weights, std::uint16_t* rest) {
  const bool all_visible = sight.all(first_key, count);
  F16 most = splat(-__builtin_inff());
  for (int i = 0; i < count; i += kLanes) {
    F16 score = load(scores + i) * scale;
    if (!all_visible) score = sight.masked(score, first_key + i);
    store(scores + i, score);
    most = larger(score, most);
  }
  const float maximum = largest(most);
  if (maximum == -__builtin_inff()) {
    __builtin_memset(weights, 0, count * sizeof *weights);
    if (rest) __builtin_memset(rest, 0, count * sizeof *rest);
    return {};
  }
  F16 total{};
  for (int i = 0; i < count; i += kLanes) {
    const F16 weight = exp_of_small(load(scores + i) - maximum);
    total += weight;
    const H16 rounded = to_bf16(weight);
    *reinterpret_cast<LooseH16*>(weights + i) = rounded;
    if (rest) store_bf16(rest + i, weight - from_bf16(rounded));
  }
  return {maximum, sum(total)};
}

struct Bf16Tile {
  alignas(64) std::uint16_t queries[kQueryRows * kMaxHeadDim];
  alignas(64) float scores[kQueryRows * kKeyGroup];
  alignas(64) std::uint16_t weights[kQueryRows * kKeyGroup];
  alignas(64) float mixed[kQueryRows * kMaxHeadDim];
  SoftmaxPart softmax[kQueryRows];

  SALVER_INLINE void gather(const AttentionTask& task) {
    for (int i = 0; i < task.rows; ++i) {
      __builtin_memcpy(queries + i * task.padded_dim, query_of(task, i), sizeof(std::uint16_t) * task.padded_dim);
    }
  }

  SALVER_INLINE void pass(const AttentionTask& task, int first, int blocks) {
    const int padded = task.padded_dim, first_key = first * kBlockTokens;
    const std::uint16_t* values[kGroupBlocks];
    for (int i = 0; i < blocks; ++i) {
      fetch_later(task, first + i, 0);
      const auto* keys = reinterpret_cast<const std::uint16_t*>(block_of(task, first + i));
      values[i] = keys + kBlockTokens * padded;
      block_scores(queries, padded, keys, task.rows, scores + i * kBlockTokens);
    }
    for (int i = 0; i < task.rows; ++i) {
      softmax[i] = weigh_row(scores + i * kKeyGroup, blocks * kBlockTokens, first_key,
                             {position_of(task, i), task.window}, task.scale, weights + i * kKeyGroup, nullptr);
    }
    for (int i = 0; i < blocks; ++i) fetch_later(task, first + i, 1);
    mix_group(weights, values, blocks, padded, task.rows, mixed);
  }
};

}  // namespace
}  // namespace salver
