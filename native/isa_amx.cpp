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

// Sums of up to 32 rows: tiles 0..3 hold them (row half, channel half), 4..5 rows, 6..7 weights.
// `between()` is other work for the vector units while the matrix unit has enough to do.
template <Format format, typename Sum, typename Between>
void tile_sums(const std::uint8_t* a, std::size_t stride, int rows, const void* weights, int k_tiles, Ahead ahead,
               Sum* sums, const Between& between) {
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
    _tile_loadd(6, panel, 64);
    _tile_loadd(4, a, 64);
    multiply<format, 0, 4, 6>();
    _tile_loadd(7, panel + kTileBytes, 64);
    multiply<format, 1, 4, 7>();
    if (halves) {
      _tile_loadd(5, a + 16 * stride, 64);
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
