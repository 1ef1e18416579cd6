// SPDX-License-Identifier: Apache-2.0
//
// The AVX2 + FMA + F16C tier, compiled into every x86 program whatever its -m flags and called only where the CPU has all three.
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
inline constexpr int columns_held = 2;

#define LORA_SIMD_TARGET [[gnu::target("avx2,fma,f16c")]]

LORA_SIMD_TARGET LORA_ALWAYS_INLINE reg zero() noexcept { return _mm256_setzero_ps(); }
LORA_SIMD_TARGET LORA_ALWAYS_INLINE reg load(const float* p) noexcept { return _mm256_loadu_ps(p); }
LORA_SIMD_TARGET LORA_ALWAYS_INLINE void store(float* p, reg v) noexcept { _mm256_storeu_ps(p, v); }
LORA_SIMD_TARGET LORA_ALWAYS_INLINE reg splat(float f) noexcept { return _mm256_set1_ps(f); }
LORA_SIMD_TARGET LORA_ALWAYS_INLINE float first(reg v) noexcept { return _mm256_cvtss_f32(v); }
LORA_SIMD_TARGET LORA_ALWAYS_INLINE reg madd(reg a, reg b, reg c) noexcept { return _mm256_fmadd_ps(a, b, c); }
LORA_SIMD_TARGET LORA_ALWAYS_INLINE void accumulate(reg& sum, reg a, reg b) noexcept {
  asm("vfmadd231ps {%1, %2, %0|%0, %2, %1}" : "+x"(sum) : "x"(a), "x"(b));
}
LORA_SIMD_TARGET LORA_ALWAYS_INLINE void pin(reg& v) noexcept { asm("" : "+x"(v)); }

template <int T>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE reg spread(float, const float* p) noexcept {
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

// spread_part<1> of 4 floats.
template <int N>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE reg spread_head(const float* p) noexcept {
  static_assert(N == 4);
  return _mm256_zextps128_ps256(_mm_loadu_ps(p));
}

LORA_SIMD_TARGET LORA_ALWAYS_INLINE reg scaled_part(const float* p, int n, float scale) noexcept {
  const __m256i there = _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  return _mm256_and_ps(_mm256_mul_ps(load(p), splat(scale)), _mm256_castsi256_ps(there));
}

LORA_SIMD_TARGET LORA_ALWAYS_INLINE reg widened(bfloat16, __m128i v) noexcept {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(v), 16));
}
LORA_SIMD_TARGET LORA_ALWAYS_INLINE reg widened(float16, __m128i v) noexcept { return _mm256_cvtph_ps(v); }

template <int T, class W>
  requires(!std::is_same_v<W, float>)
