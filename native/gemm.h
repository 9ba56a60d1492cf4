// Products of encoded rows with packed weights, panel by panel.
//
// The file that includes this has defined, for its instruction set,
//   int8_sums(a, stride, rows, panel, k_tiles, ahead, sums)   sums[32][32] of u8 x s8, exact
//   bf16_sums(a, stride, rows, panel, k_tiles, ahead, sums)   sums[32][32] in float32
// for up to 32 rows of one panel. A panel stays in a near cache while all rows go by, and `ahead` says
// which part of the next one each of them is to fetch: the memory then never waits for arithmetic.
// `group_sums` is that of groups.h.
#pragma once

#include "groups.h"
#include "kernels.h"
#include "vec.h"

namespace salver {
namespace {

constexpr int kPairLines = 2 * kTileBytes / 64;

SALVER_INLINE Ahead share_of_next(int block, int blocks) {
  const int each = (kPairLines + blocks - 1) / blocks;
  const int first = block * each;
  const int left = kPairLines - first;
  return {first, left < 0 ? 0 : left < each ? left : each};
}

SALVER_INLINE F16 silu(F16 x) { return x / (exp(-x) + 1.0F); }

template <Epilogue epilogue>
SALVER_INLINE void put(float* row, int panel, F16 first, F16 second) {
  if constexpr (epilogue == Epilogue::swiglu) {
    store(row + panel * kLanes, silu(first) * second);
    return;
  }
  row += panel * kPanel;
  if constexpr (epilogue == Epilogue::add) {
    first += load(row);
    second += load(row + kLanes);
  }
  store(row, first);
  store(row + kLanes, second);
}

// The integer that a token's rows spell, times its scales, plus bias; 16 channels.
struct Channels {
  I16 offset;
  F16 scale, bias;

  SALVER_INLINE Channels(const PackedMatrix& w, int channel)
      : offset(load_ints(w.offset + channel)), scale(load(w.scale + channel)), bias(load(w.bias + channel)) {}

  template <bool two_bytes>
  SALVER_INLINE F16 value(const std::int32_t* sums, F16 token_scale) const {
    F16 whole = to_float(load_ints(sums) + offset);
    if constexpr (two_bytes) whole = fma(whole, splat(256.0F), to_float(load_ints(sums + kPanel)));
    return fma(whole, token_scale * scale, bias);
  }
};

template <Epilogue epilogue, bool two_bytes>
void int8_panel(const PackedMatrix& w, const EncodedRows& x, const Destination& to, int panel) {
  alignas(64) std::int32_t sums[kTileRows * kPanel];
  constexpr int kPerToken = two_bytes ? 2 : 1;
  constexpr int kTokens = kTileRows / kPerToken;
  const auto* weights = reinterpret_cast<const std::int8_t*>(w.panel(panel));
  const Channels left(w, panel * kPanel), right(w, panel * kPanel + kLanes);
  const int blocks = (x.tokens + kTokens - 1) / kTokens;
  for (int block = 0; block < blocks; ++block) {
    const int first = block * kTokens;
    const int tokens = x.tokens - first < kTokens ? x.tokens - first : kTokens;
    int8_sums(x.data + first * kPerToken * x.stride, x.stride, tokens * kPerToken, weights, w.k_tiles,
              share_of_next(block, blocks), sums);
    for (int i = 0; i < tokens; ++i) {
      const std::int32_t* row = sums + i * kPerToken * kPanel;
      const F16 scale = splat(x.scale[first + i]);
      put<epilogue>(to.data + (first + i) * to.stride, panel, left.value<two_bytes>(row, scale),
                    right.value<two_bytes>(row + kLanes, scale));
    }
  }
}

template <Epilogue epilogue>
void bf16_panel(const PackedMatrix& w, const EncodedRows& x, const Destination& to, int panel) {
  alignas(64) float sums[kTileRows * kPanel];
  const auto* weights = reinterpret_cast<const std::uint16_t*>(w.panel(panel));
  const F16 left = load(w.bias + panel * kPanel), right = load(w.bias + panel * kPanel + kLanes);
  const int blocks = (x.tokens + kTileRows - 1) / kTileRows;
  for (int block = 0; block < blocks; ++block) {
    const int first = block * kTileRows;
    const int tokens = x.tokens - first < kTileRows ? x.tokens - first : kTileRows;
    bf16_sums(x.data + first * x.stride, x.stride, tokens, weights, w.k_tiles, share_of_next(block, blocks), sums);
    for (int i = 0; i < tokens; ++i) {
      const float* row = sums + i * kPanel;
      put<epilogue>(to.data + (first + i) * to.stride, panel, load(row) + left, load(row + kLanes) + right);
    }
  }
}

constexpr int kGroupRows = 128;  // rows whose sums are held at once

template <Epilogue epilogue, Groups kind>
void group_panel(const PackedMatrix& w, const EncodedRows& x, const Destination& to, int panel) {
  alignas(64) float sums[kGroupRows * kPanel];
  const F16 left = load(w.bias + panel * kPanel), right = load(w.bias + panel * kPanel + kLanes);
  for (int first = 0; first < x.tokens; first += kGroupRows) {
    const int tokens = x.tokens - first < kGroupRows ? x.tokens - first : kGroupRows;
    group_sums<kind>(w.panel(panel), w.k_groups, {x.data + 2 * first * x.stride, x.stride, tokens}, sums);
    for (int i = 0; i < tokens; ++i) {
      const float* row = sums + i * kPanel;
      put<epilogue>(to.data + (first + i) * to.stride, panel, load(row) + left, load(row + kLanes) + right);
    }
  }
}

template <Epilogue epilogue>
void grouped_panel(const PackedMatrix& w, const EncodedRows& x, const Destination& to, int panel) {
  switch (w.groups) {
    case Groups::none: return;
    case Groups::pair: return group_panel<epilogue, Groups::pair>(w, x, to, panel);
    case Groups::single: return group_panel<epilogue, Groups::single>(w, x, to, panel);
    case Groups::nested: return group_panel<epilogue, Groups::nested>(w, x, to, panel);
  }
}

template <Epilogue epilogue>
void panels(const PackedMatrix& w, const EncodedRows& x, const Destination& to, int first, int end) {
  for (int panel = first; panel < end; ++panel) {
    switch (x.encoding) {
      case Encoding::one_byte: int8_panel<epilogue, false>(w, x, to, panel); break;
      case Encoding::two_bytes: int8_panel<epilogue, true>(w, x, to, panel); break;
      case Encoding::bf16: bf16_panel<epilogue>(w, x, to, panel); break;
      case Encoding::groups: grouped_panel<epilogue>(w, x, to, panel); break;
    }
  }
}

void product(const PackedMatrix& w, const EncodedRows& x, const Destination& to, int first_panel, int end_panel) {
  switch (to.epilogue) {
    case Epilogue::store: return panels<Epilogue::store>(w, x, to, first_panel, end_panel);
    case Epilogue::add: return panels<Epilogue::add>(w, x, to, first_panel, end_panel);
    case Epilogue::swiglu: return panels<Epilogue::swiglu>(w, x, to, first_panel, end_panel);
  }
}

}  // namespace
}  // namespace salver
