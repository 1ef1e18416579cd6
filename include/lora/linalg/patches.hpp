// SPDX-License-Identifier: Apache-2.0
//
// patches: what each position of a convolution's kernel sees of an image, as the rows of a matrix (im2col). A convolution is the product of
// that matrix and the kernels; linalg/conv2d.hpp takes the patches block by block and never has all of them in memory.
//
//   const lora::conv2d_geometry g{.stride = {2, 2}, .padding = {1, 1}};
//   lora::ndarray<float, 2> p = lora::patches(x, {3, 3}, g);      // x [n, channels, height, width] -> [n * oh * ow, channels * 9]
//
// Without padding the patches are sliding_window() (nd/windows.hpp) and its copy; padding has no elements that a view could point at.
#ifndef LORA_LINALG_PATCHES_HPP
#define LORA_LINALG_PATCHES_HPP

#include <lora/core/checked.hpp>
#include <lora/nd/array.hpp>
#include <lora/nd/float_view.hpp>

namespace lora::inline v0 {

/** How a kernel moves over an image: {vertically, horizontally}, as torch's Conv2d. Padding is with zeros. */
struct conv2d_geometry {
  index_t stride[2] = {1, 1};
  index_t padding[2] = {0, 0};  ///< on each side
  index_t dilation[2] = {1, 1};
  /**
   * Of conv2d with low-rank terms beside a dilation: A is dilated like W, so that the call computes conv(x, W + s B A), what PEFT's merge gives.
   * PEFT's own forward does not dilate A (0.21.2): it fails, or with padding='same' means another function than its merge. Without this such
   * a call is refused.
   */
  bool dilated_terms = false;
};

namespace detail {

/** A convolution's extents, checked. */
struct conv2d_extents {
  index_t n;
  index_t channels;
  index_t size[2];  // of the image
  index_t kernel[2];
  index_t output[2];  // positions of the kernel
  index_t tokens;     // of all images
  index_t in;         // channels * kernel
};

[[noreturn, gnu::cold, gnu::noinline]] inline void raise_conv(const char* operation, const index_t* x, const index_t* kernel,
                                                              const conv2d_geometry& g, const char* problem) {
  raise<shape_error>(text() << operation << ": x is " << shape_text{x, 4} << ", the kernel " << shape_text{kernel, 2} << ", stride "
                            << shape_text{g.stride, 2} << ", padding " << shape_text{g.padding, 2} << ", dilation "
                            << shape_text{g.dilation, 2} << ": " << problem);
}

/** @throws shape_error naming all numbers when the kernel has no position, or an extent does not fit an index. */
[[nodiscard]] inline conv2d_extents conv2d_extents_of(const char* operation, const index_t* x, const index_t* kernel,
                                                      const conv2d_geometry& g) {
  conv2d_extents e{};
  e.n = x[0];
  e.channels = x[1];
  bool fits = true;
  for (int i = 0; i < 2; ++i) {
    e.size[i] = x[2 + i];
    e.kernel[i] = kernel[i];
    if (kernel[i] < 1 || g.stride[i] < 1 || g.dilation[i] < 1 || g.padding[i] < 0)
      raise_conv(operation, x, kernel, g, "kernel, stride and dilation must be at least 1 and padding at least 0");
    index_t padded = 0;
    index_t reach = 0;  // of the kernel, less 1
    fits = fits && checked_mul<index_t>(g.padding[i], 2, padded) && checked_add(padded, e.size[i], padded) &&
           checked_mul(kernel[i] - 1, g.dilation[i], reach);
    if (fits && reach >= padded) raise_conv(operation, x, kernel, g, "the kernel is larger than the padded image");
    if (fits) e.output[i] = (padded - reach - 1) / g.stride[i] + 1;
  }
  fits = fits && checked_mul(e.n, e.output[0], e.tokens) && checked_mul(e.tokens, e.output[1], e.tokens) &&
         checked_mul(e.channels, kernel[0], e.in) && checked_mul(e.in, kernel[1], e.in);
  if (!fits) raise_conv(operation, x, kernel, g, "the patches do not fit an index");
  return e;
}

/** Positions of one axis of the kernel that lie in the image, for a kernel whose first element is at `at`: [first, last). */
struct kernel_range {
  index_t first;
  index_t last;
  kernel_range(index_t at, index_t kernel, index_t dilation, index_t size) noexcept {
    first = at >= 0 ? 0 : (-at - 1) / dilation + 1;
    last = at >= size ? 0 : (size - at - 1) / dilation + 1;
    if (first > kernel) first = kernel;
    if (last > kernel) last = kernel;
    if (last < first) last = first;
  }
};

/** Rows [begin, begin + rows) of the patches, in C order. */
template <class T>
void write_patches(const ndview<const T, 4>& x, const conv2d_extents& e, const conv2d_geometry& g, index_t begin, index_t rows,
                   T* to) noexcept {
  for (index_t token = begin; token < begin + rows; ++token) {
    const index_t column = token % e.output[1];
    const index_t row = token / e.output[1] % e.output[0];
    const index_t image = token / e.output[1] / e.output[0];
    const index_t top = row * g.stride[0] - g.padding[0];
    const index_t left = column * g.stride[1] - g.padding[1];
    const kernel_range down(top, e.kernel[0], g.dilation[0], e.size[0]);
    const kernel_range along(left, e.kernel[1], g.dilation[1], e.size[1]);
    // Between two elements of the image; for one alone the product might overflow.
    const index_t step = along.last - along.first > 1 ? g.dilation[1] * x.stride(3) : 0;
    for (index_t c = 0; c < e.channels; ++c)
      for (index_t i = 0; i < e.kernel[0]; ++i) {
        if (i < down.first || i >= down.last || along.first == along.last) {
          for (index_t j = 0; j < e.kernel[1]; ++j) *to++ = T{};
          continue;
        }
        for (index_t j = 0; j < along.first; ++j) *to++ = T{};
        const T* from = x.data() + image * x.stride(0) + c * x.stride(1) + (top + i * g.dilation[0]) * x.stride(2) +
                        (left + along.first * g.dilation[1]) * x.stride(3);
        for (index_t j = 0; j < along.last - along.first; ++j) *to++ = from[j * step];
        for (index_t j = along.last; j < e.kernel[1]; ++j) *to++ = T{};
      }
  }
}

template <class V>
concept image_batch = viewable<V> && requires(V& v) {
  requires float_element<typename decltype(as_view(v))::value_type>;
  requires decltype(as_view(v))::rank() == 4;
};

}  // namespace detail

/**
 * The patches of all images: row (image * oh + i) * ow + j holds what the kernel at (i, j) sees, channel by channel and row by row, so that its
 * order is that of a weight [out, channels, height, width]. Where the kernel lies on padding, zeros.
 *
 * @param x       [n, channels, height, width], view or array of float, bfloat16 or float16, any strides
 * @param kernel  {height, width}
 * @return        [n * oh * ow, channels * kernel height * kernel width], o = (size + 2 padding - dilation (kernel - 1) - 1) / stride + 1
 * @throws shape_error when the kernel is larger than the padded image, a number is out of range or the result does not fit; std::bad_alloc.
 * @par Cost  One pass over the result.
 */
template <detail::image_batch X>
[[nodiscard]] auto patches(const X& x, const extents<2>& kernel, const conv2d_geometry& geometry = {}) {
  using T = std::remove_cv_t<typename decltype(detail::as_view(x))::value_type>;
  const ndview<const T, 4> from = detail::as_view(x);
  const detail::conv2d_extents e = detail::conv2d_extents_of("patches", from.shape().array().data(), kernel.array().data(), geometry);
  ndarray<T, 2> to(extents{e.tokens, e.in});
  if (to.size() != 0) detail::write_patches(from, e, geometry, 0, e.tokens, to.data());
  return to;
}

}  // namespace lora::inline v0

#endif
