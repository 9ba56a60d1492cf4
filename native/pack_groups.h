// 4-bit weights as a file holds them, into panels.
#pragma once

#include "kernels.h"

namespace salver {

// Of [n, k] weights: `codes` one in a byte; scales and minimums in f16, [n, k / 32] of `pair` and `single`,
// [n, k / 256] of `nested`, whose inner ones are [n, k / 32]. What the kind does not have is null.
struct GroupedTensor {
  Groups kind = Groups::none;
  const std::uint8_t* codes = nullptr;
  const std::uint16_t *scales = nullptr, *minimums = nullptr;
  const std::uint8_t *inner_scales = nullptr, *inner_minimums = nullptr;
};

// One channel of the matrix into its place in its panel.
void pack_groups(const GroupedTensor&, int channel, int k, std::uint8_t* panel);

}  // namespace salver
