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

// Sums of up to 32 rows: tiles 0..3 hold them (row half, channel half), 4..5 rows, 6..7 weights.
// Both formats share it, since a tile row is 64 bytes of k in either.
#define SALVER_TILE_SUMS(NAME, WEIGHT, SUM, MULTIPLY)                                                \
  void NAME(const std::uint8_t* a, std::size_t stride, int rows, const WEIGHT* weights, int k_tiles, \
            Ahead ahead, SUM* sums) {                                                               \
    const auto* panel = reinterpret_cast<const std::uint8_t*>(weights);                              \
    const std::size_t out = kPanel * sizeof(SUM);                                                    \
    settle_memory();                                                                                 \
    _tile_zero(0);                                                                                   \
    _tile_zero(1);                                                                                   \
    if (rows <= 16) {                                                                                \
      for (int kt = 0; kt < k_tiles; ++kt, a += 64, panel += 2 * kTileBytes) {                       \
        fetch_ahead(panel, k_tiles, ahead);                                                          \
        _tile_loadd(4, a, stride);                                                                   \
        _tile_loadd(6, panel, 64);                                                                   \
        MULTIPLY(0, 4, 6);                                                                           \
        _tile_loadd(7, panel + kTileBytes, 64);                                                      \
        MULTIPLY(1, 4, 7);                                                                           \
      }                                                                                              \
      _tile_stored(0, sums, out);                                                                    \
      _tile_stored(1, sums + kLanes, out);                                                           \
      return;                                                                                        \
    }                                                                                                \
    _tile_zero(2);                                                                                   \
    _tile_zero(3);                                                                                   \
    for (int kt = 0; kt < k_tiles; ++kt, a += 64, panel += 2 * kTileBytes) {                         \
      fetch_ahead(panel, k_tiles, ahead);                                                            \
      _tile_loadd(6, panel, 64);                                                                     \
      _tile_loadd(4, a, stride);                                                                     \
      MULTIPLY(0, 4, 6);                                                                             \
      _tile_loadd(7, panel + kTileBytes, 64);                                                        \
      MULTIPLY(1, 4, 7);                                                                             \
      _tile_loadd(5, a + 16 * stride, stride);                                                       \
      MULTIPLY(2, 5, 6);                                                                             \
      MULTIPLY(3, 5, 7);                                                                             \
    }                                                                                                \
    _tile_stored(0, sums, out);                                                                      \
    _tile_stored(1, sums + kLanes, out);                                                             \
    _tile_stored(2, sums + 16 * kPanel, out);                                                        \
    _tile_stored(3, sums + 16 * kPanel + kLanes, out);                                               \
  }

// From the same place in the next panel.
SALVER_INLINE void fetch_ahead(const std::uint8_t* pair, int k_tiles, Ahead ahead) {
  const std::uint8_t* line = pair + std::size_t(k_tiles) * 2 * kTileBytes + ahead.first * 64;
  for (int i = 0; i < ahead.lines; ++i, line += 64) _mm_prefetch(line, _MM_HINT_T1);
}

SALVER_TILE_SUMS(tile_int8_sums, std::int8_t, std::int32_t, _tile_dpbusd)
SALVER_TILE_SUMS(tile_bf16_sums, std::uint16_t, float, _tile_dpbf16ps)

void int8_sums(const std::uint8_t* a, std::size_t stride, int rows, const std::int8_t* panel,
               int k_tiles, Ahead ahead, std::int32_t* sums) {
  if (rows <= kFewRows) {
    vnni_sums(a, stride, rows, panel, k_tiles, ahead, sums);
  } else {
    tile_int8_sums(a, stride, rows, panel, k_tiles, ahead, sums);
  }
}

constexpr auto bf16_sums = tile_bf16_sums;

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
