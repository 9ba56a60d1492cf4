#include "pack_groups.h"

#include <cstring>

#include "group_layout.h"

namespace salver {
namespace {

void put_half(std::uint16_t value, std::uint8_t* to) { std::memcpy(to, &value, sizeof value); }

void put_codes(const std::uint8_t* codes, int lane, std::uint8_t* lines) {
  lines += lane / kLanes * kGroupLines * 64 + lane % kLanes * 4;
  for (int i = 0; i < kGroup / 2; ++i) {
    lines[i / 4 * 64 + i % 4] = static_cast<std::uint8_t>(codes[i] | codes[i + kGroup / 2] << 4);
  }
}

void put_scales(const GroupedTensor& from, std::size_t group, int lane, std::uint8_t* to) {
  if (from.kind == Groups::nested) {
    to[lane] = from.inner_scales[group];
    to[kPanel + lane] = from.inner_minimums[group];
    return;
  }
  put_half(from.scales[group], to + 2 * lane);
  if (from.kind == Groups::pair) put_half(from.minimums[group], to + 2 * (kPanel + lane));
}

}  // namespace

void pack_groups(const GroupedTensor& from, int channel, int k, std::uint8_t* panel) {
  const int groups = k / kGroup, lane = channel % kPanel;
  for (int group = 0; group < groups; ++group) {
    const std::size_t index = std::size_t(channel) * groups + group;
    std::uint8_t* to = panel + group_offset(from.kind, group);
    put_scales(from, index, lane, to);
    put_codes(from.codes + index * kGroup, lane, to + scale_bytes(from.kind));
    if (from.kind == Groups::nested && group % kSuperGroups == 0) {
      std::uint8_t* outer = panel + outer_offset(group);
      put_half(from.scales[index / kSuperGroups], outer + 2 * lane);
      put_half(from.minimums[index / kSuperGroups], outer + 2 * (kPanel + lane));
    }
  }
}

}  // namespace salver
