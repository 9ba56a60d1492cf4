// How one token's queries, keys and values are written.
//
// A block is in the order in which a matrix unit reads its second operand. A key's and a value's
// bytes depend on that token alone, and writing them touches no other token's bytes: two threads may
// write neighbouring slots, and a block that many sequences share reads the same for each (law 3).
//
// bf16: keys in tiles [2 halves of 16 keys][padded_dim / 32], each 16 pairs of dimensions x 16 keys x
// 2; values in tiles [padded_dim / 16], each 16 pairs of keys x 16 dimensions x 2.
//
// int8: keys as u8, 128 too high, in tiles [2 halves of 16 keys][padded_dim / 64], each 16 fours of
// dimensions x 16 keys x 4; values as s8 in half tiles [padded_dim / 16], each 8 fours of keys x 16
// dimensions x 4; then the keys' 32 scales and the values'. A query is two rows of s8 digits to the
// base 256, the high one first, then its scale and the sum of its integers.
//
// f32: a bf16 block of the rounded keys and values, then one of what rounding left out of them; a query
// is two such rows.
//
// A value that is not finite has scale NaN in int8; in bf16 and f32 it is zeros, and its key is NaN.
#pragma once

#include "kernels.h"
#include "norm_rope_act.h"
#include "vec.h"

namespace salver {
namespace {

constexpr float kQueryLimit = 127 * 256 + 127;  // the largest integer of two digits in [-128, 127]

constexpr float kLargestBf16 = 3.38e38F;        // and a little less: what is above may round to infinity

// What follows a query's digits.
struct QueryScale {
  float scale;
  std::int32_t sum;  // of the integers
};

// A head in whole vectors: as it is, or copied beside zeros.
struct Row {
  const float* values;
  alignas(64) float copy[kMaxHeadDim];

  SALVER_INLINE Row(const float* head, int size) : values(head) {
    if (size % kLanes == 0) return;
    for (int i = size / kLanes * kLanes; i < kMaxHeadDim; ++i) copy[i] = 0;
    __builtin_memcpy(copy, head, size * sizeof(float));
    values = copy;
  }
};

void round_row(const float* head, int size, std::uint16_t* out) {
  int i = 0;
  for (; i + kLanes <= size; i += kLanes) store_bf16(out + i, load(head + i));
  for (; i < size; ++i) out[i] = to_bf16(head[i]);
}

// What bf16 leaves out of each number.
struct Rest {
  float values[kMaxHeadDim];

