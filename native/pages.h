// Zeroed pages from the system, given back with the object.
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

class Mapping {
 public:
  explicit Mapping(std::size_t bytes) : bytes_(bytes) {
    void* mapped = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) throw std::bad_alloc();
    begin_ = static_cast<std::uint8_t*>(mapped);
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping() { munmap(begin_, bytes_); }

  std::uint8_t* begin() const { return begin_; }

 private:
  std::size_t bytes_;
  std::uint8_t* begin_;
};

#ifdef __SANITIZE_ADDRESS__

constexpr bool kFenced = true;

class Pages {
 public:
  explicit Pages(std::size_t bytes)
      : inner_(rounded(bytes, kPage)),
        mapping_(inner_ + kPage),
        data_(mapping_.begin() + inner_ - rounded(bytes, kAlignment)) {
    mprotect(mapping_.begin() + inner_, kPage, PROT_NONE);
    ASAN_POISON_MEMORY_REGION(mapping_.begin(), inner_);
    ASAN_UNPOISON_MEMORY_REGION(data_, bytes);
  }
  ~Pages() { ASAN_UNPOISON_MEMORY_REGION(mapping_.begin(), inner_); }

  std::uint8_t* data() const { return data_; }

 private:
  static constexpr std::size_t kPage = 4096, kAlignment = 64;

  static constexpr std::size_t rounded(std::size_t bytes, std::size_t unit) {
    return (bytes + unit - 1) / unit * unit;
  }

  std::size_t inner_;  // all but the last page
  Mapping mapping_;
  std::uint8_t* data_;
};

#else

constexpr bool kFenced = false;

// From the size of a huge page on they begin at one.
class Pages {
 public:
  explicit Pages(std::size_t bytes)
      : mapping_(bytes >= kHugePage ? bytes + kHugePage : bytes), data_(mapping_.begin()) {
    if (bytes < kHugePage) return;
    data_ += (kHugePage - reinterpret_cast<std::uintptr_t>(data_) % kHugePage) % kHugePage;
#ifdef MADV_HUGEPAGE
    madvise(data_, bytes, MADV_HUGEPAGE);  // a hint: refusal costs speed only
#endif
  }

  std::uint8_t* data() const { return data_; }

 private:
  static constexpr std::size_t kHugePage = std::size_t{2} << 20;

  Mapping mapping_;
  std::uint8_t* data_;
};

#endif

}  // namespace salver
