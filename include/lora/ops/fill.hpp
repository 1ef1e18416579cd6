// SPDX-License-Identifier: Apache-2.0
//
// fill: sets every element of a view to one value.
//
//   lora::fill(a(0, lora::all, lora::range(lora::_, lora::_, 2)), 0.0f);
#ifndef LORA_OPS_FILL_HPP
#define LORA_OPS_FILL_HPP

#include <lora/nd/array.hpp>
#include <lora/nd/loop.hpp>
#include <lora/simd/stream.hpp>

#include <cstdint>

namespace lora::inline v0 {

namespace detail::inline LORA_ISA_TAG {

#if defined(__GNUC__) && !defined(__clang__)
#define LORA_VECTORISED gnu::noinline, gnu::optimize("vect-cost-model=dynamic")  // as in apply.hpp
#else
#define LORA_VECTORISED gnu::noinline
#endif

/** Rows of `length` neighbours. */
template <class T, class Isa = simd::isa_tag>
[[LORA_VECTORISED]] void fill_rows(T value, index_t rows, index_t row_stride, index_t length, T* to) {
  for (index_t r = 0; r < rows; ++r) {
    T* const row = to + r * row_stride;
    for (index_t i = 0; i < length; ++i) row[i] = value;
  }
}
#undef LORA_VECTORISED

/** One long row. */
template <class T>
void fill_flat(T value, index_t length, T* to) {
  if constexpr (sizeof(T) <= 8 && 64 % sizeof(T) == 0 && std::is_trivially_copyable_v<T> && std::is_trivially_default_constructible_v<T>) {
    constexpr auto width = static_cast<index_t>(sizeof(T));
    const auto past = static_cast<index_t>(reinterpret_cast<std::uintptr_t>(to) % 64);
    if (static_cast<std::size_t>(length) * sizeof(T) >= simd::stream_from && past % width == 0) {
      constexpr index_t size = 4096 / width;
      alignas(64) T block[size];
      fill_rows(value, 1, 0, size, block);
      index_t done = (64 - past) % 64 / width;
      fill_rows(value, 1, 0, done, to);
      for (; length - done >= size; done += size) simd::stream(to + done, block, sizeof block);
      simd::stream_end();
      to += done;
      length -= done;
    }
  }
  fill_rows(value, 1, 0, length, to);
}

template <class T>
void fill_block(T value, const loop_block<1>& b, T* to) {
  if (b.stride[0] == 1) return fill_rows(value, b.rows, b.row_stride[0], b.count, to + b.offset[0]);
  for (index_t r = 0; r < b.rows; ++r) {
    T* const row = to + (b.offset[0] + r * b.row_stride[0]);
    for (index_t i = 0; i < b.count; ++i) row[i * b.stride[0]] = value;
  }
}

}  // namespace detail::inline LORA_ISA_TAG

inline namespace LORA_ISA_TAG {

/**
 * Sets every element to `value`.
 *
 * @param to     view or ndarray, any layout
 * @param value  of the view's element type, or what converts to it implicitly
 * @par Cost     One pass, no allocation.
 * @par Threads  Safe beside any call that touches other elements.
 */
template <detail::named_array_or_view To>
void fill(To&& to, typename decltype(detail::as_view(std::declval<To&>()))::value_type value) {
  const auto view = detail::as_view(to);
  static_assert(!std::is_const_v<typename decltype(detail::as_view(to))::element_type>,
                "lora: fill writes to a read-only view (const elements, or a broadcast)");
  if (view.is_contiguous()) return detail::fill_flat(value, view.size(), view.data());
  const detail::loop_plan<1> plan(view.shape(), view.stride());
  plan.for_each_block([&](const detail::loop_block<1>& b) { detail::fill_block(value, b, view.data()); });
}

}  // namespace LORA_ISA_TAG
}  // namespace lora::inline v0

#endif