LORA_SIMD_TARGET LORA_ALWAYS_INLINE reg spread(W, const std::uint16_t* p) noexcept {
  if constexpr (T == 1) {
    return widened(W{}, _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  } else if constexpr (T == 2) {
    long long four;
    __builtin_memcpy(&four, p, sizeof four);
    return widened(W{}, _mm_set1_epi64x(four));
  } else if constexpr (T == 4) {
    int two;
    __builtin_memcpy(&two, p, sizeof two);
    return widened(W{}, _mm_set1_epi32(two));
  } else {
    static_assert(T == 8);
    return widened(W{}, _mm_set1_epi16(static_cast<short>(*p)));
  }
}

template <int T, class W>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE reg spread_part(W, const row_element<W>* p, int n) noexcept {
  static_assert(T < 8);
  alignas(32) row_element<W> part[8] = {};
  for (int i = 0; i < n; ++i) part[i] = p[i];
  return spread<T>(W{}, part);
}

template <class W, int T>
inline constexpr widened_by widening = std::is_same_v<W, bfloat16> && T > 1 ? widened_by::strips_of_fours
                                       : std::is_same_v<W, float16>&& T > 1 ? widened_by::strips
                                                                            : widened_by::registers;
template <bool Fours>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE void widen_block(bfloat16, const std::uint16_t* p, float* out) noexcept {
  static_assert(Fours);
  const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  store(out, _mm256_castsi256_ps(_mm256_unpacklo_epi16(_mm256_setzero_si256(), v)));
  store(out + 8, _mm256_castsi256_ps(_mm256_unpackhi_epi16(_mm256_setzero_si256(), v)));
}
template <bool Fours>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE void widen_block(float16, const std::uint16_t* p, float* out) noexcept {
  static_assert(!Fours);
  store(out, spread<1>(float16{}, p));
  store(out + 8, spread<1>(float16{}, p + 8));
}

template <class W>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE reg madd(W, reg w, reg x, reg c) noexcept {
  return madd(w, x, c);
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

// So many registers are folded at once where there are as many.
template <int T>
inline constexpr int folded_together = T == 1   ? 8
                                       : T == 2 ? 4
                                       : T == 4 ? 2
                                                : 1;

// The same additions as fold<T> of one register after the other, made for two, four and then eight rows at once.
template <int T>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE void fold_together(const reg (&v)[folded_together<T>], float* out) noexcept {
  if constexpr (T == 1) {
    reg half[4];  // rows 2i and 2i + 1, a half each
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i)
      half[i] = _mm256_add_ps(_mm256_blend_ps(v[2 * i], v[2 * i + 1], 0xf0), _mm256_permute2f128_ps(v[2 * i], v[2 * i + 1], 0x21));
    fold_together<2>(half, out);
  } else if constexpr (T == 2) {
    reg pair[2];  // halves 0, 2, 1, 3 and 4, 6, 5, 7, two lanes each
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i)
      pair[i] = _mm256_add_ps(_mm256_blend_ps(v[2 * i], v[2 * i + 1], 0xcc), _mm256_shuffle_ps(v[2 * i], v[2 * i + 1], 0x4e));
    const reg one =
        _mm256_add_ps(_mm256_blend_ps(pair[0], pair[1], 0xaa), _mm256_permute_ps(_mm256_blend_ps(pair[0], pair[1], 0x55), 0xb1));
    _mm256_storeu_ps(out, _mm256_permutevar8x32_ps(one, _mm256_setr_epi32(0, 4, 2, 6, 1, 5, 3, 7)));
  } else if constexpr (T == 4) {
    const reg one = _mm256_add_ps(_mm256_blend_ps(v[0], v[1], 0xaa), _mm256_permute_ps(_mm256_blend_ps(v[0], v[1], 0x55), 0xb1));
    _mm256_storeu_ps(out, _mm256_permutevar8x32_ps(one, _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7)));
  } else {
    fold<T>(v[0], out);
  }
}

#include <lora/simd/tile.inl>

#include <lora/simd/columns.inl>

#include <lora/simd/norms.inl>

// 16 registers: at most 12 sums. T rises with the batch, so that few lanes stay empty.
template <class W>
[[nodiscard]] const form* form_for(count tokens) noexcept {
  if (tokens <= 1) return &form_of<W, 1, 8, 1>;
  if (tokens == 2) return &form_of<W, 1, 6, 2>;
  if (tokens <= 4) return &form_of<W, 2, 6, 2>;
  if (tokens <= 8) return &form_of<W, 4, 6, 2>;
  return &form_of<W, 8, 6, 2>;
}
template <class W>
[[nodiscard]] const form* rest_form_for(const form& f, count tokens) noexcept {
  if (f.tokens_lane == 1) return f.rows == 6 && tokens == 1 ? &form_of<W, 1, 6, 1> : &f;
  return f.tokens_lane == 8 && tokens <= 8 ? &form_of<W, 8, 6, 1> : &f;
}
template <class W>
[[nodiscard]] const form* row_form_for(count tokens) noexcept {
  return tokens <= 1 ? &form_of<W, 1, 8, 1> : &form_of<W, 1, 6, 2>;
}

template <class W>
[[nodiscard]] const kernel_table& table() noexcept {
  static constexpr kernel_table t{tier::avx2,
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

}  // namespace lora::inline v0::simd::inline LORA_ISA_TAG::avx2

#if !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#endif  // LORA_X86

#endif
