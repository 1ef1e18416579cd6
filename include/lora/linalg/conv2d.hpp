// SPDX-License-Identifier: Apache-2.0
//
// conv2d: a convolution with low-rank terms, y = conv(x, W) + bias + sum of scale * conv1x1(conv(x, A), B), as the matrix product that it is.
// W [out, channels, height, width] is the matrix [out, in] with in = channels x height x width, each A one [rank, in], and x the matrix of its
// patches, of which a block at a time is in memory. Products, norms, DoRA and merge are those of linear modules.
//
//   lora::conv2d_workspace scratch;
//   lora::conv2d(y, x, w, set[module], bias, scratch, {.stride = {2, 2}, .padding = {1, 1}});   // y [n, out, oh, ow]
//   const auto merged = lora::merged(lora::reshape(w, out, -1), set[module]);                   // W + s B A, as the matrix
//
// Zeros are the only padding; there are no groups.
#ifndef LORA_LINALG_CONV2D_HPP
#define LORA_LINALG_CONV2D_HPP

#include <lora/linalg/forward.hpp>
#include <lora/linalg/patches.hpp>
#include <lora/nd/axes.hpp>
#include <lora/nd/reshape.hpp>

namespace lora::inline v0 {

/** Scratch memory of conv2d, kept from call to call like a workspace. */
struct conv2d_workspace {
  workspace product;
  workspace patches;
};

namespace detail {

/** Tokens in a block of patches: forward() reads W once for so many. */
inline constexpr index_t conv2d_block = 64;

[[noreturn, gnu::cold, gnu::noinline]] inline void raise_conv_pair(const char* first, shape_text a, const char* second, shape_text b,
                                                                   const char* why = "") {
  raise<shape_error>(text() << "conv2d: " << first << " is " << a << " but " << second << " is " << b << why);
}

/** Extents of the four, and of the terms' matrices. */
inline conv2d_extents check_conv2d(const index_t* y, const index_t* x, const index_t* w, const low_rank_update& update,
                                   const conv2d_geometry& g) {
  const conv2d_extents e = conv2d_extents_of("conv2d", x, w + 2, g);
  if (w[1] != e.channels)
    raise_conv_pair("w", {w, 4}, "x", {x, 4},
                    w[1] > 0 && e.channels % w[1] == 0 && e.channels > w[1] ? "; convolutions in groups are not supported" : "");
  const index_t wanted[4] = {e.n, w[0], e.output[0], e.output[1]};
  for (int i = 0; i < 4; ++i)
    if (y[i] != wanted[i]) raise_conv_pair("y", {y, 4}, "the result", {wanted, 4});
  const index_t matrix[2] = {w[0], e.in};
  for (const low_rank_term& t : update.terms) {
    const index_t a[2] = {t.a.extent(0), t.a.extent(1)};
    const index_t b[2] = {t.b.extent(0), t.b.extent(1)};
    if (a[1] != matrix[1]) raise_conv_pair("a", {a, 2}, "w as a matrix", {matrix, 2});
    if (b[0] != matrix[0]) raise_conv_pair("b", {b, 2}, "w as a matrix", {matrix, 2});
    const bool dilated = (g.dilation[0] > 1 && e.kernel[0] > 1) || (g.dilation[1] > 1 && e.kernel[1] > 1);
    if (dilated && !g.dilated_terms && t.scale != 0.0f && a[0] != 0)
      raise<value_error>(
          text() << "conv2d: low-rank terms beside a dilation of " << shape_text{g.dilation, 2}
                 << ": PEFT's forward does not dilate A while its merge does; conv2d_geometry::dilated_terms asks for the latter");
  }
  return e;
}

/** Axes (n, channels, height, width) as (n, height, width, channels). */
template <class T>
[[nodiscard]] ndview<T, 4> channels_last(const ndview<T, 4>& v) {
  return {v.data(), extents<4>{v.extent(0), v.extent(2), v.extent(3), v.extent(1)},
          strides<4>{v.stride(0), v.stride(2), v.stride(3), v.stride(1)}};
}

/**
 * The longest runs of tokens, in the order of the patches, that are matrices [tokens, channels] in place. `v` is channels_last.
 */
template <class T>
struct token_runs {
  ndview<T, 4> v;
  int joined;  // axes that are one: 3 all tokens, 2 those of an image, 1 those of a row

