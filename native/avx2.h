// Exact u8 x s8 sums on 8 lanes, for machines without AVX-512: by the instruction of vnni.h where a file is
// compiled for AVX-VNNI, elsewhere in 16 bits, where every product has room.
#pragma once

#include <immintrin.h>

#include "int8_group.h"
#include "kernels.h"
#include "vec.h"

namespace salver {
namespace {

constexpr int kPrefetchAhead = 4096;  // bytes of the weight stream, as in vnni.h

SALVER_INLINE __m256i eight_ints(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }

// The same four bytes in every lane.
SALVER_INLINE __m256i four_bytes(const void* p) {
  std::int32_t four;
  __builtin_memcpy(&four, p, 4);
  return _mm256_set1_epi32(four);
}

#if defined(__AVXVNNI__)

using Fours = __m256i;

SALVER_INLINE Fours unsigned_fours(__m256i bytes) { return bytes; }
SALVER_INLINE Fours signed_fours(__m256i bytes) { return bytes; }

SALVER_INLINE __m256i add_products(__m256i sums, const Fours& unsigned_bytes, const Fours& signed_bytes) {
  return _mm256_dpbusd_avx_epi32(sums, unsigned_bytes, signed_bytes);
}

#else

// Four bytes of each lane in 16 bits each: the first and third, the second and fourth.
struct Fours {
  __m256i even, odd;
};

SALVER_INLINE Fours unsigned_fours(__m256i bytes) {
  return {_mm256_and_si256(bytes, _mm256_set1_epi16(255)), _mm256_srli_epi16(bytes, 8)};
}

SALVER_INLINE Fours signed_fours(__m256i bytes) {
  return {_mm256_srai_epi16(_mm256_slli_epi16(bytes, 8), 8), _mm256_srai_epi16(bytes, 8)};
}

// Not by `vpmaddubsw`, which would take the bytes as they are but saturates.
SALVER_INLINE __m256i add_products(__m256i sums, const Fours& unsigned_bytes, const Fours& signed_bytes) {
  sums = _mm256_add_epi32(sums, _mm256_madd_epi16(unsigned_bytes.even, signed_bytes.even));
  return _mm256_add_epi32(sums, _mm256_madd_epi16(unsigned_bytes.odd, signed_bytes.odd));
}

#endif

enum class Signed { lines, rows };

// Sums of 32 channels, keys or dimensions for each row. Those of three rows fill 12 of 16 registers, four
// bytes of each row take three more, and the last is for what they all meet. In 16 bits some of the sums wait
// in memory, which costs less than to unpack the same bytes for two rows at a time.
template <int Rows>
struct Sums32 {
  __m256i of[Rows][4];

  SALVER_INLINE Sums32() {
#pragma GCC unroll 3
    for (int row = 0; row < Rows; ++row) {
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) of[row][i] = _mm256_setzero_si256();
    }
  }

  // Adds the products of two lines, each 16 lanes of four bytes, with four bytes of each row.
  template <Signed which>
  SALVER_INLINE void add(const void* left, const void* right, const std::uint8_t* const* rows, std::size_t at) {
    constexpr bool lines = which == Signed::lines;
    Fours bytes[Rows];
#pragma GCC unroll 3
    for (int row = 0; row < Rows; ++row) {
      const __m256i four = four_bytes(rows[row] + at);
      bytes[row] = lines ? unsigned_fours(four) : signed_fours(four);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const __m256i eight = eight_ints(static_cast<const std::uint8_t*>(i < 2 ? left : right) + i % 2 * 32);
      const Fours line = lines ? signed_fours(eight) : unsigned_fours(eight);
#pragma GCC unroll 3
      for (int row = 0; row < Rows; ++row) {
        of[row][i] = lines ? add_products(of[row][i], bytes[row], line) : add_products(of[row][i], line, bytes[row]);
      }
    }
  }

  SALVER_INLINE void store(std::int32_t* to, std::size_t stride) const {
#pragma GCC unroll 3
    for (int row = 0; row < Rows; ++row) {
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + row * stride + i * 8), of[row][i]);
      }
    }
  }
};

