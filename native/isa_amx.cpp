// AMX: products of 16-row tiles, int8 and bf16. Few rows stay with VNNI, whose sums are the same.
//
// Tile products of bf16 are used for any number of rows: their order of summation is their own, so
// another instruction for few rows would give other bits.
#include <immintrin.h>

#include "amx_attention.h"
#include "generic.h"
#include "vnni.h"

namespace salver {
namespace {

struct alignas(64) TileConfig {
  std::uint8_t palette = 1;
  std::uint8_t start_row = 0;
  std::uint8_t reserved[14] = {};
  std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

constexpr int kFewRows = 4;  // up to here VNNI is faster than tiles

void configure_tiles() {
  static const TileConfig config;
  asm volatile("ldtilecfg %0" : : "m"(config) : "memory");
}

enum class Format { int8, bf16 };

// Adds to tile `Sum` the product of tile `Rows` with tile `Weights`.
template <Format format, int Sum, int Rows, int Weights>
SALVER_INLINE void multiply() {
  if constexpr (format == Format::int8) {
    asm volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(Sum), "i"(Rows), "i"(Weights));
  } else {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(Sum), "i"(Rows), "i"(Weights));
  }
}

// From the same place in the next panel.
SALVER_INLINE void fetch_ahead(const std::uint8_t* pair, int k_tiles, Ahead ahead) {
  const std::uint8_t* line = pair + std::size_t(k_tiles) * 2 * kTileBytes + ahead.first * 64;
  for (int i = 0; i < ahead.lines; ++i, line += 64) _mm_prefetch(line, _MM_HINT_T1);
}

// What a product leaves in the nearest cache (48 KiB); the rest it reads past it.
enum class Near { both, panel, rows, neither };

// What meets the other again and again stays meanwhile, if it leaves that some room: a panel when there
// are many rows, and the rows of one call when they are all.
constexpr int kMostNear = 36 * 1024;

// Lines of each 2 KiB ahead that a call fetches: all of them when it is alone with its panel; more than
// kManyRowsAhead when two or three share it, with which no choice was better than leaving both.
constexpr int kAloneAhead = 2 * kTileBytes / 64;
constexpr int kManyRowsAhead = 8;

SALVER_INLINE Near near_of(int k_tiles, Ahead ahead) {
  const bool alone = ahead.lines == kAloneAhead;
  if (!alone && ahead.lines > kManyRowsAhead) return Near::both;
  if (k_tiles * 2 * kTileBytes > kMostNear) return Near::neither;
  return alone ? Near::rows : Near::panel;
}

template <int Tile, bool stays>
SALVER_INLINE void load_tile(const std::uint8_t* from) {
  if constexpr (stays) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(64L), "i"(Tile));
  } else {
    asm volatile("tileloaddt1 (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(64L), "i"(Tile));
  }
}

// Tiles 0..3 hold sums (row half, channel half), 4..5 rows, 6..7 weights. A store that comes right before
// the next product of its tile costs half of one that comes after the last.
template <int Tile, typename Sum>
SALVER_INLINE void store_tile(Sum* sums) {
  constexpr std::size_t kOffset = Tile / 2 * 16 * kPanel + Tile % 2 * kLanes;
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)"
               : : "r"(sums + kOffset), "r"(kPanel * sizeof(Sum)), "i"(Tile) : "memory");
}

template <typename Sum>
void store_held(Held<Sum>& held) {
  if (!held.sums) return;
  store_tile<0>(held.sums);
  store_tile<1>(held.sums);
  if (held.rows > 16) {
    store_tile<2>(held.sums);
    store_tile<3>(held.sums);
  }
  held = {};
}

// The first step of k: what the tiles hold leaves them.
template <Format format, bool rows_stay, bool panel_stays, typename Sum>
SALVER_INLINE void first_step(const std::uint8_t* a, std::size_t stride, bool halves, const std::uint8_t* panel,
                              const Held<Sum>& held) {
  const bool full = held.sums, full_halves = held.rows > 16;
  load_tile<6, panel_stays>(panel);
  load_tile<4, rows_stay>(a);
  if (full) store_tile<0>(held.sums);
  _tile_zero(0);
  multiply<format, 0, 4, 6>();
  load_tile<7, panel_stays>(panel + kTileBytes);
  if (full) store_tile<1>(held.sums);
  _tile_zero(1);
  multiply<format, 1, 4, 7>();
  if (halves) load_tile<5, rows_stay>(a + 16 * stride);
  if (full_halves) store_tile<2>(held.sums);
  _tile_zero(2);
  if (halves) multiply<format, 2, 5, 6>();
  if (full_halves) store_tile<3>(held.sums);
  _tile_zero(3);
  if (halves) multiply<format, 3, 5, 7>();
}

