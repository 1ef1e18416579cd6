// SPDX-License-Identifier: Apache-2.0
//
// aligned_bytes: a block of uninitialised memory with one owner, aligned to a cache line. Arrays, workspaces and copies of unaligned
// tensors live in it. It knows nothing of elements.
//
//   lora::aligned_bytes block(4096);  auto* p = static_cast<float*>(block.data());
#ifndef LORA_CORE_BYTES_HPP
#define LORA_CORE_BYTES_HPP

#include <lora/config.hpp>

#include <cstddef>
#include <new>

namespace lora::inline v0 {

/** Fixed at 64 whatever the -m flags: an alignment that followed them would differ between two files of one program. */
inline constexpr std::size_t allocation_alignment = 64;

class aligned_bytes {
 public:
  aligned_bytes() noexcept = default;

  /** @throws std::bad_alloc. A size of 0 allocates nothing and gives a null pointer. */
  explicit aligned_bytes(std::size_t size)
      : data_(size == 0 ? nullptr : ::operator new(size, std::align_val_t{allocation_alignment})), size_(size) {}

  aligned_bytes(aligned_bytes&& other) noexcept : data_(other.data_), size_(other.size_) {
    other.data_ = nullptr;
    other.size_ = 0;
  }
  aligned_bytes& operator=(aligned_bytes&& other) noexcept {
    if (this != &other) {
      free();
      data_ = other.data_;
      size_ = other.size_;
      other.data_ = nullptr;
      other.size_ = 0;
    }
    return *this;
  }
  aligned_bytes(const aligned_bytes&) = delete;
  aligned_bytes& operator=(const aligned_bytes&) = delete;
  ~aligned_bytes() { free(); }

  [[nodiscard]] void* data() noexcept { return data_; }
  [[nodiscard]] const void* data() const noexcept { return data_; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }

 private:
  void free() noexcept { ::operator delete(data_, std::align_val_t{allocation_alignment}); }

  void* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace lora::inline v0

#endif
