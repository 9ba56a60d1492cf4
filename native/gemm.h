// Products of encoded rows with packed weights, panel by panel.
//
// The file that includes this has defined, for its instruction set,
//   int8_sums(a, stride, rows, panel, k_tiles, ahead, sums, held, leaving)   sums[32][32] of u8 x s8, exact
//   bf16_sums(a, stride, rows, panel, k_tiles, ahead, sums, held, leaving)   sums[32][32] in float32
// for up to 32 rows of one panel. A panel stays in a near cache while all rows go by, and `ahead` says
// which part of the next one each of them is to fetch: the memory then never waits for arithmetic.
// Nor does a matrix unit wait for an epilogue: its sums may stay in its registers until the next call,
// which says so in `held`. That call stores each of them right before the first product that needs its
// register, and between later steps of k the tokens that they belong to leave. No rows: only what is
// held is stored. `group_sums` is that of groups.h.
#pragma once

#include <type_traits>

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

// What a token's one or two rows of sums say, in float; 16 channels.
template <Encoding encoding>
struct Channels {
  I16 offset;
  F16 scale, bias;

  SALVER_INLINE Channels(const PackedMatrix& w, int channel) : bias(load(w.bias + channel)) {
    if constexpr (is_bf16(encoding)) return;
    offset = load_ints(w.offset + channel);
    scale = load(w.scale + channel);
  }

  SALVER_INLINE F16 value(const std::int32_t* sums, F16 token_scale) const {
    F16 whole = to_float(load_ints(sums) + offset);
    if constexpr (encoding == Encoding::two_bytes) {
      whole = fma(whole, splat(256.0F), to_float(load_ints(sums + kPanel)));
    }
    return fma(whole, token_scale * scale, bias);
  }

  SALVER_INLINE F16 value(const float* sums, F16 /*token_scale*/) const {
    if constexpr (encoding == Encoding::two_bf16) return load(sums) + load(sums + kPanel) + bias;
    return load(sums) + bias;
  }
};

// Tokens whose sums are there and whose results are still to be written.
template <Epilogue epilogue, Encoding encoding>
class Leaving {
 public:
  using Sum = std::conditional_t<is_bf16(encoding), float, std::int32_t>;

  Leaving(const PackedMatrix& w, const EncodedRows& x, const Destination& to) : w_(w), x_(x), to_(to) {}

  SALVER_INLINE void begin(int panel, int first, int end, const Sum* sums) {
    const int steps = w_.k_tiles > 1 ? w_.k_tiles - 1 : 1;
    panel_ = panel;
    next_ = first;
    end_ = end;
    sums_ = sums;
    per_step_ = (end - first + steps - 1) / steps;
  }

  SALVER_INLINE void some() { write(end_ - next_ < per_step_ ? end_ : next_ + per_step_); }
  SALVER_INLINE void rest() { write(end_); }

 private:
  SALVER_INLINE void write(int end) {
    if (next_ >= end) return;
    const int panel = panel_;
    const Channels<encoding> left(w_, panel * kPanel), right(w_, panel * kPanel + kLanes);
    const float* scales = x_.scale;
    const std::size_t stride = to_.stride;
    const Sum* sums = sums_;
    float* row = to_.data + next_ * stride;
    for (int token = next_; token < end; ++token, sums += rows_per_token(encoding) * kPanel, row += stride) {
      const F16 scale = splat(scales[token]);
      put<epilogue>(row, panel, left.value(sums, scale), right.value(sums + kLanes, scale));
    }
    next_ = end;
    sums_ = sums;
  }

  const PackedMatrix& w_;
  const EncodedRows& x_;
  const Destination& to_;
  const Sum* sums_ = nullptr;
  int panel_ = 0, next_ = 0, end_ = 0, per_step_ = 0;
};

