// The blocks of a group of int8 keys and values, as far as a task sees them, and those that are fetched
// meanwhile.
#pragma once

#include "attention_part.h"

namespace salver {
namespace {

// What is seen of a block of which no more than the first half is: half of the time, a sequence's last.
SALVER_INLINE void fetch_first_half(const std::uint8_t* block, int padded, int keys) {
  const std::uint8_t* values = block + kBlockTokens * padded;
  const std::uint8_t* scales = values + kBlockTokens * padded;
  fetch_run(block, kLanes * padded);
  for (int d = 0; d < padded; d += kLanes) fetch_run(values + d * kBlockTokens, (keys + 3) / 4 * 64);
  fetch(scales);
  fetch(scales + kBlockTokens * sizeof(float));
}

struct Int8Group {
  int padded;
  int keys;    // that the task's last row sees
  int blocks;  // that these are in
  const std::uint8_t* at[kGroupBlocks];
  std::ptrdiff_t way[kGroupBlocks];  // from a block to the one to fetch while it is read; 0 where there is none

  SALVER_INLINE Int8Group(const AttentionTask& task, int first, int count)
      : padded(task.padded_dim), keys(task.end_key() - first * kBlockTokens), blocks(count) {
    if (keys > count * kBlockTokens) keys = count * kBlockTokens;
    for (int i = 0; i < blocks; ++i) {
      at[i] = block_of(task, first + i);
      const LaterBlock later = later_than(task, first + i);
      way[i] = later.keys > kLanes ? later.way : 0;
      if (way[i] != 0) fetch_run(scales(i) + way[i], 2 * kBlockTokens * sizeof(float));
      else if (later.way != 0) fetch_first_half(at[i] + later.way, padded, later.keys);
    }
  }

  const std::uint8_t* values(int block) const { return at[block] + kBlockTokens * padded; }
  const std::uint8_t* scales(int block) const { return values(block) + kBlockTokens * padded; }
  const float* key_scales(int block) const { return reinterpret_cast<const float*>(scales(block)); }

  // Whether only a block's first half is seen, and how many of its fours of keys are.
  bool ends_in_half(int block) const { return keys - block * kBlockTokens <= kLanes; }
  int fours(int block) const {
    const int rest = (keys - block * kBlockTokens + 3) / 4;
    return rest < kBlockTokens / 4 ? rest : kBlockTokens / 4;
  }

  // What lies in the later block where these bytes lie in this one.
  SALVER_INLINE void fetch_later(int block, const std::uint8_t* from, int bytes) const {
    if (way[block] != 0) fetch_run(from + way[block], bytes);
  }
};

}  // namespace
}  // namespace salver
