// SPDX-License-Identifier: Apache-2.0
//
// detail: the product where W lies transposed, [in, out] in memory with unit stride along out, as GPT-2's Conv1D stores it and as a view's
// transpose() shows it. Rows of one k are streamed as they lie; the sums of all tokens stay in the caches.
#ifndef LORA_LINALG_COLUMNS_HPP
#define LORA_LINALG_COLUMNS_HPP

#include <lora/linalg/rows.hpp>

namespace lora::inline v0::detail::inline LORA_ISA_TAG {

// Columns are taken through all k in tiles whose sums stay in L2 (512 KiB), but not in narrower ones than give each row some pages at once.
[[nodiscard]] constexpr count columns_a_tile(count tokens) noexcept {
  const count fit = (count{1} << 17) / tokens / 64 * 64;
  return fit < 2048 ? 2048 : fit > 8192 ? 8192 : fit;
}

/** An odd number of cache lines, so that the sums of one column do not all want the same place in L1. */
[[nodiscard]] constexpr count sums_stride(count out) noexcept { return (round_up(out, 16) / 16 | 1) * 16; }

/** Whether a matrix [out, in] lies so that its columns are what is contiguous. */
[[nodiscard]] inline bool lies_transposed(const float_view<2>& w) noexcept {
  return w.stride(0) == 1 && w.stride(1) != 1 && w.extent(0) > 1 && w.extent(1) > 1;
}

/** x [tokens, depth] as floats [depth, tokens]. */
inline void turn_tokens(const simd::kernel_table& k, const float_view<2>& x, count first, count tokens, float* out) noexcept {
  constexpr count run = 256;
  float buffer[run];
  const count depth = x.extent(1);
  for (count m = 0; m < tokens; ++m) {
    const char* row = static_cast<const char*>(x.data()) + (first + m) * x.stride(0) * bytes_of(x.type());
    for (count at = 0; at < depth; at += run) {
      const count n = depth - at < run ? depth - at : run;
      widen(k, x.type(), row + at * x.stride(1) * bytes_of(x.type()), x.stride(1), buffer, n);
      for (count i = 0; i < n; ++i) out[(at + i) * tokens + m] = buffer[i];
    }
  }
}

struct transposed_job {
  const simd::kernel_table* kernels;
  simd::columns_kernel run;
  simd::store_kernel store;
  float_view<2> w;
  const float* x;  // [in, tokens]
  count tokens;
  float* sums;  // [tokens, out] with rows of sums_stride(out): what W's product is added to
  float_view<1> bias;
  void* y;
  count y_size;
  count y_row_stride;
  count y_column_stride;
  bool fetch_ahead;
};

/** Outputs [begin, end) of y. `tile_bias` has room for columns_a_tile(tokens) floats. */
inline void run_transposed(const transposed_job& job, count begin, count end, float* tile_bias) noexcept {
  const count stride = sums_stride(job.w.extent(0));
  const count tile = columns_a_tile(job.tokens);
  for (count n = begin; n < end; n += tile) {
    const count columns = end - n < tile ? end - n : tile;
    const count size = bytes_of(job.w.type());
    job.run({static_cast<const char*>(job.w.data()) + n * size, job.w.stride(1), job.w.extent(1), columns, job.x, job.tokens, job.sums + n,
             stride, job.fetch_ahead ? fetch_ahead_bytes : 0});
    const float* bias = nullptr;
    if (job.bias.data() != nullptr) {
      widen(*job.kernels, job.bias.type(), static_cast<const char*>(job.bias.data()) + n * job.bias.stride(0) * bytes_of(job.bias.type()),
            job.bias.stride(0), tile_bias, columns);
      bias = tile_bias;
    }
    for (count m = 0; m < job.tokens; ++m)
      job.store({job.sums + m * stride + n, 1, columns, 1, bias,
                 static_cast<char*>(job.y) + (m * job.y_row_stride + n * job.y_column_stride) * job.y_size, job.y_row_stride,
                 job.y_column_stride});
  }
}

}  // namespace lora::inline v0::detail::inline LORA_ISA_TAG

#endif
