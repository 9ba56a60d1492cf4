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

// Integers of 16 rows: [group][row][32 channels].
using Integers = std::int32_t[kGroupsAtOnce * 16 * kPanel];
constexpr int kIntegersGroup = 16 * kPanel;

// Two groups of 16 rows. Tiles 0..3 are (group, half of the panel), 4 rows, 5..6 weights. What the four
// hold from the pair before goes to `before`, since a tile that was just computed is slow to leave.
SALVER_INLINE void multiply_pair(const std::int8_t* codes, const UnpackedGroups& weights, int group,
                                 std::int32_t* before) {
  constexpr std::size_t kOut = kPanel * sizeof(std::int32_t);
  settle_memory();
  _tile_loadd(4, codes, 64);
  _tile_stored(0, before, kOut);
  _tile_zero(0);
  _tile_loadd(5, weights.tile(0, group), 64);
  _tile_dpbsud(0, 4, 5);
  _tile_stored(1, before + kLanes, kOut);
  _tile_zero(1);
  _tile_loadd(6, weights.tile(1, group), 64);
  _tile_dpbsud(1, 4, 6);
  _tile_stored(2, before + kIntegersGroup, kOut);
  _tile_zero(2);
  _tile_loadd(5, weights.tile(0, group + 1), 64);
  _tile_dpbsud(2, 4, 5);
  _tile_stored(3, before + kIntegersGroup + kLanes, kOut);
  _tile_zero(3);
  _tile_loadd(6, weights.tile(1, group + 1), 64);
  _tile_dpbsud(3, 4, 6);
  settle_memory();
}

// Adds `Count` groups of rows [first, end), which are of one block of 16, to their sums.
template <int Count>
SALVER_INLINE void scale_rows(const GroupedRows& rows, int first, int end, int first_group,
                              const WeightGroup (&weights)[kGroupsAtOnce], const std::int32_t* integers, float* sums) {
  WeightGroup scales[Count];
#pragma GCC unroll 4
  for (int group = 0; group < Count; ++group) scales[group] = weights[group];
  integers += first % 16 * kPanel;
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

// `Count` groups of all rows, in blocks of 16. While tiles multiply one block, vectors scale the one
// before: only then have all its integers left the tiles.
template <Groups kind, int Count>
void tile_groups(const std::uint8_t* panel, int first_group, const GroupedRows& rows, UnpackedGroups& weights,
                 float* sums) {
  constexpr int kPairs = (Count + 1) / 2;
  alignas(64) Integers integers[2];
  unpack<kind>(panel, first_group, Count, weights);
  std::int32_t* before = integers[0];
  for (int first = 0; first < rows.count + 16; first += 16) {
    std::int32_t* block = integers[first / 16 % 2];
    const int from = first < rows.count ? first : 0;  // the last round only stores
    for (int pair = 0; pair < kPairs; ++pair) {
      multiply_pair(rows.codes(from, first_group + 2 * pair), weights, 2 * pair, before);
      before = block + 2 * pair * kIntegersGroup;
    }
    if (first == 0) continue;
    const int end = first < rows.count ? first : rows.count;
    scale_rows<Count>(rows, first - 16, end, first_group, weights.scales, integers[(first / 16 + 1) % 2], sums);
  }
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
