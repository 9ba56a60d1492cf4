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

// Half of the block that a thread comes to one group after block `index`, in its own sequence or
// the next: the memory is then never asked for more than it can bring, and never idle. Not where the
// thread's last task has read the same.
SALVER_INLINE void fetch_later(const AttentionTask& task, int index, int end_block, int half) {
  const AttentionTask* from = &task;
  int later = index + kGroupBlocks;
  if (later < end_block) {
    if (!task.fresh) return;
  } else {
    from = task.next;
    if (!from || !from->fresh) return;
    later = from->first_block() + later - end_block;
    if (later >= from->end_block()) return;
  }
  const std::size_t bytes = kv_head_bytes(task.format, task.padded_dim) / 2;
  const std::uint8_t* line = block_of(*from, later) + half * bytes;
  for (const std::uint8_t* end = line + bytes; line < end; line += 64) __builtin_prefetch(line, 0, 2);
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
