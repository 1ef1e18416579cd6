// SPDX-License-Identifier: Apache-2.0
//
// Views of the same elements with their axes swapped, moved, reversed, removed, added, or two of them walked together (a diagonal). No
// element is touched and nothing is allocated. Not here: transpose and permute (members of ndview), reshape, broadcast_to, split.
//
//   auto channels_first = lora::move_axis(image, -1, 0);       // [h, w, c] -> [c, h, w]
//   auto upside_down = lora::flip(image, 0);
//   lora::fill(lora::diagonal(m), 1.0f);                       // writes through
//
// Axes may be negative and count from the end. A view of a temporary array does not compile.
#ifndef LORA_ND_AXES_HPP
#define LORA_ND_AXES_HPP

#include <lora/nd/broadcast.hpp>
#include <lora/nd/view.hpp>

namespace lora::inline v0 {

namespace detail {

[[noreturn, gnu::cold, gnu::noinline]] inline void raise_axis(const char* what, index_t axis, const index_t* shape, std::size_t rank) {
  text t;
  t << what << ": axis " << axis << " is out of bounds for shape " << shape_text{shape, rank} << " of rank " << rank;
  raise<index_error>(t);
}

[[noreturn, gnu::cold, gnu::noinline]] inline void raise_same_axis(const char* what, index_t axis, const index_t* shape, std::size_t rank) {
  text t;
  t << what << ": axis " << axis << " of shape " << shape_text{shape, rank} << " is named twice";
  raise<shape_error>(t);
}

[[noreturn, gnu::cold, gnu::noinline]] inline void raise_squeeze(std::size_t axis, const index_t* shape, std::size_t rank) {
  text t;
  t << "squeeze: axis " << axis << " of shape " << shape_text{shape, rank} << " has length " << shape[axis] << ", and only 1 can go";
  raise<shape_error>(t);
}

/** An axis in [-rank, rank) as a position. `shape` is for the message. */
[[nodiscard]] constexpr std::size_t checked_axis(const char* what, index_t axis, const index_t* shape, std::size_t rank) {
  const auto n = static_cast<index_t>(rank);
  if (axis < -n || axis >= n) raise_axis(what, axis, shape, rank);
  return static_cast<std::size_t>(axis < 0 ? axis + n : axis);
}

/** Extents, strides and the position of the first element: a view without its pointer. Arrays one longer than the rank, for expand_dims. */
template <std::size_t R>
struct axis_layout {
  std::array<index_t, R + 1> shape{};
  std::array<index_t, R + 1> stride{};
  index_t offset = 0;
};

/** `from` and `to` are below R + 1, which the first loop says once more: g++ 12 at -O3 otherwise sees it run on where it does not. */
template <std::size_t R>
constexpr void move_layout_axis(axis_layout<R>& l, std::size_t from, std::size_t to) noexcept {
  const index_t n = l.shape[from];
  const index_t s = l.stride[from];
  for (; from < to && from < R; ++from) {
    l.shape[from] = l.shape[from + 1];
    l.stride[from] = l.stride[from + 1];
  }
  for (; from > to; --from) {
    l.shape[from] = l.shape[from - 1];
    l.stride[from] = l.stride[from - 1];
  }
  l.shape[to] = n;
  l.stride[to] = s;
}

template <class T, std::size_t R>
[[nodiscard]] constexpr axis_layout<R> layout_of(const ndview<T, R>& v) noexcept {
  axis_layout<R> l;
  for (std::size_t i = 0; i < R; ++i) {
    l.shape[i] = v.extent(i);
    l.stride[i] = v.stride(i);
  }
  return l;
}

/** The first `R2` axes of a layout. An empty view keeps its pointer, so that no address outside the array is formed. */
template <std::size_t R2, class T, std::size_t R>
[[nodiscard]] constexpr ndview<T, R2> view_of(T* data, const axis_layout<R>& l) {
  static_assert(R2 <= R + 1);
  std::array<index_t, R2> shape{};
  std::array<index_t, R2> stride{};
  bool empty = false;
  for (std::size_t i = 0; i < R2; ++i) {
    shape[i] = l.shape[i];
    stride[i] = l.stride[i];
    empty = empty || l.shape[i] == 0;
  }
  return ndview<T, R2>(empty ? data : data + l.offset, extents<R2>(shape), strides<R2>(stride));
}

template <std::size_t R>
constexpr void flip_axis(axis_layout<R>& l, std::size_t axis) noexcept {
  if (l.shape[axis] <= 1) return;  // the stride is never taken, and negating a strange one could overflow
  l.offset += (l.shape[axis] - 1) * l.stride[axis];
  l.stride[axis] = -l.stride[axis];
}

/** Whether axes given at compile time, counted from either end, are different axes of a view of this rank. */
template <std::size_t R, index_t... Axes>
[[nodiscard]] consteval bool distinct_axes() {
  bool seen[R + 1] = {};
  bool fine = true;
  for (const index_t axis : {Axes...}) {
    const auto i = static_cast<std::size_t>(axis < 0 ? axis + static_cast<index_t>(R) : axis);
    fine = fine && i < R && !seen[i < R ? i : R];
    if (i < R) seen[i] = true;
  }
  return fine;
}

}  // namespace detail

/**
 * Axes i and j exchanged.
 * @throws index_error when an axis does not exist.
 * @par Cost   O(R), as for everything in this header; no allocation, no element is touched.
 */
template <class T, std::size_t R>
[[nodiscard]] constexpr ndview<T, R> swap_axes(ndview<T, R> v, index_t i, index_t j) {
  auto l = detail::layout_of(v);
  const std::size_t a = detail::checked_axis("swap_axes", i, l.shape.data(), R);
  const std::size_t b = detail::checked_axis("swap_axes", j, l.shape.data(), R);
  std::swap(l.shape[a], l.shape[b]);
  std::swap(l.stride[a], l.stride[b]);
  return detail::view_of<R>(v.data(), l);
}

/** Axis `from` put at position `to` of the result; the others keep their order. @throws index_error when an axis does not exist. */
template <class T, std::size_t R>
[[nodiscard]] constexpr ndview<T, R> move_axis(ndview<T, R> v, index_t from, index_t to) {
  auto l = detail::layout_of(v);
  const std::size_t a = detail::checked_axis("move_axis", from, l.shape.data(), R);
  const std::size_t b = detail::checked_axis("move_axis", to, l.shape.data(), R);
  detail::move_layout_axis(l, a, b);
  return detail::view_of<R>(v.data(), l);
}

/** Every axis reversed. */
template <class T, std::size_t R>
[[nodiscard]] constexpr ndview<T, R> flip(ndview<T, R> v) {
  auto l = detail::layout_of(v);
  for (std::size_t i = 0; i < R; ++i) detail::flip_axis(l, i);
  return detail::view_of<R>(v.data(), l);
}

/** The named axes reversed. @throws index_error when an axis does not exist, shape_error when one is named twice. */
template <class T, std::size_t R, class... Integers>
  requires(sizeof...(Integers) > 0 && (detail::is_index_word<Integers> && ...))
[[nodiscard]] constexpr ndview<T, R> flip(ndview<T, R> v, Integers... axes) {
  auto l = detail::layout_of(v);
  std::array<bool, R + 1> seen{};
  for (const index_t axis : {detail::to_index<index_error>(axes, "axis", true)...}) {
    const std::size_t i = detail::checked_axis("flip", axis, l.shape.data(), R);
    if (seen[i]) detail::raise_same_axis("flip", axis, l.shape.data(), R);
    seen[i] = true;
    detail::flip_axis(l, i);
  }
  return detail::view_of<R>(v.data(), l);
}

/**
 * The elements whose positions on axes `axis1` and `axis2` are i and i + offset. The two axes go and the diagonal is the last axis of the
 * result, as in NumPy; unlike NumPy's, the view is writable when `v` is. An offset beyond the array gives an empty diagonal.
 *
 * @throws index_error when an axis does not exist, shape_error when the two are one.
 */
template <class T, std::size_t R>
[[nodiscard]] constexpr ndview<T, R - 1> diagonal(ndview<T, R> v, index_t offset = 0, index_t axis1 = 0, index_t axis2 = 1) {
  static_assert(R >= 2, "lora: diagonal needs a view of two axes or more");
  auto l = detail::layout_of(v);
  const std::size_t a = detail::checked_axis("diagonal", axis1, l.shape.data(), R);
  const std::size_t b = detail::checked_axis("diagonal", axis2, l.shape.data(), R);
  if (a == b) detail::raise_same_axis("diagonal", axis1, l.shape.data(), R);
  // Compared before anything is added: the offset may be any number.
  const index_t rows = offset < 0 ? (offset < -l.shape[a] ? 0 : l.shape[a] + offset) : l.shape[a];
  const index_t columns = offset > 0 ? (offset > l.shape[b] ? 0 : l.shape[b] - offset) : l.shape[b];
  const index_t length = rows < columns ? rows : columns;
  const index_t step = length > 1 ? l.stride[a] + l.stride[b] : 1;
  if (length > 0) l.offset = offset < 0 ? -offset * l.stride[a] : offset * l.stride[b];
  std::size_t kept = 0;
  for (std::size_t i = 0; i < R; ++i) {
    if (i == a || i == b) continue;
    l.shape[kept] = l.shape[i];
    l.stride[kept] = l.stride[i];
    ++kept;
  }
  l.shape[kept] = length;
  l.stride[kept] = step;
  return detail::view_of<R - 1>(v.data(), l);
}

/** One axis of length 1 removed. @throws index_error when it does not exist, shape_error when its length is not 1. */
template <class T, std::size_t R>
[[nodiscard]] constexpr ndview<T, R - 1> squeeze(ndview<T, R> v, index_t axis) {
  static_assert(R >= 1, "lora: squeeze removes an axis, and a view of rank 0 has none");
  auto l = detail::layout_of(v);
  const std::size_t i = detail::checked_axis("squeeze", axis, l.shape.data(), R);
  if (l.shape[i] != 1) detail::raise_squeeze(i, l.shape.data(), R);
  detail::move_layout_axis(l, i, R - 1);
  return detail::view_of<R - 1>(v.data(), l);
}

/**
 * The named axes of length 1 removed: squeeze<0, -1>(v). The rank of a view is part of its type, so "all axes that happen to have length
 * 1", NumPy's default, cannot be asked for.
 * @throws shape_error when the length of one is not 1.
 */
template <index_t... Axes, class T, std::size_t R>
  requires(sizeof...(Axes) > 0)
[[nodiscard]] constexpr ndview<T, R - sizeof...(Axes)> squeeze(ndview<T, R> v) {
  static_assert(detail::distinct_axes<R, Axes...>(), "lora: squeeze<Axes...> names an axis that the view does not have, or one twice");
  auto l = detail::layout_of(v);
  std::array<bool, R> goes{};
  ((goes[static_cast<std::size_t>(Axes < 0 ? Axes + static_cast<index_t>(R) : Axes)] = true), ...);
  for (std::size_t i = 0; i < R; ++i)
    if (goes[i] && l.shape[i] != 1) detail::raise_squeeze(i, l.shape.data(), R);
  std::size_t kept = 0;
  for (std::size_t i = 0; i < R; ++i) {
    if (goes[i]) continue;
    l.shape[kept] = l.shape[i];
    l.stride[kept] = l.stride[i];
    ++kept;
  }
  return detail::view_of<R - sizeof...(Axes)>(v.data(), l);
}

/** A new axis of length 1 at position `axis` of the result, which may be R or -1 (the end). @throws index_error. */
template <class T, std::size_t R>
[[nodiscard]] constexpr ndview<T, R + 1> expand_dims(ndview<T, R> v, index_t axis) {
  auto l = detail::layout_of(v);
  constexpr auto n = static_cast<index_t>(R) + 1;
  if (axis < -n || axis >= n) detail::raise_axis("expand_dims", axis, l.shape.data(), R);
  l.shape[R] = 1;
  l.stride[R] = 0;
  detail::move_layout_axis(l, R, static_cast<std::size_t>(axis < 0 ? axis + n : axis));
  return detail::view_of<R + 1>(v.data(), l);
}

// The same for a named ndarray, and for a temporary one, which is refused.
template <detail::gives_view Owner>
[[nodiscard]] auto swap_axes(Owner& owner LORA_LIFETIMEBOUND, index_t i, index_t j) {
  return swap_axes(owner.view(), i, j);
}
template <detail::gives_view Owner>
void swap_axes(const Owner&&, index_t, index_t) = delete;  // lora: a view of a temporary array would dangle; name the array
template <detail::gives_view Owner>
[[nodiscard]] auto move_axis(Owner& owner LORA_LIFETIMEBOUND, index_t from, index_t to) {
  return move_axis(owner.view(), from, to);
}
template <detail::gives_view Owner>
void move_axis(const Owner&&, index_t, index_t) = delete;  // lora: a view of a temporary array would dangle; name the array
template <detail::gives_view Owner, class... Integers>
[[nodiscard]] auto flip(Owner& owner LORA_LIFETIMEBOUND, Integers... axes) {
  return flip(owner.view(), axes...);
}
template <detail::gives_view Owner, class... Integers>
void flip(const Owner&&, Integers...) = delete;  // lora: a view of a temporary array would dangle; name the array
template <detail::gives_view Owner>
[[nodiscard]] auto diagonal(Owner& owner LORA_LIFETIMEBOUND, index_t offset = 0, index_t axis1 = 0, index_t axis2 = 1) {
  return diagonal(owner.view(), offset, axis1, axis2);
}
template <detail::gives_view Owner, class... Integers>
void diagonal(const Owner&&, Integers...) = delete;  // lora: a view of a temporary array would dangle; name the array
template <detail::gives_view Owner>
[[nodiscard]] auto squeeze(Owner& owner LORA_LIFETIMEBOUND, index_t axis) {
  return squeeze(owner.view(), axis);
}
template <detail::gives_view Owner>
void squeeze(const Owner&&, index_t) = delete;  // lora: a view of a temporary array would dangle; name the array
template <index_t... Axes, detail::gives_view Owner>
  requires(sizeof...(Axes) > 0)
[[nodiscard]] auto squeeze(Owner& owner LORA_LIFETIMEBOUND) {
  return squeeze<Axes...>(owner.view());
}
template <index_t... Axes, detail::gives_view Owner>
  requires(sizeof...(Axes) > 0)
void squeeze(const Owner&&) = delete;  // lora: a view of a temporary array would dangle; name the array
template <detail::gives_view Owner>
[[nodiscard]] auto expand_dims(Owner& owner LORA_LIFETIMEBOUND, index_t axis) {
  return expand_dims(owner.view(), axis);
}
template <detail::gives_view Owner>
void expand_dims(const Owner&&, index_t) = delete;  // lora: a view of a temporary array would dangle; name the array

}  // namespace lora::inline v0

#endif