// Calls body.template operator()<Rows>(first) for runs of three rows and fewer; rather two and two than three
// and one, whose sums would wait for each other.
template <typename Body>
SALVER_INLINE void in_threes(int rows, const Body& body) {
  int row = 0;
  for (; rows - row >= 3 && rows - row != 4; row += 3) body.template operator()<3>(row);
  for (; rows - row >= 2; row += 2) body.template operator()<2>(row);
  if (row < rows) body.template operator()<1>(row);
}

template <int Rows>
void avx2_rows(const std::uint8_t* const* rows, const std::int8_t* panel, int k_tiles, std::int32_t* sums) {
  Sums32<Rows> total;
  for (int kt = 0; kt < k_tiles; ++kt, panel += 2 * kTileBytes) {
    for (int i = 0; i < 16; ++i) {
      const std::int8_t *left = panel + i * 64, *right = left + kTileBytes;
      _mm_prefetch(left + kPrefetchAhead, _MM_HINT_T0);
      _mm_prefetch(right + kPrefetchAhead, _MM_HINT_T0);
      total.template add<Signed::lines>(left, right, rows, kt * kTileBytes + i * 4);
    }
  }
  total.store(sums, kPanel);
}

template <typename Leaving>
void avx2_sums(const std::uint8_t* a, std::size_t stride, int rows, const std::int8_t* panel, int k_tiles,
                  Ahead /*ahead*/, std::int32_t* sums, Held<std::int32_t>& /*held*/, Leaving& /*leaving*/) {
  in_threes(rows, [&]<int Rows>(int first) {
    const std::uint8_t* from[Rows];
    for (int row = 0; row < Rows; ++row) from[row] = a + row_offset(first + row, stride);
    avx2_rows<Rows>(from, panel, k_tiles, sums + first * kPanel);
  });
}

template <int Rows>
void avx2_score_rows(const std::uint8_t* digits, int padded, const std::uint8_t* keys, std::int32_t* scores) {
  const std::uint8_t* from[Rows];
  for (int row = 0; row < Rows; ++row) from[row] = digits + row * padded;
  Sums32<Rows> total;
  for (int i = 0; i < padded; i += 4, keys += 64) {
    total.template add<Signed::rows>(keys, keys + padded * kLanes, from, i);
  }
  total.store(scores, kKeyGroup);
}

// 32 dimensions from `first_dim` on.
template <int Rows>
void avx2_mix_rows(const std::uint8_t* weights, const Int8Group& group, int first_dim, std::int32_t* mixed) {
  const std::uint8_t* from[Rows];
  for (int row = 0; row < Rows; ++row) from[row] = weights + row * kWeightStride + 32;
  Sums32<Rows> total;
  for (int block = 0; block < group.blocks; ++block) {
    const std::uint8_t* tile = group.values(block) + first_dim * kBlockTokens;
    for (int four = 0; four < group.fours(block); ++four, tile += 64) {
      total.template add<Signed::lines>(tile, tile + kLanes * kBlockTokens, from, block * 64 + four * 4);
    }
  }
  total.store(mixed + first_dim, group.padded);
}

void avx2_int8_group_scores(const std::uint8_t* digits, const Int8Group& group, int rows, std::int32_t* scores) {
  const int padded = group.padded;
  for (int block = 0; block < group.blocks; ++block, scores += kBlockTokens) {
    const std::uint8_t* keys = group.at[block];
    group.fetch_later(block, keys, kBlockTokens * padded);
    in_threes(rows, [&]<int Rows>(int row) {
      avx2_score_rows<Rows>(digits + row * padded, padded, keys, scores + row * kKeyGroup);
    });
  }
}

void avx2_int8_mix_group(const std::uint8_t* weights, const Int8Group& group, int rows, std::int32_t* mixed) {
  in_threes(rows, [&]<int Rows>(int row) {
    for (int dim = 0; dim < group.padded; dim += 32) {
      avx2_mix_rows<Rows>(weights + row * kWeightStride, group, dim, mixed + row * group.padded);
    }
  });
}

}  // namespace
}  // namespace salver
