// SPDX-License-Identifier: Apache-2.0
//
// split, chunk and split_at: a view cut into views along one axis. The parts share the elements of the whole; nothing is copied, and no
// heap is used: equal and nearly equal parts come as a view_sequence, parts at given places as a std::array.
//
//   for (auto head : lora::split(qkv, 3, -1)) use(head);         // equal parts, or an error
//   for (auto part : lora::chunk(rows, threads)) use(part);      // lengths differ by one at most
//   auto [left, right] = lora::split_at(m, {4}, 1);              // m[:, :4] and m[:, 4:]
#ifndef LORA_ND_SPLIT_HPP
#define LORA_ND_SPLIT_HPP

#include <lora/nd/axes.hpp>
#include <lora/nd/sequence.hpp>

namespace lora::inline v0 {

namespace detail {

[[noreturn, gnu::cold, gnu::noinline]] inline void raise_split(const char* what, index_t parts, std::size_t axis, const index_t* shape,
                                                               std::size_t rank) {
  text t;
  t << what << ": axis " << axis << " of shape " << shape_text{shape, rank} << " does not divide into " << parts
    << (parts < 1 ? " parts" : " equal parts (chunk() gives unequal ones)");
  raise<shape_error>(t);
}

[[noreturn, gnu::cold, gnu::noinline]] inline void raise_split_place(index_t place, std::size_t axis, const index_t* shape,
                                                                     std::size_t rank) {
  text t;
  t << "split_at: place " << place << " is outside axis " << axis << " of shape " << shape_text{shape, rank};
  raise<index_error>(t);
}

/** Part i of a view along an axis: the first `longer` of them have one position more than `length`. */
template <class T, std::size_t R>
struct part_of_view {
  ndview<T, R> whole{};
  std::size_t axis = 0;
  index_t length = 0;
  index_t longer = 0;

  [[nodiscard]] constexpr ndview<T, R> operator()(index_t i) const noexcept {
    axis_layout<R> l = layout_of(whole);
    l.offset = (i * length + (i < longer ? i : longer)) * l.stride[axis];
    l.shape[axis] = length + (i < longer ? 1 : 0);
    return view_of<R>(whole.data(), l);
  }
};

template <class T, std::size_t R>
[[nodiscard]] constexpr auto cut(const char* what, const ndview<T, R>& v, index_t parts, index_t axis, bool equal) {
  static_assert(R >= 1, "lora: a view of rank 0 has no axis to cut");
  const index_t* const shape = v.shape().array().data();
  const std::size_t a = checked_axis(what, axis, shape, R);
  if (parts < 1 || (equal && shape[a] % parts != 0)) raise_split(what, parts, a, shape, R);
  return view_sequence<part_of_view<T, R>>({v, a, shape[a] / parts, shape[a] % parts}, parts);
}

}  // namespace detail

/**
 * `parts` parts of equal length along `axis`.
 * @return   a view_sequence of ndview<T, R>
 * @throws shape_error when the length is not a multiple of `parts`, or parts < 1; index_error when the axis does not exist.
 * @par Cost   O(R) a part, when it is asked for.
 */
template <class T, std::size_t R>
[[nodiscard]] constexpr auto split(ndview<T, R> v, index_t parts, index_t axis = 0) {
  return detail::cut("split", v, parts, axis, true);
}

/**
 * `parts` parts along `axis` whose lengths differ by one at most, longer ones first; empty ones at the end when there are more parts than
 * positions. NumPy's array_split.
 * @throws shape_error when parts < 1; index_error when the axis does not exist.
 */
template <class T, std::size_t R>
[[nodiscard]] constexpr auto chunk(ndview<T, R> v, index_t parts, index_t axis = 0) {
  return detail::cut("chunk", v, parts, axis, false);
}

/**
 * N + 1 parts: [0, at[0]), [at[0], at[1]), ..., [at[N-1], end). Places may be negative (from the end); a part whose end does not lie behind
 * its start is empty, as a slice would be.
 * @throws index_error when a place is outside [-n, n] (NumPy would cut it to the axis), or the axis does not exist.
 */
template <class T, std::size_t R, std::size_t N>
[[nodiscard]] constexpr std::array<ndview<T, R>, N + 1> split_at(ndview<T, R> v, const index_t (&at)[N], index_t axis = 0) {
  static_assert(R >= 1, "lora: a view of rank 0 has no axis to cut");
  const index_t* const shape = v.shape().array().data();
  const std::size_t a = detail::checked_axis("split_at", axis, shape, R);
  for (const index_t place : at)
    if (place < -shape[a] || place > shape[a]) detail::raise_split_place(place, a, shape, R);
  std::array<ndview<T, R>, N + 1> parts{};
  std::array<detail::slice_item, R> items{};
  for (std::size_t i = 0; i <= N; ++i) {
    items[a].has_start = i != 0;
    items[a].has_stop = i != N;
    items[a].start = i != 0 ? at[i - 1] : 0;
    items[a].stop = i != N ? at[i] : 0;
    std::array<index_t, R> shape_out{};
    std::array<index_t, R> stride_out{};
    const auto r = detail::apply_slice(items.data(), R, shape, v.stride().array().data(), R, shape_out.data(), stride_out.data());
    parts[i] = ndview<T, R>(v.data() + r.offset, extents<R>(shape_out), strides<R>(stride_out));
  }
  return parts;
}

// The same for a named ndarray, and for a temporary one, which is refused.
template <detail::gives_view Owner>
[[nodiscard]] auto split(Owner& owner LORA_LIFETIMEBOUND, index_t parts, index_t axis = 0) {
  return split(owner.view(), parts, axis);
}
template <detail::gives_view Owner, class... Integers>
void split(const Owner&&, Integers...) = delete;  // lora: a view of a temporary array would dangle; name the array
template <detail::gives_view Owner>
[[nodiscard]] auto chunk(Owner& owner LORA_LIFETIMEBOUND, index_t parts, index_t axis = 0) {
  return chunk(owner.view(), parts, axis);
}
template <detail::gives_view Owner, class... Integers>
void chunk(const Owner&&, Integers...) = delete;  // lora: a view of a temporary array would dangle; name the array
template <detail::gives_view Owner, std::size_t N>
[[nodiscard]] auto split_at(Owner& owner LORA_LIFETIMEBOUND, const index_t (&at)[N], index_t axis = 0) {
  return split_at(owner.view(), at, axis);
}
template <detail::gives_view Owner, std::size_t N>
void split_at(const Owner&&, const index_t (&)[N], index_t = 0) = delete;  // lora: a view of a temporary array would dangle; name the array

}  // namespace lora::inline v0

#endif
