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
inline constexpr int columns_held = 4;

#define LORA_SIMD_TARGET [[gnu::target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]]

LORA_SIMD_TARGET LORA_ALWAYS_INLINE reg zero() noexcept { return _mm512_setzero_ps(); }
LORA_SIMD_TARGET LORA_ALWAYS_INLINE reg load(const float* p) noexcept { return _mm512_loadu_ps(p); }
LORA_SIMD_TARGET LORA_ALWAYS_INLINE void store(float* p, reg v) noexcept { _mm512_storeu_ps(p, v); }
LORA_SIMD_TARGET LORA_ALWAYS_INLINE reg splat(float f) noexcept { return _mm512_set1_ps(f); }
LORA_SIMD_TARGET LORA_ALWAYS_INLINE float first(reg v) noexcept { return _mm512_cvtss_f32(v); }
LORA_SIMD_TARGET LORA_ALWAYS_INLINE reg madd(reg a, reg b, reg c) noexcept { return _mm512_fmadd_ps(a, b, c); }
LORA_SIMD_TARGET LORA_ALWAYS_INLINE void accumulate(reg& sum, reg a, reg b) noexcept {
  asm("vfmadd231ps {%1, %2, %0|%0, %2, %1}" : "+v"(sum) : "v"(a), "v"(b));
}
LORA_SIMD_TARGET LORA_ALWAYS_INLINE void pin(reg& v) noexcept { asm("" : "+v"(v)); }

template <int T>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE reg spread(float, const float* p) noexcept {
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
LORA_SIMD_TARGET LORA_ALWAYS_INLINE reg spread_part(float, const float* p, int n) noexcept {
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

LORA_SIMD_TARGET LORA_ALWAYS_INLINE reg widened(bfloat16, __m256i v) noexcept {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16));
}
LORA_SIMD_TARGET LORA_ALWAYS_INLINE reg widened(float16, __m256i v) noexcept { return _mm512_cvtph_ps(v); }

// P consecutive 16-bit elements, repeated T times.
template <int T>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE __m256i spread_16(const std::uint16_t* p) noexcept {
  if constexpr (T == 1) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  } else if constexpr (T == 2) {
    return _mm256_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  } else if constexpr (T == 4) {
    long long four;
    __builtin_memcpy(&four, p, sizeof four);
    return _mm256_set1_epi64x(four);
  } else if constexpr (T == 8) {
    int two;
    __builtin_memcpy(&two, p, sizeof two);
    return _mm256_set1_epi32(two);
  } else {
    static_assert(T == 16);
    return _mm256_set1_epi16(static_cast<short>(*p));
  }
}
template <int T>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE __m256i spread_16_part(const std::uint16_t* p, int n) noexcept {
  const unsigned mask = (1u << n) - 1u;
  if constexpr (T == 1) {
    return _mm256_maskz_loadu_epi16(static_cast<__mmask16>(mask), p);
  } else {
    static_assert(T == 2 || T == 4 || T == 8);
    const __m128i part = _mm_maskz_loadu_epi16(static_cast<__mmask8>(mask), p);
    if constexpr (T == 2)
      return _mm256_broadcast_i32x4(part);
    else if constexpr (T == 4)
      return _mm256_broadcastq_epi64(part);
    else
      return _mm256_broadcastd_epi32(part);
  }
}

