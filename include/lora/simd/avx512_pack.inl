// SPDX-License-Identifier: Apache-2.0
//
// Packs rows of x with unit stride for 1 to 8 tokens a register, by exchanges between registers; included by avx512.hpp in its
// namespace, in front of pack_panel. 32 rows of 4096 floats took 0.12 ms by plain copies of 8 bytes, of a product of 7.1 with W in bfloat16.

// Registers of four pieces of 16 bytes: afterwards a[j] holds piece j of each.
LORA_SIMD_TARGET LORA_ALWAYS_INLINE void turn_4x4(reg& a, reg& b, reg& c, reg& d) noexcept {
  const reg low = _mm512_shuffle_f32x4(a, b, 0x44);
  const reg high = _mm512_shuffle_f32x4(a, b, 0xee);
  const reg low_2 = _mm512_shuffle_f32x4(c, d, 0x44);
  const reg high_2 = _mm512_shuffle_f32x4(c, d, 0xee);
  a = _mm512_shuffle_f32x4(low, low_2, 0x88);
  b = _mm512_shuffle_f32x4(low, low_2, 0xdd);
  c = _mm512_shuffle_f32x4(high, high_2, 0x88);
  d = _mm512_shuffle_f32x4(high, high_2, 0xdd);
}

// As many registers of as many pieces of P floats each: afterwards a[j] holds piece j of each, which is a step of k for T tokens.
template <int T>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE void turn_pieces(reg (&a)[T]) noexcept {
  if constexpr (T == 8) {
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
      const __m512d even = _mm512_castps_pd(a[i]);
      const __m512d odd = _mm512_castps_pd(a[i + 1]);
      a[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(even, odd));
      a[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(even, odd));
    }
    turn_4x4(a[0], a[2], a[4], a[6]);
    turn_4x4(a[1], a[3], a[5], a[7]);
  } else if constexpr (T == 4) {
    turn_4x4(a[0], a[1], a[2], a[3]);
  } else if constexpr (T == 2) {
    const reg low = _mm512_shuffle_f32x4(a[0], a[1], 0x44);
    a[1] = _mm512_shuffle_f32x4(a[0], a[1], 0xee);
    a[0] = low;
  } else {
    static_assert(T == 1);
  }
}

template <int T, class X>
LORA_SIMD_TARGET void pack_pieces(const pack_job& p) {
  constexpr int P = lanes / T;
  const count step_size = static_cast<count>(p.registers) * lanes;
  const reg scale = splat(p.scale);
  for (int c = 0; c < p.registers; ++c) {
    const count left = p.tokens - T * c;
    const X* x = static_cast<const X*>(p.x) + (left > 0 ? T * c * p.row_stride : 0);
    for (count k = 0; k < p.depth; k += lanes) {
      const __mmask16 mask = first_lanes(p.depth - k);
      reg a[T];
#pragma GCC unroll 8
      for (int t = 0; t < T; ++t) {
        a[t] = zero();
        // Not the zeros behind the row: a negative scale would turn them into -0.
        if (t < left) a[t] = _mm512_maskz_mul_ps(mask, load_part(x + t * p.row_stride + k, mask), scale);
      }
      turn_pieces<T>(a);
      float* out = p.out + k / P * step_size + lanes * c;
#pragma GCC unroll 8
      for (int j = 0; j < T; ++j)
        if (j * P < p.depth - k) store(out + j * step_size, a[j]);
    }
  }
}
