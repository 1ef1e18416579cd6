// SPDX-License-Identifier: Apache-2.0
//
// Walking over a view from outside, and handing it to code that knows std::span: rows() are the views along axis 0, as_span() a whole
// contiguous view as one span, row_spans() the rows of a matrix as spans. All are checked once, and then cost what a pointer loop costs.
//
//   for (auto row : lora::rows(m)) use(row);                                       // ndview<T, R - 1>
//   for (std::span<const float> row : lora::row_spans(w)) sum += dot(row, x);      // rows with unit column stride
//   std::sort(lora::as_span(v).begin(), lora::as_span(v).end());
#ifndef LORA_ND_ROWS_HPP
#define LORA_ND_ROWS_HPP

#include <lora/nd/broadcast.hpp>
#include <lora/nd/sequence.hpp>
#include <lora/nd/view.hpp>

#include <span>

namespace lora::inline v0 {

namespace detail {

[[noreturn, gnu::cold, gnu::noinline]] inline void raise_not_span(const char* what, const index_t* shape, const index_t* stride,
                                                                  std::size_t rank, const char* wanted) {
  text t;
  t << what << ": shape " << shape_text{shape, rank} << " with strides " << shape_text{stride, rank} << " " << wanted
    << "; contiguous() makes a copy that is";
  raise<shape_error>(t);
}

/** Position i of axis 0. */
template <class T, std::size_t R>
struct row_of_view {
  ndview<T, R> whole{};

  [[nodiscard]] constexpr ndview<T, R - 1> operator()(index_t i) const noexcept {
    std::array<index_t, R - 1> shape{};
    std::array<index_t, R - 1> stride{};
    bool empty = false;
    for (std::size_t axis = 1; axis < R; ++axis) {
      shape[axis - 1] = whole.extent(axis);
      stride[axis - 1] = whole.stride(axis);
      empty = empty || whole.extent(axis) == 0;
    }
    return ndview<T, R - 1>(empty ? whole.data() : whole.data() + i * whole.stride(0), extents<R - 1>(shape), strides<R - 1>(stride));
  }
};

template <class T>
struct row_span_of_view {
  T* data = nullptr;
  index_t step = 0;
  std::size_t length = 0;

  [[nodiscard]] constexpr std::span<T> operator()(index_t i) const noexcept { return {data + i * step, length}; }
};

}  // namespace detail

/**
 * The views along axis 0: v(0, ...), v(1, ...), and so on, of rank R - 1.
 * @return   a view_sequence of ndview<T, R - 1>, with iterators that are random access by C++20's rules
 * @par Cost   an addition a row; nothing is checked on the way.
 */
template <class T, std::size_t R>
[[nodiscard]] constexpr auto rows(ndview<T, R> v) noexcept {
  static_assert(R >= 1, "lora: a view of rank 0 has no rows");
  return view_sequence<detail::row_of_view<T, R>>({v}, v.extent(0));
}

/**
 * All elements of a view that is contiguous in C order, by NumPy's rule (axes of length 1 may have any stride), as one span.
 * @throws shape_error naming shape and strides when it is not.
 */
template <class T, std::size_t R>
[[nodiscard]] constexpr std::span<T> as_span(ndview<T, R> v) {
  if (!v.is_contiguous())
    detail::raise_not_span("as_span", v.shape().array().data(), v.stride().array().data(), R, "is not contiguous in C order");
  return {v.data(), static_cast<std::size_t>(v.size())};
}

/**
 * The rows of a matrix as spans. Rows may be any distance apart, also none (a broadcast) or backwards.
 * @param m   [rows, columns], column stride 1 (any, when there is one column or none)
 * @return    a view_sequence of std::span<T>
 * @throws shape_error naming shape and strides when the columns are not neighbours.
 */
template <class T>
[[nodiscard]] constexpr auto row_spans(ndview<T, 2> m) {
  if (m.stride(1) != 1 && m.extent(1) > 1)
    detail::raise_not_span("row_spans", m.shape().array().data(), m.stride().array().data(), 2, "does not have rows of neighbours");
  const index_t step = m.extent(1) == 0 ? 0 : m.stride(0);  // of no columns: no address but the first
  return view_sequence<detail::row_span_of_view<T>>({m.data(), step, static_cast<std::size_t>(m.extent(1))}, m.extent(0));
}
template <class T, std::size_t R>
  requires(R != 2)
void row_spans(ndview<T, R>) = delete;  // lora: row_spans takes a matrix, a view of two axes; rows() takes any

// The same for a named ndarray, and for a temporary one, which is refused.
template <detail::gives_view Owner>
[[nodiscard]] auto rows(Owner& owner LORA_LIFETIMEBOUND) {
  return rows(owner.view());
}
template <detail::gives_view Owner>
void rows(const Owner&&) = delete;  // lora: a view of a temporary array would dangle; name the array
template <detail::gives_view Owner>
[[nodiscard]] auto as_span(Owner& owner LORA_LIFETIMEBOUND) {
  return as_span(owner.view());
}
template <detail::gives_view Owner>
void as_span(const Owner&&) = delete;  // lora: a view of a temporary array would dangle; name the array
template <detail::gives_view Owner>
[[nodiscard]] auto row_spans(Owner& owner LORA_LIFETIMEBOUND) {
  return row_spans(owner.view());
}
template <detail::gives_view Owner>
void row_spans(const Owner&&) = delete;  // lora: a view of a temporary array would dangle; name the array

}  // namespace lora::inline v0

#endif
