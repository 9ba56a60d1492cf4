// Zeroed pages from the system, huge ones where it allows them.
//
// AddressSanitizer does not watch mapped memory by itself, and all weights, keys and rows live there.
// In its builds a region ends at a page that cannot be touched, which stops matrix-tile loads too
// (no compiler instruments those), and the rest of its pages is poisoned.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>

#include <sys/mman.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

namespace salver {

inline void* map_or_throw(std::size_t bytes) {
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) throw std::bad_alloc();
  return data;
}

#ifdef __SANITIZE_ADDRESS__

constexpr std::size_t kFencePage = 4096, kFenceAlignment = 64;

constexpr std::size_t round_to(std::size_t bytes, std::size_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

inline void* map_pages(std::size_t bytes) {
  const std::size_t inner = round_to(bytes, kFencePage);
  auto* begin = static_cast<std::uint8_t*>(map_or_throw(inner + kFencePage));
  mprotect(begin + inner, kFencePage, PROT_NONE);
  auto* data = begin + inner - round_to(bytes, kFenceAlignment);
  ASAN_POISON_MEMORY_REGION(begin, inner);
  ASAN_UNPOISON_MEMORY_REGION(data, bytes);
  return data;
}

inline void unmap_pages(void* data, std::size_t bytes) {
  const std::size_t inner = round_to(bytes, kFencePage);
  auto* begin = static_cast<std::uint8_t*>(data) + round_to(bytes, kFenceAlignment) - inner;
  ASAN_UNPOISON_MEMORY_REGION(begin, inner);
  munmap(begin, inner + kFencePage);
}

#else

inline void* map_pages(std::size_t bytes) {
  void* data = map_or_throw(bytes);
#ifdef MADV_HUGEPAGE
  constexpr std::size_t kHugePage = std::size_t{2} << 20;
  if (bytes >= kHugePage) madvise(data, bytes, MADV_HUGEPAGE);  // a hint: refusal costs speed only
#endif
  return data;
}

inline void unmap_pages(void* data, std::size_t bytes) { munmap(data, bytes); }

#endif

}  // namespace salver
