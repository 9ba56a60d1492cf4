// Exact u8 x s8 sums with AVX512-VNNI: one instruction adds four products to each of 16 channels,
// keys or dimensions.
#pragma once

#include <immintrin.h>

#include "attention_part.h"
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

template <int Rows>
void vnni_score_rows(const std::uint8_t* digits, int padded, const std::uint8_t* keys, std::ptrdiff_t way,
                     std::int32_t* scores) {
  __m512i first[Rows], second[Rows];
  for (int row = 0; row < Rows; ++row) first[row] = second[row] = _mm512_setzero_si512();
  for (int i = 0; i < padded; i += 4, keys += 64) {
    const __m512i left = _mm512_loadu_si512(keys);
    const __m512i right = _mm512_loadu_si512(keys + padded * 16);
    fetch(keys + way);
    fetch(keys + padded * 16 + way);
#pragma GCC unroll 8
    for (int row = 0; row < Rows; ++row) {
      std::int32_t four;
      __builtin_memcpy(&four, digits + row * padded + i, 4);
      const __m512i bytes = _mm512_set1_epi32(four);
      first[row] = _mm512_dpbusd_epi32(first[row], left, bytes);
      second[row] = _mm512_dpbusd_epi32(second[row], right, bytes);
    }
  }
  for (int row = 0; row < Rows; ++row) {
    _mm512_storeu_si512(scores + row * kKeyGroup, first[row]);
    _mm512_storeu_si512(scores + row * kKeyGroup + kLanes, second[row]);
  }
}

// 64 dimensions from `values` on.
template <int Rows>
void vnni_mix_rows(const std::uint8_t* weights, const GroupBlocks& blocks, bool fetching, int first_dim, int padded,
                   std::int32_t* mixed) {
  __m512i sums[Rows][4];
  for (int row = 0; row < Rows; ++row) {
    for (int i = 0; i < 4; ++i) sums[row][i] = _mm512_setzero_si512();
  }
  for (int block = 0; block < blocks.count; ++block) {
    const std::uint8_t* tile = blocks.at[block] + (padded + first_dim) * kBlockTokens;
    const std::ptrdiff_t way = fetching ? blocks.way[block] : 0;
    for (int four = 0; four < kBlockTokens / 4; ++four, tile += 64) {
      const std::uint8_t* weight = weights + 32 + block * 64 + four * 4;
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
    for (int i = 0; i < 4; ++i) _mm512_storeu_si512(mixed + row * padded + first_dim + i * kLanes, sums[row][i]);
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

// Lines are fetched along with the first rows alone.
void vnni_int8_group_scores(const std::uint8_t* digits, int padded, const GroupBlocks& blocks, int rows,
                            std::int32_t* scores) {
  for (int block = 0; block < blocks.count; ++block, scores += kBlockTokens) {
    in_digit_rows(rows, [&]<int Rows>(int row) {
      vnni_score_rows<Rows>(digits + row * padded, padded, blocks.at[block], row == 0 ? blocks.way[block] : 0,
                            scores + row * kKeyGroup);
    });
  }
}

void vnni_int8_mix_group(const std::uint8_t* weights, const GroupBlocks& blocks, int padded, int rows,
                         std::int32_t* mixed) {
  in_digit_rows(rows, [&]<int Rows>(int row) {
    for (int dim = 0; dim < padded; dim += 64) {
      vnni_mix_rows<Rows>(weights + row * kWeightStride, blocks, row == 0, dim, padded, mixed + row * padded);
    }
  });
}

}  // namespace
}  // namespace salver
