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

#define LORA_SIMD_TARGET

LORA_ALWAYS_INLINE reg zero() noexcept { return reg(0.0f); }
LORA_ALWAYS_INLINE reg load(const float* p) noexcept { return reg::load_unaligned(p); }
LORA_ALWAYS_INLINE void store(float* p, reg v) noexcept { v.store_unaligned(p); }
LORA_ALWAYS_INLINE reg splat(float f) noexcept { return reg(f); }
LORA_ALWAYS_INLINE float first(reg v) noexcept { return v.get(0); }
LORA_ALWAYS_INLINE reg madd(reg a, reg b, reg c) noexcept { return xsimd::fma(a, b, c); }
LORA_ALWAYS_INLINE void pin([[maybe_unused]] reg& v) noexcept {}

template <int T>
LORA_ALWAYS_INLINE reg spread(const float* p) noexcept {
  static_assert(T == 1 || T == lanes);
  if constexpr (T == 1)
    return load(p);
  else
    return reg(*p);
}

template <int T>
LORA_ALWAYS_INLINE reg spread_part(const float* p, int n) noexcept {
  static_assert(T == 1);
  float part[lanes] = {};
  for (int i = 0; i < n; ++i) part[i] = p[i];
  return load(part);
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

#include <lora/simd/tile.inl>

// 16 registers: 12 sums, the tokens and one element of W.
template <class Lazy>
[[nodiscard]] const form* form_for(count tokens) noexcept {
  if (tokens <= 1) return &form_of<1, 8, 1>;
  if (tokens == 2) return &form_of<1, 6, 2>;
  return tokens <= lanes ? &form_of<lanes, 6, 1> : &form_of<lanes, 6, 2>;
}
template <class Lazy>
[[nodiscard]] const form* rest_form_for(const form& f, count tokens) noexcept {
  return f.tokens_lane == lanes && tokens <= lanes ? &form_of<lanes, 6, 1> : &f;
}

template <class Lazy>
[[nodiscard]] const kernel_table& table() noexcept {
  static constexpr kernel_table t{tier::generic,     lanes,         &form_for<Lazy>, &rest_form_for<Lazy>, &pack_panel_plain,
                                  &store_sums_plain, &run_merge_row};
  return t;
}

#undef LORA_SIMD_TARGET

}  // namespace lora::inline v0::simd::inline LORA_ISA_TAG::generic

#if defined(__clang__)
#pragma clang diagnostic pop
#else
#pragma GCC diagnostic pop
#endif

#endif
