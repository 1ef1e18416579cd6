// SPDX-License-Identifier: Apache-2.0
//
// uninit_like and zeros_like: a new array with the shape and the memory order of another, whatever that order is. An operation that reads
// the one and writes the other then walks both in the order of their addresses. NumPy's empty_like and zeros_like with order='K'.
//
//   auto y = lora::uninit_like(x);             // x may be a permuted, reversed or strided view: y has its order, without the gaps
//   auto h = lora::uninit_like<lora::bfloat16>(x);
#ifndef LORA_ND_LIKE_HPP
#define LORA_ND_LIKE_HPP

#include <lora/nd/array.hpp>

namespace lora::inline v0 {

namespace detail {

/**
 * Axes from the largest stride to the smallest; those with equal strides keep C order, and a negative stride counts by its size. What is
 * contiguous in C order stays so whatever the strides of its axes of length 1.
 */
constexpr void memory_order(const index_t* shape, const index_t* stride, std::size_t rank, index_t* axes) noexcept {
  const auto magnitude = [](index_t s) {  // unsigned: the most negative stride has no positive counterpart
    return s < 0 ? 0 - static_cast<std::size_t>(s) : static_cast<std::size_t>(s);
  };
  const bool c_order = contiguous_in(shape, stride, rank, order::C);
  const bool f_order = !c_order && contiguous_in(shape, stride, rank, order::F);
  for (std::size_t i = 0; i < rank; ++i) {
    std::size_t at = i;
    if (f_order) {
      axes[rank - 1 - i] = static_cast<index_t>(i);
      continue;
    }
    for (; !c_order && at > 0 && magnitude(stride[axes[at - 1]]) < magnitude(stride[i]); --at) axes[at] = axes[at - 1];
    axes[at] = static_cast<index_t>(i);
  }
}

}  // namespace detail

/**
 * An uninitialised array of v's shape, in v's memory order, without v's gaps.
 * @param v   view or ndarray; its element type unless another is named: uninit_like<float16>(v)
 * @throws shape_error when elements of the named type do not fit the address space; std::bad_alloc.
 */
template <class T = void, detail::viewable V>
[[nodiscard]] auto uninit_like(const V& v) {
  const auto view = detail::as_view(v);
  using source = decltype(detail::as_view(v));
  using value = std::conditional_t<std::is_void_v<T>, typename source::value_type, T>;
  std::array<index_t, source::rank()> axes{};
  detail::memory_order(view.shape().array().data(), view.stride().array().data(), source::rank(), axes.data());
  return ndarray<value, source::rank()>(view.shape(), memory_order<source::rank()>(axes));
}

/** As uninit_like, with every element zero. */
template <class T = void, detail::viewable V>
[[nodiscard]] auto zeros_like(const V& v) {
  auto a = uninit_like<T>(v);
  auto* const p = a.data();
  for (index_t i = 0, n = a.size(); i < n; ++i) p[i] = {};
  return a;
}

}  // namespace lora::inline v0

#endif