template <Format format, Near near, typename Sum, typename Leaving>
void tile_sums_near(const std::uint8_t* a, std::size_t stride, int rows, const void* weights, int k_tiles,
                    Ahead ahead, Sum* sums, Held<Sum>& held, Leaving& leaving) {
  constexpr bool rows_stay = near == Near::both || near == Near::rows;
  constexpr bool panel_stays = near == Near::both || near == Near::panel;
  const auto* panel = static_cast<const std::uint8_t*>(weights);
  const bool halves = rows > 16;
  settle_memory();
  fetch_ahead(panel, k_tiles, ahead);
  first_step<format, rows_stay, panel_stays>(a, stride, halves, panel, held);
  for (int kt = 1; kt < k_tiles; ++kt) {
    a += kTileBytes;
    panel += 2 * kTileBytes;
    fetch_ahead(panel, k_tiles, ahead);
    load_tile<6, panel_stays>(panel);
    load_tile<4, rows_stay>(a);
    multiply<format, 0, 4, 6>();
    load_tile<7, panel_stays>(panel + kTileBytes);
    multiply<format, 1, 4, 7>();
    if (halves) {
      load_tile<5, rows_stay>(a + 16 * stride);
      multiply<format, 2, 5, 6>();
      multiply<format, 3, 5, 7>();
    }
    leaving.some();
  }
  held = {sums, rows};
}

template <Format format, typename Sum, typename... Of>
void tile_sums(const std::uint8_t* a, std::size_t stride, int rows, const void* weights, int k_tiles, Ahead ahead,
               Sum* sums, Held<Sum>& held, Of&... of) {
  if (rows == 0) return store_held(held);
  const auto add_up = [&]<Near near>() {
    tile_sums_near<format, near>(a, stride, rows, weights, k_tiles, ahead, sums, held, of...);
  };
  switch (near_of(k_tiles, ahead)) {
    case Near::both: return add_up.template operator()<Near::both>();
    case Near::panel: return add_up.template operator()<Near::panel>();
    case Near::rows: return add_up.template operator()<Near::rows>();
    case Near::neither: return add_up.template operator()<Near::neither>();
  }
}

constexpr auto int8_sums = [](const std::uint8_t* a, std::size_t stride, int rows, const std::int8_t* panel,
                              int k_tiles, Ahead ahead, std::int32_t* sums, auto& held, auto& leaving) {
  if (rows > kFewRows) {
    return tile_sums<Format::int8>(a, stride, rows, panel, k_tiles, ahead, sums, held, leaving);
  }
  if (held.sums) {
    store_held(held);
    leaving.rest();
  }
  vnni_sums(a, stride, rows, panel, k_tiles, ahead, sums, held, leaving);
};

constexpr auto bf16_sums = [](auto&&... of) { tile_sums<Format::bf16>(of...); };

template <Format format>
double tile_burst() {
  constexpr int kRounds = 1000;
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  _tile_zero(6);
  _tile_zero(7);
  for (int round = 0; round < kRounds; ++round) {
    multiply<format, 0, 4, 6>();
    multiply<format, 1, 4, 7>();
    multiply<format, 2, 5, 6>();
    multiply<format, 3, 5, 7>();
  }
  return kRounds * 4.0 * 2 * 16 * 16 * (format == Format::int8 ? 64 : 32);
}

double burst(Encoding encoding) { return is_bf16(encoding) ? tile_burst<Format::bf16>() : tile_burst<Format::int8>(); }

}  // namespace
}  // namespace salver

#include "amx_groups.h"
#include "attention.h"
#include "float_mode.h"
#include "gemm.h"
#include "kv_block.h"
#include "norm_rope_act.h"
#include "weigh.h"

namespace salver {
namespace {

void enter() {
  enter_float_mode();
  configure_tiles();
}

void leave() {
  _tile_release();
  leave_float_mode();
}

}  // namespace

extern const Kernels kAmxKernels;
const Kernels kAmxKernels = {"amx", enter, leave, norm_row, encode_row, product, place_heads, attend, merge, best_of, weigh_logits, burst};

}  // namespace salver
