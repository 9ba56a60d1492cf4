// Operations on one row: norm, encoding for a product, heads turned by their position.
#pragma once

#include "kernels.h"
#include "vec.h"

namespace salver {
namespace {

// Root mean square norm (arXiv 1910.07467). Rows are padded with zeros to whole vectors.
void norm_row(const float* x, const float* weight, float epsilon, int size, float* out) {
  F16 squares{};
  for (int i = 0; i < size; i += kLanes) {
    const F16 value = load(x + i);
    squares = fma(value, value, squares);
  }
  const float mean = sum(squares) / static_cast<float>(size);
  const F16 factor = splat(1.0F / __builtin_sqrtf(mean + epsilon));
  for (int i = 0; i < size; i += kLanes) store(out + i, load(x + i) * factor * load(weight + i));
}

// The largest magnitude, compared as integers: infinity beats every number and NaN beats infinity.
float largest_magnitude(const float* x, int size) {
  I16 most{};
  for (int i = 0; i < size; i += kLanes) {
    const I16 bits = reinterpret_cast<I16>(load(x + i)) & 0x7fffffff;
    most = bits > most ? bits : most;
  }
  std::int32_t result = 0;
  for (int lane = 0; lane < kLanes; ++lane) result = most[lane] > result ? most[lane] : result;
  return __builtin_bit_cast(float, result);
}

SALVER_INLINE void store_bytes(std::uint8_t* p, I16 x) {
  *reinterpret_cast<LooseB16*>(p) = __builtin_convertvector(x, B16);
}

// Signed integers of `limit` levels a side, shifted to be unsigned. A row of non-numbers gets scale
// NaN, which makes every result it has a part in NaN.
float encode_integers(const float* x, int size, bool two_bytes, std::uint8_t* rows, std::size_t stride) {
  const float limit = two_bytes ? 32767.0F : 127.0F;
  const float most = largest_magnitude(x, size);
  const bool finite = most <= 3.4e38F;
  const F16 inverse = splat(finite && most > 1e-30F ? limit / most : 0.0F);
  for (int i = 0; i < size; i += kLanes) {
    const I16 value = round_to_int(load(x + i) * inverse);
    if (two_bytes) {
      const I16 shifted = value + 32768;
      store_bytes(rows + i, shifted >> 8);
      store_bytes(rows + stride + i, shifted & 255);
    } else {
      store_bytes(rows + i, value + 128);
    }
  }
  return finite ? most / limit : __builtin_nanf("");
}

// Each group of 32 by itself. A group of non-numbers gets scale NaN, as a row of `encode_integers` does.
void encode_groups(const float* x, int size, std::uint8_t* rows, std::size_t stride) {
  auto* group = reinterpret_cast<RowGroup*>(rows + stride);
  for (int i = 0; i < size; i += kGroup, ++group) {
    const F16 a = load(x + i), b = load(x + i + kLanes);
    const I16 left = reinterpret_cast<I16>(a) & 0x7fffffff, right = reinterpret_cast<I16>(b) & 0x7fffffff;
    const float most = __builtin_bit_cast(float, largest(left > right ? left : right));
    const bool finite = most <= 3.4e38F;
    const F16 inverse = splat(finite && most > 1e-30F ? 127.0F / most : 0.0F);
    const I16 first = round_to_int(a * inverse), second = round_to_int(b * inverse);
    store_bytes(rows + i, first);
    store_bytes(rows + i + kLanes, second);
    group->scale = finite ? most / 127.0F : __builtin_nanf("");
    group->sum = group->scale * static_cast<float>(sum(first + second));
  }
}

float encode_row(const float* x, int size, Encoding encoding, std::uint8_t* rows, std::size_t stride) {
  if (encoding == Encoding::groups) {
    encode_groups(x, size, rows, stride);
    return 1.0F;
  }
  if (encoding != Encoding::bf16) {
    return encode_integers(x, size, encoding == Encoding::two_bytes, rows, stride);
  }
  auto* out = reinterpret_cast<std::uint16_t*>(rows);
  for (int i = 0; i < size; i += kLanes) store_bf16(out + i, load(x + i));
  return 1.0F;
}

void norm_head(float* head, const float* weight, float epsilon, int size) {
  float squares = 0;
  for (int i = 0; i < size; ++i) squares += head[i] * head[i];
  const float factor = 1.0F / __builtin_sqrtf(squares / static_cast<float>(size) + epsilon);
  for (int i = 0; i < size; ++i) head[i] = head[i] * factor * weight[i];
}

// Rotary position embedding (arXiv 2104.09864): dimension i turns with dimension i + size / 2.
void turn_head(float* head, const float* cosines, const float* sines, int size) {
  const int half = size / 2;
  int i = 0;
  for (; i + kLanes <= half; i += kLanes) {
    const F16 a = load(head + i), b = load(head + half + i), c = load(cosines + i), s = load(sines + i);
    store(head + i, a * c - b * s);
    store(head + half + i, b * c + a * s);
  }
  for (; i < half; ++i) {
    const float a = head[i], b = head[i + half];
    head[i] = a * cosines[i] - b * sines[i];
    head[i + half] = b * cosines[i] + a * sines[i];
  }
}

void round_row(const float* query, int size, std::uint16_t* out) {
  int i = 0;
  for (; i + kLanes <= size; i += kLanes) store_bf16(out + i, load(query + i));
  for (; i < size; ++i) out[i] = to_bf16(query[i]);
}

// Keys of a block: tiles [2 halves of 16 keys][padded_dim / 32], each 16 pairs of dimensions x 16
// keys x 2. The block's other slots are not touched.
void put_key(const float* key, int size, int padded, std::uint16_t* keys, int slot) {
  alignas(64) std::uint16_t rounded[kMaxHeadDim];
  for (int i = size; i < padded; ++i) rounded[i] = 0;
  round_row(key, size, rounded);
  std::uint16_t* tile = keys + slot / 16 * (padded * 16) + slot % 16 * 2;
  for (int i = 0; i < padded; i += 2) __builtin_memcpy(tile + i / 2 * 32, rounded + i, 4);
}

// Values of a block: tiles [padded_dim / 16], each 16 pairs of keys x 16 dimensions x 2.
void put_value(const float* value, int size, std::uint16_t* values, int slot) {
  alignas(64) std::uint16_t rounded[kMaxHeadDim];
  round_row(value, size, rounded);
  std::uint16_t* row = values + slot / 2 * 32 + slot % 2;
  for (int i = 0; i < size; ++i) row[i / 16 * 512 + i % 16 * 2] = rounded[i];
}

// Zero the values of slots [first_slot, 32).
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

// The token's lines in its block, which are far apart and likely cold.
SALVER_INLINE void fetch_slot(const HeadsTask& task) {
  const int padded = task.padded_dim;
  const auto* keys = reinterpret_cast<const std::uint16_t*>(task.block);
  for (int head = 0; head < task.kv_heads; ++head, keys += 2 * kBlockTokens * padded) {
    const std::uint16_t* tile = keys + task.slot / 16 * (padded * 16);
    for (int i = 0; i < padded / 2; ++i) __builtin_prefetch(tile + i * 32, 1);
    const std::uint16_t* row = keys + kBlockTokens * padded + task.slot / 2 * 32;
    for (int i = 0; i < padded / 16; ++i) __builtin_prefetch(row + i * 512, 1);
  }
}

void place_heads(const HeadsTask& task) {
  const int dim = task.head_dim, padded = task.padded_dim;
  fetch_slot(task);
  float* query = task.projections;
  for (int head = 0; head < task.heads; ++head, query += dim) {
    if (task.q_norm) norm_head(query, task.q_norm, task.epsilon, dim);
    turn_head(query, task.cosines, task.sines, dim);
    round_row(query, dim, task.queries + head * padded);
  }
  float* key = query;
  const float* value = query + task.kv_heads * dim;
  auto* keys = reinterpret_cast<std::uint16_t*>(task.block);
  for (int head = 0; head < task.kv_heads; ++head, key += dim, value += dim) {
    if (task.k_norm) norm_head(key, task.k_norm, task.epsilon, dim);
    turn_head(key, task.cosines, task.sines, dim);
    std::uint16_t* values = keys + kBlockTokens * padded;
    clear_values(values, padded, task.clear_from);
    put_key(key, dim, padded, keys, task.slot);
    put_value(value, dim, values, task.slot);
    keys = values + kBlockTokens * padded;
  }
}

int best_of(const float* x, int size) {
  constexpr I16 kIota = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  F16 most = splat(-__builtin_inff());
  I16 where{}, wrong{};
  int i = 0;
  for (; i + kLanes <= size; i += kLanes) {
    const F16 value = load(x + i);
    wrong |= (reinterpret_cast<I16>(value) & 0x7f800000) == 0x7f800000;
    const I16 better = value > most;
    most = better ? value : most;
    where = better ? kIota + i : where;
  }
  float value = -__builtin_inff();
  int index = -1;
  std::int32_t any_wrong = 0;
  for (int lane = 0; lane < kLanes; ++lane) {
    any_wrong |= wrong[lane];
    const bool earlier = most[lane] == value && where[lane] < index;
    if (most[lane] > value || earlier) value = most[lane], index = where[lane];
  }
  for (; i < size; ++i) {
    any_wrong |= !(x[i] - x[i] == 0);
    if (x[i] > value) value = x[i], index = i;
  }
  return any_wrong ? -1 : index;
}

}  // namespace
}  // namespace salver
