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

// How many bytes after block `index` lies the block that a thread comes to one group later, in its own
// sequence or the next: to be fetched while this one is read, so that the memory is never idle. 0 where
// there is none, or where the thread's last task has read the same.
SALVER_INLINE std::ptrdiff_t way_to_later(const AttentionTask& task, int index, int end_block) {
  const AttentionTask* from = &task;
  int later = index + kGroupBlocks;
  if (later < end_block) {
    if (!task.fresh) return 0;
  } else {
    from = task.next;
    if (!from || !from->fresh) return 0;
    later = from->first_block() + later - end_block;
    if (later >= from->end_block()) return 0;
  }
  return block_of(*from, later) - block_of(task, index);
}

SALVER_INLINE void fetch(const void* from) { __builtin_prefetch(from, 0, 2); }

// What lies `way` after these bytes.
SALVER_INLINE void fetch_run(const void* from, std::ptrdiff_t way, std::size_t bytes) {
  if (way == 0) return;
  const auto* line = static_cast<const std::uint8_t*>(from) + way;
  for (const std::uint8_t* end = line + bytes; line < end; line += 64) fetch(line);
}

// One half of what block `index` is to be followed by.
SALVER_INLINE void fetch_later(const AttentionTask& task, int index, int end_block, int half) {
  const std::size_t bytes = kv_head_bytes(task.format, task.padded_dim) / 2;
  fetch_run(block_of(task, index) + half * bytes, way_to_later(task, index, end_block), bytes);
}

// The blocks of a group, and the ways to those that are to be fetched meanwhile.
struct GroupBlocks {
  int count;
  const std::uint8_t* at[kGroupBlocks];
  std::ptrdiff_t way[kGroupBlocks];

  SALVER_INLINE GroupBlocks(const AttentionTask& task, int first, int blocks, int end_block) : count(blocks) {
    for (int i = 0; i < blocks; ++i) {
      at[i] = block_of(task, first + i);
      way[i] = way_to_later(task, first + i, end_block);
    }
  }
};

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
