// SPDX-License-Identifier: Apache-2.0
//
// workspace: the scratch memory of a product, kept by the caller from call to call so that a call in steady state allocates nothing.
// One workspace serves one call at a time: keep one per thread of requests.
//
//   lora::workspace scratch;
//   for (auto& request : requests) lora::forward(request.y, request.x, w, terms, {}, scratch);
#ifndef LORA_LINALG_WORKSPACE_HPP
#define LORA_LINALG_WORKSPACE_HPP

#include <lora/core/bytes.hpp>
#include <lora/core/checked.hpp>
#include <lora/core/error.hpp>

namespace lora::inline v0 {

class workspace {
 public:
  workspace() noexcept = default;
  /** With room for `bytes` from the start: see forward_workspace_bytes(). @throws std::bad_alloc. */
  explicit workspace(std::size_t bytes) : memory_(bytes) {}

  /** Makes room for `bytes`; what was in it is lost when it grows. @throws std::bad_alloc, and keeps the old memory then. */
  void reserve(std::size_t bytes) {
    if (bytes > memory_.size()) memory_ = aligned_bytes(bytes);
  }

  [[nodiscard]] std::size_t size_bytes() const noexcept { return memory_.size(); }
  [[nodiscard]] void* data() noexcept { return memory_.data(); }

 private:
  aligned_bytes memory_;
};

namespace detail {

/** Adds up the parts of a workspace, each starting on a cache line; remembers when the sum did not fit. */
class layout {
 public:
  /** Offset in bytes of a part of `count` elements of `size` bytes. */
  std::size_t add(std::size_t count, std::size_t size) noexcept {
    const std::size_t at = total_;
    std::size_t bytes = 0;
    fits_ = fits_ && checked_mul(count, size, bytes) && checked_add(bytes, allocation_alignment - 1, bytes);
    bytes -= bytes % allocation_alignment;
    fits_ = fits_ && checked_add(total_, bytes, total_);
    return at;
  }

  /** @throws shape_error when the parts together do not fit the address space. */
  [[nodiscard]] std::size_t total(const char* operation) const {
    if (!fits_) raise<shape_error>(text() << operation << ": the workspace for these extents does not fit the address space");
    return total_;
  }

 private:
  std::size_t total_ = 0;
  bool fits_ = true;
};

}  // namespace detail
}  // namespace lora::inline v0

#endif
