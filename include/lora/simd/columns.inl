// SPDX-License-Identifier: Apache-2.0
//
// The product where W lies transposed (columns_job in kernel.hpp), written once for every tier and included behind tile.inl, from whose
// vocabulary it needs in addition
//
//   rows_held      rows of W that fit the registers beside 8 sums
//   columns_held   registers of columns that fit beside the sums of 6 tokens
//
// Each sum is one chain in rising k, however the work is cut: by rows held in registers, or by blocks in L1.

// G tokens, one register of columns, R rows of W that are held in registers.
template <int R, int G>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE void add_rows(const reg (&w)[R], const float* x, count tokens, float* sums, count sums_stride) noexcept {
  reg sum[G];
#pragma GCC unroll 8
  for (int g = 0; g < G; ++g) sum[g] = load(sums + g * sums_stride);
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int g = 0; g < G; ++g) sum[g] = madd(w[r], splat(x[r * tokens + g]), sum[g]);
#pragma GCC unroll 8
  for (int g = 0; g < G; ++g) store(sums + g * sums_stride, sum[g]);
}

// All tokens for one register of columns. With few columns left, `part` of them, the sums pass through a buffer.
template <int R>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE void add_rows_to_all(const reg (&w)[R], const float* x, count tokens, float* sums, count sums_stride,
                                                         int part) noexcept {
  count m = 0;
  if (part == lanes) {
    for (; m + 8 <= tokens; m += 8) add_rows<R, 8>(w, x + m, tokens, sums + m * sums_stride, sums_stride);
    if (m + 4 <= tokens) {
      add_rows<R, 4>(w, x + m, tokens, sums + m * sums_stride, sums_stride);
      m += 4;
    }
    if (m + 2 <= tokens) {
      add_rows<R, 2>(w, x + m, tokens, sums + m * sums_stride, sums_stride);
      m += 2;
    }
    if (m < tokens) add_rows<R, 1>(w, x + m, tokens, sums + m * sums_stride, sums_stride);
    return;
  }
  for (; m < tokens; ++m) {
    float buffer[lanes] = {};
    for (int i = 0; i < part; ++i) buffer[i] = sums[m * sums_stride + i];
    add_rows<R, 1>(w, x + m, tokens, buffer, lanes);
    for (int i = 0; i < part; ++i) sums[m * sums_stride + i] = buffer[i];
  }
}

template <class W, int R>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE void run_columns_of(const columns_job& j, count k) noexcept {
  const auto* row = static_cast<const row_element<W>*>(j.w) + k * j.row_stride;
  const float* x = j.x + k * j.tokens;
  constexpr count size = static_cast<count>(sizeof(row_element<W>));
  constexpr count line = 64 / size;
  reg w[R];
  count n = 0;
  for (; n + lanes <= j.columns; n += lanes) {
    // Where the columns end, what lies ahead is the start of the row R further on.
    count distance = j.ahead;
    if (n * size + distance >= j.columns * size) distance += (R * j.row_stride - j.columns) * size;
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const row_element<W>* const p = row + r * j.row_stride + n;
      if (j.ahead != 0 && n % line == 0)
        __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<std::uintptr_t>(p) + static_cast<std::uintptr_t>(distance)), 0, 3);
      w[r] = spread<1>(W{}, p);
      pin(w[r]);  // else read again for every token
    }
    add_rows_to_all<R>(w, x, j.tokens, j.sums + n, j.sums_stride, lanes);
  }
  if (n < j.columns) {
    const int part = static_cast<int>(j.columns - n);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) w[r] = spread_part<1>(W{}, row + r * j.row_stride + n, part);
    add_rows_to_all<R>(w, x, j.tokens, j.sums + n, j.sums_stride, part);
  }
}

// G tokens, columns_held registers of columns, `rows` rows of W from memory that is in L1.
template <int G>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE void add_block(const float* w, count row_stride, count rows, const float* x, count tokens, float* sums,
                                                   count sums_stride) noexcept {
  constexpr int C = columns_held;
  reg sum[G][C];
#pragma GCC unroll 8
  for (int g = 0; g < G; ++g)
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) sum[g][c] = load(sums + g * sums_stride + c * lanes);
  for (count k = 0; k < rows; ++k) {
    reg row[C];
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) row[c] = load(w + k * row_stride + c * lanes);
#pragma GCC unroll 8
    for (int g = 0; g < G; ++g) {
      reg token = splat(x[k * tokens + g]);
      pin(token);
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) sum[g][c] = madd(row[c], token, sum[g][c]);
    }
  }
