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
enum class Near { both, panel, neither };

// A panel that meets many rows stays while they go by, if it leaves them room there.
constexpr int kPanelNear = 36 * 1024;

// A call that fetches more lines than these of each 2 KiB ahead is one of three or fewer that share a
// panel: few rows, with which no choice was better than leaving both.
constexpr int kManyRowsAhead = 8;

SALVER_INLINE Near near_of(int k_tiles, Ahead ahead) {
  if (ahead.lines > kManyRowsAhead) return Near::both;
  return k_tiles * 2 * kTileBytes <= kPanelNear ? Near::panel : Near::neither;
}

template <int Tile, bool stays>
SALVER_INLINE void load_tile(const std::uint8_t* from) {
  if constexpr (stays) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(64L), "i"(Tile));
  } else {
    asm volatile("tileloaddt1 (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(64L), "i"(Tile));
  }
}

// Sums of up to 32 rows: tiles 0..3 hold them (row half, channel half), 4..5 rows, 6..7 weights.
// `between()` is other work for the vector units while the matrix unit has enough to do.
template <Format format, Near near, typename Sum, typename Between>
void tile_sums_near(const std::uint8_t* a, std::size_t stride, int rows, const void* weights, int k_tiles,
                    Ahead ahead, Sum* sums, const Between& between) {
  constexpr bool rows_stay = near == Near::both, panel_stays = near != Near::neither;
  const auto* panel = static_cast<const std::uint8_t*>(weights);
  constexpr std::size_t kOut = kPanel * sizeof(Sum);
  const bool halves = rows > 16;
  settle_memory();
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int kt = 0; kt < k_tiles; ++kt, a += kTileBytes, panel += 2 * kTileBytes) {
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
    between();
  }
  _tile_stored(0, sums, kOut);
  _tile_stored(1, sums + kLanes, kOut);
  if (halves) {
    _tile_stored(2, sums + 16 * kPanel, kOut);
    _tile_stored(3, sums + 16 * kPanel + kLanes, kOut);
  }
}

template <Format format, typename... Of>
void tile_sums(const std::uint8_t* a, std::size_t stride, int rows, const void* weights, int k_tiles, Ahead ahead,
               const Of&... of) {
  switch (near_of(k_tiles, ahead)) {
    case Near::both: return tile_sums_near<format, Near::both>(a, stride, rows, weights, k_tiles, ahead, of...);
    case Near::panel: return tile_sums_near<format, Near::panel>(a, stride, rows, weights, k_tiles, ahead, of...);
    case Near::neither: return tile_sums_near<format, Near::neither>(a, stride, rows, weights, k_tiles, ahead, of...);
  }
}

constexpr auto int8_sums = [](const std::uint8_t* a, std::size_t stride, int rows, const auto&... of) {
  if (rows <= kFewRows) {
    vnni_sums(a, stride, rows, of...);
  } else {
    tile_sums<Format::int8>(a, stride, rows, of...);
  }
};

constexpr auto bf16_sums = [](const auto&... of) { tile_sums<Format::bf16>(of...); };

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
const Kernels kAmxKernels = {"amx", enter, leave, norm_row, encode_row, product, place_heads, attend, merge, best_of, weigh_logits};

}  // namespace salver
