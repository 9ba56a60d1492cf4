// Exact u8 x s8 sums with AVX512-VNNI: one instruction adds four products to each of 16 channels,
// keys or dimensions.
#pragma once

#include <immintrin.h>

#include "int8_group.h"
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

template <typename Leaving>
void vnni_sums(const std::uint8_t* a, std::size_t stride, int rows, const std::int8_t* panel, int k_tiles,
               Ahead /*ahead*/, std::int32_t* sums, Held<std::int32_t>& /*held*/, Leaving& /*leaving*/) {
  using Rows = void (*)(const std::uint8_t*, const std::int8_t*, int, std::int32_t*);
  static constexpr Rows kByCount[kVnniRows] = {vnni_rows<1>, vnni_rows<2>, vnni_rows<3>, vnni_rows<4>,
                                               vnni_rows<5>, vnni_rows<6>, vnni_rows<7>, vnni_rows<8>};
  for (int row = 0; row < rows; row += kVnniRows) {
    const int count = rows - row < kVnniRows ? rows - row : kVnniRows;
    kByCount[count - 1](a + row_offset(row, stride), panel, k_tiles, sums + row * kPanel);
  }
}

// Of a block's keys, or of its first 16; the later block's `way` off are fetched line by line meanwhile.
template <int Rows, int Halves>
void vnni_score_rows(const std::uint8_t* digits, int padded, const std::uint8_t* keys, std::ptrdiff_t way,
                     std::int32_t* scores) {
  __m512i sums[Halves][Rows];
  for (int half = 0; half < Halves; ++half) {
    for (int row = 0; row < Rows; ++row) sums[half][row] = _mm512_setzero_si512();
  }
  for (int i = 0; i < padded; i += 4, keys += 64) {
    __m512i each[Halves];
    for (int half = 0; half < Halves; ++half) {
      each[half] = _mm512_loadu_si512(keys + half * padded * kLanes);
      fetch(keys + half * padded * kLanes + way);
    }
#pragma GCC unroll 8
    for (int row = 0; row < Rows; ++row) {
      std::int32_t four;
      __builtin_memcpy(&four, digits + row * padded + i, 4);
      const __m512i bytes = _mm512_set1_epi32(four);
      for (int half = 0; half < Halves; ++half) {
        sums[half][row] = _mm512_dpbusd_epi32(sums[half][row], each[half], bytes);
      }
    }
  }
  for (int row = 0; row < Rows; ++row, scores += kKeyGroup) {
    for (int half = 0; half < Halves; ++half) _mm512_storeu_si512(scores + half * kLanes, sums[half][row]);
  }
}

// 64 dimensions from `first_dim` on.
template <int Rows>
void vnni_mix_rows(const std::uint8_t* weights, const Int8Group& group, int first_dim, std::int32_t* mixed) {
  __m512i sums[Rows][4];
  for (int row = 0; row < Rows; ++row) {
    for (int i = 0; i < 4; ++i) sums[row][i] = _mm512_setzero_si512();
  }
  for (int block = 0; block < group.blocks; ++block) {
    const std::uint8_t* tile = group.values(block) + first_dim * kBlockTokens;
    const std::uint8_t* weight = weights + 32 + block * 64;
    for (int fours = group.fours(block); fours > 0; --fours, tile += 64, weight += 4) {
#pragma GCC unroll 8
      for (int row = 0; row < Rows; ++row) {
        std::int32_t bytes;
        __builtin_memcpy(&bytes, weight + row * kWeightStride, 4);
        const __m512i each = _mm512_set1_epi32(bytes);
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
          sums[row][i] = _mm512_dpbusd_epi32(sums[row][i], each, _mm512_loadu_si512(tile + i * 512));
        }
      }
    }
  }
  for (int row = 0; row < Rows; ++row) {
    for (int i = 0; i < 4; ++i) _mm512_storeu_si512(mixed + row * group.padded + first_dim + i * kLanes, sums[row][i]);
  }
}

// Calls body.template operator()<Rows>(first) for runs of 6 and fewer of an even number of rows: the sums of six
// rows, three queries, over 64 dimensions fill 24 registers.
template <typename Body>
SALVER_INLINE void in_digit_rows(int rows, const Body& body) {
  int row = 0;
  for (; row + 6 <= rows; row += 6) body.template operator()<6>(row);
  if (rows - row == 4) body.template operator()<4>(row);
  if (rows - row == 2) body.template operator()<2>(row);
}

void vnni_int8_group_scores(const std::uint8_t* digits, const Int8Group& group, int rows, std::int32_t* scores) {
  const int padded = group.padded;
  for (int block = 0; block < group.blocks; ++block, scores += kBlockTokens) {
    const std::uint8_t* keys = group.at[block];
    if (group.ends_in_half(block)) {
      group.fetch_later(block, keys, kBlockTokens * padded);
      in_digit_rows(rows, [&]<int Rows>(int row) {
        vnni_score_rows<Rows, 1>(digits + row * padded, padded, keys, 0, scores + row * kKeyGroup);
      });
      continue;
    }
    in_digit_rows(rows, [&]<int Rows>(int row) {
      const std::ptrdiff_t way = row == 0 ? group.way[block] : 0;  // once
      vnni_score_rows<Rows, 2>(digits + row * padded, padded, keys, way, scores + row * kKeyGroup);
    });
  }
}

void vnni_int8_mix_group(const std::uint8_t* weights, const Int8Group& group, int rows, std::int32_t* mixed) {
  in_digit_rows(rows, [&]<int Rows>(int row) {
    for (int dim = 0; dim < group.padded; dim += 64) {
      vnni_mix_rows<Rows>(weights + row * kWeightStride, group, dim, mixed + row * group.padded);
    }
  });
}

}  // namespace
}  // namespace salver
