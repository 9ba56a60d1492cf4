// Sixteen lanes in GCC's vector extension: one text for every instruction set, each compiling it
// to its own registers. Anonymous, since every file that includes this is built with other flags.
#pragma once

#include <cstdint>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace salver {
namespace {

using F16 = float __attribute__((vector_size(64)));
using I16 = std::int32_t __attribute__((vector_size(64)));
using U16 = std::uint32_t __attribute__((vector_size(64)));
using LooseF16 = float __attribute__((vector_size(64), aligned(4), may_alias));
using LooseI16 = std::int32_t __attribute__((vector_size(64), aligned(1), may_alias));
using B16 = std::uint8_t __attribute__((vector_size(16)));
using LooseB16 = std::uint8_t __attribute__((vector_size(16), aligned(1), may_alias));
using H16 = std::uint16_t __attribute__((vector_size(32)));
using LooseH16 = std::uint16_t __attribute__((vector_size(32), aligned(2), may_alias));

#define SALVER_INLINE inline __attribute__((always_inline))

SALVER_INLINE F16 load(const float* p) { return *reinterpret_cast<const LooseF16*>(p); }
SALVER_INLINE void store(float* p, F16 x) { *reinterpret_cast<LooseF16*>(p) = x; }
SALVER_INLINE B16 load_bytes(const void* p) { return *reinterpret_cast<const LooseB16*>(p); }
SALVER_INLINE I16 load_ints(const void* p) { return *reinterpret_cast<const LooseI16*>(p); }
SALVER_INLINE void store_ints(void* p, I16 x) { *reinterpret_cast<LooseI16*>(p) = x; }
SALVER_INLINE F16 splat(float x) { return F16{x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x}; }
SALVER_INLINE F16 to_float(I16 x) { return __builtin_convertvector(x, F16); }

// Between widths by one instruction: left to itself, GCC 12 takes some of these apart lane by lane.
SALVER_INLINE I16 wide(B16 x) {
#if defined(__AVX512F__)
  return reinterpret_cast<I16>(_mm512_cvtepu8_epi32(reinterpret_cast<__m128i>(x)));
#else
  return __builtin_convertvector(x, I16);
#endif
}

SALVER_INLINE U16 wide(H16 x) {
#if defined(__AVX512F__)
  return reinterpret_cast<U16>(_mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(x)));
#else
  return __builtin_convertvector(x, U16);
#endif
}

SALVER_INLINE B16 low_bytes(I16 x) {
#if defined(__AVX512F__)
  return reinterpret_cast<B16>(_mm512_cvtepi32_epi8(reinterpret_cast<__m512i>(x)));
#else
  return __builtin_convertvector(x, B16);
#endif
}

SALVER_INLINE F16 fma(F16 a, F16 b, F16 c) {
#if defined(__AVX512F__)
  return reinterpret_cast<F16>(_mm512_fmadd_ps(reinterpret_cast<__m512>(a),
                                               reinterpret_cast<__m512>(b),
                                               reinterpret_cast<__m512>(c)));
#else
  return a * b + c;
#endif
}

// The larger or smaller of each; `b` where one is NaN, as the instruction has it.
SALVER_INLINE F16 larger(F16 a, F16 b) { return a > b ? a : b; }
SALVER_INLINE F16 smaller(F16 a, F16 b) { return a < b ? a : b; }

// Lane i with lane i + 8, then with i + 4, i + 2 and i + 1.
template <typename Vector, typename Combine>
SALVER_INLINE auto folded(Vector x, const Combine& combine) {
  x = combine(x, __builtin_shuffle(x, I16{8, 9, 10, 11, 12, 13, 14, 15}));
  x = combine(x, __builtin_shuffle(x, I16{4, 5, 6, 7}));
  x = combine(x, __builtin_shuffle(x, I16{2, 3}));
  x = combine(x, __builtin_shuffle(x, I16{1}));
  return x[0];
}

SALVER_INLINE float sum(F16 x) {
  return folded(x, [](F16 a, F16 b) { return a + b; });
}

SALVER_INLINE float largest(F16 x) {
  return folded(x, [](F16 a, F16 b) { return a > b ? a : b; });
}

SALVER_INLINE std::int32_t sum(I16 x) {
  return folded(x, [](I16 a, I16 b) { return a + b; });
}

SALVER_INLINE std::uint32_t sum(U16 x) {
  return folded(x, [](U16 a, U16 b) { return a + b; });
}

SALVER_INLINE I16 larger(I16 a, I16 b) { return a > b ? a : b; }

SALVER_INLINE std::int32_t largest(I16 x) {
  return folded(x, [](I16 a, I16 b) { return a > b ? a : b; });
}

// Added to a number below 2^22, leaves it in the low bits, to the nearest integer, halves to even.
constexpr float kToLowBits = 12582912.0F;  // 1.5 * 2^23

SALVER_INLINE I16 round_to_int(F16 x) { return reinterpret_cast<I16>(x + kToLowBits) - 0x4B400000; }

