// What the machine can do at most, measured by the core's own threads and kernels.
#pragma once

#include <cstddef>

#include "kernels.h"

namespace salver {

// Bytes per second that `threads` together read of a buffer of `bytes`, again and again, each its own
// part of it in order, as a step streams weights. The best sweep of those that `seconds` have room for:
// whatever disturbs one only makes it slower.
double read_rate(int threads, std::size_t bytes, double seconds);

// Operations per second (a multiply and an add are two) on all threads, an encoding of two rows per token
// counting both: of a matrix unit that waits for nothing, or where there is none of `product` over operands
// that stay in each core's own caches. The best of a few.
double matrix_rate(const Kernels&, Encoding, int threads, double seconds);

}  // namespace salver
