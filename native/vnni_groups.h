// 4-bit products with AVX512-VNNI: u8 codes times s8 rows, unpacked by one shift and two masks a line.
#pragma once

#include <immintrin.h>

#include "groups.h"
#include "vnni.h"

namespace salver {
namespace {

constexpr int kVnniGroupRows = 4;  // their sums, integer and float, fill 16 of 32 registers

SALVER_INLINE __m512i four_of(const std::int8_t* codes) {
  std::int32_t four;
  __builtin_memcpy(&four, codes, 4);
  return _mm512_set1_epi32(four);
}

template <Groups kind, int Rows>
void vnni_group_rows(const std::uint8_t* panel, int groups, const GroupedRows& rows, float* sums) {
  const __m512i low_half = _mm512_set1_epi8(15);
  F16 first[Rows] = {}, second[Rows] = {};
  for (int group = 0; group < groups; ++group) {
    const std::uint8_t* lines = group_at<kind>(panel, group) + scale_bytes(kind);
    __m512i left[Rows], right[Rows];
#pragma GCC unroll 4
    for (int row = 0; row < Rows; ++row) left[row] = right[row] = _mm512_setzero_si512();
#pragma GCC unroll 4
    for (int line = 0; line < kGroupLines; ++line, lines += 64) {
      _mm_prefetch(lines + kPrefetchAhead, _MM_HINT_T0);
      _mm_prefetch(lines + kGroupLines * 64 + kPrefetchAhead, _MM_HINT_T0);
      const __m512i a = _mm512_loadu_si512(lines), b = _mm512_loadu_si512(lines + kGroupLines * 64);
      const __m512i a_low = _mm512_and_si512(a, low_half), b_low = _mm512_and_si512(b, low_half);
      const __m512i a_high = _mm512_and_si512(_mm512_srli_epi16(a, 4), low_half);
      const __m512i b_high = _mm512_and_si512(_mm512_srli_epi16(b, 4), low_half);
#pragma GCC unroll 4
      for (int row = 0; row < Rows; ++row) {
        const std::int8_t* codes = rows.codes(row, group) + line * 4;
        const __m512i low = four_of(codes), high = four_of(codes + kGroup / 2);
        left[row] = _mm512_dpbusd_epi32(left[row], a_low, low);
        right[row] = _mm512_dpbusd_epi32(right[row], b_low, low);
        left[row] = _mm512_dpbusd_epi32(left[row], a_high, high);
        right[row] = _mm512_dpbusd_epi32(right[row], b_high, high);
      }
    }
    const WeightGroup scales = weight_group<kind>(panel, group);
#pragma GCC unroll 4
    for (int row = 0; row < Rows; ++row) {
      const RowGroup& from = rows.groups(row)[group];
      const F16 scale = splat(from.scale), sum = splat(from.sum);
      first[row] = add_group(first[row], reinterpret_cast<I16>(left[row]), scales.scale[0], scales.minimum[0], scale, sum);
      second[row] = add_group(second[row], reinterpret_cast<I16>(right[row]), scales.scale[1], scales.minimum[1], scale, sum);
    }
  }
  for (int row = 0; row < Rows; ++row) {
    store(sums + row * kPanel, first[row]);
    store(sums + row * kPanel + kLanes, second[row]);
  }
}

template <Groups kind>
void vnni_group_sums(const std::uint8_t* panel, int groups, const GroupedRows& rows, float* sums) {
  using Some = void (*)(const std::uint8_t*, int, const GroupedRows&, float*);
  static constexpr Some kByCount[kVnniGroupRows] = {vnni_group_rows<kind, 1>, vnni_group_rows<kind, 2>,
                                                    vnni_group_rows<kind, 3>, vnni_group_rows<kind, 4>};
  for (int row = 0; row < rows.count; row += kVnniGroupRows) {
    const int count = rows.count - row < kVnniGroupRows ? rows.count - row : kVnniGroupRows;
    kByCount[count - 1](panel, groups, rows.part(row, count), sums + row * kPanel);
  }
}

}  // namespace
}  // namespace salver
