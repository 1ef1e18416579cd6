// SPDX-License-Identifier: Apache-2.0
//
// broadcast_to: a view that repeats the elements of a smaller one, by NumPy's rule, without a copy. The result is read-only by type,
// because several of its elements share one address. Nothing else in the library broadcasts by itself: shapes that differ are errors.
// broadcast_shapes: the shape to which several shapes broadcast together.
//
//   auto rows = lora::broadcast_to(bias, x.shape());         // [out] seen as [n, out]
//   lora::apply(y, [](float a, float b) { return a + b; }, x, rows);
#ifndef LORA_ND_BROADCAST_HPP
#define LORA_ND_BROADCAST_HPP

#include <lora/nd/view.hpp>

namespace lora::inline v0 {

namespace detail {

[[noreturn, gnu::cold, gnu::noinline]] inline void raise_broadcast(const index_t* shape, std::size_t rank, const index_t* wanted,
                                                                   std::size_t wanted_rank) {
  text t;
  t << "broadcast_to: shape " << shape_text{shape, rank} << " does not broadcast to " << shape_text{wanted, wanted_rank}
    << " (aligned at the last axis, each extent must be equal or 1)";
  raise<shape_error>(t);
}

/** Strides of the broadcast view. `wanted_rank` >= `rank`. */
constexpr void broadcast_strides(const index_t* shape, const index_t* stride, std::size_t rank, const index_t* wanted,
                                 std::size_t wanted_rank, index_t* out_stride) {
  const std::size_t added = wanted_rank - rank;
  for (std::size_t i = 0; i < wanted_rank; ++i) {
    if (i < added) {
      out_stride[i] = 0;
    } else {
      const index_t n = shape[i - added];
      if (n != wanted[i] && n != 1) raise_broadcast(shape, rank, wanted, wanted_rank);
      out_stride[i] = n == wanted[i] ? stride[i - added] : 0;
    }
  }
}

/** An owner of elements that gives views: ndarray, without including it. */
template <class Owner>
concept gives_view = requires(Owner& owner) { owner.view(); };

}  // namespace detail

/**
 * The elements of `v` seen under a larger shape. Axes are aligned at the last one; each extent of `v` must equal the one asked for or
 * be 1, and axes that `v` does not have are put in front. Repeated axes have stride 0.
 *
 * @param v      a view or a named ndarray, of rank <= R2
 * @param shape  the shape to give it
 * @throws shape_error naming both shapes when the rule does not hold, or when the shape does not fit the address space.
 * @par Cost     O(R2), no allocation, no element is touched.
 */
template <std::size_t R2, class T, std::size_t R>
[[nodiscard]] constexpr ndview<const T, R2> broadcast_to(ndview<T, R> v, const extents<R2>& shape) {
  static_assert(R2 >= R, "lora: broadcast_to adds axes in front and never removes one; slice or reshape the view first");
  std::array<index_t, R2> stride{};
  detail::broadcast_strides(v.shape().array().data(), v.stride().array().data(), R, shape.array().data(), R2, stride.data());
  return ndview<const T, R2>(v.data(), shape, strides<R2>(stride));
}

template <std::size_t R2, detail::gives_view Owner>
[[nodiscard]] auto broadcast_to(Owner& owner LORA_LIFETIMEBOUND, const extents<R2>& shape) {
  return broadcast_to(owner.view(), shape);
}
template <std::size_t R2, detail::gives_view Owner>
void broadcast_to(const Owner&&, const extents<R2>&) = delete;  // lora: a view of a temporary array would dangle; name the array

namespace detail {

[[noreturn, gnu::cold, gnu::noinline]] inline void raise_broadcast_shapes(std::size_t input, const index_t* shape, std::size_t rank,
                                                                          const index_t* others, std::size_t others_rank) {
  text t;
  t << "broadcast_shapes: shape " << input << ", " << shape_text{shape, rank} << ", does not broadcast with "
    << shape_text{others, others_rank} << ", the shape of those before it (aligned at the last axis, extents must be equal or 1)";
  raise<shape_error>(t);
}

/** Widens `out` by one more shape; rank <= out_rank, and the axes before out_rank - known are not set yet. */
constexpr void broadcast_shape(std::size_t input, const index_t* shape, std::size_t rank, index_t* out, std::size_t out_rank,
                               std::size_t known) {
  for (std::size_t i = 1; i <= rank; ++i) {
    index_t& n = out[out_rank - i];
    if (n != 1 && shape[rank - i] != 1 && n != shape[rank - i]) raise_broadcast_shapes(input, shape, rank, out + (out_rank - known), known);
    if (n == 1) n = shape[rank - i];
  }
}

}  // namespace detail

/**
 * The smallest shape that each of `shapes` broadcasts to: broadcast_shapes(extents{4, 1}, extents{3}) is [4, 3].
 * @throws shape_error naming both shapes when two of them have different extents, neither 1, on one axis.
 */
template <std::size_t... R>
  requires(sizeof...(R) > 0)
[[nodiscard]] constexpr auto broadcast_shapes(const extents<R>&... shapes) {
  constexpr std::size_t rank = [] {
    std::size_t highest = 0;
    ((highest = R > highest ? R : highest), ...);
    return highest;
  }();
  std::array<index_t, rank> out{};
  for (index_t& n : out) n = 1;
  std::size_t input = 0;
  std::size_t known = 0;
  ((detail::broadcast_shape(input++, shapes.array().data(), R, out.data(), rank, known), known = R > known ? R : known), ...);
  return extents<rank>(out);
}

}  // namespace lora::inline v0

#endif
