// SPDX-License-Identifier: Apache-2.0
//
// The portable tier: xsimd at the instruction set that the including file is compiled for (SSE2 on x86-64 without flags, NEON on
// AArch64). With this, the only include of xsimd in the library.
#ifndef LORA_SIMD_GENERIC_HPP
#define LORA_SIMD_GENERIC_HPP

#include <lora/simd/kernel.hpp>

// g++ 12 finds uninitialised variables in its own AVX-512 headers, through xsimd, and reports them in our callers; xsimd's NEON header
// compares signed with unsigned. Neither is the user's business.
#if defined(__clang__)
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wall"
#pragma clang diagnostic ignored "-Wextra"
#pragma clang diagnostic ignored "-Wconversion"
#pragma clang diagnostic ignored "-Wshadow"
#pragma clang diagnostic ignored "-Wsign-compare"
#else
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wsign-compare"
#pragma GCC diagnostic ignored "-Wpedantic"
#endif
#include <xsimd/xsimd.hpp>

namespace lora::inline v0::simd::inline LORA_ISA_TAG::generic {

// xsimd 8.1 does not compile its AVX-512 code for AVX-512F without DQ, and has no fused multiply-add there; the avx512 tier covers
// those CPUs, so this tier stops at AVX2.
#if defined(__AVX512F__) && defined(__FMA__)
using arch = xsimd::fma3<xsimd::avx2>;  // not plain avx2: its multiply-add is two operations, fused or not as the compiler likes
#elif defined(__AVX512F__)
using arch = xsimd::avx2;
#else
using arch = xsimd::default_arch;
#endif
using reg = xsimd::batch<float, arch>;
inline constexpr int lanes = static_cast<int>(reg::size);
inline constexpr int columns_held = 2;

#define LORA_SIMD_TARGET

LORA_ALWAYS_INLINE reg zero() noexcept { return reg(0.0f); }
LORA_ALWAYS_INLINE reg load(const float* p) noexcept { return reg::load_unaligned(p); }
LORA_ALWAYS_INLINE void store(float* p, reg v) noexcept { v.store_unaligned(p); }
LORA_ALWAYS_INLINE reg splat(float f) noexcept { return reg(f); }
LORA_ALWAYS_INLINE float first(reg v) noexcept { return v.get(0); }
LORA_ALWAYS_INLINE reg madd(reg a, reg b, reg c) noexcept { return xsimd::fma(a, b, c); }
LORA_ALWAYS_INLINE void accumulate(reg& sum, reg a, reg b) noexcept { sum = madd(a, b, sum); }
LORA_ALWAYS_INLINE void pin([[maybe_unused]] reg& v) noexcept {}

LORA_ALWAYS_INLINE float widened(bfloat16, std::uint16_t bits) noexcept { return lora::detail::bfloat16_to_float(bits); }
LORA_ALWAYS_INLINE float widened(float16, std::uint16_t bits) noexcept { return lora::detail::float16_to_float(bits); }
LORA_ALWAYS_INLINE float widened(float, float f) noexcept { return f; }

template <int T, class W>
LORA_ALWAYS_INLINE reg spread(W, const row_element<W>* p) noexcept {
  static_assert(T == 1 || T == lanes);
  if constexpr (T == lanes) {
    return reg(widened(W{}, *p));
  } else if constexpr (std::is_same_v<W, float>) {
    return load(p);
  } else {
    float wide[lanes];
    for (int i = 0; i < lanes; ++i) wide[i] = widened(W{}, p[i]);
    return load(wide);
  }
}

template <int T, class W>
LORA_ALWAYS_INLINE reg spread_part(W, const row_element<W>* p, int n) noexcept {
  static_assert(T == 1);
  float part[lanes] = {};
  for (int i = 0; i < n; ++i) part[i] = widened(W{}, p[i]);
  return load(part);
}

template <class W, int T>
inline constexpr widened_by widening = widened_by::registers;  // as integers, which do not stand in the way of multiply-adds

template <class W>
LORA_ALWAYS_INLINE reg madd(W, reg w, reg x, reg c) noexcept {
  return madd(w, x, c);
}

template <int T>
LORA_ALWAYS_INLINE void fold(reg v, float* out) noexcept {
  if constexpr (T == lanes) {
    store(out, v);
  } else {
    float part[lanes];
    store(part, v);
    for (int half = lanes / 2; half > 0; half /= 2)
      for (int i = 0; i < half; ++i) part[i] += part[i + half];
    *out = part[0];
  }
}

template <int T>
inline constexpr int folded_together = T == 1 ? 8 : 1;
template <int T>
LORA_ALWAYS_INLINE void fold_together(const reg (&v)[folded_together<T>], float* out) noexcept {
#pragma GCC unroll 8
  for (int i = 0; i < folded_together<T>; ++i) fold<T>(v[i], out + i * T);
}

template <int N>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE reg spread_head(const float* p) noexcept {
  return spread_part<1>(0.0f, p, N);
}
LORA_SIMD_TARGET LORA_ALWAYS_INLINE reg scaled_part(const float* p, int n, float scale) noexcept {
  float part[lanes] = {};
  for (int i = 0; i < n; ++i) part[i] = p[i] * scale;
  return load(part);
}

#include <lora/simd/tile.inl>

#include <lora/simd/columns.inl>

#include <lora/simd/norms.inl>

// 16 registers: 12 sums, the tokens and one element of W.
template <class W>
[[nodiscard]] const form* form_for(count tokens) noexcept {
  if (tokens <= 1) return &form_of<W, 1, 8, 1>;
  if (tokens == 2) return &form_of<W, 1, 6, 2>;
  return tokens <= lanes ? &form_of<W, lanes, 6, 1> : &form_of<W, lanes, 6, 2>;
}
template <class W>
[[nodiscard]] const form* rest_form_for(const form& f, count tokens) noexcept {
  if (f.tokens_lane == 1) return f.rows == 6 && tokens == 1 ? &form_of<W, 1, 6, 1> : &f;
  return tokens <= lanes ? &form_of<W, lanes, 6, 1> : &f;
}
template <class W>
[[nodiscard]] const form* row_form_for(count tokens) noexcept {
  return tokens <= 1 ? &form_of<W, 1, 8, 1> : &form_of<W, 1, 6, 2>;
}

template <class W>
[[nodiscard]] const kernel_table& table() noexcept {
  static constexpr kernel_table t{tier::generic,
                                  lanes,
                                  &form_for<W>,
                                  &rest_form_for<W>,
                                  &row_form_for<W>,
                                  &pack_panel_plain<float>,
                                  {&widen_row<float>, &widen_row<bfloat16>, &widen_row<float16>},
                                  &run_merge_row,
                                  &run_short<W>};
  return t;
}
template <class X>
[[nodiscard]] pack_kernel packer() noexcept {
  return &pack_panel_plain<X>;
}
template <class W>
[[nodiscard]] columns_kernel columns_runner() noexcept {
  return &run_columns<W>;
}
template <class Y>
[[nodiscard]] store_kernel storer() noexcept {
  return &store_sums_plain<Y>;
}

#undef LORA_SIMD_TARGET

}  // namespace lora::inline v0::simd::inline LORA_ISA_TAG::generic

#if defined(__clang__)
#pragma clang diagnostic pop
#else
#pragma GCC diagnostic pop
#endif

#endif
