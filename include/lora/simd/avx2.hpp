// SPDX-License-Identifier: Apache-2.0
//
// The AVX2 + FMA tier, compiled into every x86 program whatever its -m flags and called only where the CPU has both.
#ifndef LORA_SIMD_AVX2_HPP
#define LORA_SIMD_AVX2_HPP

#include <lora/simd/kernel.hpp>

#if LORA_X86

#if !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

namespace lora::inline v0::simd::inline LORA_ISA_TAG::avx2 {

using reg = __m256;
inline constexpr int lanes = 8;

#define LORA_SIMD_TARGET [[gnu::target("avx2,fma")]]

LORA_SIMD_TARGET LORA_ALWAYS_INLINE reg zero() noexcept { return _mm256_setzero_ps(); }
LORA_SIMD_TARGET LORA_ALWAYS_INLINE reg load(const float* p) noexcept { return _mm256_loadu_ps(p); }
LORA_SIMD_TARGET LORA_ALWAYS_INLINE void store(float* p, reg v) noexcept { _mm256_storeu_ps(p, v); }
LORA_SIMD_TARGET LORA_ALWAYS_INLINE reg splat(float f) noexcept { return _mm256_set1_ps(f); }
LORA_SIMD_TARGET LORA_ALWAYS_INLINE float first(reg v) noexcept { return _mm256_cvtss_f32(v); }
LORA_SIMD_TARGET LORA_ALWAYS_INLINE reg madd(reg a, reg b, reg c) noexcept { return _mm256_fmadd_ps(a, b, c); }
LORA_SIMD_TARGET LORA_ALWAYS_INLINE void pin(reg& v) noexcept { asm("" : "+x"(v)); }

template <int T>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE reg spread(const float* p) noexcept {
  if constexpr (T == 1) {
    return _mm256_loadu_ps(p);
  } else if constexpr (T == 2) {
    return _mm256_broadcast_ps(reinterpret_cast<const __m128*>(p));
  } else if constexpr (T == 4) {
    double pair;
    __builtin_memcpy(&pair, p, sizeof pair);
    return _mm256_castpd_ps(_mm256_set1_pd(pair));
  } else {
    static_assert(T == 8);
    return _mm256_broadcast_ss(p);
  }
}

template <int T>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE reg spread_part(const float* p, int n) noexcept {
  static_assert(T < 8);
  alignas(32) float part[8] = {};
  for (int i = 0; i < n; ++i) part[i] = p[i];
  return spread<T>(part);
}

template <int T>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE void fold(reg v, float* out) noexcept {
  if constexpr (T == 8) {
    _mm256_storeu_ps(out, v);
  } else {
    if constexpr (T == 1) v = _mm256_add_ps(v, _mm256_permute2f128_ps(v, v, 1));
    if constexpr (T <= 2) v = _mm256_add_ps(v, _mm256_permute_ps(v, 0x4e));
    v = _mm256_add_ps(v, _mm256_permute_ps(v, 0xb1));
    if constexpr (T == 4) {
      // Pairs are equal: lanes 0 and 2 of each half hold the four sums.
      const __m256 even = _mm256_permute_ps(v, 0x08);
      const __m128 low = _mm256_castps256_ps128(even);
      _mm_storeu_ps(out, _mm_movelh_ps(low, _mm256_extractf128_ps(even, 1)));
    } else if constexpr (T == 2) {
      out[0] = _mm256_cvtss_f32(v);
      out[1] = _mm_cvtss_f32(_mm256_extractf128_ps(v, 1));
    } else {
      out[0] = _mm256_cvtss_f32(v);
    }
  }
}

#include <lora/simd/tile.inl>

// 16 registers: at most 12 sums. T rises with the batch, so that few lanes stay empty.
template <class Lazy>
[[nodiscard]] const form* form_for(count tokens) noexcept {
  if (tokens <= 1) return &form_of<1, 8, 1>;
  if (tokens == 2) return &form_of<1, 6, 2>;
  if (tokens <= 4) return &form_of<2, 6, 2>;
  if (tokens <= 8) return &form_of<4, 6, 2>;
  return &form_of<8, 6, 2>;
}
template <class Lazy>
[[nodiscard]] const form* rest_form_for(const form& f, count tokens) noexcept {
  return f.tokens_lane == 8 && tokens <= 8 ? &form_of<8, 6, 1> : &f;
}

template <class Lazy>
[[nodiscard]] const kernel_table& table() noexcept {
  static constexpr kernel_table t{tier::avx2,        lanes,         &form_for<Lazy>, &rest_form_for<Lazy>, &pack_panel_plain,
                                  &store_sums_plain, &run_merge_row};
  return t;
}

#undef LORA_SIMD_TARGET

}  // namespace lora::inline v0::simd::inline LORA_ISA_TAG::avx2

#if !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#endif  // LORA_X86

#endif
