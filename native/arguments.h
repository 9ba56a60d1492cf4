// What both files of bindings take from Python: names of formats, and matrices and vectors of a size.
#pragma once

#include <optional>
#include <string>
#include <variant>

#include "arrays.h"
#include "grouped_array.h"
#include "model.h"

namespace salver {
namespace {

using Matrix = std::variant<Floats, GroupedArray>;

inline Precision precision_named(const std::string& name) {
  if (name == "w8a16") return Precision::w8a16;
  if (name == "w8a8") return Precision::w8a8;
  if (name == "bf16") return Precision::bf16;
  if (name == "q4") return Precision::q4;
  throw std::invalid_argument("precision is w8a16, w8a8, bf16 or q4");
}

inline KvFormat kv_format_named(const std::string& name) {
  if (name == "bf16") return KvFormat::bf16;
  if (name == "int8") return KvFormat::int8;
  if (name == "f32") return KvFormat::f32;
  throw std::invalid_argument("kv_cache is bf16, int8 or f32");
}

inline const float* matrix(const Floats& values, std::size_t n, std::size_t k, const char* rule) {
  require(values.ndim() == 2 && values.shape(0) == n && values.shape(1) == k, rule);
  return values.data();
}

inline Tensor matrix(const Matrix& from, std::size_t n, std::size_t k, const char* rule) {
  if (const auto* values = std::get_if<Floats>(&from)) return {matrix(*values, n, k, rule), {}};
  const auto& groups = std::get<GroupedArray>(from);
  require(groups.rows() == n && groups.columns() == k, rule);
  return {nullptr, groups.tensor()};
}

inline const float* vector(const Floats& values, std::size_t n, const char* rule) {
  require(values.ndim() == 1 && values.shape(0) == n, rule);
  return values.data();
}

inline const float* optional_vector(const std::optional<Floats>& values, std::size_t n, const char* rule) {
  return values ? vector(*values, n, rule) : nullptr;
}

inline Encoding encoding_named(const std::string& precision) {
  if (precision == "two_bf16") return Encoding::two_bf16;
  const Precision named = precision_named(precision);
  if (named == Precision::bf16) return Encoding::bf16;
  if (named == Precision::q4) return Encoding::groups;
  return named == Precision::w8a16 ? Encoding::two_bytes : Encoding::one_byte;
}

}  // namespace
}  // namespace salver
