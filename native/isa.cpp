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
#ifdef SALVER_AMX
extern const Kernels kAmxKernels;
#endif

namespace {

#ifdef SALVER_X86

bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vnni");
}

#endif

#ifdef SALVER_AMX

// CPUID leaf 7: EDX bit 22 AMX-BF16, 24 AMX-TILE, 25 AMX-INT8.
bool cpu_has_amx() {
  unsigned a = 7, b = 0, c = 0, d = 0;
  asm volatile("cpuid" : "+a"(a), "+b"(b), "+c"(c), "+d"(d));
  constexpr unsigned kNeeded = 1U << 22 | 1U << 24 | 1U << 25;
  return (d & kNeeded) == kNeeded;
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
