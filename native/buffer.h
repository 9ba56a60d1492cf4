// Zeroed memory in pages of its own, or in a part of common ones.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <utility>

#include "pages.h"

namespace salver {

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
    if (kFenced) return Buffer(bytes);
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
