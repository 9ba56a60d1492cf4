#include "pack.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "group_layout.h"

namespace salver {
namespace {

constexpr int kInt8PerTile = 64, kBf16PerTile = 32;  // of k
constexpr float kShift = 12582912.0F;  // 1.5 * 2^23: adding it rounds to the nearest integer
constexpr std::size_t kReadAhead = 16384;  // prefetches may point past the last panel
constexpr int kUnit = 4;               // bytes of one channel that lie side by side

int ceil_div(int a, int b) { return (a + b - 1) / b; }

// NaN is larger than everything.
float largest_magnitude(const float* values, int count) {
  std::uint32_t most = 0;  // magnitudes are ordered as their bits are
  for (int i = 0; i < count; ++i) {
    std::uint32_t bits;
    std::memcpy(&bits, values + i, sizeof bits);
    most = std::max(most, bits & 0x7fffffffU);
  }
  float magnitude;
  std::memcpy(&magnitude, &most, sizeof magnitude);
  return magnitude;
}

// A channel's row, `bytes` long and zero up to the next whole unit, into its column of a panel.
void spread(const std::uint8_t* row, int bytes, int channel, std::uint8_t* panel) {
  std::uint8_t* column = panel + channel / kLanes * kTileBytes + channel % kLanes * kUnit;
  for (int unit = 0; unit * kUnit < bytes; ++unit) {
    const std::size_t tile = std::size_t(unit) / kLanes * 2 * kTileBytes;
    std::memcpy(column + tile + unit % kLanes * 64, row + unit * kUnit, kUnit);
  }
}

// The row in whole numbers of a 127th of its largest magnitude; returns their sum.
std::int32_t quantize(const float* row, int k, float inverse, std::int8_t* out) {
  std::int32_t sum = 0;
  for (int i = 0; i < k; ++i) {
    const auto weight = static_cast<std::int32_t>((row[i] * inverse + kShift) - kShift);
    out[i] = static_cast<std::int8_t>(weight);
    sum += weight;
  }
  return sum;
}

}  // namespace

void round_to_bf16(const float* values, std::size_t count, std::uint16_t* out) {
  for (std::size_t i = 0; i < count; ++i) {
    std::uint32_t bits;
    std::memcpy(&bits, values + i, sizeof bits);
    const bool is_nan = (bits & 0x7fffffffU) > 0x7f800000U;
    const std::uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    out[i] = static_cast<std::uint16_t>(is_nan ? bits >> 16 | 0x40 : rounded);
  }
}

Weights::Weights(int n, int k, Form form, Arena& arena)
    : form_(form), panels_(ceil_div(n, kPanel)), channels_(n), k_(k), bias_(std::size_t(panels_) * kPanel) {
  if (form.groups == Groups::none) {
    k_tiles_ = ceil_div(k, form.int8 ? kInt8PerTile : kBf16PerTile);
    panel_bytes_ = std::size_t(k_tiles_) * 2 * kTileBytes;
  } else {
    panel_bytes_ = group_panel_bytes(form.groups, k / kGroup);
  }
  data_ = arena.take(panels_ * panel_bytes_ + kReadAhead);
  if (!is_int8()) return;
  scale_.resize(bias_.size());
  offset_.resize(bias_.size());
}

Weights::Weights(const Tensor& from, int n, int k, const float* bias, bool int8) {
  Arena arena;
  *this = Weights(n, k, Form{int8, from.groups.kind}, arena);
  pack(from, bias, 0, panels_);
}

PackedMatrix Weights::view() const {
  PackedMatrix view;
  view.data = data_.as<std::uint8_t>();
  view.scale = scale_.data();
  view.offset = offset_.data();
  view.bias = bias_.data();
  view.panels = panels_;
  view.k_tiles = k_tiles_;
  view.groups = form_.groups;
  view.k_groups = k_ / kGroup;
  view.panel_bytes = panel_bytes_;
  return view;
}

void Weights::list(const std::string& name, Sections& sections) {
  const char* type = form_.groups != Groups::none ? "4-bit groups" : form_.int8 ? "int8" : "bfloat16";
  sections.push_back({name, type, data_.as<void>(), data_.bytes() - kReadAhead});
  sections.push_back(section(name + ".bias", "float32", bias_));
  if (!is_int8()) return;
  sections.push_back(section(name + ".scale", "float32", scale_));
  sections.push_back(section(name + ".offset", "int32", offset_));
}

void Weights::pack(const Tensor& from, const float* bias, int first, int end) {
  const int end_channel = std::min(end * kPanel, channels_);
  std::vector<std::uint16_t> line(k_ + kUnit);  // wide enough for either type, zero at its end
  for (int channel = first * kPanel; channel < end_channel; ++channel) {
    if (bias) bias_[channel] = bias[channel];
    if (form_.groups != Groups::none) {
      pack_groups(from.groups, channel, k_, panel_of(channel));
    } else {
      pack_row(from.values + std::size_t(channel) * k_, channel, reinterpret_cast<std::uint8_t*>(line.data()));
    }
  }
}

void Weights::pack_row(const float* row, int channel, std::uint8_t* line) {
  if (form_.int8) {
    pack_int8(row, channel, reinterpret_cast<std::int8_t*>(line));
  } else {
    round_to_bf16(row, k_, reinterpret_cast<std::uint16_t*>(line));
  }
  spread(line, k_ * (form_.int8 ? 1 : 2), channel % kPanel, panel_of(channel));
}

// Symmetric, one scale per output channel. A channel that is not finite gets scale NaN.
void Weights::pack_int8(const float* row, int channel, std::int8_t* packed) {
  const float most = largest_magnitude(row, k_);
  const bool finite = most <= 3.4e38F;
  scale_[channel] = finite ? most / 127.0F : NAN;
  const float inverse = finite && most > 1e-30F ? 127.0F / most : 0.0F;
  if (inverse == 0) {
    std::fill_n(packed, k_, std::int8_t{0});
    return;
  }
  offset_[channel] = -128 * quantize(row, k_, inverse, packed);
}

}  // namespace salver