template <int T>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE reg spread(float16, const std::uint16_t* p) noexcept {
  return _mm512_cvtph_ps(spread_16<T>(p));
}
// bfloat16 is the upper half of a float: bytes of zero and bytes of the element, put where they belong by one shuffle within 16 bytes.
template <int T>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE reg spread(bfloat16, const std::uint16_t* p) noexcept {
  if constexpr (T == 1 || T == 16) {
    return widened(bfloat16{}, spread_16<T>(p));
  } else {
    __m512i v;
    if constexpr (T == 2) {
      v = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    } else if constexpr (T == 4) {
      long long four;
      __builtin_memcpy(&four, p, sizeof four);
      v = _mm512_set1_epi64(four);
    } else {
      static_assert(T == 8);
      int two;
      __builtin_memcpy(&two, p, sizeof two);
      v = _mm512_set1_epi32(two);
    }
    const __m512i first_four = _mm512_broadcast_i32x4(_mm_setr_epi8(-1, -1, 0, 1, -1, -1, 2, 3, -1, -1, 4, 5, -1, -1, 6, 7));
    if constexpr (T == 2) {
      const __m512i last_four = _mm512_broadcast_i32x4(_mm_setr_epi8(-1, -1, 8, 9, -1, -1, 10, 11, -1, -1, 12, 13, -1, -1, 14, 15));
      return _mm512_castsi512_ps(_mm512_shuffle_epi8(v, _mm512_mask_mov_epi64(first_four, 0xcc, last_four)));
    } else if constexpr (T == 4) {
      return _mm512_castsi512_ps(_mm512_shuffle_epi8(v, first_four));
    } else {
      const __m512i both = _mm512_broadcast_i32x4(_mm_setr_epi8(-1, -1, 0, 1, -1, -1, 2, 3, -1, -1, 0, 1, -1, -1, 2, 3));
      return _mm512_castsi512_ps(_mm512_shuffle_epi8(v, both));
    }
  }
}
template <int T, class W>
  requires(!std::is_same_v<W, float>)
LORA_SIMD_TARGET LORA_ALWAYS_INLINE reg spread_part(W, const std::uint16_t* p, int n) noexcept {
  return widened(W{}, spread_16_part<T>(p, n));
}

// T = 2 takes 8 consecutive elements with one load, which fours do not give; a strip in order costs bfloat16 as many instructions as its
// shuffle in the register (8 tokens: 2.58 ms both).
template <class W, int T>
inline constexpr widened_by widening = std::is_same_v<W, bfloat16> && T > 2 ? widened_by::strips_of_fours
                                       : std::is_same_v<W, float16>&& T > 1 ? widened_by::strips
                                                                            : widened_by::registers;
// bfloat16 is the upper half of a float: one unpacking, zeros below elements, for 16 of them. (vpermw, which would keep the order, and
// vcvtph2ps count for two.)
template <bool Fours>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE void widen_block(bfloat16, const std::uint16_t* p, float* out) noexcept {
  static_assert(Fours);
  const __m512i v = _mm512_loadu_si512(p);
  store(out, _mm512_castsi512_ps(_mm512_unpacklo_epi16(_mm512_setzero_si512(), v)));
  store(out + 16, _mm512_castsi512_ps(_mm512_unpackhi_epi16(_mm512_setzero_si512(), v)));
}
template <bool Fours>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE void widen_block(float16, const std::uint16_t* p, float* out) noexcept {
  static_assert(!Fours);
  store(out, spread<1>(float16{}, p));
  store(out + 16, spread<1>(float16{}, p + 16));
}

template <class W>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE reg madd(W, reg w, reg x, reg c) noexcept {
  return madd(w, x, c);
}

#include <lora/simd/avx512_fold.inl>

#include <lora/simd/tile.inl>

#include <lora/simd/columns.inl>

#include <lora/simd/norms.inl>

