// SPDX-License-Identifier: Apache-2.0
//
// layer_norm and rms_norm over the last axis of a view, as the models define them (torch.nn.functional.layer_norm, rms_norm).
//
//   lora::layer_norm(x, weight, bias, 1e-5, y);                // x, y [n, d]; weight, bias [d]
//   lora::rms_norm(x, weight, 1e-6, x);                        // in place
#ifndef LORA_OPS_NORMALIZE_HPP
#define LORA_OPS_NORMALIZE_HPP

#include <lora/ops/apply.hpp>
#include <lora/ops/rows.hpp>
#include <lora/simd/isa.hpp>

namespace lora::inline v0 {

namespace detail::inline LORA_ISA_TAG {

[[noreturn, gnu::cold, gnu::noinline]] inline void raise_norm_shape(const char* what, const char* which, index_t length,
                                                                    const index_t* shape, std::size_t rank) {
  text t;
  t << what << ": " << which << " is " << shape_text{&length, 1} << " but the last axis of x, " << shape_text{shape, rank} << ", is "
    << shape[rank - 1];
  raise<shape_error>(t);
}

[[noreturn, gnu::cold, gnu::noinline]] inline void raise_norm_overlap(const char* what, const char* which) {
  raise<shape_error>(text() << what << ": the output overlaps " << which << "; clone() one of them first");
}

/** A parameter of one element a column; null means the neutral one. */
template <class P>
struct norm_parameter {
  const P* data;
  index_t stride;

