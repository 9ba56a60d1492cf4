// Causal attention over paged keys and values, in one pass with online softmax (arXiv 1805.02867).
//
// Queries go in tiles of 16 rows of (token, head in group) pairs, so that decoding, prefill and
// grouped heads take the same path. Keys go in groups of 128 at absolute positions, in order; what
// a row does not see has weight exactly zero, and a group that it does not see at all changes no
// bit. Hence a row's result does not depend on which rows share its tile.
//
// The file that includes this has defined, for its instruction set,
//   block_scores(queries, padded, keys, rows, scores)    scores[row * 128 + 0..31], one block's keys
//   mix_block(weights, values, padded, rows, mixed)      mixed[row * padded + d] += one block's part
#pragma once

#include "kernels.h"
#include "vec.h"

namespace salver {
namespace {

struct SoftmaxRow {
  float maximum = -__builtin_inff();
  float total = 0;
};

// Turn one row's scores of `blocks` blocks into weights, and return the factor by which what was
// mixed before is to be scaled. Keys (position - window, position] are visible.
SALVER_INLINE float weigh_row(float* scores, int blocks, int first_key, int position, int window,
                              float scale, std::uint16_t* weights, SoftmaxRow* row) {
  const int count = blocks * kBlockTokens;
  const bool all_visible = first_key + count - 1 <= position && first_key > position - window;
  constexpr I16 kIota = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  F16 most = splat(row->maximum);
  for (int i = 0; i < count; i += kLanes) {
    F16 score = load(scores + i) * scale;
    if (!all_visible) {
      const I16 key = kIota + (first_key + i);
      score = (key <= position) & (key > position - window) ? score : splat(-__builtin_inff());
    }
    store(scores + i, score);
    most = larger(score, most);
  }
  const float maximum = largest(most);
  if (maximum == -__builtin_inff()) {
    for (int i = 0; i < count; i += kLanes) *reinterpret_cast<LooseH16*>(weights + i) = H16{};
    return 1.0F;
  }
  F16 total{};
  for (int i = 0; i < count; i += kLanes) {
    const F16 weight = exp(load(scores + i) - maximum);
    total += weight;
    store_bf16(weights + i, weight);
  }
  const float factor = exp(splat(row->maximum - maximum))[0];
  row->total = row->total * factor + sum(total);
  row->maximum = maximum;
  return factor;
}

SALVER_INLINE void scale_row(float* mixed, int padded, float factor) {
  for (int i = 0; i < padded; i += kLanes) store(mixed + i, load(mixed + i) * factor);
}

SALVER_INLINE void fetch_block(const std::uint8_t* block, int padded) {
  const std::uint8_t* end = block + std::size_t(4) * kBlockTokens * padded;
  for (; block < end; block += 64) __builtin_prefetch(block, 0, 2);
}

// A tile of queries while its keys go by; rows beyond `task.rows` stay zero.
struct QueryTile {
  alignas(64) std::uint16_t queries[kQueryRows * kMaxHeadDim];
  alignas(64) float scores[kQueryRows * kKeyGroup];
  alignas(64) std::uint16_t weights[kQueryRows * kKeyGroup] = {};
  alignas(64) float mixed[kQueryRows * kMaxHeadDim];
  SoftmaxRow rows[kQueryRows];
};

void gather_queries(const AttentionTask& task, QueryTile* tile) {
  const int padded = task.padded_dim;
  __builtin_memset(tile->queries, 0, sizeof(std::uint16_t) * kQueryRows * padded);
  __builtin_memset(tile->mixed, 0, sizeof(float) * kQueryRows * padded);
  for (int i = 0; i < task.rows; ++i) {
    const int row = task.first_row + i;
    const auto* query = task.queries + row / task.group * task.token_stride + row % task.group * padded;
    __builtin_memcpy(tile->queries + i * padded, query, sizeof(std::uint16_t) * padded);
  }
}

SALVER_INLINE const std::uint8_t* block_of(const AttentionTask& task, int index) {
  return task.pool + task.block_table[index] * task.block_stride;
}

// One group of keys: blocks [first, first + blocks) of the sequence, which has `end_block`.
SALVER_INLINE void pass_group(const AttentionTask& task, int first, int blocks, int end_block, QueryTile* tile) {
  const int padded = task.padded_dim;
  for (int i = 0; i < blocks; ++i) {
    if (first + i + 1 < end_block) fetch_block(block_of(task, first + i + 1), padded);
    const auto* keys = reinterpret_cast<const std::uint16_t*>(block_of(task, first + i));
    block_scores(tile->queries, padded, keys, task.rows, tile->scores + i * kBlockTokens);
  }
  for (int i = 0; i < task.rows; ++i) {
    const int position = task.first_position + (task.first_row + i) / task.group;
    const float factor =
        weigh_row(tile->scores + i * kKeyGroup, blocks, first * kBlockTokens, position, task.window, task.scale,
                  tile->weights + i * kKeyGroup, &tile->rows[i]);
    if (factor != 1.0F) scale_row(tile->mixed + i * padded, padded, factor);
  }
  for (int i = 0; i < blocks; ++i) {
    const auto* values = reinterpret_cast<const std::uint16_t*>(block_of(task, first + i)) + kBlockTokens * padded;
    mix_block(tile->weights + i * kBlockTokens, values, padded, task.rows, tile->mixed);
  }
}

void put_results(const AttentionTask& task, const QueryTile& tile) {
  for (int i = 0; i < task.rows; ++i) {
    const int row = task.first_row + i;
    float* out = task.out + row / task.group * task.out_stride + row % task.group * task.head_dim;
    const float inverse = 1.0F / tile.rows[i].total;
    for (int d = 0; d < task.head_dim; ++d) out[d] = tile.mixed[i * task.padded_dim + d] * inverse;
  }
}

void attend(const AttentionTask& task) {
  QueryTile tile;
  gather_queries(task, &tile);
  const int first_position = task.first_position + task.first_row / task.group;
  const int last_position = task.first_position + (task.first_row + task.rows - 1) / task.group;
  const int oldest = first_position + 1 > task.window ? first_position + 1 - task.window : 0;
  const int end_block = last_position / kBlockTokens + 1;
  constexpr int kGroupBlocks = kKeyGroup / kBlockTokens;
  for (int first = oldest / kKeyGroup * kGroupBlocks; first < end_block; first += kGroupBlocks) {
    const int blocks = end_block - first < kGroupBlocks ? end_block - first : kGroupBlocks;
    pass_group(task, first, blocks, end_block, &tile);
  }
  put_results(task, tile);
}

}  // namespace
}  // namespace salver
