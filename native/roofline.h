// What the machine can do, measured by the core's own threads and kernels. Both are means over about
// `seconds`, as an engine's tokens per second are: what slows a machine slows either.
#pragma once

#include <cstddef>

#include "kernels.h"

namespace salver {

// Bytes per second that `threads` together read of a buffer of `bytes`, again and again, each its own
// part of it in order, as a step streams weights.
double read_rate(int threads, std::size_t bytes, double seconds);

// Operations per second (a multiply and an add are two) on all threads, an encoding of two rows per token
// counting both: of a matrix unit that waits for nothing, or where there is none of `product` over operands
// that stay in each core's own caches.
double matrix_rate(const Kernels&, Encoding, int threads, double seconds);

}  // namespace salver
