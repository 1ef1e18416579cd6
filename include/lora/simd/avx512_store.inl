// SPDX-License-Identifier: Apache-2.0
//
// Writing finished sums in the AVX-512 tiers; included by avx512.hpp in its namespace.

// Up to 16 sums of one token, for outputs from `n` on.
template <class Y>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE void store_finished(const store_job& s, reg v, count n, count token, __mmask16 mask) noexcept {
  if (s.factor != nullptr) {
    v = _mm512_mul_ps(v, _mm512_maskz_loadu_ps(mask, s.factor + n));
    pin(v);  // rounded here, not fused with the addition
  }
  if (s.bias != nullptr) v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(mask, s.bias + n));
  store_part(static_cast<Y*>(s.y) + token * s.row_stride + n, mask, v);
}

// Sums of 16 rows of four tokens each are four registers, transposed in three steps.
template <class Y>
LORA_SIMD_TARGET void store_four(const store_job& s) {
  for (count n = 0; n < s.rows; n += 16) {
    const count left = s.rows - n;
    reg a[4];  // rows 4i to 4i + 3
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) a[i] = _mm512_maskz_loadu_ps(first_lanes(left - 4 * i > 0 ? 4 * (left - 4 * i) : 0), s.sums + (n + 4 * i) * 4);
    const reg low = _mm512_unpacklo_ps(a[0], a[1]);  // tokens 0 and 1 of rows r and 4 + r, for r of each quarter
    const reg high = _mm512_unpackhi_ps(a[0], a[1]);
    const reg low_2 = _mm512_unpacklo_ps(a[2], a[3]);
    const reg high_2 = _mm512_unpackhi_ps(a[2], a[3]);
    reg token[4];  // rows r, 4 + r, 8 + r, 12 + r
    token[0] = _mm512_shuffle_ps(low, low_2, 0x44);
    token[1] = _mm512_shuffle_ps(low, low_2, 0xee);
    token[2] = _mm512_shuffle_ps(high, high_2, 0x44);
    token[3] = _mm512_shuffle_ps(high, high_2, 0xee);
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
#pragma GCC unroll 4
    for (int t = 0; t < 4; ++t)
      if (t < s.tokens) store_finished<Y>(s, _mm512_permutexvar_ps(order, token[t]), n, t, first_lanes(left));
  }
}

template <class Y>
LORA_SIMD_TARGET void store_sums(const store_job& s) {
  if (s.tokens == 1 && s.sums_stride == 1 && s.column_stride == 1) {  // as they lie where W is transposed
    for (count n = 0; n < s.rows; n += 16) {
      const __mmask16 mask = first_lanes(s.rows - n);
      store_finished<Y>(s, _mm512_maskz_loadu_ps(mask, s.sums + n), n, 0, mask);
    }
    return;
  }
  if (s.column_stride != 1) return store_sums_plain<Y>(s);
  if (s.tokens <= 4 && s.sums_stride == 4) return store_four<Y>(s);
  // Sixteen rows of W at a time: their sums, transposed, are 16 consecutive elements of each token's y.
  alignas(64) float turned[16 * 16];
  for (count n = 0; n < s.rows; n += 16) {
    const int rows = s.rows - n >= 16 ? 16 : static_cast<int>(s.rows - n);
    const __mmask16 mask = first_lanes(rows);
    for (count m = 0; m < s.tokens; m += 16) {
      const int tokens = s.tokens - m >= 16 ? 16 : static_cast<int>(s.tokens - m);
      transpose_16x16<false>(s.sums + n * s.sums_stride + m, s.sums_stride, rows, turned, 16, zero(), tokens);
      for (int t = 0; t < tokens; ++t) store_finished<Y>(s, load(turned + 16 * t), n, m + t, mask);
    }
  }
}