#pragma GCC unroll 8
  for (int g = 0; g < G; ++g)
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) store(sums + g * sums_stride + c * lanes, sum[g][c]);
}

// From this many tokens on blocks are faster than rows held in registers: f32, 4096 x 4096, Xeon (model 207), 16 / 32 / 64 tokens took
// 6.8 / 12.0 / 23.1 ms by rows, 7.4 / 12.7 / 19.2 by blocks.
inline constexpr count columns_block_from = 48;

// Many tokens: 64 rows of W and as many columns as fit the registers make a block in L1, which all tokens pass over before the next. The
// sums are loaded and stored once a block. The order in k, hence the bits, is that of run_columns_of.
template <class W>
LORA_SIMD_TARGET void run_column_blocks(const columns_job& j) {
  constexpr int wide = columns_held * lanes;
  constexpr count size = static_cast<count>(sizeof(row_element<W>));
  constexpr int lines = wide * static_cast<int>(size) / 64 > 0 ? wide * static_cast<int>(size) / 64 : 1;
  constexpr count depth = 64;
  alignas(64) float block[std::is_same_v<W, float> ? 1 : depth * wide];
  for (count k = 0; k < j.depth; k += depth) {
    const count rows = j.depth - k < depth ? j.depth - k : depth;
    const auto* top = static_cast<const row_element<W>*>(j.w) + k * j.row_stride;
    const float* x = j.x + k * j.tokens;
    for (count n = 0; n < j.columns; n += wide) {
      const auto* w = top + n;
      if (j.ahead != 0) {
        // The block after the next one; behind the last columns, the first of the next rows.
        const count next = n + 2 * wide < j.columns ? 2 * wide : depth * j.row_stride + 2 * wide - j.columns;
        for (count r = 0; r < rows; ++r)
#pragma GCC unroll 8
          for (int l = 0; l < lines; ++l)
            __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<std::uintptr_t>(w) +
                                                             static_cast<std::uintptr_t>((r * j.row_stride + next) * size + 64 * l)), 0, 2);
      }
      const float* from = block;
      count stride = wide;
      if constexpr (std::is_same_v<W, float>) {
        from = w;
        stride = j.row_stride;
      } else {
        for (count r = 0; r < rows; ++r)
#pragma GCC unroll 8
          for (int c = 0; c < columns_held; ++c) store(block + r * wide + c * lanes, spread<1>(W{}, w + r * j.row_stride + c * lanes));
      }
      float* sums = j.sums + n;
      count m = 0;
      for (; m + 6 <= j.tokens; m += 6) add_block<6>(from, stride, rows, x + m, j.tokens, sums + m * j.sums_stride, j.sums_stride);
      switch (j.tokens - m) {
        case 5: add_block<5>(from, stride, rows, x + m, j.tokens, sums + m * j.sums_stride, j.sums_stride); break;
        case 4: add_block<4>(from, stride, rows, x + m, j.tokens, sums + m * j.sums_stride, j.sums_stride); break;
        case 3: add_block<3>(from, stride, rows, x + m, j.tokens, sums + m * j.sums_stride, j.sums_stride); break;
        case 2: add_block<2>(from, stride, rows, x + m, j.tokens, sums + m * j.sums_stride, j.sums_stride); break;
        case 1: add_block<1>(from, stride, rows, x + m, j.tokens, sums + m * j.sums_stride, j.sums_stride); break;
        default: break;
      }
    }
  }
}

template <class W>
LORA_SIMD_TARGET void run_columns(const columns_job& job) {
  columns_job j = job;
  if (j.tokens >= columns_block_from) {
    constexpr int wide = columns_held * lanes;
    const count whole = j.columns / wide * wide;
    j.columns = whole;
    if (whole != 0) run_column_blocks<W>(j);
    if (whole == job.columns) return;
    j.columns = job.columns - whole;
    j.w = static_cast<const row_element<W>*>(job.w) + whole;
    j.sums = job.sums + whole;
    j.ahead = 0;
  }
  constexpr int R = rows_held;
  count k = 0;
  for (; k + R <= j.depth; k += R) run_columns_of<W, R>(j, k);
  for (; k < j.depth; ++k) run_columns_of<W, 1>(j, k);
}
