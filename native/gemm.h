// Products of encoded rows with packed weights, panel by panel.
//
// The file that includes this has defined, for its instruction set,
//   int8_sums(a, stride, rows, panel, k_tiles, fetch, sums)   sums[32][32] of u8 x s8, exact
//   bf16_sums(a, stride, rows, panel, k_tiles, fetch, sums)   sums[32][32] in float32
// for up to 32 rows of one panel; `fetch` where the panel is not in a near cache yet. A panel stays in the nearest cache while all rows go by.
#pragma once

#include "kernels.h"
#include "vec.h"

namespace salver {
namespace {

SALVER_INLINE F16 silu(F16 x) { return x / (exp(-x) + 1.0F); }

SALVER_INLINE void put(const Destination& to, int token, int panel, F16 first, F16 second) {
  float* row = to.data + token * to.stride;
  if (to.epilogue == Epilogue::swiglu) {
    store(row + panel * kLanes, silu(first) * second);
    return;
  }
  row += panel * kPanel;
  if (to.epilogue == Epilogue::add) {
    first += load(row);
    second += load(row + kLanes);
  }
  store(row, first);
  store(row + kLanes, second);
}

// The integer that the two rows' bytes spell, times its scales, plus bias.
SALVER_INLINE F16 int8_value(const std::int32_t* sums, bool two_bytes, const PackedMatrix& w, int channel, F16 scale) {
  const F16 high = to_float(load_ints(sums) + load_ints(w.offset + channel));
  const F16 whole = two_bytes ? fma(high, splat(256.0F), to_float(load_ints(sums + kPanel))) : high;
  return fma(whole, scale * load(w.scale + channel), load(w.bias + channel));
}

void int8_product(const PackedMatrix& w, const EncodedRows& x, const Destination& to, int panel) {
  alignas(64) std::int32_t sums[kTileRows * kPanel];
  const bool two_bytes = x.encoding == Encoding::two_bytes;
  const int per_token = two_bytes ? 2 : 1;
  const int tile_tokens = kTileRows / per_token;
  const auto* weights = reinterpret_cast<const std::int8_t*>(w.panel(panel));
  const int channel = panel * kPanel;
  for (int first = 0; first < x.tokens; first += tile_tokens) {
    const int tokens = x.tokens - first < tile_tokens ? x.tokens - first : tile_tokens;
    int8_sums(x.data + first * per_token * x.stride, x.stride, tokens * per_token, weights, w.k_tiles, first == 0, sums);
    for (int i = 0; i < tokens; ++i) {
      const std::int32_t* row = sums + i * per_token * kPanel;
      const F16 scale = splat(x.scale[first + i]);
      put(to, first + i, panel, int8_value(row, two_bytes, w, channel, scale),
          int8_value(row + kLanes, two_bytes, w, channel + kLanes, scale));
    }
  }
}

void bf16_product(const PackedMatrix& w, const EncodedRows& x, const Destination& to, int panel) {
  alignas(64) float sums[kTileRows * kPanel];
  const auto* weights = reinterpret_cast<const std::uint16_t*>(w.panel(panel));
  const F16 first_bias = load(w.bias + panel * kPanel);
  const F16 second_bias = load(w.bias + panel * kPanel + kLanes);
  for (int first = 0; first < x.tokens; first += kTileRows) {
    const int tokens = x.tokens - first < kTileRows ? x.tokens - first : kTileRows;
    bf16_sums(x.data + first * x.stride, x.stride, tokens, weights, w.k_tiles, first == 0, sums);
    for (int i = 0; i < tokens; ++i) {
      const float* row = sums + i * kPanel;
      put(to, first + i, panel, load(row) + first_bias, load(row + kLanes) + second_bias);
    }
  }
}

void product(const PackedMatrix& w, const EncodedRows& x, const Destination& to, int first_panel, int end_panel) {
  for (int panel = first_panel; panel < end_panel; ++panel) {
    if (w.is_int8) {
      int8_product(w, x, to, panel);
    } else {
      bf16_product(w, x, to, panel);
    }
  }
}

}  // namespace
}  // namespace salver
