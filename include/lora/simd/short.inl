// SPDX-License-Identifier: Apache-2.0
//
// Rows against one token where the rows are short and lie in a cache: no call, no prefetch and no tile between one block of eight and the
// next. Included by tile.inl in each tier's namespace. 64 x 64 with a term of rank 4 takes 155 ns for the whole of forward (Xeon, model
// 207); its multiply-adds and foldings alone, two an instruction cycle, are 105.

// The last k of R rows, fewer than a step of them: N, where it is known, is loaded without a mask.
template <class W, int N, int R>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE void run_short_rest(reg (&sum)[R][1], const row_element<W>* (&row)[R], const float* x,
                                                        [[maybe_unused]] int n) noexcept {
  const reg token = load(x);
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    reg w;
    if constexpr (N != 0)
      w = spread_head<N>(row[r]);
    else
      w = spread_part<1>(W{}, row[r], n);
    sum[r][0] = madd(W{}, w, token, sum[r][0]);
  }
}

// All k of R rows of one segment against one token, nothing fetched. Four steps at a time: moving the nine pointers costs as much as
// the multiply-adds of a step do. Not `Whole`: there are only `rows` of them, and the last is summed again.
template <class W, bool Whole, int R>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE void run_short_segment(reg (&sum)[R][1], const segment& seg, count n,
                                                           [[maybe_unused]] count rows) noexcept {
  constexpr int step = lanes * unit_depth<W>;
  const row_element<W>* row[R];
  row[0] = static_cast<const row_element<W>*>(seg.w) + n * seg.row_stride;
#pragma GCC unroll 8
  for (int r = 1; r < R; ++r) row[r] = row[r - 1] + (Whole || r < rows ? seg.row_stride : 0);
  const float* x = seg.packed;
  count left = seg.depth;
  for (; left >= 4 * step; left -= 4 * step) {
    // As nine pointers: of one index for all, g++ makes loads that a multiply-add cannot take in.
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) asm("" : "+r"(row[r]));
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) run_step<W, 1, R, 1, true>(sum, row, x, step);
  }
  for (; left >= step; left -= step) run_step<W, 1, R, 1, true>(sum, row, x, step);
  if (left == 0) return;
  if constexpr (std::is_same_v<W, float> && lanes >= 8) {  // the ranks that adapters have
    if (left == 4) return run_short_rest<W, 4>(sum, row, x, 4);
    if constexpr (lanes > 8)
      if (left == 8) return run_short_rest<W, 8>(sum, row, x, 8);
  }
  run_short_rest<W, 0>(sum, row, x, static_cast<int>(left));
}

template <class W, bool Whole, int R>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE void run_short_block(const short_job& job, count n, count rows, reg (&sum)[R][1]) noexcept {
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) sum[r][0] = zero();
  const segment* const end = job.segments + job.segment_count;
  for (const segment* seg = job.segments; seg != end; ++seg) {
    if (std::is_same_v<W, float> || seg->is_w)
      run_short_segment<W, Whole>(sum, *seg, n, rows);
    else
      run_short_segment<float, Whole>(sum, *seg, n, rows);
  }
}

template <int R>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE void fold_short(const reg (&sum)[R][1], float* out) noexcept {
  reg eight[8];
#pragma GCC unroll 8
  for (int r = 0; r < 8; ++r) eight[r] = r < R ? sum[r % R][0] : zero();
  fold_together<1>(eight, out);
}

// Rows against one token, block after block without leaving the kernel: for short rows, calls cost as much as sums.
template <class W>
LORA_SIMD_TARGET void run_short(const short_job& job) {
  reg sum[8][1];
  count n = 0;
  for (; n + 8 <= job.rows; n += 8) {
    run_short_block<W, true>(job, n, 8, sum);
    fold_short(sum, job.out + n);
  }
  if (n != job.rows) {
    if (n != 0) {  // the last eight, some of them once more
      run_short_block<W, true>(job, job.rows - 8, 8, sum);
      fold_short(sum, job.out + job.rows - 8);
    } else {
      float last[8];
      float* const to = job.tokens ? job.out : last;
      if (job.rows <= 4) {
        reg four[4][1];
        run_short_block<W, false>(job, 0, job.rows, four);
        fold_short(four, to);
      } else {
        run_short_block<W, false>(job, 0, job.rows, sum);
        fold_short(sum, to);
      }
      if (!job.tokens)
        for (count i = 0; i < job.rows; ++i) job.out[i] = last[i];
    }
  }
  // A register at a time, so that whoever reads them as tokens need not wait until several stores have reached the cache.
  if (job.tokens)
    for (n = 0; n < job.rows; n += lanes)
      store(job.out + n, scaled_part(job.out + n, job.rows - n < lanes ? static_cast<int>(job.rows - n) : lanes, job.scale));
}
