// Zeroed memory in pages of its own, huge ones where the system allows it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <utility>

#include <sys/mman.h>

namespace salver {

constexpr std::size_t kHugePage = std::size_t{2} << 20;

// Pages from the system, given back with this. From the size of a huge page on they begin at one.
class Pages {
 public:
  explicit Pages(std::size_t bytes) : bytes_(bytes >= kHugePage ? bytes + kHugePage : bytes) {
    void* mapped = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) throw std::bad_alloc();
    mapped_ = static_cast<std::uint8_t*>(mapped);
    data_ = mapped_;
    if (bytes < kHugePage) return;
    data_ += (kHugePage - reinterpret_cast<std::uintptr_t>(mapped_) % kHugePage) % kHugePage;
#ifdef MADV_HUGEPAGE
    madvise(data_, bytes, MADV_HUGEPAGE);  // a hint: refusal costs speed only
#endif
  }
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;
  ~Pages() { munmap(mapped_, bytes_); }

  std::uint8_t* data() const { return data_; }

 private:
  std::size_t bytes_;
  std::uint8_t *mapped_, *data_;
};

class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(std::size_t bytes) : bytes_(bytes) {
    if (bytes == 0) return;
    pages_ = std::make_shared<Pages>(bytes);
    data_ = pages_->data();
  }
  // A part of pages that others have parts of too.
  Buffer(std::shared_ptr<Pages> pages, std::size_t offset, std::size_t bytes)
      : pages_(std::move(pages)), data_(pages_->data() + offset), bytes_(bytes) {}
  Buffer(Buffer&& other) noexcept
      : pages_(std::move(other.pages_)),
        data_(std::exchange(other.data_, nullptr)),
        bytes_(std::exchange(other.bytes_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(pages_, other.pages_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }

  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  std::size_t bytes() const { return bytes_; }

 private:
  std::shared_ptr<Pages> pages_;
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};

// Buffers one after the other on common pages, so that matrices smaller than a huge page share some,
// and a walk through a layer's matrices is a walk through memory.
class Arena {
 public:
  Buffer take(std::size_t bytes) {
    const std::size_t size = (bytes + kAlignment - 1) / kAlignment * kAlignment;
    if (!pages_ || used_ + size > room_) {
      room_ = std::max(size, kRoom);
      pages_ = std::make_shared<Pages>(room_);
      used_ = 0;
    }
    return Buffer(pages_, std::exchange(used_, used_ + size), bytes);
  }

 private:
  static constexpr std::size_t kAlignment = 4096;
  static constexpr std::size_t kRoom = std::size_t{64} << 20;  // of addresses; memory comes with use

  std::shared_ptr<Pages> pages_;
  std::size_t used_ = 0, room_ = 0;
};

}  // namespace salver
