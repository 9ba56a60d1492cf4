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

// To the nearest integer, halves to even, for |x| below 2^22: adding 1.5 * 2^23 leaves it in the
// low bits.
SALVER_INLINE I16 round_to_int(F16 x) {
  constexpr float kShift = 12582912.0F;
  return reinterpret_cast<I16>(x + kShift) - 0x4B400000;
}

// p * 2^n for whole n in [-252, 252]: infinity where that is too large, 0 where it is too small.
SALVER_INLINE F16 scale_by_power(F16 p, I16 n) {
#if defined(__AVX512F__)
  const F16 power = to_float(n);
  return reinterpret_cast<F16>(_mm512_scalef_ps(reinterpret_cast<__m512>(p), reinterpret_cast<__m512>(power)));
#else
  const I16 half = n >> 1;  // in two factors, since 2^128 alone is no float
  return p * reinterpret_cast<F16>((half + 127) << 23) * reinterpret_cast<F16>((n - half + 127) << 23);
#endif
}

// e^x to about 1 ulp for x in [-87, 88]; 0 below -104, infinity above 89, NaN kept; exactly 1 at 0.
// Cephes' split of ln 2 and a minimax polynomial of degree 6 on [-ln 2 / 2, ln 2 / 2].
SALVER_INLINE F16 exp(F16 x) {
  const F16 clamped = smaller(splat(120.0F), larger(splat(-120.0F), x));  // NaN passes
  const I16 power = round_to_int(clamped * 1.44269504F);
  const F16 n = to_float(power);
  F16 r = fma(n, splat(-0.693359375F), clamped);
  r = fma(n, splat(2.12194440e-4F), r);
  F16 p = splat(1.9875691500e-4F);
  p = fma(p, r, splat(1.3981999507e-3F));
  p = fma(p, r, splat(8.3334519073e-3F));
  p = fma(p, r, splat(4.1665795894e-2F));
  p = fma(p, r, splat(1.6666665459e-1F));
  p = fma(p, r, splat(5.0000001201e-1F));
  p = fma(p, r * r, r) + 1.0F;
  return scale_by_power(p, power);
}

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