// Byte `byte` of each of 32 lanes, 0 the lowest.
template <int byte>
SALVER_INLINE void store_byte_of(I16 first, I16 second, std::uint8_t* to) {
#if defined(__AVX512VBMI__)
  alignas(64) static constexpr std::uint8_t kLowest[64] = {
      0,  4,  8,  12, 16, 20, 24, 28, 32, 36, 40, 44, 48, 52,  56,  60,
      64, 68, 72, 76, 80, 84, 88, 92, 96, 100, 104, 108, 112, 116, 120, 124};
  const __m512i places = _mm512_add_epi8(_mm512_load_si512(kLowest), _mm512_set1_epi8(byte));
  const __m512i bytes =
      _mm512_permutex2var_epi8(reinterpret_cast<__m512i>(first), places, reinterpret_cast<__m512i>(second));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_castsi512_si256(bytes));
#else
  *reinterpret_cast<LooseB16*>(to) = low_bytes(first >> 8 * byte & 255);
  *reinterpret_cast<LooseB16*>(to + kLanes) = low_bytes(second >> 8 * byte & 255);
#endif
}

// The nearest whole number, likewise.
SALVER_INLINE F16 rounded(F16 x) {
#if defined(__AVX512F__)
  return x + kToLowBits - kToLowBits;
#else
  return to_float(round_to_int(x));
#endif
}

// p * 2^n for whole n in [-252, 252]: infinity where that is too large, 0 where it is too small.
SALVER_INLINE F16 scale_by_power(F16 p, F16 n) {
#if defined(__AVX512F__)
  return reinterpret_cast<F16>(_mm512_scalef_ps(reinterpret_cast<__m512>(p), reinterpret_cast<__m512>(n)));
#else
  const I16 whole = __builtin_convertvector(n, I16), half = whole >> 1;  // in two, since 2^128 alone is no float
  return p * reinterpret_cast<F16>((half + 127) << 23) * reinterpret_cast<F16>((whole - half + 127) << 23);
#endif
}

// e^x for x that are at most 88 or NaN, as `exp` has it.
SALVER_INLINE F16 exp_of_small(F16 x) {
  const F16 clamped = larger(splat(-120.0F), x);  // NaN passes
  const F16 n = rounded(clamped * 1.44269504F);
  F16 r = fma(n, splat(-0.693359375F), clamped);
  r = fma(n, splat(2.12194440e-4F), r);
  F16 p = splat(1.9875691500e-4F);
  p = fma(p, r, splat(1.3981999507e-3F));
  p = fma(p, r, splat(8.3334519073e-3F));
  p = fma(p, r, splat(4.1665795894e-2F));
  p = fma(p, r, splat(1.6666665459e-1F));
  p = fma(p, r, splat(5.0000001201e-1F));
  p = fma(p, r * r, r) + 1.0F;
  return scale_by_power(p, n);
}

// e^x to about 1 ulp for x in [-87, 88]; 0 below -104, infinity above 89, NaN kept; exactly 1 at 0.
// Cephes' split of ln 2 and a minimax polynomial of degree 6 on [-ln 2 / 2, ln 2 / 2].
SALVER_INLINE F16 exp(F16 x) { return exp_of_small(smaller(splat(120.0F), x)); }

// 16 bytes to every fourth of 64, from the `first` one on; the others are not touched.
SALVER_INLINE void store_every_fourth(std::uint8_t* line, int first, B16 bytes) {
#if defined(__AVX512BW__)
  const I16 shifted = wide(bytes) << (8 * first);
  _mm512_mask_storeu_epi8(line, 0x1111111111111111ULL << first, reinterpret_cast<__m512i>(shifted));
#else
  for (int i = 0; i < kLanes; ++i) line[i * 4 + first] = bytes[i];
#endif
}

// 16 halves to every second of 32, likewise.
SALVER_INLINE void store_every_second(std::uint16_t* line, int first, H16 halves) {
#if defined(__AVX512BW__)
  const U16 shifted = wide(halves) << (16 * first);
  _mm512_mask_storeu_epi16(line, 0x55555555U << first, reinterpret_cast<__m512i>(shifted));
#else
  for (int i = 0; i < kLanes; ++i) line[i * 2 + first] = halves[i];
#endif
}

SALVER_INLINE std::uint16_t to_bf16(float x) {
  const auto bits = __builtin_bit_cast(std::uint32_t, x);
  if (x != x) return static_cast<std::uint16_t>(bits >> 16 | 0x40);
  return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

SALVER_INLINE float from_bf16(std::uint16_t x) {
  return __builtin_bit_cast(float, static_cast<std::uint32_t>(x) << 16);
}

// Round to nearest even; NaN stays NaN.
SALVER_INLINE H16 to_bf16(F16 x) {
#if defined(__AVX512BF16__)
  return reinterpret_cast<H16>(_mm512_cvtneps_pbh(reinterpret_cast<__m512>(x)));
#else
  const U16 bits = reinterpret_cast<U16>(x);
  const U16 rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  const U16 nan = bits >> 16 | 0x40;
  return __builtin_convertvector(x != x ? nan : rounded, H16);
#endif
}

SALVER_INLINE F16 from_bf16(H16 x) { return reinterpret_cast<F16>(wide(x) << 16); }

SALVER_INLINE void store_bf16(std::uint16_t* p, F16 x) {
  *reinterpret_cast<LooseH16*>(p) = to_bf16(x);
}

}  // namespace
}  // namespace salver
