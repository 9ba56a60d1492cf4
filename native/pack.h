// Weights in the order in which the products read them.
#pragma once

#include <string>
#include <vector>

#include "buffer.h"
#include "kernels.h"
#include "pack_groups.h"
#include "sections.h"

namespace salver {

// A matrix [n, k] row-major, in float32 or as the file's own 4-bit groups.
struct Tensor {
  const float* values = nullptr;
  GroupedTensor groups;
};

// How a matrix is held.
struct Form {
  bool int8 = true;
  Groups groups = Groups::none;  // else 4-bit, and `int8` does not matter
};

// Owns a packed matrix of n output channels and k inputs, zero until it is packed or its sections
// are filled.
class Weights {
 public:
  Weights() = default;
  Weights(int n, int k, Form form, Arena& arena);
  // Packed at once, in pages of its own.
  Weights(const Tensor& from, int n, int k, const float* bias, bool int8);

  // Packs the channels of panels [first, end); `bias` is [n] or null.
  void pack(const Tensor& from, const float* bias, int first, int end);

  PackedMatrix view() const;
  void list(const std::string& name, Sections& sections);
  int panels() const { return panels_; }
  int channels() const { return channels_; }
  Groups groups() const { return form_.groups; }
  std::size_t bytes() const { return data_.bytes(); }

 private:
  std::uint8_t* panel_of(int channel) const { return data_.as<std::uint8_t>() + channel / kPanel * panel_bytes_; }
  bool is_int8() const { return form_.int8 && form_.groups == Groups::none; }
  void pack_row(const float* row, int channel, std::uint8_t* line);
  void pack_int8(const float* row, int channel, std::int8_t* packed);

  Form form_;
  int panels_ = 0, k_tiles_ = 0, channels_ = 0, k_ = 0;
  std::size_t panel_bytes_ = 0;
  Buffer data_;
  std::vector<float> scale_, bias_;
  std::vector<std::int32_t> offset_;
};

// Rounds to nearest, ties to even; NaN stays NaN.
void round_to_bf16(const float* values, std::size_t count, std::uint16_t* out);

}  // namespace salver
