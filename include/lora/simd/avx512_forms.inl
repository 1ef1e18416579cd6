// SPDX-License-Identifier: Apache-2.0
//
// Which form the AVX-512 tiers use for which batch; included by avx512.hpp and avx512_bf16.hpp in their namespaces, behind tile.inl.

// Forms by batch size, W in place: at most 25 sums of 32 registers, and at most 7 rows streamed at once, 8 for a single token: more rows
// than L1 has ways evict each other when the row stride is a power of two. Chosen by measurement on Zen 4, and on a Xeon (model 207) where
// forms with few rows and many tokens fall behind because they read the packed tokens from L2 too often (24 tokens: T8 6x3 5.7 ms, T4 4x6
// 6.0; 48 tokens: T16 6x3 9.7, T8 4x6 10.2). Up to 56 tokens, where half a register of T16 would stay empty, two panels of T8 fill theirs, the
// last with fewer registers (1024 x 384 from L2: 340 us, 299). The same for 25 to 28 tokens, T4 6x4 + 6x3, takes 6.4 ms in place of 6.8 for
// rows of 16 bits (4096 x 4096 from memory), but 7.1 in place of 6.7 for floats, and both are to give the same bits.
template <class W>
[[nodiscard]] const form* form_for(count tokens) noexcept {
  if (tokens <= 1) return &form_of<W, 1, 8, 1>;
  if (tokens == 2) return &form_of<W, 1, 8, 2>;
  if (tokens <= 4) return &form_of<W, 2, 6, 2>;
  if (tokens <= 6) return &form_of<W, 2, 7, 3>;
  if (tokens <= 8) return &form_of<W, 2, 6, 4>;
  if (tokens <= 10) return &form_of<W, 2, 5, 5>;
  if (tokens <= 12) return &form_of<W, 4, 6, 3>;
  if (tokens <= 16) return &form_of<W, 4, 6, 4>;
  if (tokens <= 20) return &form_of<W, 4, 5, 5>;
  if (tokens <= 24) return &form_of<W, 8, 6, 3>;
  if (tokens <= 32) return &form_of<W, 8, 6, 4>;
  if (tokens <= 40) return &form_of<W, 8, 5, 5>;
  if (tokens <= 48) return &form_of<W, 16, 6, 3>;
  if (tokens <= 56) return &form_of<W, 8, 6, 4>;
  return &form_of<W, 16, 6, 4>;
}

// Where T = 1, rows of 16 bits are widened in registers, two instructions a register, anew for every panel of tokens: 36 operations for
// 24 multiply-adds with 6 rows and 4 registers, 32 with 4 and 6. batch_invariant, bfloat16, 4096 x 4096, one thread of the Xeon, 16 / 24 /
// 32 / 64 / 128 tokens: 6.14 / 8.56 / 11.1 / 21.3 / 45.8 ms and 5.67 / 7.80 / 10.3 / 19.6 / 40.2. Rows of floats cost nothing to read, and
// are faster six at a time, because fewer tokens then come from L2 (from there 144 against 128 GFLOP/s).
template <class W>
inline constexpr bool widened_often = std::is_same_v<W, bfloat16> || std::is_same_v<W, float16>;
template <class W>
[[nodiscard]] const form* rest_form_for(const form& f, count tokens) noexcept {
  if (f.tokens_lane == 1 && f.rows == 6) {
    if (tokens > 2) return tokens > 3 ? &form_of<W, 1, 6, 4> : &form_of<W, 1, 6, 3>;
    return tokens > 1 ? &form_of<W, 1, 6, 2> : &form_of<W, 1, 6, 1>;
  }
  if constexpr (widened_often<W>) {
    if (f.tokens_lane == 1 && f.rows == 4) return tokens > 4 ? &f : tokens > 2 ? &form_of<W, 1, 4, 4> : &form_of<W, 1, 4, 2>;
  }
  if (f.tokens_lane == 8 && f.registers == 4 && tokens <= 24) return &form_of<W, 8, 6, 3>;
  if (f.tokens_lane != 16 || tokens > 48) return &f;
  if (tokens > 32) return &form_of<W, 16, 6, 3>;
  return tokens > 16 ? &form_of<W, 16, 6, 2> : &form_of<W, 16, 6, 1>;
}
template <class W>
[[nodiscard]] const form* row_form_for(count tokens) noexcept {
  if constexpr (widened_often<W>) {
    if (tokens >= 16) return &form_of<W, 1, 4, 6>;
  }
  return tokens <= 1 ? &form_of<W, 1, 8, 1> : &form_of<W, 1, 6, 4>;
}
