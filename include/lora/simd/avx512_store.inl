// SPDX-License-Identifier: Apache-2.0
//
// Writing finished sums in the AVX-512 tiers; included by avx512.hpp in its namespace.

template <class Y>
LORA_SIMD_TARGET void store_sums(const store_job& s) {
  if (s.tokens == 1 && s.sums_stride == 1 && s.column_stride == 1) {  // as they lie where W is transposed
    for (count n = 0; n < s.rows; n += 16) {
      const __mmask16 mask = first_lanes(s.rows - n);
      reg v = _mm512_maskz_loadu_ps(mask, s.sums + n);
      if (s.factor != nullptr) {
        v = _mm512_mul_ps(v, _mm512_maskz_loadu_ps(mask, s.factor + n));
        pin(v);  // rounded here, not fused with the addition
      }
      if (s.bias != nullptr) v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(mask, s.bias + n));
      store_part(static_cast<Y*>(s.y) + n, mask, v);
    }
    return;
  }
  if (s.tokens < 8 || s.column_stride != 1) {
    store_sums_plain<Y>(s);
    return;
  }
  // Sixteen rows of W at a time: their sums, transposed, are 16 consecutive elements of each token's y.
  alignas(64) float turned[16 * 16];
  for (count n = 0; n < s.rows; n += 16) {
    const int rows = s.rows - n >= 16 ? 16 : static_cast<int>(s.rows - n);
    const __mmask16 mask = first_lanes(rows);
    const reg bias = s.bias != nullptr ? _mm512_maskz_loadu_ps(mask, s.bias + n) : zero();
    const reg factor = s.factor != nullptr ? _mm512_maskz_loadu_ps(mask, s.factor + n) : zero();
    for (count m = 0; m < s.tokens; m += 16) {
      const int tokens = s.tokens - m >= 16 ? 16 : static_cast<int>(s.tokens - m);
      transpose_16x16<false>(s.sums + n * s.sums_stride + m, s.sums_stride, rows, turned, 16, zero(), tokens);
      for (int t = 0; t < tokens; ++t) {
        reg v = load(turned + 16 * t);
        if (s.factor != nullptr) {
          v = _mm512_mul_ps(v, factor);
          pin(v);
        }
        if (s.bias != nullptr) v = _mm512_add_ps(v, bias);
        store_part(static_cast<Y*>(s.y) + (m + t) * s.row_stride + n, mask, v);
      }
    }
  }
}
