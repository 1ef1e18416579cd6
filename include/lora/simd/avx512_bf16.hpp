// SPDX-License-Identifier: Apache-2.0
//
// The AVX-512 tier with the dot product of pairs of bfloat16 (AVX512_BF16), for precision::native. Everything else of this tier is that of
// avx512.hpp: same forms, same sums in f32; a step takes two k where a float kernel takes one.
#ifndef LORA_SIMD_AVX512_BF16_HPP
#define LORA_SIMD_AVX512_BF16_HPP

#include <lora/simd/avx512.hpp>

#if LORA_X86

#if !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

namespace lora::inline v0::simd::inline LORA_ISA_TAG::avx512_bf16 {

#define LORA_SIMD_TARGET [[gnu::target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma,f16c")]]

using avx512::accumulate;
using avx512::first;
using avx512::fold;
using avx512::fold_together;
using avx512::folded_together;
using avx512::lanes;
using avx512::load;
using avx512::pin;
using avx512::reg;
using avx512::scaled_part;
using avx512::splat;
using avx512::spread_head;
using avx512::store;
using avx512::zero;

LORA_SIMD_TARGET LORA_ALWAYS_INLINE reg madd(reg a, reg b, reg c) noexcept { return avx512::madd(a, b, c); }
LORA_SIMD_TARGET LORA_ALWAYS_INLINE reg madd(float, reg w, reg x, reg c) noexcept { return avx512::madd(w, x, c); }
// Products exact, the two of a pair added to the sum one after the other with a rounding each; subnormal elements count as zero.
LORA_SIMD_TARGET LORA_ALWAYS_INLINE reg madd(bfloat16_pair, reg w, reg x, reg c) noexcept {
  return _mm512_dpbf16_ps(c, (__m512bh)w, (__m512bh)x);
}

template <int T>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE reg spread(float, const float* p) noexcept {
  return avx512::spread<T>(0.0f, p);
}
// A pair is as wide as a float and is moved like one.
template <int T>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE reg spread(bfloat16_pair, const std::uint16_t* p) noexcept {
  if constexpr (T == 1) {
    return _mm512_castsi512_ps(_mm512_loadu_si512(p));
  } else if constexpr (T == 2) {
    return _mm512_castsi512_ps(_mm512_broadcast_i32x8(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))));
  } else if constexpr (T == 4) {
    return _mm512_castsi512_ps(_mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
  } else if constexpr (T == 8) {
    long long four;
    __builtin_memcpy(&four, p, sizeof four);
    return _mm512_castsi512_ps(_mm512_set1_epi64(four));
  } else {
    static_assert(T == 16);
    int two;
    __builtin_memcpy(&two, p, sizeof two);
    return _mm512_castsi512_ps(_mm512_set1_epi32(two));
  }
}
template <int T>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE reg spread_part(float, const float* p, int n) noexcept {
  return avx512::spread_part<T>(0.0f, p, n);
}
template <int T>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE reg spread_part(bfloat16_pair, const std::uint16_t* p, int n) noexcept {
  __m512i v;
  if constexpr (T == 1) {
    v = _mm512_maskz_loadu_epi16(static_cast<__mmask32>((1u << n) - 1u), p);
  } else if constexpr (T == 2) {
    v = _mm512_broadcast_i32x8(_mm256_maskz_loadu_epi16(static_cast<__mmask16>((1u << n) - 1u), p));
  } else {
    const __m128i part = _mm_maskz_loadu_epi16(static_cast<__mmask8>((1u << n) - 1u), p);
    if constexpr (T == 4) {
      v = _mm512_broadcast_i32x4(part);
    } else if constexpr (T == 8) {
      v = _mm512_broadcastq_epi64(part);
    } else {
      static_assert(T == 16);
      v = _mm512_broadcastd_epi32(part);
    }
  }
  return _mm512_castsi512_ps(v);
}

template <class W, int T>
inline constexpr widened_by widening = widened_by::registers;  // pairs are multiplied as they are

#include <lora/simd/tile.inl>

// x as pairs, 16 tokens a register: a transpose of 4-byte units, whose bits pass unchanged.
LORA_SIMD_TARGET inline void pack_pairs(const pack_job& p) {
  if (p.tokens_lane != 16 || p.column_stride != 1) {
    pack_pairs_plain(p);
    return;
  }
  const count step_size = static_cast<count>(p.registers) * 16;
  const count pairs = p.depth / 2;
  for (int c = 0; c < p.registers; ++c) {
    const count left = p.tokens - 16 * c;
    const int rows = left >= 16 ? 16 : left > 0 ? static_cast<int>(left) : 0;
    const bfloat16* x = static_cast<const bfloat16*>(p.x) + 16 * c * p.row_stride;
    for (count i = 0; i < pairs; i += 16) {
      const int units = pairs - i >= 16 ? 16 : static_cast<int>(pairs - i);
      reg a[16];
#pragma GCC unroll 16
      for (int t = 0; t < 16; ++t)
        a[t] = t < rows ? _mm512_maskz_loadu_ps(avx512::first_lanes(units), x + t * p.row_stride + 2 * i) : zero();
      avx512::turn_16x16(a);
#pragma GCC unroll 16
      for (int j = 0; j < 16; ++j)
        if (j < units) store(p.out + (i + j) * step_size + 16 * c, a[j]);
    }
    if (p.depth % 2 != 0)
      for (int t = 0; t < 16; ++t) {
        const std::uint32_t last = t < rows ? x[t * p.row_stride + p.depth - 1].bits : 0u;
        __builtin_memcpy(p.out + pairs * step_size + 16 * c + t, &last, sizeof last);
      }
  }
}

#include <lora/simd/avx512_forms.inl>

template <class Lazy>
[[nodiscard]] const kernel_table& pair_table() noexcept {
  using W = std::enable_if_t<std::is_void_v<Lazy>, bfloat16_pair>;
  static constexpr kernel_table t{tier::avx512_bf16,
                                  lanes,
                                  &form_for<W>,
                                  &rest_form_for<W>,
                                  &row_form_for<W>,
                                  &avx512::pack_panel<float>,
                                  {&avx512::widen_row<float>, &avx512::widen_row<bfloat16>, &avx512::widen_row<float16>},
                                  &run_merge_row,
                                  &run_short<bfloat16_pair>};
  return t;
}

#undef LORA_SIMD_TARGET

}  // namespace lora::inline v0::simd::inline LORA_ISA_TAG::avx512_bf16

#if !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#endif  // LORA_X86

#endif
