// SPDX-License-Identifier: Apache-2.0
//
// The AVX-512 tier (F, BW, DQ, VL), compiled into every x86 program whatever its -m flags and called only where the CPU has all four.
#ifndef LORA_SIMD_AVX512_HPP
#define LORA_SIMD_AVX512_HPP

#include <lora/simd/kernel.hpp>

#if LORA_X86

// g++ 12 reports its own avx512fintrin.h as using uninitialised variables wherever one of these is inlined.
#if !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

namespace lora::inline v0::simd::inline LORA_ISA_TAG::avx512 {

using reg = __m512;
inline constexpr int lanes = 16;

#define LORA_SIMD_TARGET [[gnu::target("avx512f,avx512bw,avx512vl,avx512dq,fma")]]

LORA_SIMD_TARGET LORA_ALWAYS_INLINE reg zero() noexcept { return _mm512_setzero_ps(); }
LORA_SIMD_TARGET LORA_ALWAYS_INLINE reg load(const float* p) noexcept { return _mm512_loadu_ps(p); }
LORA_SIMD_TARGET LORA_ALWAYS_INLINE void store(float* p, reg v) noexcept { _mm512_storeu_ps(p, v); }
LORA_SIMD_TARGET LORA_ALWAYS_INLINE reg splat(float f) noexcept { return _mm512_set1_ps(f); }
LORA_SIMD_TARGET LORA_ALWAYS_INLINE float first(reg v) noexcept { return _mm512_cvtss_f32(v); }
LORA_SIMD_TARGET LORA_ALWAYS_INLINE reg madd(reg a, reg b, reg c) noexcept { return _mm512_fmadd_ps(a, b, c); }
LORA_SIMD_TARGET LORA_ALWAYS_INLINE void pin(reg& v) noexcept { asm("" : "+v"(v)); }

template <int T>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE reg spread(const float* p) noexcept {
  if constexpr (T == 1) {
    return _mm512_loadu_ps(p);
  } else if constexpr (T == 2) {
    return _mm512_broadcast_f32x8(_mm256_loadu_ps(p));
  } else if constexpr (T == 4) {
    return _mm512_broadcast_f32x4(_mm_loadu_ps(p));
  } else if constexpr (T == 8) {
    double pair;
    __builtin_memcpy(&pair, p, sizeof pair);
    return _mm512_castpd_ps(_mm512_set1_pd(pair));
  } else {
    static_assert(T == 16);
    return _mm512_set1_ps(*p);
  }
}

// Masked-off lanes are not read: the element behind the last one may lie on a page that is not there.
template <int T>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE reg spread_part(const float* p, int n) noexcept {
  const unsigned mask = (1u << n) - 1u;
  if constexpr (T == 1) {
    return _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask), p);
  } else if constexpr (T == 2) {
    return _mm512_broadcast_f32x8(_mm256_maskz_loadu_ps(static_cast<__mmask8>(mask), p));
  } else {
    static_assert(T == 4 || T == 8);
    const __m128 part = _mm_maskz_loadu_ps(static_cast<__mmask8>(mask), p);
    if constexpr (T == 4)
      return _mm512_broadcast_f32x4(part);
    else
      return _mm512_castpd_ps(_mm512_broadcastsd_pd(_mm_castps_pd(part)));
  }
}

template <int T>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE void fold(reg v, float* out) noexcept {
  if constexpr (T == 16) {
    _mm512_storeu_ps(out, v);
  } else {
    // Butterflies: afterwards every lane of a group of P holds the group's sum.
    if constexpr (T == 1) v = _mm512_add_ps(v, _mm512_shuffle_f32x4(v, v, 0x4e));
    if constexpr (T <= 2) v = _mm512_add_ps(v, _mm512_shuffle_f32x4(v, v, 0xb1));
    if constexpr (T <= 4) v = _mm512_add_ps(v, _mm512_permute_ps(v, 0x4e));
    v = _mm512_add_ps(v, _mm512_permute_ps(v, 0xb1));
    if constexpr (T == 8) {
      const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 0, 0, 0, 0, 0, 0, 0, 0);
      _mm256_storeu_ps(out, _mm512_castps512_ps256(_mm512_permutexvar_ps(even, v)));
    } else if constexpr (T == 4) {
      const __m512i fourth = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
      _mm_storeu_ps(out, _mm512_castps512_ps128(_mm512_permutexvar_ps(fourth, v)));
    } else if constexpr (T == 2) {
      out[0] = _mm512_cvtss_f32(v);
      out[1] = _mm_cvtss_f32(_mm512_extractf32x4_ps(v, 2));
    } else {
      out[0] = _mm512_cvtss_f32(v);
    }
  }
}

#include <lora/simd/tile.inl>

