#include "pack.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace salver {
namespace {

constexpr int kInt8PerTile = 64, kBf16PerTile = 32;  // of k
constexpr float kShift = 12582912.0F;  // 1.5 * 2^23: adding it rounds to the nearest integer
constexpr std::size_t kReadAhead = 16384;  // prefetches may point past the last panel

int ceil_div(int a, int b) { return (a + b - 1) / b; }

// Where a panel's element (channel, k) lies, in elements of `size` bytes.
std::size_t place(int channel, int k, int size) {
  const int per_tile = 64 / size, per_lane = 4 / size;
  const int tile = k / per_tile * 2 + channel / kLanes;
  const int row = k % per_tile / per_lane;
  return (std::size_t(tile) * kTileBytes + row * 64 + channel % kLanes * 4) / size + k % per_lane;
}

float largest_magnitude(const float* values, int count) {
  float most = 0;
  for (int i = 0; i < count; ++i) {
    const float magnitude = std::fabs(values[i]);
    if (!(magnitude <= most)) most = magnitude;  // NaN stays
  }
  return most;
}

}  // namespace

std::uint16_t rounded_to_bf16(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  if (std::isnan(x)) return static_cast<std::uint16_t>(bits >> 16 | 0x40);
  return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

Weights::Weights(const float* values, int n, int k, const float* bias, bool int8)
    : int8_(int8),
      panels_(ceil_div(n, kPanel)),
      k_tiles_(ceil_div(k, int8 ? kInt8PerTile : kBf16PerTile)),
      channels_(n),
      data_(std::size_t(panels_) * k_tiles_ * 2 * kTileBytes + kReadAhead),
      bias_(std::size_t(panels_) * kPanel) {
  if (bias) std::copy_n(bias, n, bias_.begin());
  if (int8) {
    pack_int8(values, n, k);
  } else {
    pack_bf16(values, n, k);
  }
}

PackedMatrix Weights::view() const {
  PackedMatrix view;
  view.data = data_.as<std::uint8_t>();
  view.scale = scale_.data();
  view.offset = offset_.data();
  view.bias = bias_.data();
  view.panels = panels_;
  view.k_tiles = k_tiles_;
  view.is_int8 = int8_;
  return view;
}

// Symmetric, one scale per output channel. A channel that is not finite gets scale NaN.
void Weights::pack_int8(const float* values, int n, int k) {
  scale_.resize(bias_.size());
  offset_.resize(bias_.size());
  const std::size_t panel_size = std::size_t(k_tiles_) * 2 * kTileBytes;
  for (int channel = 0; channel < n; ++channel) {
    const float* row = values + std::size_t(channel) * k;
    auto* panel = data_.as<std::int8_t>() + channel / kPanel * panel_size;
    const float most = largest_magnitude(row, k);
    scale_[channel] = most <= 3.4e38F ? most / 127.0F : NAN;
    const float inverse = most > 1e-30F && most <= 3.4e38F ? 127.0F / most : 0.0F;
    std::int32_t sum = 0;
    for (int i = 0; inverse != 0 && i < k; ++i) {
      const auto weight = static_cast<std::int8_t>((row[i] * inverse + kShift) - kShift);
      panel[place(channel % kPanel, i, 1)] = weight;
      sum += weight;
    }
    offset_[channel] = -128 * sum;
  }
}

void Weights::pack_bf16(const float* values, int n, int k) {
  const std::size_t panel_size = std::size_t(k_tiles_) * kTileBytes;
  for (int channel = 0; channel < n; ++channel) {
    const float* row = values + std::size_t(channel) * k;
    auto* panel = data_.as<std::uint16_t>() + channel / kPanel * panel_size;
    for (int i = 0; i < k; ++i) panel[place(channel % kPanel, i, 2)] = rounded_to_bf16(row[i]);
  }
}

}  // namespace salver
