// SPDX-License-Identifier: Apache-2.0
//
// aligned_bytes: a block of uninitialised memory with one owner, aligned to a cache line. Arrays, workspaces and copies of tensors live in
// it. It knows nothing of elements. From 4 MiB on it asks for huge pages (core/pages.hpp).
//
//   lora::aligned_bytes block(4096);  auto* p = static_cast<float*>(block.data());
//   lora::aligned_bytes plain(64 << 20, lora::pages::system);   // without
#ifndef LORA_CORE_BYTES_HPP
#define LORA_CORE_BYTES_HPP

#include <lora/core/pages.hpp>

#include <cstddef>
#include <new>

namespace lora::inline v0 {

/** Fixed at 64 whatever the -m flags: an alignment that followed them would differ between two files of one program. */
inline constexpr std::size_t allocation_alignment = 64;

class aligned_bytes {
 public:
  aligned_bytes() noexcept = default;

  /**
   * Uninitialised. A size of 0 allocates nothing and gives a null pointer.
   *
   * Of 4 MiB or more, and unless `wanted` is pages::system, the block begins on a boundary of 2 MiB and takes whole pages of 2 MiB, which no
   * other block then shares; size() is what was asked for. The memory comes from operator new in every case, so a program's own one sees it.
   * @throws std::bad_alloc.
   * @par Cost   One allocation, and from 4 MiB on one system call. The system zeroes a page when it is first touched: 2 MiB at a time here,
   *             which is less work than 512 pages of 4 KiB but comes in one piece (docs/memory.md).
   */
  explicit aligned_bytes(std::size_t size, pages wanted = pages::huge)
      : data_(size == 0 ? nullptr : allocate(size, wanted)), size_(size), wanted_(wanted) {}

  aligned_bytes(aligned_bytes&& other) noexcept : data_(other.data_), size_(other.size_), wanted_(other.wanted_) {
    other.data_ = nullptr;
    other.size_ = 0;
  }
  aligned_bytes& operator=(aligned_bytes&& other) noexcept {
    if (this != &other) {
      free();
      data_ = other.data_;
      size_ = other.size_;
      wanted_ = other.wanted_;
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
  /** What was asked for; not what the system gave. */
  [[nodiscard]] pages wanted_pages() const noexcept { return wanted_; }

 private:
  [[nodiscard]] static void* allocate(std::size_t size, pages wanted) {
    if (size > static_cast<std::size_t>(PTRDIFF_MAX)) return refuse(size);
    if (!detail::whole_huge_pages(size, wanted)) return ::operator new(size, std::align_val_t{allocation_alignment});
    const std::size_t whole = detail::round_up_to_huge_pages(size);
    void* const block = ::operator new(whole, std::align_val_t{huge_page_size});
    detail::advise_pages(block, whole, wanted);
    return block;
  }
  // No object is that large; g++ 12's library would round the last few sizes up to 0, and succeed. Out of line, or g++ warns, of a program's
  // own operator new, that it may be asked for too much.
  [[nodiscard, gnu::cold, gnu::noinline]] static void* refuse(std::size_t size) {
    constexpr auto most = static_cast<std::size_t>(PTRDIFF_MAX);
    return ::operator new(size < most ? size : most, std::align_val_t{allocation_alignment});
  }
  void free() noexcept {
    ::operator delete(data_, std::align_val_t{detail::whole_huge_pages(size_, wanted_) ? huge_page_size : allocation_alignment});
  }

  void* data_ = nullptr;
  std::size_t size_ = 0;
  pages wanted_ = pages::huge;
};

}  // namespace lora::inline v0

#endif
