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
    most = larger(bits, most);
  }
  return __builtin_bit_cast(float, largest(most));
}

SALVER_INLINE void store_bytes(std::uint8_t* p, I16 x) {
  *reinterpret_cast<LooseB16*>(p) = low_bytes(x);
}

// Numbers up to `most` as integers of `limit` levels. What is not finite gets scale NaN, which makes
// every result it has a part in NaN.
struct Levels {
  float inverse, scale;
};

SALVER_INLINE Levels levels_of_largest(float most, float limit) {
  const bool finite = most <= 3.4e38F;
  return {finite && most > 1e-30F ? limit / most : 0.0F, finite ? most / limit : __builtin_nanf("")};
}

// Signed integers of `limit` levels a side, shifted to be unsigned.
template <bool two_bytes>
float encode_integers(const float* x, int size, std::uint8_t* rows) {
  const Levels levels = levels_of_largest(largest_magnitude(x, size), two_bytes ? 32767.0F : 127.0F);
  constexpr float kToUnsigned = kToLowBits + (two_bytes ? 32768.0F : 128.0F);
  const auto shifted = [&](int i) {
    return i < size ? reinterpret_cast<I16>(load(x + i) * levels.inverse + kToUnsigned) : I16{};
  };
  for (int i = 0; i < size; i += 2 * kLanes) {
    const I16 first = shifted(i), second = shifted(i + kLanes);
    std::uint8_t* to = rows + i / 64 * kTileBytes + i % 64;
    if (two_bytes) store_byte_of<1>(first, second, to);
    store_byte_of<0>(first, second, two_bytes ? to + 64 : to);
  }
  return levels.scale;
}

// Each group of 32 by itself. A group of non-numbers gets scale NaN, as a row of `encode_integers` does.
void encode_groups(const float* x, int size, std::uint8_t* rows, RowGroup* group) {
  for (int i = 0; i < size; i += kGroup, ++group) {
    const F16 a = load(x + i), b = load(x + i + kLanes);
    const I16 left = reinterpret_cast<I16>(a) & 0x7fffffff, right = reinterpret_cast<I16>(b) & 0x7fffffff;
    const float most = __builtin_bit_cast(float, largest(left > right ? left : right));
    const bool finite = most <= 3.4e38F;
    const F16 inverse = splat(finite && most > 1e-30F ? 127.0F / most : 0.0F);
    const I16 first = round_to_int(a * inverse), second = round_to_int(b * inverse);
    std::uint8_t* to = rows + i / 64 * kTileBytes + i % 64;
    store_bytes(to, first);
    store_bytes(to + kLanes, second);
    group->scale = finite ? most / 127.0F : __builtin_nanf("");
    group->sum = group->scale * static_cast<float>(sum(first + second));
  }
}

// Each value rounded, and with `two_terms` what that left out, rounded. Rows end in zeros to a whole
// tile, since what weighs nothing there must not be NaN.
template <bool two_terms>
void encode_bf16(const float* x, int size, std::uint8_t* rows) {
  const int end = (size + 31) / 32 * 32;
  for (int i = 0; i < end; i += kLanes) {
    auto* to = reinterpret_cast<std::uint16_t*>(rows + i / 32 * kTileBytes + i % 32 * 2);
    const F16 value = i < size ? load(x + i) : F16{};
    const H16 rounded = to_bf16(value);
    *reinterpret_cast<LooseH16*>(to) = rounded;
    if constexpr (two_terms) store_bf16(to + 32, value - from_bf16(rounded));
  }
}

float encode_row(const float* x, int size, Encoding encoding, std::uint8_t* rows, RowGroup* groups) {
  switch (encoding) {
    case Encoding::one_byte: return encode_integers<false>(x, size, rows);
    case Encoding::two_bytes: return encode_integers<true>(x, size, rows);
    case Encoding::bf16: encode_bf16<false>(x, size, rows); break;
    case Encoding::two_bf16: encode_bf16<true>(x, size, rows); break;
    case Encoding::groups: encode_groups(x, size, rows, groups); break;
  }
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