  template <class C>
  [[nodiscard]] const C* block(index_t from, index_t n, C* room) const noexcept {
    return data == nullptr ? nullptr : take(data + from * stride, stride, n, room);
  }
};

/** One line. Centred: layer_norm, else rms_norm. */
template <bool Centred, class F, class T, class P>
void normalize_line(const F* from, index_t from_step, T* to, index_t to_step, index_t n, norm_parameter<P> weight, norm_parameter<P> bias,
                    double eps) noexcept {
  using C = computed_in<T>;
  const auto k = rows_of<C>();
  C in[block_size];
  C out[block_size];
  C weights[block_size];
  C biases[block_size];
  const auto blocks = [&](auto one) {
    for (index_t i = 0; i < n; i += block_size) {
      const index_t length = n - i < block_size ? n - i : block_size;
      one(take(from + i * from_step, from_step, length, in), i, length);
    }
  };
  // The mean in two parts: rounded to one float it would move every element of a line far from zero.
  C high = 0;
  C low = 0;
  if constexpr (Centred) {
    double sum = 0;
    blocks([&](const C* x, index_t, index_t length) { sum += static_cast<double>(k.sum(x, length, 0, 0)); });
    const double mean = sum / static_cast<double>(n);
    high = static_cast<C>(mean);
    low = static_cast<C>(mean - static_cast<double>(high));
  }
  double squares = 0;
  blocks([&](const C* x, index_t, index_t length) { squares += static_cast<double>(k.squares(x, length, high, low)); });
  const auto factor = static_cast<C>(1 / __builtin_sqrt(squares / static_cast<double>(n) + eps));
  blocks([&](const C* x, index_t i, index_t length) {
    T* const t = to + i * to_step;
    C* const y = place(t, to_step, out);
    k.normalize(x, y, length, high, low, factor, weight.block(i, length, weights), bias.block(i, length, biases));
    put(y, t, to_step, length);
  });
}

template <bool Centred, class X, class P, class To>
void normalize_views(const char* what, const X& from, const P* weight, const P* bias, double eps, const To& to) {
  using F = typename X::value_type;
  using T = typename To::value_type;
  using W = typename P::value_type;
  constexpr std::size_t rank = To::rank();
  static_assert(is_math_element<F> && is_math_element<T> && is_math_element<W>,
                "lora: the norms take float, double, float16 and bfloat16; cast other elements first");
  static_assert(std::is_same_v<F, double> == std::is_same_v<T, double> && std::is_same_v<W, double> == std::is_same_v<T, double>,
                "lora: the norms do not mix double with smaller types; cast first");
  static_assert(!std::is_const_v<typename To::element_type>, "lora: the norms write to a read-only view (const elements, or a broadcast)");
  static_assert(X::rank() == rank && rank != 0, "lora: the norms take x and the output of one rank, with at least one axis");
  static_assert(P::rank() == 1, "lora: the parameters of a norm are vectors, one element for each of the last axis");
  if (may_overlap_itself(to)) raise_output_overlaps_itself(what, to.shape().array().data(), to.stride().array().data(), rank);
  check_input(what, 0, to, from);
  const index_t n = to.extent(rank - 1);
  const P* const parameters[] = {weight, bias};
  const char* const names[] = {"weight", "bias"};
  for (int i = 0; i < 2; ++i) {
    if (parameters[i] == nullptr) continue;
    if (parameters[i]->extent(0) != n) raise_norm_shape(what, names[i], parameters[i]->extent(0), from.shape().array().data(), rank);
    if (may_overlap(to, *parameters[i])) raise_norm_overlap(what, names[i]);
  }
  if (to.empty()) return;
  const auto parameter = [](const P* p) {
    return p == nullptr ? norm_parameter<W>{nullptr, 0} : norm_parameter<W>{p->data(), p->stride(0)};
  };
  auto lines = to.shape().array();
  lines[rank - 1] = 1;
  const loop_plan<2> plan(extents<rank>(lines), to.stride(), from.stride());
  plan.for_each_block([&](const loop_block<2>& b) {
    for (index_t r = 0; r < b.rows; ++r)
      for (index_t c = 0; c < b.count; ++c)
        normalize_line<Centred>(static_cast<const F*>(from.data()) + b.offset[1] + r * b.row_stride[1] + c * b.stride[1],
                                from.stride(rank - 1), to.data() + b.offset[0] + r * b.row_stride[0] + c * b.stride[0], to.stride(rank - 1),
                                n, parameter(weight), parameter(bias), eps);
  });
}

}  // namespace detail::inline LORA_ISA_TAG

inline namespace LORA_ISA_TAG {

/**
 * to = (x - mean) / sqrt(variance + eps) * weight + bias, with the mean and the (biased) variance of each line of the last axis.
 *
 * @param x       [..., d]  view or ndarray: float, double, float16, bfloat16
 * @param weight  [d]       any stride
 * @param bias    [d]       of weight's type
 * @param eps     added to the variance
 * @param to      [..., d]  the very same elements as x (in place) or no byte shared with it; shares none with weight or bias
 * @throws shape_error naming the shapes when they do not fit, or the views overlap in part; nothing is written then.
 * @par Cost      Three passes over a line (it stays in L1 up to 8000 floats), no allocation.
 * @par Accuracy  While nothing overflows or underflows (squares of floats: magnitudes from 1e-19 to 1e19). Two-pass: the mean first, then
 *                the squares of the differences. For float, with u = 2^-24 and s the line's sqrt(variance + eps): |mean - exact| <= h u
 *                mean|x|; the variance within (2 h + 4) u of itself plus the square of the mean's error; each element within (h + 8) u
 *                |weight| |y| + h u |weight| mean|x| / s + u |bias|. h is the number of roundings in a block's sum: 1024 / lanes +
 *                log2(lanes), that is 68 on AVX-512 and 258 on the generic tier; it does not grow with d. float16 and bfloat16: one more
 *                rounding.
 * @par Threads   Safe beside any call that writes other elements and no operand.
 */
template <detail::viewable X, detail::viewable Weight, detail::viewable Bias, detail::named_array_or_view To>
void layer_norm(const X& x, const Weight& weight, const Bias& bias, double eps, To&& to) {
  const auto w = detail::as_view(weight);
  const auto b = detail::as_view(bias);
  using W = typename decltype(detail::as_view(weight))::value_type;
  static_assert(std::is_same_v<W, typename decltype(detail::as_view(bias))::value_type>,
                "lora: weight and bias of layer_norm have one element type");
  const ndview<const W, decltype(detail::as_view(weight))::rank()> cw = w;
  const ndview<const W, decltype(detail::as_view(bias))::rank()> cb = b;
  detail::normalize_views<true>("layer_norm", detail::as_view(x), &cw, &cb, eps, detail::as_view(to));
}

/** to = x / sqrt(mean of x x + eps) * weight along the last axis. Otherwise as layer_norm; the mean's error does not occur. */
template <detail::viewable X, detail::viewable Weight, detail::named_array_or_view To>
void rms_norm(const X& x, const Weight& weight, double eps, To&& to) {
  using view = decltype(detail::as_view(weight));
  const ndview<const typename view::value_type, view::rank()> w = detail::as_view(weight);
  detail::normalize_views<false>("rms_norm", detail::as_view(x), &w, static_cast<const decltype(w)*>(nullptr), eps, detail::as_view(to));
}

}  // namespace LORA_ISA_TAG
}  // namespace lora::inline v0

#endif
