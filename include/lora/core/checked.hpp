// SPDX-License-Identifier: Apache-2.0
//
// Arithmetic on sizes that says when it does not fit. Every size that comes from a file or from a caller's extents goes through
// here; a raw `*` on such a number is a defect.
//
//   std::size_t bytes;
//   if (!lora::checked_mul(rows, row_bytes, bytes)) refuse();
#ifndef LORA_CORE_CHECKED_HPP
#define LORA_CORE_CHECKED_HPP

#include <lora/config.hpp>

#include <cstddef>
#include <cstdint>

namespace lora::inline v0 {

/** out = a * b; false, with `out` unspecified, when the product does not fit. */
template <class Integer>
[[nodiscard]] constexpr bool checked_mul(Integer a, Integer b, Integer& out) noexcept {
  return !__builtin_mul_overflow(a, b, &out);
}

/** out = a + b; false, with `out` unspecified, when the sum does not fit. */
template <class Integer>
[[nodiscard]] constexpr bool checked_add(Integer a, Integer b, Integer& out) noexcept {
  return !__builtin_add_overflow(a, b, &out);
}

/**
 * Whether an array of these extents can be addressed: the product of the non-zero extents times the element size must fit
 * PTRDIFF_MAX. Extents of 0 do not excuse the others ([0, 2^40, 2^40] is refused), so that strides are always representable.
 */
[[nodiscard]] constexpr bool addressable(const std::ptrdiff_t* extents, std::size_t rank, std::size_t element_size) noexcept {
  std::ptrdiff_t bytes = static_cast<std::ptrdiff_t>(element_size);
  for (std::size_t i = 0; i < rank; ++i) {
    if (extents[i] < 0) return false;
    if (extents[i] != 0 && !checked_mul(bytes, extents[i], bytes)) return false;
  }
  return true;
}

}  // namespace lora::inline v0

#endif
