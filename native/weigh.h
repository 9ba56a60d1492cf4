// Logits to the weights that a draw is made over, in double precision.
#pragma once

#include "kernels.h"
#include "vec.h"

namespace salver {
namespace {

using D8 = double __attribute__((vector_size(64)));
using L8 = std::int64_t __attribute__((vector_size(64)));
using LooseD8 = double __attribute__((vector_size(64), aligned(8), may_alias));
using LooseF8 = float __attribute__((vector_size(32), aligned(4), may_alias));

// e^x for x <= 0, to a few units in the last place; 0 below -708. Taylor's series to the 13th power
// on [-ln 2 / 2, ln 2 / 2], where its rest is below 2^-57.
SALVER_INLINE D8 exp_of_negative(D8 x) {
  constexpr double kShift = 6755399441055744.0;  // 1.5 * 2^52: leaves the integer in the low bits
  const D8 clamped = x < -708.0 ? D8{} - 708.0 : x;
  const D8 shifted = clamped * 1.4426950408889634 + kShift;
  const D8 n = shifted - kShift;
  const D8 r = (clamped - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10;
  D8 p = D8{} + 1.0 / 6227020800.0;
  constexpr double kFactorials[] = {479001600, 39916800, 3628800, 362880, 40320, 5040, 720, 120, 24, 6, 2, 1, 1};
  for (const double factorial : kFactorials) p = p * r + 1.0 / factorial;
  const L8 power = reinterpret_cast<L8>(shifted) - reinterpret_cast<L8>(D8{} + kShift);
  p *= reinterpret_cast<D8>((power + 1023) << 52);
  return x < -708.0 ? D8{} : p;
}

// weights[i] = exp((logits[i] - maximum) / temperature) for i in [0, size); both readable and
// writable to the next multiple of 8.
void weigh_logits(const float* logits, int size, double maximum, double temperature, double* weights) {
  for (int i = 0; i < size; i += 8) {
    const D8 value = __builtin_convertvector(*reinterpret_cast<const LooseF8*>(logits + i), D8);
    const D8 scaled = (value - maximum) / temperature;
    *reinterpret_cast<LooseD8*>(weights + i) = exp_of_negative(scaled);
  }
}

}  // namespace
}  // namespace salver
