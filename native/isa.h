// Which instruction sets this machine has, and which kernels run on it.
#pragma once

#include <string>
#include <vector>

#include "kernels.h"

namespace salver {

// The names of the paths that run here, slowest first: always "scalar", then "avx2", "avxvnni",
// "avx512" and "amx" as far as the machine and the compiler that built this have them.
std::vector<std::string> available_isas();

// The kernels of one path. Throws std::invalid_argument where it does not run here.
const Kernels& kernels_for(const std::string& isa);

}  // namespace salver
