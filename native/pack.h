// Weights in the order in which the products read them.
#pragma once

#include <vector>

#include "buffer.h"
#include "kernels.h"

namespace salver {

// Owns a packed matrix. `values` is [n, k] row-major; `bias` [n] or null.
class Weights {
 public:
  Weights() = default;
  Weights(const float* values, int n, int k, const float* bias, bool int8);

  PackedMatrix view() const;
  int panels() const { return panels_; }
  int channels() const { return channels_; }
  std::size_t bytes() const { return data_.bytes(); }

 private:
  void pack_int8(const float* values, int n, int k);
  void pack_bf16(const float* values, int n, int k);

  bool int8_ = true;
  int panels_ = 0, k_tiles_ = 0, channels_ = 0;
  Buffer data_;
  std::vector<float> scale_, bias_;
  std::vector<std::int32_t> offset_;
};

std::uint16_t rounded_to_bf16(float x);

}  // namespace salver
