// SPDX-License-Identifier: Apache-2.0
//
// Transcendental functions of floats, a register at a time, at the width of the tier in use; and the passes over a row that softmax and the
// norms are made of. Raw pointers, no checks. What they are used for, with views and other element types, is in ops/activation.hpp,
// ops/softmax.hpp and ops/normalize.hpp.
//
//   lora::simd::map<lora::simd::math_op::gelu>(from, to, n);     // to may be from
//
// Largest error in ulp of the result, over all 2^32 floats and every tier, against the function computed in double
// (tests/simd/slow/math_test.cpp); zeros, infinities and NaN as in C:
//
// | exp | log | erf | tanh | silu | gelu | gelu_tanh |
// |-----|-----|-----|------|------|------|-----------|
// | 1.1 | 1.0 | 1.4 | 1.5  | 3.5  | 5.75 | 3.5       |
#ifndef LORA_SIMD_MATH_HPP
#define LORA_SIMD_MATH_HPP

#include <lora/simd/active.hpp>
#include <lora/simd/vec.hpp>

#include <utility>

namespace lora::inline v0::simd {

/** The functions that map computes. */
enum class math_op : unsigned char { exp, log, erf, tanh, silu, gelu, gelu_tanh };

/** Passes over one row, or over one row of columns, of n floats; math.inl says what each does. */
struct row_kernels {
  float (*max)(const float* from, std::ptrdiff_t n) noexcept;
  float (*exp_sum)(const float* from, float* to, std::ptrdiff_t n, float shift) noexcept;
  float (*sum)(const float* from, std::ptrdiff_t n, float high, float low) noexcept;
  float (*squares)(const float* from, std::ptrdiff_t n, float high, float low) noexcept;
  void (*normalize)(const float* from, float* to, std::ptrdiff_t n, float high, float low, float factor, const float* weight,
                    const float* bias) noexcept;
  void (*columns_max)(const float* from, float* most, std::ptrdiff_t n) noexcept;
  void (*columns_exp_sum)(const float* from, float* to, const float* shift, float* sum, std::ptrdiff_t n) noexcept;
  void (*divide)(const float* from, float* to, const float* by, bool by_one, std::ptrdiff_t n) noexcept;
};

}  // namespace lora::inline v0::simd

#define LORA_SIMD_BODY <lora/simd/math.inl>
#include <lora/simd/for_each_tier.inl>

namespace lora::inline v0::simd::inline LORA_ISA_TAG {

/**
 * to[i] = Op(from[i]). An element's bits depend on its value, on the tier, and on the compiler and its optimisation level, which decide where a
 * product and a sum are fused; not on where it stands. `to` is `from` or apart from it.
 */
template <math_op Op>
void map(const float* from, float* to, std::ptrdiff_t n, tier wanted = tier::avx512) noexcept {
#if LORA_X86
  switch (usable_tier(wanted)) {
    case tier::avx512_bf16:
    case tier::avx512:
      return vec_avx512::map<Op>(from, to, n);
    case tier::avx2:
      return vec_avx2::map<Op>(from, to, n);
    case tier::generic:
      break;
  }
#endif
  (void)wanted;
  vec_generic::map<Op>(from, to, n);
}

/** The passes of a tier; a template for the reason kernels() is one (dispatch.hpp). */
template <class Lazy = void>
[[nodiscard]] const row_kernels& rows(tier wanted = tier::avx512) noexcept {
#if LORA_X86
  switch (usable_tier(wanted)) {
    case tier::avx512_bf16:
    case tier::avx512:
      return vec_avx512::rows<Lazy>();
    case tier::avx2:
      return vec_avx2::rows<Lazy>();
    case tier::generic:
      break;
  }
#endif
  (void)wanted;
  return vec_generic::rows<Lazy>();
}

}  // namespace lora::inline v0::simd::inline LORA_ISA_TAG

#endif
