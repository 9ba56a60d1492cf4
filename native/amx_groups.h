// 4-bit products with AMX: codes are unpacked to bytes a few groups at a time and stay in the nearest
// cache while all rows go by; integers of a group leave the tiles and are scaled in vectors.
//
// A tile spans 64 of k, two groups. Each group's codes lie before or after 512 zero bytes, so that a
// full tile of weights sees one group only and tiles of rows are loaded once for both.
#pragma once

#include <immintrin.h>

#include "vnni_groups.h"

namespace salver {
namespace {

constexpr int kGroupsAtOnce = 4;
constexpr int kUnpackedGroup = kLanes * kGroup;  // bytes of 16 channels
constexpr int kFewGroupRows = 8;                 // up to here VNNI is as fast

struct UnpackedGroups {
  // [half of the panel][group: its codes, then as many zeros]
  alignas(64) std::uint8_t codes[2][2 * kGroupsAtOnce * kUnpackedGroup];
  WeightGroup scales[kGroupsAtOnce];

  UnpackedGroups() { __builtin_memset(codes, 0, sizeof codes); }

  // The tile in which `group` meets rows of a whole pair of groups.
  const std::uint8_t* tile(int half, int group) const {
    return codes[half] + (2 * group - group % 2) * kUnpackedGroup;
  }
};

template <Groups kind>
SALVER_INLINE void unpack(const std::uint8_t* panel, int first, int count, UnpackedGroups& out) {
  const __m512i low_half = _mm512_set1_epi8(15);
  for (int group = 0; group < count; ++group) {
    const std::uint8_t* lines = group_at<kind>(panel, first + group) + scale_bytes(kind);
    out.scales[group] = weight_group<kind>(panel, first + group);
    for (int half = 0; half < 2; ++half) {
      std::uint8_t* to = out.codes[half] + 2 * group * kUnpackedGroup;
#pragma GCC unroll 4
      for (int line = 0; line < kGroupLines; ++line, lines += 64, to += 64) {
        const __m512i both = _mm512_loadu_si512(lines);
        _mm512_store_si512(to, _mm512_and_si512(both, low_half));
        _mm512_store_si512(to + kGroupLines * 64, _mm512_and_si512(_mm512_srli_epi16(both, 4), low_half));
      }
    }
  }
}

// Integers of 32 rows: [group][row][32 channels].
constexpr int kIntegersGroup = kTileRows * kPanel;

// A group of a pair and 32 rows, of which tiles 4 and 5 hold the pair. Tiles 0 to 3 are (half of the rows,
// half of the panel), 6 and 7 weights. What the four hold from the group before goes where `held` says,
// since a tile that was just computed is slow to leave.
SALVER_INLINE void multiply_group(const UnpackedGroups& weights, int group, bool halves, Held<std::int32_t>& held,
                                  std::int32_t* integers) {
  const bool full = held.sums, full_halves = held.rows > 16;
  _tile_loadd(6, weights.tile(0, group), 64);
  if (full) store_tile<0>(held.sums);
  _tile_zero(0);
  _tile_dpbsud(0, 4, 6);
  _tile_loadd(7, weights.tile(1, group), 64);
  if (full) store_tile<1>(held.sums);
  _tile_zero(1);
  _tile_dpbsud(1, 4, 7);
  if (full_halves) store_tile<2>(held.sums);
  _tile_zero(2);
  if (halves) _tile_dpbsud(2, 5, 6);
  if (full_halves) store_tile<3>(held.sums);
  _tile_zero(3);
  if (halves) _tile_dpbsud(3, 5, 7);
  held = {integers, halves ? 32 : 16};
}

// Adds `Count` groups of rows [first, end), which are of one block of 32, to their sums.
template <int Count>
SALVER_INLINE void scale_rows(const GroupedRows& rows, int first, int end, int first_group,
                              const WeightGroup (&weights)[kGroupsAtOnce], const std::int32_t* integers, float* sums) {
  WeightGroup scales[Count];
#pragma GCC unroll 4
  for (int group = 0; group < Count; ++group) scales[group] = weights[group];
  sums += first * kPanel;
  for (int row = first; row < end; ++row, integers += kPanel, sums += kPanel) {
    const RowGroup* from = rows.groups(row) + first_group;
    F16 left = load(sums), right = load(sums + kLanes);
#pragma GCC unroll 4
    for (int group = 0; group < Count; ++group) {
      const std::int32_t* integer = integers + group * kIntegersGroup;
      const F16 scale = splat(from[group].scale), sum = splat(from[group].sum);
      left = add_group(left, load_ints(integer), scales[group].scale[0], scales[group].minimum[0], scale, sum);
      right = add_group(right, load_ints(integer + kLanes), scales[group].scale[1], scales[group].minimum[1], scale, sum);
    }
    store(sums, left);
    store(sums + kLanes, right);
  }
}

// `Count` groups of all rows, in blocks of 32. A block's last group leaves the tiles when the next block's
// first enters them, and then vectors scale that block.
template <Groups kind, int Count>
void tile_groups(const std::uint8_t* panel, int first_group, const GroupedRows& rows, UnpackedGroups& weights,
                 float* sums) {
  alignas(64) std::int32_t integers[Count * kIntegersGroup];
  unpack<kind>(panel, first_group, Count, weights);
  Held<std::int32_t> held;
  for (int first = 0; first < rows.count; first += kTileRows) {
    const bool halves = rows.count - first > 16;
    for (int group = 0; group < Count; ++group) {
      settle_memory();
      if (group % 2 == 0) {
        const std::int8_t* codes = rows.codes(first, first_group + group);
        _tile_loadd(4, codes, 64);
        if (halves) _tile_loadd(5, codes + 16 * rows.stride, 64);
      }
      multiply_group(weights, group, halves, held, integers + group * kIntegersGroup);
      settle_memory();
      if (group > 0 || first == 0) continue;
      scale_rows<Count>(rows, first - kTileRows, first, first_group, weights.scales, integers, sums);
    }
  }
  store_held(held);
  const int first = (rows.count - 1) / kTileRows * kTileRows;
  scale_rows<Count>(rows, first, rows.count, first_group, weights.scales, integers, sums);
}

template <Groups kind>
void tile_group_sums(const std::uint8_t* panel, int groups, const GroupedRows& rows, float* sums) {
  UnpackedGroups weights;
  __builtin_memset(sums, 0, rows.count * kPanel * sizeof *sums);
  int group = 0;
  for (; group + 4 <= groups; group += 4) tile_groups<kind, 4>(panel, group, rows, weights, sums);
  for (; group + 2 <= groups; group += 2) tile_groups<kind, 2>(panel, group, rows, weights, sums);
  for (; group < groups; ++group) tile_groups<kind, 1>(panel, group, rows, weights, sums);
}

template <Groups kind>
void group_sums(const std::uint8_t* panel, int groups, const GroupedRows& rows, float* sums) {
  if (rows.count <= kFewGroupRows) {
    vnni_group_sums<kind>(panel, groups, rows, sums);
  } else {
    tile_group_sums<kind>(panel, groups, rows, sums);
  }
}

}  // namespace
}  // namespace salver
