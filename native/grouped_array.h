// 4-bit weights as Python hands them over, checked.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/variant.h>

#include <optional>
#include <stdexcept>
#include <string>
#include <variant>

#include "pack.h"

namespace salver {

inline Groups groups_named(const std::string& name) {
  if (name == "none") return Groups::none;
  if (name == "pair") return Groups::pair;
  if (name == "single") return Groups::single;
  if (name == "nested") return Groups::nested;
  throw std::invalid_argument("groups are none, pair, single or nested");
}

// Numbers along k that have a scale of their own, of which a row has whole ones.
inline std::size_t scaled_run(Groups kind) { return kind == Groups::nested ? kGroup * kSuperGroups : kGroup; }

// Keeps the arrays that it was made from.
class GroupedArray {
 public:
  using Bytes = nanobind::ndarray<const std::uint8_t, nanobind::ndim<2>, nanobind::c_contig, nanobind::device::cpu>;
  using Halves = nanobind::ndarray<const std::uint16_t, nanobind::ndim<2>, nanobind::c_contig, nanobind::device::cpu>;

  GroupedArray(const std::string& kind, Bytes codes, Halves scales, std::optional<Halves> minimums,
               std::optional<Bytes> inner_scales, std::optional<Bytes> inner_minimums)
      : kind_(groups_named(kind)),
        codes_(std::move(codes)),
        scales_(std::move(scales)),
        minimums_(std::move(minimums)),
        inner_scales_(std::move(inner_scales)),
        inner_minimums_(std::move(inner_minimums)) {
    const bool nested = kind_ == Groups::nested;
    const std::size_t run = scaled_run(kind_);
    require(kind_ != Groups::none && rows() > 0 && columns() > 0 && columns() % run == 0,
            "codes are [n, k] with k a multiple of 32, of 256 where nested");
    require(fits(scales_, columns() / run), "scales are [n, k / 32], [n, k / 256] where nested");
    require(fits(minimums_, columns() / run, kind_ != Groups::single), "minimums are as scales, none where single");
    require(fits(inner_scales_, columns() / kGroup, nested) && fits(inner_minimums_, columns() / kGroup, nested),
            "inner scales and minimums are [n, k / 32] where nested, and else none");
    for (std::size_t i = 0; i < codes_.size(); ++i) require(codes_.data()[i] < 16, "codes are in [0, 16)");
  }

  std::size_t rows() const { return codes_.shape(0); }
  std::size_t columns() const { return codes_.shape(1); }
  GroupedTensor tensor() const {
    return {kind_,
            codes_.data(),
            scales_.data(),
            minimums_ ? minimums_->data() : nullptr,
            inner_scales_ ? inner_scales_->data() : nullptr,
            inner_minimums_ ? inner_minimums_->data() : nullptr};
  }

 private:
  static void require(bool holds, const char* rule) {
    if (!holds) throw std::invalid_argument(rule);
  }
  template <typename Array>
  bool fits(const Array& array, std::size_t columns) const {
    return array.shape(0) == rows() && array.shape(1) == columns;
  }
  template <typename Array>
  bool fits(const std::optional<Array>& array, std::size_t columns, bool wanted) const {
    return array.has_value() == wanted && (!array || fits(*array, columns));
  }

  Groups kind_;
  Bytes codes_;
  Halves scales_;
  std::optional<Halves> minimums_;
  std::optional<Bytes> inner_scales_, inner_minimums_;
};

}  // namespace salver