LORA_SIMD_TARGET LORA_ALWAYS_INLINE __mmask16 first_lanes(count n) noexcept {
  return static_cast<__mmask16>(n >= 16 ? 0xffffu : (1u << n) - 1u);
}
LORA_SIMD_TARGET LORA_ALWAYS_INLINE reg load_part(const float* p, __mmask16 mask) noexcept { return _mm512_maskz_loadu_ps(mask, p); }
LORA_SIMD_TARGET LORA_ALWAYS_INLINE reg load_part(const bfloat16* p, __mmask16 mask) noexcept {
  return widened(bfloat16{}, _mm256_maskz_loadu_epi16(mask, p));
}
LORA_SIMD_TARGET LORA_ALWAYS_INLINE reg load_part(const float16* p, __mmask16 mask) noexcept {
  return widened(float16{}, _mm256_maskz_loadu_epi16(mask, p));
}
LORA_SIMD_TARGET LORA_ALWAYS_INLINE void store_part(float* p, __mmask16 mask, reg v) noexcept { _mm512_mask_storeu_ps(p, mask, v); }
LORA_SIMD_TARGET LORA_ALWAYS_INLINE void store_part(float16* p, __mmask16 mask, reg v) noexcept {
  _mm256_mask_storeu_epi16(p, mask, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
// As core/half.hpp rounds: the CPU's own conversion (AVX512_BF16) would flush subnormals.
LORA_SIMD_TARGET LORA_ALWAYS_INLINE void store_part(bfloat16* p, __mmask16 mask, reg v) noexcept {
  const __m512i u = _mm512_castps_si512(v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
  const __m512i quiet = _mm512_or_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(0x40));
  const __m512i out = _mm512_mask_mov_epi32(rounded, _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), quiet);
  _mm256_mask_storeu_epi16(p, mask, _mm512_cvtepi32_epi16(out));
}

// Transposes 16 registers of 16 units of 4 bytes: four rounds of exchanges between registers, 4 units an instruction.
LORA_SIMD_TARGET LORA_ALWAYS_INLINE void turn_16x16(reg (&a)[16]) noexcept {
  reg b[16];
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
}

// 16 x 16 elements, in[i * in_stride + j] as floats to out[j * out_stride + i], each multiplied by `scale`; only `rows` of the i are read,
// the others are zero.
template <bool Scaled, class X>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE void transpose_16x16(const X* in, count in_stride, int rows, float* out, count out_stride,
                                                         [[maybe_unused]] reg scale, int columns) noexcept {
  const __mmask16 mask = first_lanes(columns);
  reg a[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) {
    a[i] = zero();
    if (i >= rows) continue;
    a[i] = load_part(in + i * in_stride, mask);
    if constexpr (Scaled) a[i] = _mm512_mul_ps(a[i], scale);  // not the zeros: a negative scale would turn them into -0
  }
  turn_16x16(a);
#pragma GCC unroll 16
  for (int j = 0; j < 16; ++j)
    if (j < columns) _mm512_storeu_ps(out + j * out_stride, a[j]);
}

#include <lora/simd/avx512_pack.inl>

// Rows of x with unit stride: a transpose. Everything else by the plain loop.
template <class X>
LORA_SIMD_TARGET void pack_panel(const pack_job& p) {
  if (p.column_stride != 1) return pack_panel_plain<X>(p);
  if (p.tokens_lane == 8) return pack_pieces<8, X>(p);
  if (p.tokens_lane == 4) return pack_pieces<4, X>(p);
  if (p.tokens_lane == 2) return pack_pieces<2, X>(p);
  if (p.tokens_lane == 1) return pack_pieces<1, X>(p);
  const count step_size = static_cast<count>(p.registers) * 16;
  const reg scale = splat(p.scale);
  for (int c = 0; c < p.registers; ++c) {
    const count left = p.tokens - 16 * c;
    const int rows = left >= 16 ? 16 : left > 0 ? static_cast<int>(left) : 0;
    for (count k = 0; k < p.depth; k += 16)
      transpose_16x16<true>(static_cast<const X*>(p.x) + 16 * c * p.row_stride + k, p.row_stride, rows, p.out + k * step_size + 16 * c,
                            step_size, scale, p.depth - k >= 16 ? 16 : static_cast<int>(p.depth - k));
  }
}

#include <lora/simd/avx512_store.inl>

#include <lora/simd/avx512_forms.inl>

template <class W>
[[nodiscard]] const kernel_table& table() noexcept {
  static constexpr kernel_table t{tier::avx512,
                                  lanes,
                                  &form_for<W>,
                                  &rest_form_for<W>,
                                  &row_form_for<W>,
                                  &pack_panel<float>,
                                  {&widen_row<float>, &widen_row<bfloat16>, &widen_row<float16>},
                                  &run_merge_row,
                                  &run_short<W>};
  return t;
}
template <class X>
[[nodiscard]] pack_kernel packer() noexcept {
  return &pack_panel<X>;
}
template <class W>
[[nodiscard]] columns_kernel columns_runner() noexcept {
  return &run_columns<W>;
}
template <class Y>
[[nodiscard]] store_kernel storer() noexcept {
  return &store_sums<Y>;
}

#undef LORA_SIMD_TARGET

}  // namespace lora::inline v0::simd::inline LORA_ISA_TAG::avx512

#if !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#endif  // LORA_X86

#endif
