// Weights in the order in which the products read them.
#pragma once

#include <string>
#include <vector>

#include "buffer.h"
#include "kernels.h"
#include "sections.h"

namespace salver {

// Owns a packed matrix of n output channels and k inputs, zero until it is packed or its sections
// are filled.
class Weights {
 public:
  Weights() = default;
  Weights(int n, int k, bool int8, Arena& arena);
  // Packed at once, in pages of its own.
  Weights(const float* values, int n, int k, const float* bias, bool int8);

  // Packs the channels of panels [first, end); `values` is [n, k] row-major, `bias` [n] or null.
  void pack(const float* values, const float* bias, int first, int end);

  PackedMatrix view() const;
  void list(const std::string& name, Sections& sections);
  int panels() const { return panels_; }
  int channels() const { return channels_; }
  std::size_t bytes() const { return data_.bytes(); }

 private:
  void pack_int8(const float* row, int channel, std::int8_t* packed);

  bool int8_ = true;
  int panels_ = 0, k_tiles_ = 0, channels_ = 0, k_ = 0;
  Buffer data_;
  std::vector<float> scale_, bias_;
  std::vector<std::int32_t> offset_;
};

// Rounds to nearest, ties to even; NaN stays NaN.
void round_to_bf16(const float* values, std::size_t count, std::uint16_t* out);

}  // namespace salver
