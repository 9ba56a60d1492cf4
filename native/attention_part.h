// What the parts of attention in every KV format share: blocks, their fetching, who sees which key.
#pragma once

#include "kernels.h"
#include "vec.h"

namespace salver {
namespace {

constexpr int kWeightStride = kGroupBlocks * 64 + 32;  // bytes of a row of int8 weights

struct SoftmaxPart {
  float maximum = -__builtin_inff();
  float total = 0;
};

SALVER_INLINE const std::uint8_t* block_of(const AttentionTask& task, int index) {
  return task.pool + task.block_table[index] * task.block_stride;
}

SALVER_INLINE const std::uint8_t* query_of(const AttentionTask& task, int index) {
  const int row = task.first_row + index;
  return task.queries + row / task.group * task.token_stride +
         row % task.group * query_bytes(task.format, task.padded_dim);
}

SALVER_INLINE int position_of(const AttentionTask& task, int index) {
  return task.first_position + (task.first_row + index) / task.group;
}

// The block that a thread comes to one group after another one, in its own sequence or the next: to be
// fetched while that one is read, so that the memory is never idle.
struct LaterBlock {
  std::ptrdiff_t way = 0;  // in bytes; 0 where there is none, or where the thread's last task has read it
  int keys = 0;            // that the task sees from its first one on
};

SALVER_INLINE LaterBlock later_than(const AttentionTask& task, int index) {
  const AttentionTask* from = &task;
  int later = index + kGroupBlocks;
  if (later < task.end_block()) {
    if (!task.fresh) return {};
  } else {
    from = task.next;
    if (!from || !from->fresh) return {};
    later = from->first_block() + later - task.end_block();
    if (later >= from->end_block()) return {};
  }
  return {block_of(*from, later) - block_of(task, index), from->end_key() - later * kBlockTokens};
}

SALVER_INLINE void fetch(const void* from) { __builtin_prefetch(from, 0, 2); }

SALVER_INLINE void fetch_run(const std::uint8_t* line, std::size_t bytes) {
  for (const std::uint8_t* end = line + bytes; line < end; line += 64) fetch(line);
}

// Half of the block that comes one group after block `index`.
SALVER_INLINE void fetch_later(const AttentionTask& task, int index, int half) {
  const std::size_t bytes = kv_head_bytes(task.format, task.padded_dim) / 2;
  const std::ptrdiff_t way = later_than(task, index).way;
  if (way != 0) fetch_run(block_of(task, index) + half * bytes + way, bytes);
}

// The keys that a row sees: (position - window, position].
struct Sight {
  int position, window;

  SALVER_INLINE bool all(int first_key, int count) const {
    return first_key + count - 1 <= position && first_key > position - window;
  }
  SALVER_INLINE F16 masked(F16 score, int first_key) const {
    constexpr I16 kIota = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const I16 key = kIota + first_key;
    return (key <= position) & (key > position - window) ? score : splat(-__builtin_inff());
  }
};

}  // namespace
}  // namespace salver
