// SPDX-License-Identifier: Apache-2.0
//
// fill: sets every element of a view to one value.
//
//   lora::fill(a(0, lora::all, lora::range(lora::_, lora::_, 2)), 0.0f);
#ifndef LORA_OPS_FILL_HPP
#define LORA_OPS_FILL_HPP

#include <lora/nd/array.hpp>
#include <lora/nd/loop.hpp>

namespace lora::inline v0 {

namespace detail {

template <class T>
void fill_block(T value, const loop_block<1>& b, T* to) {
  for (index_t r = 0; r < b.rows; ++r) {
    T* const row = to + (b.offset[0] + r * b.row_stride[0]);
    if (b.stride[0] == 1) {
      index_t i = 0;
#if defined(__GNUC__) && !defined(__clang__)
      for (; b.count - i >= 8; i += 8)  // as in apply.hpp
        for (index_t j = 0; j < 8; ++j) row[i + j] = value;
#endif
      for (; i < b.count; ++i) row[i] = value;
    } else {
      for (index_t i = 0; i < b.count; ++i) row[i * b.stride[0]] = value;
    }
  }
}

}  // namespace detail

/**
 * Sets every element to `value`.
 *
 * @param to     view or ndarray, any layout
 * @param value  of the view's element type, or what converts to it implicitly
 * @par Cost     One pass, no allocation.
 * @par Threads  Safe beside any call that touches other elements.
 */
template <detail::viewable To>
void fill(To&& to, typename decltype(detail::as_view(std::declval<To&>()))::value_type value) {
  const auto view = detail::as_view(to);
  static_assert(!std::is_const_v<typename decltype(detail::as_view(to))::element_type>,
                "lora: fill writes to a read-only view (const elements, or a broadcast)");
  const detail::loop_plan<1> plan(view.shape(), view.stride());
  plan.for_each_block([&](const detail::loop_block<1>& b) { detail::fill_block(value, b, view.data()); });
}

}  // namespace lora::inline v0

#endif