  SALVER_INLINE Rest(const float* head, int size) {
    std::uint16_t rounded[kMaxHeadDim];
    round_row(head, size, rounded);
    for (int i = 0; i < size; ++i) values[i] = head[i] - from_bf16(rounded[i]);
  }
};

void put_bf16_key(const float* key, int size, int padded, std::uint8_t* block, int slot) {
  alignas(64) std::uint16_t rounded[kMaxHeadDim];
  for (int i = size; i < padded; ++i) rounded[i] = 0;
  round_row(key, size, rounded);
  auto* tile = reinterpret_cast<std::uint16_t*>(block) + slot / 16 * (padded * 16) + slot % 16 * 2;
  for (int i = 0; i < padded; i += 2) __builtin_memcpy(tile + i / 2 * 32, rounded + i, 4);
}

void put_bf16_value(const float* value, int size, std::uint16_t* values, int slot) {
  alignas(64) std::uint16_t rounded[kMaxHeadDim];
  round_row(value, size, rounded);
  std::uint16_t* row = values + slot / 2 * 32;
  int i = 0;
  for (; i + kLanes <= size; i += kLanes, row += 512) {
    store_every_second(row, slot % 2, *reinterpret_cast<const LooseH16*>(rounded + i));
  }
  for (; i < size; ++i) row[i % 16 * 2 + slot % 2] = rounded[i];
}

// Zero the values of slots [first_slot, 32): a weight of zero times a NaN would be NaN.
void clear_values(std::uint16_t* values, int padded, int first_slot) {
  if (first_slot == kBlockTokens) return;
  for (int i = 0; i < padded / kLanes; ++i) {
    std::uint16_t* row = values + i * 512 + first_slot / 2 * 32;
    if (first_slot % 2 == 1) {
      for (int j = 1; j < 32; j += 2) row[j] = 0;
      row += 32;
    }
    __builtin_memset(row, 0, (values + (i + 1) * 512 - row) * sizeof *row);
  }
}

// The head as bytes, `shift` added to each.
float to_bytes(const float* head, int size, int shift, std::uint8_t* bytes) {
  const Row row(head, size);
  const Levels levels = levels_of_largest(largest_magnitude(row.values, size), 127.0F);
  for (int i = 0; i < size; i += kLanes) {
    store_bytes(bytes + i, (round_to_int(load(row.values + i) * levels.inverse) + shift) & 255);
  }
  return levels.scale;
}

void put_int8_query(const float* query, int size, int padded, std::uint8_t* out) {
  const Row row(query, size);
  const Levels levels = levels_of_largest(largest_magnitude(row.values, size), kQueryLimit);
  U16 sums{};  // unsigned throughout: a row of non-numbers may overflow
  const auto whole = [&](int i) {
    return i < size ? round_to_int(load(row.values + i) * levels.inverse) : I16{};
  };
  for (int i = 0; i < size; i += 2 * kLanes) {
    const I16 first = whole(i), second = whole(i + kLanes);
    store_byte_of<1>(first + 128, second + 128, out + i);  // a low digit from 128 on is 256 less
    store_byte_of<0>(first, second, out + padded + i);
    sums += reinterpret_cast<U16>(first) + reinterpret_cast<U16>(second);
  }
  const QueryScale last = {levels.scale, static_cast<std::int32_t>(sum(sums))};
  __builtin_memcpy(out + 2 * padded, &last, sizeof last);
}

SALVER_INLINE float* key_scales(std::uint8_t* block, int padded) {
  return reinterpret_cast<float*>(block + 2 * kBlockTokens * padded);
}

void put_int8_key(const float* key, int size, int padded, std::uint8_t* block, int slot) {
  alignas(64) std::uint8_t bytes[kMaxHeadDim + kLanes];
  key_scales(block, padded)[slot] = to_bytes(key, size, 128, bytes);
  std::uint8_t* tile = block + slot / 16 * (padded * 16) + slot % 16 * 4;
  for (int i = 0; i < size; i += 4) __builtin_memcpy(tile + i / 4 * 64, bytes + i, 4);
}

void put_int8_value(const float* value, int size, int padded, std::uint8_t* block, int slot) {
  alignas(64) std::uint8_t bytes[kMaxHeadDim + kLanes];
  key_scales(block, padded)[kBlockTokens + slot] = to_bytes(value, size, 0, bytes);
  std::uint8_t* row = block + kBlockTokens * padded + slot / 4 * 64;
  int i = 0;
  for (; i + kLanes <= size; i += kLanes, row += 512) store_every_fourth(row, slot % 4, load_bytes(bytes + i));
  for (; i < size; ++i) row[i % 16 * 4 + slot % 4] = bytes[i];
}

// The token's lines in its block, of one KV head: they are far apart and likely cold.
SALVER_INLINE void fetch_slot(const HeadsTask& task, int kv_head) {
  const int padded = task.padded_dim, bytes = task.format == KvFormat::int8 ? 1 : 2;
  const std::size_t half = std::size_t(bytes) * kBlockTokens * padded;
  const bool doubled = task.format == KvFormat::f32;
  const std::size_t each = kv_head_bytes(doubled ? KvFormat::bf16 : task.format, padded);
  const std::uint8_t* block = task.block + kv_head * (doubled ? 2 : 1) * each;
  for (int part = 0; part < (doubled ? 2 : 1); ++part, block += each) {
    const std::uint8_t* tile = block + task.slot / 16 * (half / 2);
    for (int i = 0; i < padded * bytes / 4; ++i) __builtin_prefetch(tile + i * 64, 1);
    const std::uint8_t* row = block + half + task.slot * bytes / 4 * 64;
    for (int i = 0; i < padded / 16; ++i) __builtin_prefetch(row + i * 512 * bytes, 1);
    if (task.format == KvFormat::int8) {
      __builtin_prefetch(block + 2 * half + task.slot * sizeof(float), 1);
      __builtin_prefetch(block + 2 * half + (kBlockTokens + task.slot) * sizeof(float), 1);
    }
  }
}

SALVER_INLINE void put_query(const HeadsTask& task, const float* query, int head) {
  std::uint8_t* out = task.queries + head * query_bytes(task.format, task.padded_dim);
  if (task.format == KvFormat::int8) return put_int8_query(query, task.head_dim, task.padded_dim, out);
  auto* rounded = reinterpret_cast<std::uint16_t*>(out);
  round_row(query, task.head_dim, rounded);
  if (task.format != KvFormat::f32) return;
  round_row(Rest(query, task.head_dim).values, task.head_dim, rounded + task.padded_dim);
}

// A weight of zero times NaN is NaN: in bf16 a value that is not finite would reach rows that do not see
// it. It becomes zeros, and its key NaN, which reaches all who see it and nobody else. int8 has a scale
// to say so.
SALVER_INLINE void leave_to_key(float* key, float* value, int size) {
  if (largest_magnitude(Row(value, size).values, size) <= kLargestBf16) return;
  for (int i = 0; i < size; ++i) {
    key[i] = __builtin_nanf("");
    value[i] = 0;
  }
}

SALVER_INLINE void put_bf16_kv(const HeadsTask& task, const float* key, const float* value, std::uint8_t* block) {
  auto* values = reinterpret_cast<std::uint16_t*>(block) + kBlockTokens * task.padded_dim;
  clear_values(values, task.padded_dim, task.clear_from);
  put_bf16_key(key, task.head_dim, task.padded_dim, block, task.slot);
  put_bf16_value(value, task.head_dim, values, task.slot);
}

SALVER_INLINE void put_kv(const HeadsTask& task, float* key, float* value, std::uint8_t* block) {
  const int dim = task.head_dim, padded = task.padded_dim;
  if (task.format == KvFormat::int8) {
    put_int8_key(key, dim, padded, block, task.slot);
    put_int8_value(value, dim, padded, block, task.slot);
    return;
  }
  leave_to_key(key, value, dim);
  put_bf16_kv(task, key, value, block);
  if (task.format != KvFormat::f32) return;
  put_bf16_kv(task, Rest(key, dim).values, Rest(value, dim).values, block + kv_head_bytes(KvFormat::bf16, padded));
}

void place_heads(const HeadsTask& task) {
  const int dim = task.head_dim;
  const int group = task.heads / task.kv_heads;
  float* query = task.projections;
  for (int head = 0; head < task.heads; ++head, query += dim) {
    if (head % group == 0) fetch_slot(task, head / group);
    if (task.q_norm) norm_head(query, task.q_norm, task.epsilon, dim);
    turn_head(query, task.cosines, task.sines, dim);
    put_query(task, query, head);
  }
  float* key = query;
  float* value = query + task.kv_heads * dim;
  const std::size_t head_bytes = kv_head_bytes(task.format, task.padded_dim);
  for (int head = 0; head < task.kv_heads; ++head, key += dim, value += dim) {
    if (task.k_norm) norm_head(key, task.k_norm, task.epsilon, dim);
    turn_head(key, task.cosines, task.sines, dim);
    put_kv(task, key, value, task.block + head * head_bytes);
  }
}

}  // namespace
}  // namespace salver
