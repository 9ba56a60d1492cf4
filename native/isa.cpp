#include "isa.h"

#include <stdexcept>

#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace salver {

extern const Kernels kScalarKernels;
#ifdef SALVER_X86
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
#endif
#ifdef SALVER_AVXVNNI
extern const Kernels kAvxVnniKernels;
#endif
#ifdef SALVER_AMX
extern const Kernels kAmxKernels;
#endif

namespace {

#ifdef SALVER_X86

// What compilers came to know only after the instructions. Every processor with AVX2 has leaf 7.
struct Cpuid {
  unsigned a, b = 0, c, d = 0;
  explicit Cpuid(unsigned leaf, unsigned subleaf = 0) : a(leaf), c(subleaf) {
    asm volatile("cpuid" : "+a"(a), "+b"(b), "+c"(c), "+d"(d));
  }
};

// Leaf 1: ECX bit 29 F16C.
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && (Cpuid(1).c & 1U << 29);
}

bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vnni");
}

#endif

#ifdef SALVER_AVXVNNI

// Leaf 7: EAX is its last subleaf; of subleaf 1, EAX bit 4 AVX-VNNI.
bool has_avxvnni() { return has_avx2() && Cpuid(7).a >= 1 && (Cpuid(7, 1).a & 1U << 4); }

#endif

#ifdef SALVER_AMX

// Leaf 7: EDX bit 22 AMX-BF16, 24 AMX-TILE, 25 AMX-INT8.
bool cpu_has_amx() {
  constexpr unsigned kNeeded = 1U << 22 | 1U << 24 | 1U << 25;
  return (Cpuid(7).d & kNeeded) == kNeeded;
}

// Linux gives tile registers to a process that asks, before its threads start.
bool tiles_granted() {
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

#endif

std::vector<const Kernels*> available() {
  std::vector<const Kernels*> found{&kScalarKernels};
#ifdef SALVER_X86
  if (has_avx2()) found.push_back(&kAvx2Kernels);
#endif
#ifdef SALVER_AVXVNNI
  if (has_avxvnni()) found.push_back(&kAvxVnniKernels);
#endif
#ifdef SALVER_X86
  if (has_avx512()) found.push_back(&kAvx512Kernels);
#endif
#ifdef SALVER_AMX
  const bool has_more = __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vbmi");
  if (has_avx512() && has_more && cpu_has_amx() && tiles_granted()) {
    found.push_back(&kAmxKernels);
  }
#endif
  return found;
}

}  // namespace

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const Kernels* kernels : available()) names.emplace_back(kernels->isa);
  return names;
}

const Kernels& kernels_for(const std::string& isa) {
  for (const Kernels* kernels : available()) {
    if (isa == kernels->isa) return *kernels;
  }
  throw std::invalid_argument("this machine or build has no " + isa + " path");
}

}  // namespace salver
