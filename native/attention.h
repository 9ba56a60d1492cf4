// Causal attention over paged keys and values.
//
// Queries go in tiles of 16 rows of (token, head in group) pairs, so that decoding, prefill and
// grouped heads take the same path. Keys go in groups of 128 at absolute positions. What a row
// takes from a group is a part: a softmax over these keys alone, its maximum, its total and the
// values that it mixed. Parts are merged in the order of their groups (arXiv 1805.02867), so it is
// the same whether one thread takes all groups of a row in turn or many take some each. What a row
// does not see has weight exactly zero, and a group that it does not see at all changes no bit:
// a row's result does not depend on which rows share its tile (law 3).
//
// The file that includes this has defined, for its instruction set,
//   block_scores, mix_group              as attention_bf16.h says
//   int8_group_scores, int8_mix_group    as attention_int8.h says
#pragma once

#include "attention_bf16.h"
#include "attention_f32.h"
#include "attention_int8.h"
#include "attention_part.h"
#include "kernels.h"
#include "vec.h"

namespace salver {
namespace {

// A tile's rows while parts are merged into them.
struct MergedRows {
  static_assert(kQueryRows == kLanes);
  alignas(64) float mixed[kQueryRows * kMaxHeadDim];
  F16 maximum = splat(-__builtin_inff()), total{};  // a lane for each row

  SALVER_INLINE MergedRows(int rows, int padded) {
    __builtin_memset(mixed, 0, sizeof(float) * rows * padded);
  }

  // Add the rows' parts that come after all that were added: row i's is at `parts` + i * `stride`.
  SALVER_INLINE void add(int rows, const float* parts, std::size_t stride, int padded, const SoftmaxPart* from) {
    F16 part_maximum = splat(-__builtin_inff()), part_total{};
    for (int i = 0; i < rows; ++i) {
      part_maximum[i] = from[i].maximum;
      part_total[i] = from[i].total;
    }
    const auto seen = part_maximum != -__builtin_inff();
    const F16 most = larger(maximum, part_maximum);
    const F16 keep = exp_of_small(maximum - most), take = exp_of_small(part_maximum - most);
    maximum = seen ? most : maximum;
    total = seen ? total * keep + part_total * take : total;
    for (int i = 0; i < rows; ++i) {
      if (!seen[i]) continue;
      const float *part = parts + i * stride, kept = keep[i], taken = take[i];
      float* to = mixed + i * padded;
      for (int d = 0; d < padded; d += kLanes) store(to + d, load(to + d) * kept + load(part + d) * taken);
    }
  }

  void put_out(const AttentionTask& task) const {
    for (int i = 0; i < task.rows; ++i) {
      const int row = task.first_row + i;
      float* out = task.out + row / task.group * task.out_stride + row % task.group * task.head_dim;
      const float inverse = 1.0F / total[i];
      for (int d = 0; d < task.head_dim; ++d) out[d] = mixed[i * task.padded_dim + d] * inverse;
    }
  }
};

template <typename Tile>
SALVER_INLINE void leave_parts(const Tile& tile, const AttentionTask& task, float* parts) {
  const int padded = task.padded_dim;
  for (int i = 0; i < task.rows; ++i, parts += part_floats(padded)) {
    __builtin_memcpy(parts, tile.mixed + i * padded, padded * sizeof(float));
    parts[padded] = tile.softmax[i].maximum;
    parts[padded + 1] = tile.softmax[i].total;
  }
}

template <typename Tile>
void attend_tile(const AttentionTask& task) {
  Tile tile;
  tile.gather(task);
  const std::size_t parts_of_group = task.rows * part_floats(task.padded_dim);
  MergedRows merged(task.parts ? 0 : task.rows, task.padded_dim);
  const int end_block = task.end_block();
  for (int group = task.first_group; group * kGroupBlocks < end_block; ++group) {
    const int first = group * kGroupBlocks;
    tile.pass(task, first, end_block - first < kGroupBlocks ? end_block - first : kGroupBlocks);
    if (task.parts) {
      leave_parts(tile, task, task.parts + (group - task.first_group) * parts_of_group);
      continue;
    }
    merged.add(task.rows, tile.mixed, task.padded_dim, task.padded_dim, tile.softmax);
  }
  if (!task.parts) merged.put_out(task);
}

void attend(const AttentionTask& task) {
  switch (task.format) {
    case KvFormat::bf16: return attend_tile<Bf16Tile>(task);
    case KvFormat::int8: return attend_tile<Int8Tile>(task);
    case KvFormat::f32: return attend_tile<F32Tile>(task);
  }
}

void merge(const AttentionTask& task, const float* parts) {
  const int padded = task.padded_dim;
  const std::size_t stride = part_floats(padded);
  MergedRows merged(task.rows, padded);
  for (int group = task.first_group; group * kGroupBlocks < task.end_block(); ++group, parts += task.rows * stride) {
    SoftmaxPart from[kQueryRows];
    for (int i = 0; i < task.rows; ++i) from[i] = {parts[i * stride + padded], parts[i * stride + padded + 1]};
    merged.add(task.rows, parts, stride, padded, from);
  }
  merged.put_out(task);
}

}  // namespace
}  // namespace salver
