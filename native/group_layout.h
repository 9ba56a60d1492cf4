// Where things lie in a panel of 4-bit weights; see `PackedMatrix`.
#pragma once

#include "kernels.h"

namespace salver {

constexpr int kGroupLines = 4;                       // of 16 channels
constexpr int kCodeBytes = kPanel * kGroup / 2;      // of a group
constexpr int kOuterBytes = 2 * kPanel * 2;          // f16 scales and minimums of `nested`

// What precedes a group's codes.
constexpr int scale_bytes(Groups kind) { return kind == Groups::pair ? 4 * kPanel : 2 * kPanel; }

// From a panel's begin to a group's scales.
constexpr std::size_t group_offset(Groups kind, int group) {
  const std::size_t outer = kind == Groups::nested ? (group / kSuperGroups + 1) * kOuterBytes : 0;
  return std::size_t(group) * (kCodeBytes + scale_bytes(kind)) + outer;
}

// From a panel's begin to the outer scales over a group.
constexpr std::size_t outer_offset(int group) {
  return group_offset(Groups::nested, group / kSuperGroups * kSuperGroups) - kOuterBytes;
}

// Of `groups` groups, which `nested` has in whole super-groups.
constexpr std::size_t group_panel_bytes(Groups kind, int groups) {
  const std::size_t outer = kind == Groups::nested ? groups / kSuperGroups * kOuterBytes : 0;
  return std::size_t(groups) * (kCodeBytes + scale_bytes(kind)) + outer;
}

}  // namespace salver
