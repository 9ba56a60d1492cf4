// What a model keeps of its weights, as named runs of bytes.
//
// The same list serves both ways: whoever keeps packed weights copies the runs out, and later, in a
// model with the same shape and precision, copies them in. Names, order and sizes follow from shape
// and precision, in q4 also from what the file has in groups. Their bytes do not depend on the instruction set.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace salver {

// Raise it whenever a section's bytes change their meaning: what was kept is then packed anew.
constexpr int kPackedLayout = 1;

struct Section {
  std::string name;
  const char* type;  // of its elements, for a person
  void* data;        // owned by the model
  std::size_t bytes;
};

using Sections = std::vector<Section>;

template <typename T>
Section section(const std::string& name, const char* type, std::vector<T>& values) {
  return {name, type, values.data(), values.size() * sizeof(T)};
}

}  // namespace salver
