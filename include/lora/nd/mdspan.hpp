// SPDX-License-Identifier: Apache-2.0
//
// To std::mdspan and back, without a copy. from_mdspan and to_mdspan_of<M> take any type with the members of std::mdspan, so they serve
// the reference implementation (kokkos/mdspan) as well and cost no include; to_mdspan names std::mdspan and exists where <mdspan> does.
//
//   auto m = lora::to_mdspan(v);                       // std::mdspan<T, std::dextents<index_t, R>, std::layout_stride>
//   lora::ndview<float, 2> w = lora::from_mdspan(m);   // any mapping with strides: layout_right, layout_left, layout_stride, submdspan's
//
// std::layout_stride allows neither zero nor negative strides, and wants them nested: sorted, each at least as long as all that lies inside
// it. A view that breaks this along more than one element (a broadcast, a reversed axis, a sliding window) is refused: handing its strides
// to an mdspan would be undefined behaviour.
#ifndef LORA_ND_MDSPAN_HPP
#define LORA_ND_MDSPAN_HPP

#include <lora/nd/broadcast.hpp>
#include <lora/nd/view.hpp>

#if __has_include(<version>)
#include <version>
#endif
#if defined(__cpp_lib_mdspan)
#include <mdspan>
#endif

namespace lora::inline v0 {

namespace detail {

[[noreturn, gnu::cold, gnu::noinline]] inline void raise_mdspan(std::size_t axis, const index_t* shape, const index_t* stride,
                                                                std::size_t rank, const char* why) {
  text t;
  t << "to_mdspan: shape " << shape_text{shape, rank} << " with strides " << shape_text{stride, rank} << ", axis " << axis << ": " << why;
  raise<shape_error>(t);
}

/** The strides as layout_stride wants them: those that are never taken (axes of length 1, or of an empty view) become harmless ones. */
constexpr void mdspan_strides(const index_t* shape, const index_t* stride, std::size_t rank, index_t* out) {
  if (product(shape, rank) == 0) return fill_strides(shape, rank, order::C, out);
  for (std::size_t i = 0; i < rank; ++i) {
    out[i] = shape[i] == 1 ? 1 : stride[i];
    if (out[i] == 0) raise_mdspan(i, shape, stride, rank, "its elements are repeated, and layout_stride has no stride of 0; copy it first");
    if (out[i] < 0)
      raise_mdspan(i, shape, stride, rank, "it is reversed, and layout_stride has no negative strides; flip() it, or copy it");
  }
  for (std::size_t i = 0; i < rank; ++i) {
    // Against each axis inside this one; of two equal strides neither is. Quadratic in the rank, which is small.
    for (std::size_t k = 0; k < rank; ++k) {
      index_t inner = 0;
      if (k == i || shape[i] == 1 || shape[k] == 1 || out[k] > out[i]) continue;
      if (!checked_mul(out[k], shape[k], inner) || inner > out[i])
        raise_mdspan(i, shape, stride, rank, "it interleaves with another axis, and layout_stride wants nested strides; copy it first");
    }
  }
}

/** What is used of std::mdspan, and of a type that is like it. */
template <class M>
concept mdspan_like = requires(const M& m, typename M::rank_type axis) {
  typename M::element_type;
  typename M::mapping_type;
  typename M::extents_type;
  { M::rank() } -> std::convertible_to<std::size_t>;
  { m.data_handle() } -> std::convertible_to<typename M::element_type*>;  // a plain pointer: no accessor that computes
  m.extent(axis);
  m.mapping();
};

}  // namespace detail

/**
 * The view that an mdspan is.
 * @throws shape_error when the mapping has no strides, or an extent does not fit index_t.
 * @par Cost   O(R).
 */
template <detail::mdspan_like M>
[[nodiscard]] constexpr ndview<typename M::element_type, M::rank()> from_mdspan(const M& m) {
  static_assert(M::mapping_type::is_always_strided(),
                "lora: from_mdspan needs a layout that always has strides (layout_right, layout_left, layout_stride)");
  constexpr std::size_t rank = M::rank();
  std::array<index_t, rank> shape{};
  std::array<index_t, rank> stride{};
  if constexpr (rank > 0) {  // a mapping of rank 0 has no stride()
    for (std::size_t i = 0; i < rank; ++i) {
      shape[i] = detail::to_index(m.extent(static_cast<typename M::rank_type>(i)), "extent", false);
      stride[i] = detail::to_index(m.mapping().stride(static_cast<typename M::rank_type>(i)), "stride", true);
    }
  }
  return ndview<typename M::element_type, rank>(m.data_handle(), extents<rank>(shape), strides<rank>(stride));
}

/**
 * The view as an mdspan of type M, whose layout is layout_stride (constructed from extents and an array of strides).
 * @throws shape_error naming axis, shape and strides, when a stride along more than one element is zero, negative or not nested, or when an
 *         extent or a stride does not fit M's index type, or an extent differs from one in M's type.
 * @par Cost   O(R).
 */
template <class M, class T, std::size_t R>
  requires(detail::mdspan_like<M>)
[[nodiscard]] constexpr M to_mdspan_of(ndview<T, R> v) {
  using index = typename M::extents_type::index_type;
  static_assert(M::rank() == R, "lora: to_mdspan_of<M>: M and the view have different ranks");
  const index_t* const shape = v.shape().array().data();
  const index_t* const stride = v.stride().array().data();
  std::array<index_t, R> steps{};
  detail::mdspan_strides(shape, stride, R, steps.data());
  std::array<index, R> shape_out{};
  std::array<index, R> stride_out{};
  for (std::size_t i = 0; i < R; ++i) {
    shape_out[i] = static_cast<index>(shape[i]);
    stride_out[i] = static_cast<index>(steps[i]);
    if (static_cast<index_t>(shape_out[i]) != shape[i] || static_cast<index_t>(stride_out[i]) != steps[i] || shape_out[i] < 0 ||
        stride_out[i] < 0)
      detail::raise_mdspan(i, shape, stride, R, "it does not fit the index type of the mdspan");
    const std::size_t fixed = M::extents_type::static_extent(i);
    if (fixed != static_cast<std::size_t>(-1) && fixed != static_cast<std::size_t>(shape[i]))
      detail::raise_mdspan(i, shape, stride, R, "the mdspan has another extent in its type");
  }
  return M(v.data(), typename M::mapping_type(typename M::extents_type(shape_out), stride_out));
}

#if defined(__cpp_lib_mdspan)
/** The view as std::mdspan with run-time extents and layout_stride. @throws as to_mdspan_of. */
template <class T, std::size_t R>
[[nodiscard]] constexpr auto to_mdspan(ndview<T, R> v) {
  return to_mdspan_of<std::mdspan<T, std::dextents<index_t, R>, std::layout_stride>>(v);
}
template <detail::gives_view Owner>
[[nodiscard]] auto to_mdspan(Owner& owner LORA_LIFETIMEBOUND) {
  return to_mdspan(owner.view());
}
template <detail::gives_view Owner>
void to_mdspan(const Owner&&) = delete;  // lora: a view of a temporary array would dangle; name the array
#endif

template <class M, detail::gives_view Owner>
  requires(detail::mdspan_like<M>)
[[nodiscard]] auto to_mdspan_of(Owner& owner LORA_LIFETIMEBOUND) {
  return to_mdspan_of<M>(owner.view());
}
template <class M, detail::gives_view Owner>
void to_mdspan_of(const Owner&&) = delete;  // lora: a view of a temporary array would dangle; name the array

}  // namespace lora::inline v0

#endif
