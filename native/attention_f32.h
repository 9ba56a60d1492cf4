// A group's part where keys, values, queries and weights are sums of two bf16: of the four products of
// such sums the smallest, of what rounding left out on both sides, is below float32 and is left out.
#pragma once

#include "attention_bf16.h"

namespace salver {
namespace {

struct F32Tile {
  alignas(64) std::uint16_t queries[kQueryRows * kMaxHeadDim], query_rests[kQueryRows * kMaxHeadDim];
  alignas(64) float scores[kQueryRows * kKeyGroup], more_scores[2][kQueryRows * kKeyGroup];
  alignas(64) std::uint16_t weights[kQueryRows * kKeyGroup], weight_rests[kQueryRows * kKeyGroup];
  alignas(64) float mixed[kQueryRows * kMaxHeadDim], more_mixed[2][kQueryRows * kMaxHeadDim];
  SoftmaxPart softmax[kQueryRows];

  SALVER_INLINE void gather(const AttentionTask& task) {
    const std::size_t padded = task.padded_dim, bytes = query_bytes(KvFormat::bf16, task.padded_dim);
    for (int i = 0; i < task.rows; ++i) {
      __builtin_memcpy(queries + i * padded, query_of(task, i), bytes);
      __builtin_memcpy(query_rests + i * padded, query_of(task, i) + bytes, bytes);
    }
  }

  SALVER_INLINE void pass(const AttentionTask& task, int first, int blocks) {
    const int padded = task.padded_dim, rows = task.rows, count = blocks * kBlockTokens;
    const std::uint16_t *values[kGroupBlocks], *value_rests[kGroupBlocks];
    for (int i = 0; i < blocks; ++i) {
      fetch_later(task, first + i, 0);
      fetch_later(task, first + i, 1);
      const auto* keys = reinterpret_cast<const std::uint16_t*>(block_of(task, first + i));
      const std::uint16_t* key_rests = keys + 2 * kBlockTokens * padded;
      values[i] = keys + kBlockTokens * padded;
      value_rests[i] = key_rests + kBlockTokens * padded;
      block_scores(queries, padded, keys, rows, scores + i * kBlockTokens);
      block_scores(queries, padded, key_rests, rows, more_scores[0] + i * kBlockTokens);
      block_scores(query_rests, padded, keys, rows, more_scores[1] + i * kBlockTokens);
    }
    for (int i = 0; i < rows; ++i) {
      const int row = i * kKeyGroup;
      add_up(scores + row, more_scores[0] + row, more_scores[1] + row, count);
      softmax[i] = weigh_row(scores + row, count, first * kBlockTokens, {position_of(task, i), task.window},
                             task.scale, weights + row, weight_rests + row);
    }
    mix_group(weights, values, blocks, padded, rows, mixed);
    mix_group(weights, value_rests, blocks, padded, rows, more_mixed[0]);
    mix_group(weight_rests, values, blocks, padded, rows, more_mixed[1]);
    add_up(mixed, more_mixed[0], more_mixed[1], rows * padded);
  }

 private:
  SALVER_INLINE void add_up(float* sums, const float* a, const float* b, int count) const {
    for (int i = 0; i < count; i += kLanes) store(sums + i, load(sums + i) + (load(a + i) + load(b + i)));
  }
};

}  // namespace
}  // namespace salver
