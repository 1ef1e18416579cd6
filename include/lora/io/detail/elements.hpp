// SPDX-License-Identifier: Apache-2.0
//
// The bytes of an array's elements in C order, in pieces, whatever its strides: what every writer of io/ sends to its file. Not API.
//
//   detail::write_elements(view, [&](const void* data, std::size_t size) { file.write(data, size); });
#ifndef LORA_IO_DETAIL_ELEMENTS_HPP
#define LORA_IO_DETAIL_ELEMENTS_HPP

#include <lora/nd/any_view.hpp>

#include <cstddef>
#include <cstring>
#include <memory>

namespace lora::inline v0::detail {

/** Elements of a view with gaps, gathered in 64 KiB. */
template <class Sink>
void gather_elements(const any_view& view, Sink& sink) {
  const auto* const data = static_cast<const std::byte*>(view.data());
  const std::size_t width = size_of(view.type());
  const std::size_t inner = view.rank() - 1;  // an array of rank 0 is contiguous and does not come here
  const index_t n = view.extent(inner);
  const index_t step = view.stride(inner) * static_cast<index_t>(width);
  constexpr std::size_t capacity = std::size_t{1} << 16;
  const auto buffer = std::make_unique<std::byte[]>(capacity);
  std::size_t used = 0;
  index_t index[max_rank] = {};
  for (bool more = true; more;) {
    const std::byte* p = data;
    for (std::size_t axis = 0; axis < inner; ++axis) p += index[axis] * view.stride(axis) * static_cast<index_t>(width);
    for (index_t i = 0; i < n; ++i, p += step) {
      if (used == capacity) {  // widths are 1, 2, 4 and 8: elements fill it exactly
        sink(static_cast<const void*>(buffer.get()), used);
        used = 0;
      }
      std::memcpy(buffer.get() + used, p, width);
      used += width;
      if (i + 1 == n) break;  // not to form an address beyond the last element
    }
    more = false;
    for (std::size_t axis = inner; axis-- > 0 && !more;) {
      more = ++index[axis] < view.extent(axis);
      if (!more) index[axis] = 0;
    }
  }
  sink(static_cast<const void*>(buffer.get()), used);
}

/**
 * Calls sink(pointer, bytes) for the elements in C order. What lies so in memory is passed as it lies; other arrays are gathered in
 * pieces, so that no copy of the whole is ever made.
 * @pre types smaller than a byte are contiguous: their elements have no addresses.
 */
template <class Sink>
void write_elements(const any_view& view, Sink&& sink) {
  if (view.size() == 0) return;
  if (view.is_contiguous(order::C)) return sink(view.data(), view.size_bytes());
  gather_elements(view, sink);
}

}  // namespace lora::inline v0::detail

#endif
