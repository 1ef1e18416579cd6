// SPDX-License-Identifier: Apache-2.0
//
// The activation functions of transformer models, and the functions they are made of, element by element: gelu, gelu_tanh, silu, exp, log, erf,
// tanh. (relu and its like need nothing from here: apply.)
//
//   lora::gelu(h, h);                                          // from, to: in place
//   lora::silu(gate_bf16, gate_f32);                           // computed in float, rounded once
//
// Elements are float, double, float16 or bfloat16. All but double are computed in float by polynomials (errors: simd/math.hpp), at the width
// of the CPU and without -m flags; double goes through libm.
#ifndef LORA_OPS_ACTIVATION_HPP
#define LORA_OPS_ACTIVATION_HPP

#include <lora/ops/apply.hpp>
#include <lora/ops/rows.hpp>
#include <lora/simd/isa.hpp>

namespace lora::inline v0 {

namespace detail::inline LORA_ISA_TAG {

template <simd::math_op Op>
[[nodiscard]] inline double math_of(double x) noexcept {
  using simd::math_op;
  if constexpr (Op == math_op::exp) return __builtin_exp(x);
  if constexpr (Op == math_op::log) return __builtin_log(x);
  if constexpr (Op == math_op::erf) return __builtin_erf(x);
  if constexpr (Op == math_op::tanh) return __builtin_tanh(x);
  if (x == -__builtin_inf()) return -0.0;  // the limit of the three that follow
  if constexpr (Op == math_op::gelu) return x * 0.5 * __builtin_erfc(x * -0.70710678118654752440);
  const double z = Op == math_op::silu ? x : x * (1.5957691216057308 + 0.07135481627260025 * x * x);
  const double e = __builtin_exp(z < 0 ? z : -z);  // does not overflow
  return z < 0 ? x * e / (1 + e) : x / (1 + e);
}

template <simd::math_op Op>
void map_block(const float* from, float* to, index_t n) noexcept {
  simd::map<Op>(from, to, n);
}
template <simd::math_op Op>
void map_block(const double* from, double* to, index_t n) noexcept {
  for (index_t i = 0; i < n; ++i) to[i] = math_of<Op>(from[i]);
}

template <simd::math_op Op, class F, class T>
void map_rows(const loop_block<2>& b, const F* from, T* to) noexcept {
  using C = computed_in<T>;
  C in[block_size];
  C out[block_size];
  from += b.offset[1];
  to += b.offset[0];
  if (b.count < 64 && b.rows > 1) {  // several short rows at once
    const index_t together = block_size / b.count;
    for (index_t r = 0; r < b.rows; r += together) {
      const index_t n = b.rows - r < together ? b.rows - r : together;
      for (index_t k = 0; k < n; ++k) widen(from + (r + k) * b.row_stride[1], b.stride[1], b.count, in + k * b.count);
      map_block<Op>(in, out, n * b.count);
      for (index_t k = 0; k < n; ++k) narrow(out + k * b.count, to + (r + k) * b.row_stride[0], b.stride[0], b.count);
    }
    return;
  }
  for (index_t r = 0; r < b.rows; ++r) {
    for (index_t i = 0; i < b.count; i += block_size) {
      const index_t n = b.count - i < block_size ? b.count - i : block_size;
      T* const t = to + r * b.row_stride[0] + i * b.stride[0];
      C* const y = place(t, b.stride[0], out);
      map_block<Op>(take(from + r * b.row_stride[1] + i * b.stride[1], b.stride[1], n, in), y, n);
      put(y, t, b.stride[0], n);
    }
  }
}

/** Checks, plans and runs, for the views or arrays that the public functions were given. */
template <simd::math_op Op, class From, class To>
void map_views(const char* what, const From& from, To&& to) {
  const auto f = as_view(from);
  const auto t = as_view(to);
  using source = std::remove_const_t<decltype(f)>;
  using target = std::remove_const_t<decltype(t)>;
  using F = typename source::value_type;
  using T = typename target::value_type;
  static_assert(is_math_element<F> && is_math_element<T>,
                "lora: the vector math takes float, double, float16 and bfloat16; cast other elements first");
  static_assert(std::is_same_v<F, double> == std::is_same_v<T, double>,
                "lora: the vector math does not mix double with smaller types; cast first");
  static_assert(!std::is_const_v<typename target::element_type>,
                "lora: the vector math writes to a read-only view (const elements, or a broadcast)");
  static_assert(source::rank() == target::rank(), "lora: the vector math takes two views of one rank; slice or reshape one of them");
  if (may_overlap_itself(t)) raise_output_overlaps_itself(what, t.shape().array().data(), t.stride().array().data(), target::rank());
  check_input(what, 0, t, f);
  const loop_plan<2> plan(t.shape(), t.stride(), f.stride());
  plan.for_each_block([&](const loop_block<2>& b) { map_rows<Op>(b, static_cast<const F*>(f.data()), t.data()); });
}

}  // namespace detail::inline LORA_ISA_TAG

inline namespace LORA_ISA_TAG {

/**
 * to = from Phi(from), Phi the normal distribution: the exact form, x (1 + erf(x / sqrt 2)) / 2. At -infinity the limit, -0.
 *
 * @param from  view or ndarray of any layout
 * @param to    view or ndarray of the same shape: the very same elements (in place) or no byte shared, as for apply. Its type may differ
 *              among float, float16 and bfloat16.
 * @throws shape_error naming both shapes when they differ or the views overlap in part; nothing is written then.
 * @par Cost      One pass, no allocation. Without -m flags, 2^19 floats, Xeon with AVX-512, against a loop of std::erf on floats: 13 times as fast,
 *                9 times on the avx2 tier, 3 times on the generic one.
 * @par Accuracy  See simd/math.hpp; one more rounding to float16 and bfloat16. An element's bits do not depend on where it stands.
 * @par Threads   Safe beside any call that writes other elements and not `from`.
 */
template <detail::viewable From, detail::named_array_or_view To>
void gelu(const From& from, To&& to) {
  detail::map_views<simd::math_op::gelu>("gelu", from, to);
}

/** to = x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2: the approximation that some models were trained with. Otherwise as gelu. */
template <detail::viewable From, detail::named_array_or_view To>
void gelu_tanh(const From& from, To&& to) {
  detail::map_views<simd::math_op::gelu_tanh>("gelu_tanh", from, to);
}

/** to = x / (1 + e^-x), also called swish. At -infinity the limit, -0. Otherwise as gelu. */
template <detail::viewable From, detail::named_array_or_view To>
void silu(const From& from, To&& to) {
  detail::map_views<simd::math_op::silu>("silu", from, to);
}

/** to = e^from. Otherwise as gelu. */
template <detail::viewable From, detail::named_array_or_view To>
void exp(const From& from, To&& to) {
  detail::map_views<simd::math_op::exp>("exp", from, to);
}

/** to = the natural logarithm: -infinity of 0, NaN of negative numbers. Otherwise as gelu. */
template <detail::viewable From, detail::named_array_or_view To>
void log(const From& from, To&& to) {
  detail::map_views<simd::math_op::log>("log", from, to);
}

/** to = erf(from), the error function. Otherwise as gelu. */
template <detail::viewable From, detail::named_array_or_view To>
void erf(const From& from, To&& to) {
  detail::map_views<simd::math_op::erf>("erf", from, to);
}

/** to = tanh(from). Otherwise as gelu. */
template <detail::viewable From, detail::named_array_or_view To>
void tanh(const From& from, To&& to) {
  detail::map_views<simd::math_op::tanh>("tanh", from, to);
}

}  // namespace LORA_ISA_TAG
}  // namespace lora::inline v0

#endif
