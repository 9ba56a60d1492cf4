// Products of rows with 4-bit weights in groups of 32 along k, as GGUF files hold them.
//
// Within a group the product of codes and s8 is an exact integer, whichever instruction adds it up.
// Across groups there is one order, the same on every path of an instruction set:
//   sum = fma(float(integer) * row scale, weight scale, sum), then fma(row sum, weight minimum, sum)
// from the first group to the last, from 0. So a row's bits are its own (law 3).
//
// The file that includes this defines, for its instruction set,
//   group_sums<kind>(panel, groups, rows, sums)   sums[rows.count][32] of one panel
#pragma once

#include "group_layout.h"
#include "vec.h"

namespace salver {
namespace {

template <Groups kind>
SALVER_INLINE const std::uint8_t* group_at(const std::uint8_t* panel, int group) {
  return panel + group_offset(kind, group);
}

// Tokens in the encoding `groups`, a row each.
struct GroupedRows {
  const std::uint8_t* data;
  std::size_t stride;
  const RowGroup* scales;
  std::size_t scales_stride;
  int first, count;  // of the tokens at `data`, those that are meant

  GroupedRows(const EncodedRows& x, int tokens)
      : data(x.data), stride(x.stride), scales(x.groups), scales_stride(x.group_stride), first(0), count(tokens) {}

  SALVER_INLINE GroupedRows from(int row) const {
    GroupedRows rest = *this;
    rest.first += row;
    return rest;
  }
  SALVER_INLINE GroupedRows part(int row, int rows) const {
    GroupedRows some = from(row);
    some.count = rows;
    return some;
  }
  // The 32 of a group; the next pair of groups is a tile further.
  SALVER_INLINE const std::int8_t* codes(int row, int group) const {
    const std::uint8_t* tile = data + row_offset(first + row, stride) + group / 2 * kTileBytes;
    return reinterpret_cast<const std::int8_t*>(tile + group % 2 * kGroup);
  }
  SALVER_INLINE const RowGroup* groups(int row) const { return scales + (first + row) * scales_stride; }
};

// f16 to float, subnormals included.
SALVER_INLINE F16 from_halves(const std::uint8_t* p) {
#if defined(__AVX512F__)
  return reinterpret_cast<F16>(_mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))));
#else
  const U16 half = wide(*reinterpret_cast<const LooseH16*>(p));
  const U16 magnitude = half & 0x7fff;
  const F16 normal = reinterpret_cast<F16>((magnitude << 13) + (112U << 23));
  const F16 tiny = to_float(reinterpret_cast<I16>(magnitude)) * 5.9604644775390625e-8F;  // 2^-24
  const F16 value = magnitude < 0x400 ? tiny : normal;
  return reinterpret_cast<F16>(reinterpret_cast<U16>(value) | (half & 0x8000) << 16);
#endif
}

SALVER_INLINE F16 from_bytes(const std::uint8_t* p) {
  return to_float(wide(*reinterpret_cast<const LooseB16*>(p)));
}

// A group's scales and minimums, first and second half of the panel's channels.
struct WeightGroup {
  F16 scale[2], minimum[2];
};

template <Groups kind>
SALVER_INLINE WeightGroup weight_group(const std::uint8_t* panel, int group) {
  const std::uint8_t* at = group_at<kind>(panel, group);
  WeightGroup result;
  for (int half = 0; half < 2; ++half) {
    const int lanes = half * kLanes;
    if constexpr (kind == Groups::nested) {
      const std::uint8_t* outer = panel + outer_offset(group);
      result.scale[half] = from_halves(outer + 2 * lanes) * from_bytes(at + lanes);
      result.minimum[half] = from_halves(outer + 2 * (kPanel + lanes)) * from_bytes(at + kPanel + lanes);
    } else {
      result.scale[half] = from_halves(at + 2 * lanes);
      result.minimum[half] =
          kind == Groups::pair ? from_halves(at + 2 * (kPanel + lanes)) : result.scale[half] * -8.0F;
    }
  }
  return result;
}

SALVER_INLINE F16 add_group(F16 sum, I16 integer, F16 scale, F16 minimum, F16 row_scale, F16 row_sum) {
  return fma(row_sum, minimum, fma(to_float(integer) * row_scale, scale, sum));
}

// Lane c of `line` holds four codes of channel c in halves of its bytes.
SALVER_INLINE I16 add_codes(I16 sum, U16 line, const std::int8_t* low, const std::int8_t* high) {
  for (int byte = 0; byte < 4; ++byte) {
    sum += reinterpret_cast<I16>(line >> (8 * byte) & 15) * std::int32_t(low[byte]);
    sum += reinterpret_cast<I16>(line >> (8 * byte + 4) & 15) * std::int32_t(high[byte]);
  }
  return sum;
}

template <Groups kind>
[[maybe_unused]] void generic_group_sums(const std::uint8_t* panel, int groups, const GroupedRows& rows,
                                         float* sums) {
  for (int row = 0; row < rows.count; ++row, sums += kPanel) {
    F16 total[2] = {};
    for (int group = 0; group < groups; ++group) {
      const WeightGroup scales = weight_group<kind>(panel, group);
      const RowGroup& from = rows.groups(row)[group];
      const std::int8_t* codes = rows.codes(row, group);
      const std::uint8_t* lines = group_at<kind>(panel, group) + scale_bytes(kind);
      for (int half = 0; half < 2; ++half) {
        I16 integer{};
        for (int line = 0; line < kGroupLines; ++line, lines += 64) {
          integer = add_codes(integer, reinterpret_cast<U16>(load_ints(lines)), codes + 4 * line, codes + 16 + 4 * line);
        }
        total[half] = add_group(total[half], integer, scales.scale[half], scales.minimum[half], splat(from.scale),
                                splat(from.sum));
      }
    }
    store(sums, total[0]);
    store(sums + kLanes, total[1]);
  }
}

}  // namespace
}  // namespace salver