// 16 x 16 floats, in[i * in_stride + j] to out[j * out_stride + i], each multiplied by `scale`; only `rows` of the i are read, the
// others are zero. Four rounds of exchanges between registers, 4 elements an instruction.
LORA_SIMD_TARGET LORA_ALWAYS_INLINE void transpose_16x16(const float* in, count in_stride, int rows, float* out, count out_stride,
                                                         reg scale, int columns) noexcept {
  const auto mask = static_cast<__mmask16>(columns >= 16 ? 0xffffu : (1u << columns) - 1u);
  reg a[16];
  reg b[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) a[i] = i < rows ? _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, in + i * in_stride), scale) : zero();
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    b[i] = _mm512_unpacklo_ps(a[i], a[i + 1]);
    b[i + 1] = _mm512_unpackhi_ps(a[i], a[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    a[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(b[i]), _mm512_castps_pd(b[i + 2])));
    a[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(b[i]), _mm512_castps_pd(b[i + 2])));
    a[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(b[i + 1]), _mm512_castps_pd(b[i + 3])));
    a[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(b[i + 1]), _mm512_castps_pd(b[i + 3])));
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    b[i] = _mm512_shuffle_f32x4(a[i], a[i + 4], 0x88);
    b[i + 4] = _mm512_shuffle_f32x4(a[i], a[i + 4], 0xdd);
    b[i + 8] = _mm512_shuffle_f32x4(a[i + 8], a[i + 12], 0x88);
    b[i + 12] = _mm512_shuffle_f32x4(a[i + 8], a[i + 12], 0xdd);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    a[i] = _mm512_shuffle_f32x4(b[i], b[i + 8], 0x88);
    a[i + 4] = _mm512_shuffle_f32x4(b[i + 4], b[i + 12], 0x88);
    a[i + 8] = _mm512_shuffle_f32x4(b[i], b[i + 8], 0xdd);
    a[i + 12] = _mm512_shuffle_f32x4(b[i + 4], b[i + 12], 0xdd);
  }
#pragma GCC unroll 16
  for (int j = 0; j < 16; ++j)
    if (j < columns) _mm512_storeu_ps(out + j * out_stride, a[j]);
}

// Rows of x with unit stride, 16 tokens a register: a transpose. Everything else by the plain loop.
LORA_SIMD_TARGET inline void pack_panel(const pack_job& p) {
  if (p.tokens_lane != 16 || p.column_stride != 1) {
    pack_panel_plain(p);
    return;
  }
  const count step_size = static_cast<count>(p.registers) * 16;
  const reg scale = splat(p.scale);
  for (int c = 0; c < p.registers; ++c) {
    const count left = p.tokens - 16 * c;
    const int rows = left >= 16 ? 16 : left > 0 ? static_cast<int>(left) : 0;
    for (count k = 0; k < p.depth; k += 16)
      transpose_16x16(p.x + 16 * c * p.row_stride + k, p.row_stride, rows, p.out + k * step_size + 16 * c, step_size, scale,
                      p.depth - k >= 16 ? 16 : static_cast<int>(p.depth - k));
  }
}

LORA_SIMD_TARGET inline void store_sums(const store_job& s) {
  if (s.tokens < 8 || s.column_stride != 1) {
    store_sums_plain(s);
    return;
  }
  // Sixteen rows of W at a time: their sums, transposed, are 16 consecutive elements of each token's y.
  alignas(64) float turned[16 * 16];
  for (count n = 0; n < s.rows; n += 16) {
    const int rows = s.rows - n >= 16 ? 16 : static_cast<int>(s.rows - n);
    const auto mask = static_cast<__mmask16>(rows >= 16 ? 0xffffu : (1u << rows) - 1u);
    const reg bias = s.bias != nullptr ? _mm512_maskz_loadu_ps(mask, s.bias + n) : zero();
    for (count m = 0; m < s.tokens; m += 16) {
      const int tokens = s.tokens - m >= 16 ? 16 : static_cast<int>(s.tokens - m);
      transpose_16x16(s.sums + n * s.sums_stride + m, s.sums_stride, rows, turned, 16, splat(1.0f), tokens);
      for (int t = 0; t < tokens; ++t) {
        reg v = load(turned + 16 * t);
        if (s.bias != nullptr) v = _mm512_add_ps(v, bias);
        _mm512_mask_storeu_ps(s.y + (m + t) * s.row_stride + n, mask, v);
      }
    }
  }
}

// Forms by batch size, W in place (shapes chosen by measurement on Zen 4; docs/benchmarks has what they reach elsewhere): at most 24 sums
// of 32 registers, and at most 7 rows streamed at once, 8 for a single token: more rows than L1 has ways evict each other when the row
// stride is a power of two.
template <class Lazy>
[[nodiscard]] const form* form_for(count tokens) noexcept {
  if (tokens <= 1) return &form_of<1, 8, 1>;
  if (tokens == 2) return &form_of<1, 8, 2>;
  if (tokens <= 4) return &form_of<4, 7, 1>;
  if (tokens <= 6) return &form_of<2, 7, 3>;
  if (tokens <= 8) return &form_of<2, 6, 4>;
  if (tokens <= 10) return &form_of<2, 5, 5>;
  if (tokens <= 12) return &form_of<4, 6, 3>;
  if (tokens <= 16) return &form_of<4, 6, 4>;
  if (tokens <= 20) return &form_of<4, 5, 5>;
  if (tokens <= 24) return &form_of<4, 4, 6>;
  if (tokens <= 32) return &form_of<8, 6, 4>;
  if (tokens <= 40) return &form_of<8, 5, 5>;
  if (tokens <= 48) return &form_of<8, 4, 6>;
  return &form_of<16, 6, 4>;
}
template <class Lazy>
[[nodiscard]] const form* rest_form_for(const form& f, count tokens) noexcept {
  if (f.tokens_lane != 16 || tokens > 48) return &f;
  if (tokens > 32) return &form_of<16, 6, 3>;
  return tokens > 16 ? &form_of<16, 6, 2> : &form_of<16, 6, 1>;
}

template <class Lazy>
[[nodiscard]] const kernel_table& table() noexcept {
  static constexpr kernel_table t{tier::avx512, lanes, &form_for<Lazy>, &rest_form_for<Lazy>, &pack_panel, &store_sums, &run_merge_row};
  return t;
}

#undef LORA_SIMD_TARGET

}  // namespace lora::inline v0::simd::inline LORA_ISA_TAG::avx512

#if !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#endif  // LORA_X86

#endif
