// SPDX-License-Identifier: Apache-2.0
//
// How the sums of a register become elements of y, and what short rows begin and end with; included by avx512.hpp in its namespace, in
// front of tile.inl.

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

// So many registers are folded at once where there are as many.
template <int T>
inline constexpr int folded_together = T == 1 ? 8 : T == 2 ? 4 : T <= 8 ? 2 : 1;

// The same additions as fold<T> of one register after the other, made for two, four and then eight rows at once: of T = 1, 8 additions and 17
// moves instead of 32 and 32. Where a row is short, they are as much work as its products.
template <int T>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE void fold_together(const reg (&v)[folded_together<T>], float* out) noexcept {
  if constexpr (T == 1) {
    reg half[4];  // rows 2i and 2i + 1, a half each
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i)
      half[i] = _mm512_add_ps(_mm512_mask_blend_ps(0xff00, v[2 * i], v[2 * i + 1]), _mm512_shuffle_f32x4(v[2 * i], v[2 * i + 1], 0x4e));
    fold_together<2>(half, out);
  } else if constexpr (T == 2) {
    reg quarter[2];  // halves 0, 2, 1, 3 and 4, 6, 5, 7, four lanes each
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      const reg crossed = _mm512_mask_blend_ps(0x0f0f, v[2 * i], v[2 * i + 1]);
      quarter[i] = _mm512_add_ps(_mm512_mask_blend_ps(0xf0f0, v[2 * i], v[2 * i + 1]), _mm512_shuffle_f32x4(crossed, crossed, 0xb1));
    }
    reg pair = _mm512_add_ps(_mm512_mask_blend_ps(0xcccc, quarter[0], quarter[1]), _mm512_shuffle_ps(quarter[0], quarter[1], 0x4e));
    pair = _mm512_add_ps(pair, _mm512_permute_ps(pair, 0xb1));
    const __m512i order = _mm512_setr_epi32(0, 8, 4, 12, 2, 10, 6, 14, 0, 0, 0, 0, 0, 0, 0, 0);
    _mm256_storeu_ps(out, _mm512_castps512_ps256(_mm512_permutexvar_ps(order, pair)));
  } else if constexpr (T == 4) {
    reg pair = _mm512_add_ps(_mm512_mask_blend_ps(0xcccc, v[0], v[1]), _mm512_shuffle_ps(v[0], v[1], 0x4e));
    pair = _mm512_add_ps(pair, _mm512_permute_ps(pair, 0xb1));
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 2, 6, 10, 14, 0, 0, 0, 0, 0, 0, 0, 0);
    _mm256_storeu_ps(out, _mm512_castps512_ps256(_mm512_permutexvar_ps(order, pair)));
  } else if constexpr (T == 8) {
    const reg sum = _mm512_add_ps(_mm512_shuffle_ps(v[0], v[1], 0x88), _mm512_shuffle_ps(v[0], v[1], 0xdd));
    const __m512i order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);  // two tokens each
    store(out, _mm512_castpd_ps(_mm512_permutexvar_pd(order, _mm512_castps_pd(sum))));
  } else {
    fold<T>(v[0], out);
  }
}

// spread_part<1> of 4 or 8 floats, without a mask: a load that needs none is no work for the units that multiply.
template <int N>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE reg spread_head(const float* p) noexcept {
  if constexpr (N == 4)
    return _mm512_zextps128_ps512(_mm_loadu_ps(p));
  else
    return _mm512_zextps256_ps512(_mm256_loadu_ps(p));
}

// Half a register is loaded where that will do: what fold_together has just stored comes straight from the store.
LORA_SIMD_TARGET LORA_ALWAYS_INLINE reg scaled_part(const float* p, int n, float scale) noexcept {
  const auto mask = static_cast<__mmask16>((1u << n) - 1u);
  return _mm512_maskz_mul_ps(mask, n <= 8 ? spread_head<8>(p) : _mm512_maskz_loadu_ps(mask, p), splat(scale));
}
