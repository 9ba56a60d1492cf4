// Exact u8 x s8 sums with AVX512-VNNI: one instruction adds four products to each of 16 channels.
#pragma once

#include <immintrin.h>

#include "kernels.h"
#include "vec.h"

namespace salver {
namespace {

constexpr int kVnniRows = 8;         // their sums fill 16 of 32 registers
constexpr int kPrefetchAhead = 4096;  // bytes of the weight stream; measured best of 1 to 8 KiB

// Rows of one 16-row tile: 64 bytes apart.
template <int Rows>
void vnni_rows(const std::uint8_t* a, const std::int8_t* panel, int k_tiles, std::int32_t* sums) {
  __m512i first[Rows], second[Rows];
  for (int row = 0; row < Rows; ++row) first[row] = second[row] = _mm512_setzero_si512();
  for (int kt = 0; kt < k_tiles; ++kt, panel += 2 * kTileBytes, a += kTileBytes) {
    for (int i = 0; i < 16; ++i) {
      const std::int8_t* tile = panel + i * 64;
      _mm_prefetch(tile + kPrefetchAhead, _MM_HINT_T0);
      _mm_prefetch(tile + kTileBytes + kPrefetchAhead, _MM_HINT_T0);
      const __m512i left = _mm512_load_si512(tile);
      const __m512i right = _mm512_load_si512(tile + kTileBytes);
#pragma GCC unroll 8
      for (int row = 0; row < Rows; ++row) {
        std::int32_t four;
        __builtin_memcpy(&four, a + row * 64 + i * 4, 4);
        const __m512i bytes = _mm512_set1_epi32(four);
        first[row] = _mm512_dpbusd_epi32(first[row], bytes, left);
        second[row] = _mm512_dpbusd_epi32(second[row], bytes, right);
      }
    }
  }
  for (int row = 0; row < Rows; ++row) {
    _mm512_store_si512(sums + row * kPanel, first[row]);
    _mm512_store_si512(sums + row * kPanel + kLanes, second[row]);
  }
}

template <typename Between>
void vnni_sums(const std::uint8_t* a, std::size_t stride, int rows, const std::int8_t* panel, int k_tiles,
               Ahead /*ahead*/, std::int32_t* sums, const Between& /*between*/) {
  using Rows = void (*)(const std::uint8_t*, const std::int8_t*, int, std::int32_t*);
  static constexpr Rows kByCount[kVnniRows] = {vnni_rows<1>, vnni_rows<2>, vnni_rows<3>, vnni_rows<4>,
                                               vnni_rows<5>, vnni_rows<6>, vnni_rows<7>, vnni_rows<8>};
  for (int row = 0; row < rows; row += kVnniRows) {
    const int count = rows - row < kVnniRows ? rows - row : kVnniRows;
    kByCount[count - 1](a + row_offset(row, stride), panel, k_tiles, sums + row * kPanel);
  }
}

}  // namespace
}  // namespace salver
