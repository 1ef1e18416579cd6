// SPDX-License-Identifier: Apache-2.0
//
// What a kernel is told, in raw pointers, counts and strides of elements. linalg/ checks shapes and fills these; nothing here checks.
//
// The one form of product (docs/numerics.md): y[m][n] = sum over segments of sum over k of w[n][k] * x[m][k]. W lies where it lies, row
// after row; x is packed once a call so that a register holds T tokens times P = lanes / T consecutive k. A row of W is read as P
// consecutive elements repeated T times. R rows times C registers of tokens are summed at once; a second segment (B, against the scaled
// A x) continues the same sums. Each sum is one chain in rising k, P partial sums wide, so its bits depend on T and lanes only: not on
// R, C, the position of the row or token, or how rows are split over threads.
#ifndef LORA_SIMD_KERNEL_HPP
#define LORA_SIMD_KERNEL_HPP

#include <lora/simd/isa.hpp>

#include <cstddef>
#include <cstdint>

namespace lora::inline v0::simd {

using count = std::ptrdiff_t;

/** One run of k: rows of a matrix with unit column stride, and the tokens packed for it. */
struct segment {
  const float* w;  // row 0
  count row_stride;
  count depth;          // number of k; may be 0
  const float* packed;  // [panel][ceil(depth / P)][C of the panel][T][P], zero beyond depth and beyond the last token
  count panel_stride;   // elements from one full panel to the next
};

/** A block of R rows against one panel of tokens. */
struct block_job {
  const segment* segments;
  count segment_count;
  count row;  // first of the R rows
  count panel;
  float* out;  // out[r * out_stride + token], T * C tokens are written for each of the R rows
  count out_stride;
  const char* walk;               // where the next rows of the first segment begin, to prefetch them in order; null: do not
  count rows_left = PTRDIFF_MAX;  // rows there are from `row` on; behind the last, it is summed again, into rows of `out` that must exist
};

using block_kernel = void (*)(const block_job&);

/** A shape of block. */
struct form {
  int tokens_lane;  // T
  int rows;         // R
  int registers;    // C; the block covers T * C tokens
  block_kernel run;
};

/** x [tokens, depth] with any strides, to be packed for one panel of a form. */
struct pack_job {
  const float* x;
  count row_stride;
  count column_stride;
  count tokens;  // <= T * C
  count depth;
  float scale;  // multiplied in; 1 leaves the bits alone
  int tokens_lane;
  int registers;
  float* out;  // [ceil(depth / P)][C][T][P]
};

/** Finished sums [rows][tokens] to be written as y [tokens, rows], with the bias added. */
struct store_job {
  const float* sums;
  count sums_stride;
  count rows;
  count tokens;
  const float* bias;  // [rows] or null
  float* y;
  count row_stride;
  count column_stride;
};

/** out[n][k] = w[n][k] + sum over j of (scale * b[n][j]) * a[j][k], for one row n. */
struct merge_job {
  const float* w;
  const float* b;  // b[j * b_stride]
  count b_stride;
  const float* a;  // rank rows
  count a_stride;
  count rank;
  float scale;
  count depth;
  float* out;
};

/** The kernels of one tier. */
struct kernel_table {
  tier which;
  int lanes;
  const form* (*form_for)(count tokens);                    // for a whole batch of this size
  const form* (*rest_form_for)(const form&, count tokens);  // for its last panel: same T
  void (*pack_panel)(const pack_job&);
  void (*store_sums)(const store_job&);
  void (*merge)(const merge_job&);
};

}  // namespace lora::inline v0::simd

#endif
