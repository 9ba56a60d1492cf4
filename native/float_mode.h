// Denormals count as zero while the core computes, as they do in tile products; a thread's own mode
// comes back afterwards.
#pragma once

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace salver {
namespace {

#if defined(__x86_64__)

constexpr unsigned kFlushAndZero = 0x8040;
thread_local unsigned previous_mode;

void enter_float_mode() {
  previous_mode = _mm_getcsr();
  _mm_setcsr(previous_mode | kFlushAndZero);
}

void leave_float_mode() { _mm_setcsr(previous_mode); }

#else

void enter_float_mode() {}
void leave_float_mode() {}

#endif

}  // namespace
}  // namespace salver