  explicit token_runs(const ndview<T, 4>& view) : v(view), joined(1) {
    if (try_reshape(v, extents<2>{v.extent(0) * v.extent(1) * v.extent(2), v.extent(3)}))
      joined = 3;
    else if (v.extent(0) > 0 && try_reshape(image(0), extents<2>{v.extent(1) * v.extent(2), v.extent(3)}))
      joined = 2;
  }
  [[nodiscard]] ndview<T, 3> image(index_t i) const {
    return {v.data() + i * v.stride(0), extents<3>{v.extent(1), v.extent(2), v.extent(3)},
            strides<3>{v.stride(1), v.stride(2), v.stride(3)}};
  }
  /** Run i of those that `axes` joined axes make. @pre axes <= joined */
  [[nodiscard]] ndview<T, 2> run(index_t i, int axes) const {
    if (axes == 3) return reshape(v, extents<2>{v.extent(0) * v.extent(1) * v.extent(2), v.extent(3)});
    if (axes == 2) return reshape(image(i), extents<2>{v.extent(1) * v.extent(2), v.extent(3)});
    const ndview<T, 3> from = image(i / v.extent(1));
    return {from.data() + i % v.extent(1) * from.stride(0), extents<2>{v.extent(2), v.extent(3)},
            strides<2>{from.stride(1), from.stride(2)}};
  }
};

}  // namespace detail

inline namespace LORA_ISA_TAG {

/**
 * y = conv(x, W) + bias + sum_i scale_i conv1x1(conv(x, A_i), B_i), and whatever else the update has, as lora::forward.
 *
 * Patches are copied in blocks of up to 64 tokens (positions of the kernel). A kernel of 1x1 without padding reads x where it lies instead, if the
 * positions of a row, image or batch are evenly spaced in x and in y alike; with the usual layouts and stride 1 they are.
 *
 * @param y         [n, out, oh, ow]               view or array, written; any strides but 0
 * @param x         [n, channels, height, width]   view or array, any strides: channels last is a matter of strides
 * @param w         [out, channels, height, width] view or array whose last three axes can be taken as one (any C order)
 * @param update    terms a [rank, channels x height x width], b [out, rank]: what io's readers and adapter_set give for a module conv2d
 * @param bias      [out] or {}
 * @param scratch   overwritten; grown when too small, so keep it
 * @throws shape_error naming both shapes when extents disagree, when the kernel is larger than the padded image, and for convolutions in
 *         groups, which w's channels tell; value_error for terms beside a dilation, see conv2d_geometry; y is untouched. std::bad_alloc.
 * @pre y overlaps no other argument.
 * @par Cost      2 n oh ow (out in + rank (in + out)) flops; patches of 64 tokens; no allocation once scratch is large enough.
 * @par Accuracy  That of forward(): padding adds products with 0, which are exact.
 * @par Bits      As forward(), for blocks of which the sizes follow from the shapes and strides of x and y alone.
 * @par Threads   Safe beside any call with another y and another scratch. The executor splits the outputs of each block; patches are copied by
 *                the calling thread.
 */
template <int Checks = LORA_CHECKS, detail::image_batch Y, detail::image_batch X, detail::image_batch W, executor E>
void conv2d(Y&& y, const X& x, const W& w, const low_rank_update& update, float_view<1> bias, conv2d_workspace& scratch, E& ex,
            const conv2d_geometry& geometry = {}, const forward_options& options = {}) {
  using T = std::remove_cv_t<typename decltype(detail::as_view(x))::value_type>;
  using To = typename decltype(detail::as_view(y))::element_type;
  static_assert(!std::is_const_v<To>, "lora: conv2d writes to a read-only view");
  const ndview<To, 4> to = detail::as_view(y);
  const ndview<const T, 4> from = detail::as_view(x);
  const auto weight = detail::as_view(w);
  const detail::conv2d_extents e =
      detail::check_conv2d(to.shape().array().data(), from.shape().array().data(), weight.shape().array().data(), update, geometry);
  const auto rows = reshape(weight, extents<2>{weight.extent(0), e.in});
  if (to.size() == 0) return;
  for (std::size_t axis = 0; axis < 4; ++axis)
    if (to.stride(axis) == 0 && to.extent(axis) > 1)
      detail::raise<shape_error>(detail::text() << "conv2d: y of shape " << detail::shape_text{to.shape().array().data(), 4}
                                                << " has stride 0: several results would be written to one element");
  const detail::token_runs<To> out(detail::channels_last(to));
  const auto product = [&](const ndview<To, 2>& part, const ndview<const T, 2>& tokens) {
    lora::forward<Checks>(part, tokens, rows, update, bias, scratch.product, ex, options);
  };
  int joined = out.joined;
  const auto runs = [&] { return joined == 3 ? 1 : joined == 2 ? e.n : e.n * e.output[0]; };

  const index_t* const p = geometry.padding;
  if (e.kernel[0] == 1 && e.kernel[1] == 1 && p[0] == 0 && p[1] == 0) {
    // Between two positions at least, the step lies in the image: it cannot overflow.
    const index_t down = e.output[0] > 1 ? from.stride(2) * geometry.stride[0] : 0;
    const index_t along = e.output[1] > 1 ? from.stride(3) * geometry.stride[1] : 0;
    const ndview<const T, 4> seen(from.data(), extents<4>{e.n, e.channels, e.output[0], e.output[1]},
                                  strides<4>{from.stride(0), from.stride(1), down, along});
    const detail::token_runs<const T> in(detail::channels_last(seen));
    joined = in.joined < joined ? in.joined : joined;
    if (joined > 1 || e.output[1] >= detail::conv2d_block) {  // short rows are better copied together
      for (index_t i = 0; i < runs(); ++i) product(out.run(i, joined), in.run(i, joined));
      return;
    }
    joined = out.joined;
  }

  const index_t tokens = e.tokens / runs();
  const index_t blocks = (tokens - 1) / detail::conv2d_block + 1;
  const index_t most = tokens < detail::conv2d_block ? tokens : detail::conv2d_block;
  detail::layout room;
  std::size_t elements = 0;
  if (!checked_mul(static_cast<std::size_t>(most), static_cast<std::size_t>(e.in), elements)) elements = static_cast<std::size_t>(-1);
  (void)room.add(elements, sizeof(T));
  scratch.patches.reserve(room.total("conv2d"));
  T* const memory = static_cast<T*>(scratch.patches.data());
  for (index_t run = 0; run < runs(); ++run) {
    const ndview<To, 2> part = out.run(run, joined);
    for (index_t b = 0; b < blocks; ++b) {
      // Blocks of nearly equal size, so that none is a small rest.
      const index_t begin = tokens / blocks * b + tokens % blocks * b / blocks;
      const index_t end = tokens / blocks * (b + 1) + tokens % blocks * (b + 1) / blocks;
      detail::write_patches(from, e, geometry, run * tokens + begin, end - begin, memory);
      product({part.data() + begin * part.stride(0), extents<2>{end - begin, part.extent(1)}, part.stride()},
              {memory, extents<2>{end - begin, e.in}});
    }
  }
}

/** As above, on the calling thread. */
template <int Checks = LORA_CHECKS, detail::image_batch Y, detail::image_batch X, detail::image_batch W>
void conv2d(Y&& y, const X& x, const W& w, const low_rank_update& update, float_view<1> bias, conv2d_workspace& scratch,
            const conv2d_geometry& geometry = {}, const forward_options& options = {}) {
  inline_executor here;
  conv2d<Checks>(y, x, w, update, bias, scratch, here, geometry, options);
}

}  // namespace LORA_ISA_TAG
}  // namespace lora::inline v0

#endif
