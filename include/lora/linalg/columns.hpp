// SPDX-License-Identifier: Apache-2.0
//
// detail: the product where W lies transposed, [in, out] in memory with unit stride along out, as GPT-2's Conv1D stores it and as a view's
// transpose() shows it. Rows of one k are streamed as they lie; the sums of all tokens stay in the caches.
#ifndef LORA_LINALG_COLUMNS_HPP
#define LORA_LINALG_COLUMNS_HPP

#include <lora/linalg/rows.hpp>

namespace lora::inline v0::detail::inline LORA_ISA_TAG {

// Columns are taken through all k in tiles whose sums stay in L2 (256 KiB, 512 for 64 tokens), but not in narrower ones than give each row
// two pages of floats at once.
[[nodiscard]] constexpr count columns_a_tile(count tokens) noexcept {
  const count fit = (count{1} << 16) / tokens / 64 * 64;
  return fit < 2048 ? 2048 : fit > 8192 ? 8192 : fit;
}

/** Floats that the sums of one token take: those of a panel of columns lie together, token after token. */
[[nodiscard]] constexpr count sums_a_token(count out) noexcept { return round_up(out, simd::columns_panel); }

/** Whether a matrix [out, in] lies so that its columns are what is contiguous. */
[[nodiscard]] inline bool lies_transposed(const float_view<2>& w) noexcept {
  return w.stride(0) == 1 && w.stride(1) != 1 && w.extent(0) > 1 && w.extent(1) > 1;
}

/**
 * k [from, to) of x [tokens, depth] as floats as columns_job wants them: 64 k at a time and, of these, group of tokens after group. All
 * tokens of 64 k lie together, or the groups' parts would want the same places in L1 wherever depth is a power of two (17.1 instead of
 * 15.6 ms at 64 tokens). `from` is a multiple of 64; `out` is where k 0 lies.
 */
inline void turn_tokens(const simd::kernel_table& k, const float_view<2>& x, count first, count tokens, count from, count to,
                        float* out) noexcept {
  float buffer[simd::columns_depth];
  out += from * tokens;
  for (count at = from; at < to; at += simd::columns_depth) {
    const count run = to - at < simd::columns_depth ? to - at : simd::columns_depth;
    count m = 0;
    for (count groups = (tokens + simd::columns_group - 1) / simd::columns_group; groups > 0; --groups) {
      const count width = (tokens - m + groups - 1) / groups;
      for (count g = 0; g < width; ++g) {
        const char* row = static_cast<const char*>(x.data()) + ((first + m + g) * x.stride(0) + at * x.stride(1)) * bytes_of(x.type());
        widen(k, x.type(), row, x.stride(1), buffer, run);
        for (count i = 0; i < run; ++i) out[i * width + g] = buffer[i];
      }
      out += run * width;
      m += width;
    }
  }
}

/** Columns [begin, end) of sums to add to, where there is no low-rank term to start from. */
inline void clear_sums(float* sums, count tokens, count begin, count end) noexcept {
  if (begin < end) __builtin_memset(sums + begin * tokens, 0, static_cast<std::size_t>(sums_a_token(end - begin) * tokens) * sizeof(float));
}

/** The same with the low-rank terms as the start: `low` writes its rows into the panels of `sums`; those of one token are one row. */
inline void start_sums(rows_job low, float* sums, count tokens, count begin, count end, void* scratch) noexcept {
  const count step = tokens == 1 ? round_up(end - begin, simd::columns_panel) : simd::columns_panel;
  for (count n = begin; n < end; n += step) {
    low.y = sums + n * (tokens - 1);  // of column 0: n columns further on, the panel begins
    run_rows(low, n, end - n < step ? end : n + step, scratch);
  }
}

struct transposed_job {
  const simd::kernel_table* kernels;
  simd::columns_kernel run;
  simd::store_kernel store;
  float_view<2> w;
  const float* x;  // as turn_tokens leaves it
  count tokens;
  float* sums;  // [panel][tokens][columns_panel]: what W's product is added to
  epilogue finish;
  void* y;
  count y_size;
  count y_row_stride;
  count y_column_stride;
  int fetches;
};

/** Outputs [begin, end) of y. `tile_bias` has room for columns_a_tile(tokens) floats. */
inline void run_transposed(const transposed_job& job, count begin, count end, float* tile_bias) noexcept {
  const count tile = columns_a_tile(job.tokens);
  for (count n = begin; n < end; n += tile) {
    const count columns = end - n < tile ? end - n : tile;
    const count size = bytes_of(job.w.type());
    job.run({static_cast<const char*>(job.w.data()) + n * size, job.w.stride(1), job.w.extent(1), columns, job.x, job.tokens,
             job.sums + n * job.tokens, job.fetches});
    const float* bias = bias_of(*job.kernels, job.finish, n, columns, tile_bias);
    const float* factor = job.finish.factor == nullptr ? nullptr : job.finish.factor + n;
    for (count m = 0; m < job.tokens; ++m)
      for (count c = 0; c < columns; c += simd::columns_panel)
        job.store({job.sums + (n + c) * job.tokens + m * simd::columns_panel, 1,
                   columns - c < simd::columns_panel ? columns - c : simd::columns_panel, 1, bias == nullptr ? nullptr : bias + c,
                   static_cast<char*>(job.y) + (m * job.y_row_stride + (n + c) * job.y_column_stride) * job.y_size, job.y_row_stride,
                   job.y_column_stride, factor == nullptr ? nullptr : factor + c});
  }
}

}  // namespace lora::inline v0::detail::inline LORA_ISA_TAG

#endif
