// 4-bit products of u8 codes with s8 rows, unpacked by one shift and two masks for 8 lanes; with AVX-VNNI where
// a file is compiled for it.
//
// In vectors of 8 lanes throughout: GCC 12 moves those of 16 from half to half by way of memory.
#pragma once

#include <immintrin.h>

#include "avx2.h"
#include "groups.h"

namespace salver {
namespace {

constexpr int kAvx2GroupRows = 4;  // their integers of 16 channels fill 8 of 16 registers

// f16 to float, subnormals included.
SALVER_INLINE __m256 eight_from_halves(const std::uint8_t* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}

SALVER_INLINE __m256 eight_from_bytes(const std::uint8_t* p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}

// A group's scales and minimums for 8 channels: a part of what `weight_group` has.
struct EightScales {
  __m256 scale, minimum;
};

template <Groups kind>
SALVER_INLINE EightScales eight_scales(const std::uint8_t* panel, int group, int channel) {
  const std::uint8_t* at = group_at<kind>(panel, group);
  if constexpr (kind == Groups::nested) {
    const std::uint8_t* outer = panel + outer_offset(group);
    return {eight_from_halves(outer + 2 * channel) * eight_from_bytes(at + channel),
            eight_from_halves(outer + 2 * (kPanel + channel)) * eight_from_bytes(at + kPanel + channel)};
  } else {
    const __m256 scale = eight_from_halves(at + 2 * channel);
    return {scale, kind == Groups::pair ? eight_from_halves(at + 2 * (kPanel + channel)) : scale * -8.0F};
  }
}

// As `add_group`, without fusing as `fma` is without AVX-512.
SALVER_INLINE __m256 add_group(__m256 sum, __m256i integers, const EightScales& scales, const RowGroup& row) {
  sum = _mm256_cvtepi32_ps(integers) * row.scale * scales.scale + sum;
  return row.sum * scales.minimum + sum;
}

#if defined(__AVXVNNI__)

SALVER_INLINE __m256i add_codes(__m256i sums, __m256i codes, __m256i bytes) {
  return _mm256_dpbusd_avx_epi32(sums, codes, bytes);
}

SALVER_INLINE __m256i in_32_bits(__m256i sums) { return sums; }

#else

// A lane's two sums of a group fit 16 bits each: 16 products, none over 15 * 128.
SALVER_INLINE __m256i add_codes(__m256i sums, __m256i codes, __m256i bytes) {
  return _mm256_add_epi16(sums, _mm256_maddubs_epi16(codes, bytes));
}

SALVER_INLINE __m256i in_32_bits(__m256i sums) { return _mm256_madd_epi16(sums, _mm256_set1_epi16(1)); }

#endif

// One group's exact sums for 16 of a panel's channels.
template <int Rows>
SALVER_INLINE void add_up_codes(const std::uint8_t* lines, const std::int8_t* const* codes, __m256i (*sums)[2]) {
  const __m256i low_half = _mm256_set1_epi8(15);
#pragma GCC unroll 4
  for (int row = 0; row < Rows; ++row) sums[row][0] = sums[row][1] = _mm256_setzero_si256();
#pragma GCC unroll 8
  for (int i = 0; i < 2 * kGroupLines; ++i) {
    const int line = i / 2, eight = i % 2;
    const __m256i both = eight_ints(lines + i * 32);
    const __m256i low = _mm256_and_si256(both, low_half);
    const __m256i high = _mm256_and_si256(_mm256_srli_epi16(both, 4), low_half);
#pragma GCC unroll 4
    for (int row = 0; row < Rows; ++row) {
      const std::int8_t* four = codes[row] + line * 4;
      sums[row][eight] = add_codes(sums[row][eight], low, four_bytes(four));
      sums[row][eight] = add_codes(sums[row][eight], high, four_bytes(four + kGroup / 2));
    }
  }
#pragma GCC unroll 4
  for (int row = 0; row < Rows; ++row) {
    for (int eight = 0; eight < 2; ++eight) sums[row][eight] = in_32_bits(sums[row][eight]);
  }
}

template <Groups kind, int Rows>
void avx2_group_rows(const std::uint8_t* panel, int groups, const GroupedRows& rows, float* sums) {
  __m256 total[4][Rows] = {};
  for (int group = 0; group < groups; ++group) {
    const std::uint8_t* lines = group_at<kind>(panel, group) + scale_bytes(kind);
    for (int line = 0; line < kCodeBytes; line += 64) _mm_prefetch(lines + line + kPrefetchAhead, _MM_HINT_T0);
    const std::int8_t* codes[Rows];
    for (int row = 0; row < Rows; ++row) codes[row] = rows.codes(row, group);
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      __m256i integers[Rows][2];
      add_up_codes<Rows>(lines + half * (kCodeBytes / 2), codes, integers);
#pragma GCC unroll 2
      for (int i = 0; i < 2; ++i) {
        const int eight = half * 2 + i;
        const EightScales scales = eight_scales<kind>(panel, group, eight * 8);
#pragma GCC unroll 4
        for (int row = 0; row < Rows; ++row) {
          total[eight][row] = add_group(total[eight][row], integers[row][i], scales, rows.groups(row)[group]);
        }
      }
    }
  }
#pragma GCC unroll 4
  for (int row = 0; row < Rows; ++row) {
#pragma GCC unroll 4
    for (int eight = 0; eight < 4; ++eight) _mm256_storeu_ps(sums + row * kPanel + eight * 8, total[eight][row]);
  }
}

template <Groups kind>
void avx2_group_sums(const std::uint8_t* panel, int groups, const GroupedRows& rows, float* sums) {
  using Some = void (*)(const std::uint8_t*, int, const GroupedRows&, float*);
  static constexpr Some kByCount[kAvx2GroupRows] = {avx2_group_rows<kind, 1>, avx2_group_rows<kind, 2>,
                                                       avx2_group_rows<kind, 3>, avx2_group_rows<kind, 4>};
  for (int row = 0; row < rows.count; row += kAvx2GroupRows) {
    const int count = rows.count - row < kAvx2GroupRows ? rows.count - row : kAvx2GroupRows;
    kByCount[count - 1](panel, groups, rows.part(row, count), sums + row * kPanel);
  }
}

}  // namespace
}  // namespace salver