template <Epilogue epilogue, Encoding encoding>
void panels(const PackedMatrix& w, const EncodedRows& x, const Destination& to, int first_panel, int end_panel) {
  constexpr int kRows = rows_per_token(encoding), kTokens = kTileRows / kRows;
  using Sum = typename Leaving<epilogue, encoding>::Sum;
  Leaving<epilogue, encoding> leaving(w, x, to);
  Held<Sum> held;
  alignas(64) Sum sums[kTileRows * kPanel];
  const int blocks = (x.tokens + kTokens - 1) / kTokens;
  const auto add_up = [&](int panel, int first, int end, Ahead ahead) {
    const std::uint8_t *rows = x.data + first * kRows * x.stride, *weights = w.panel(panel);
    const int count = (end - first) * kRows;
    if (!held.sums) leaving.rest();
    if constexpr (is_bf16(encoding)) {
      const auto* halves = reinterpret_cast<const std::uint16_t*>(weights);
      bf16_sums(rows, x.stride, count, halves, w.k_tiles, ahead, sums, held, leaving);
    } else {
      const auto* bytes = reinterpret_cast<const std::int8_t*>(weights);
      int8_sums(rows, x.stride, count, bytes, w.k_tiles, ahead, sums, held, leaving);
    }
    leaving.rest();
  };
  for (int panel = first_panel; panel < end_panel; ++panel) {
    for (int block = 0; block < blocks; ++block) {
      const int first = block * kTokens, end = first + kTokens < x.tokens ? first + kTokens : x.tokens;
      add_up(panel, first, end, share_of_next(block, blocks));
      leaving.begin(panel, first, end, sums);
    }
  }
  add_up(first_panel, 0, 0, {});
}

constexpr int kGroupRows = 128;  // rows whose sums are held at once

template <Epilogue epilogue, Groups kind>
void panels_of(const PackedMatrix& w, const EncodedRows& x, const Destination& to, int first_panel, int end_panel) {
  alignas(64) float sums[kGroupRows * kPanel];
  for (int panel = first_panel; panel < end_panel; ++panel) {
    const F16 left = load(w.bias + panel * kPanel), right = load(w.bias + panel * kPanel + kLanes);
    for (int first = 0; first < x.tokens; first += kGroupRows) {
      const int tokens = x.tokens - first < kGroupRows ? x.tokens - first : kGroupRows;
      group_sums<kind>(w.panel(panel), w.k_groups, GroupedRows(x, tokens).from(first), sums);
      for (int i = 0; i < tokens; ++i) {
        const float* row = sums + i * kPanel;
        put<epilogue>(to.data + (first + i) * to.stride, panel, load(row) + left, load(row + kLanes) + right);
      }
    }
  }
}

template <Epilogue epilogue>
void grouped_panels(const PackedMatrix& w, const EncodedRows& x, const Destination& to, int first, int end) {
  switch (w.groups) {
    case Groups::none: return;
    case Groups::pair: return panels_of<epilogue, Groups::pair>(w, x, to, first, end);
    case Groups::single: return panels_of<epilogue, Groups::single>(w, x, to, first, end);
    case Groups::nested: return panels_of<epilogue, Groups::nested>(w, x, to, first, end);
  }
}

template <Epilogue epilogue>
void product_of(const PackedMatrix& w, const EncodedRows& x, const Destination& to, int first, int end) {
  switch (x.encoding) {
    case Encoding::one_byte: return panels<epilogue, Encoding::one_byte>(w, x, to, first, end);
    case Encoding::two_bytes: return panels<epilogue, Encoding::two_bytes>(w, x, to, first, end);
    case Encoding::bf16: return panels<epilogue, Encoding::bf16>(w, x, to, first, end);
    case Encoding::two_bf16: return panels<epilogue, Encoding::two_bf16>(w, x, to, first, end);
    case Encoding::groups: return grouped_panels<epilogue>(w, x, to, first, end);
  }
}

void product(const PackedMatrix& w, const EncodedRows& x, const Destination& to, int first_panel, int end_panel) {
  switch (to.epilogue) {
    case Epilogue::store: return product_of<Epilogue::store>(w, x, to, first_panel, end_panel);
    case Epilogue::add: return product_of<Epilogue::add>(w, x, to, first_panel, end_panel);
    case Epilogue::swiglu: return product_of<Epilogue::swiglu>(w, x, to, first_panel, end_panel);
  }
}

}  // namespace
}  // namespace salver
