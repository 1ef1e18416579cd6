// SPDX-License-Identifier: Apache-2.0
//
// sliding_window: every window of a given length along one axis or several, as a view with more axes. Windows overlap, so the result is
// read-only by type, as a broadcast is. Nothing is copied: a moving average is a sum over the last axis.
//
//   auto w = lora::sliding_window(x, 3);                             // [n] -> [n - 2, 3]: w(i, j) is x(i + j)
//   auto p = lora::sliding_window(image, lora::extents{3, 3}, {0, 1});   // [h, w, c] -> [h - 2, w - 2, c, 3, 3]
#ifndef LORA_ND_WINDOWS_HPP
#define LORA_ND_WINDOWS_HPP

#include <lora/nd/axes.hpp>

namespace lora::inline v0 {

namespace detail {

[[noreturn, gnu::cold, gnu::noinline]] inline void raise_window(index_t window, std::size_t axis, const index_t* shape, std::size_t rank) {
  text t;
  t << "sliding_window: a window of " << window << " along axis " << axis << " of shape " << shape_text{shape, rank}
    << ": a window has at least one position and at most those of its axis";
  raise<shape_error>(t);
}

}  // namespace detail

/**
 * N windows at once: window i runs along axes[i], and is axis R + i of the result; what is left of the axis itself is its length less
 * window - 1. An axis may be named more than once (windows of windows). NumPy's sliding_window_view.
 *
 * @param v       view or named ndarray of rank R
 * @param window  lengths, each >= 1 (NumPy also takes 0)
 * @param axes    one axis for each window
 * @return        read-only view of rank R + N
 * @throws shape_error when a window is longer than what its axis has; index_error when an axis does not exist.
 * @par Cost      O(R + N), no allocation, no element is touched.
 */
template <std::size_t N, class T, std::size_t R>
[[nodiscard]] constexpr ndview<const T, R + N> sliding_window(ndview<T, R> v, const extents<N>& window,
                                                              const std::array<index_t, N>& axes) {
  std::array<index_t, R + N> shape{};
  std::array<index_t, R + N> stride{};
  for (std::size_t i = 0; i < R; ++i) {
    shape[i] = v.extent(i);
    stride[i] = v.stride(i);
  }
  for (std::size_t i = 0; i < N; ++i) {
    const std::size_t axis = detail::checked_axis("sliding_window", axes[i], v.shape().array().data(), R);
    if (window[i] < 1 || window[i] > shape[axis]) detail::raise_window(window[i], axis, v.shape().array().data(), R);
    shape[axis] -= window[i] - 1;
    shape[R + i] = window[i];
    stride[R + i] = stride[axis];
  }
  return ndview<const T, R + N>(v.data(), extents<R + N>(shape), strides<R + N>(stride));
}

/** A window along every axis: [a, b] -> [a - w0 + 1, b - w1 + 1, w0, w1]. */
template <class T, std::size_t R>
[[nodiscard]] constexpr auto sliding_window(ndview<T, R> v, const extents<R>& window) {
  std::array<index_t, R> axes{};
  for (std::size_t i = 0; i < R; ++i) axes[i] = static_cast<index_t>(i);
  return sliding_window(v, window, axes);
}

/** One window along one axis, which is the last unless it is named. */
template <class T, std::size_t R>
[[nodiscard]] constexpr auto sliding_window(ndview<T, R> v, index_t window, index_t axis = -1) {
  static_assert(R >= 1, "lora: a view of rank 0 has no axis for a window");
  if (window < 1)
    detail::raise_window(window, detail::checked_axis("sliding_window", axis, v.shape().array().data(), R), v.shape().array().data(), R);
  return sliding_window(v, extents<1>(window), std::array<index_t, 1>{axis});
}

// The same for a named ndarray, and for a temporary one, which is refused.
template <detail::gives_view Owner>
[[nodiscard]] auto sliding_window(Owner& owner LORA_LIFETIMEBOUND, index_t window, index_t axis = -1) {
  return sliding_window(owner.view(), window, axis);
}
template <std::size_t N, detail::gives_view Owner>
[[nodiscard]] auto sliding_window(Owner& owner LORA_LIFETIMEBOUND, const extents<N>& window, const std::array<index_t, N>& axes) {
  return sliding_window(owner.view(), window, axes);
}
template <std::size_t N, detail::gives_view Owner>
[[nodiscard]] auto sliding_window(Owner& owner LORA_LIFETIMEBOUND, const extents<N>& window) {
  return sliding_window(owner.view(), window);
}
template <detail::gives_view Owner, class... Arguments>
void sliding_window(const Owner&&, const Arguments&...) = delete;       // lora: a view of a temporary array would dangle; name the array
template <detail::gives_view Owner, class W, class I, std::size_t N>    // axes as a braced list
void sliding_window(const Owner&&, const W&, const I (&)[N]) = delete;  // lora: a view of a temporary array would dangle; name the array

}  // namespace lora::inline v0

#endif
