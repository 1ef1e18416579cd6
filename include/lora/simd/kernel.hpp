// SPDX-License-Identifier: Apache-2.0
//
// What a kernel is told, in raw pointers, counts and strides of elements. linalg/ checks shapes and fills these; nothing here checks.
//
// The one form of product (docs/numerics.md): y[m][n] = sum over segments of sum over k of w[n][k] * x[m][k]. W lies where it lies, row
// after row; x is packed once a call so that a register holds T tokens times P = lanes / T consecutive k. A row of W is read as P
// consecutive elements repeated T times. R rows times C registers of tokens are summed at once; a second segment (B, against the scaled
// A x) continues the same sums. Each sum is one chain in rising k, P partial sums wide, so its bits depend on T and lanes only: not on
// R, C, the position of the row or token, or how rows are split over threads. 16-bit elements of W are widened to f32 as they are read,
// strip by strip or in registers, which is exact; only a kernel of bfloat16_pair leaves the products to the CPU's dot product of pairs.
#ifndef LORA_SIMD_KERNEL_HPP
#define LORA_SIMD_KERNEL_HPP

#include <lora/core/half.hpp>
#include <lora/simd/isa.hpp>

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace lora::inline v0::simd {

using count = std::ptrdiff_t;

/**
 * Stands for bfloat16 elements that are multiplied two at a time by the CPU's own instruction (precision::pairs): a unit is a pair of
 * consecutive k. A kernel for any other element type widens to f32, which is exact, one k a unit.
 */
struct bfloat16_pair {};

/** What rows of W consist of in memory. */
template <class W>
using row_element = std::conditional_t<std::is_same_v<W, float>, float, std::uint16_t>;
template <class W>
inline constexpr int unit_depth = std::is_same_v<W, bfloat16_pair> ? 2 : 1;

/**
 * How 16-bit rows become floats. In a register, an element is widened once for each of the T lanes that it is repeated in, by instructions
 * that take the place of multiply-adds: 6 to 12 beside 24 with R = 6, C = 4. In strips, 64 elements of each row of a block are widened
 * once, into a buffer that never leaves L1, and it is the load from there that repeats them. The sums are the same in every bit.
 */
enum class widened_by : unsigned char {
  registers,
  strips,           ///< in the order of the row
  strips_of_fours,  ///< of each 8 elements, the first 4 go to one half of a block of the buffer, the last 4 to the other half
};

/** One run of k: rows of a matrix with unit column stride, and the tokens packed for it. */
struct segment {
  const void* w;     // row 0
  count row_stride;  // in elements
  count depth;       // number of k; may be 0
  // [panel][ceil(depth / (P * unit_depth))][C of the panel][T][P] units of 4 bytes, zero beyond depth and beyond the last token: floats,
  // or pairs of bfloat16 for a kernel of pairs.
  const float* packed;
  count panel_stride;  // units from one full panel to the next
  bool is_w = true;    // rows are of the kernel's element type; else of float
};

/** Bytes by which rows are prefetched into L1, and before that into L2. 0: not at all; not into L2 alone. */
struct ahead_by {
  count l1 = 0;
  count l2 = 0;
};

/**
 * Up to how many tokens lines of W are asked for twice: with more, multiply-adds take as long as the reading, and the second instruction
 * costs more than it brings. Measured, see docs/benchmarks.
 */
[[nodiscard]] constexpr count fetched_twice_to(bool floats) noexcept { return floats ? 16 : 6; }

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
  ahead_by ahead{};               // by how much each row of the first segment is prefetched ahead of its use
  count wrap = 0;                 // bytes from where a row of the first segment ends to where what is summed next begins, for `ahead`
  std::uintptr_t beside = 0;      // address of a later row of the first segment, as long, fetched into L2 meanwhile in their place; 0: none
  // Long rows are summed in several runs of k, between which the sums of a block lie here as they are in registers, [R][C][lanes]: every
  // chain goes on where it stopped, so that the result has the bits of one run.
  float* partial = nullptr;
  bool resumes = false;   // begins with these sums, not with zeros
  bool suspends = false;  // leaves them there; `out` is not written
};

using block_kernel = void (*)(const block_job&);

/**
 * Rows [0, rows) against one token, nothing prefetched: bit for bit the sums of blocks with T = 1. Nothing behind out[rows - 1] is written,
 * unless they are to be the tokens of another segment: each is then multiplied by `scale`, and zeros fill up the last register.
 */
struct short_job {
  const segment* segments;
  count segment_count;
  count rows;
  float* out;
  bool tokens = false;
  float scale = 1.0f;
};

/** A shape of block. */
struct form {
  int tokens_lane;  // T
  int rows;         // R
  int registers;    // C; the block covers T * C tokens
  block_kernel run;
};

/** x [tokens, depth] with any strides, to be packed for one panel of a form. */
struct pack_job {
  const void* x;
  count row_stride;
  count column_stride;
  count tokens;  // <= T * C
  count depth;
  float scale;  // multiplied in; 1 leaves the bits alone. Not for pairs.
  int tokens_lane;
  int registers;
  float* out;  // [ceil(depth / P)][C][T][P]
};

/**
 * Finished sums [rows][tokens] to be written as y [tokens, rows]: multiplied by the factor of the row where there is one, then the bias
 * added. The product is rounded before the addition in every tier, so that the bits do not depend on who fuses what.
 */
struct store_job {
  const float* sums;
  count sums_stride;
  count rows;
  count tokens;
  const float* bias;  // [rows] or null
  void* y;
  count row_stride;
  count column_stride;
  const float* factor = nullptr;  // [rows] or null
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

/** sums[n] += sum over k of (w[n][k] + sum over j of c[n][j] * a[j][k])^2, in double: parts of squared norms of the rows of W + C A. */
struct norm_job {
  const float* w;  // [rows, depth]
  count w_stride;
  const double* c;  // [rows, rank], contiguous
  const double* a;  // [rank, depth]
  count a_stride;
  count rank;
  count rows;
  count depth;
  double* sums;
};

/**
 * sums[m][n] += sum over k of x[k][m] * w[k][n]: the product where W lies transposed, its rows (of one k) contiguous in n. Each element is
 * one chain of multiply-adds in rising k, so its bits depend on nothing else.
 */
struct columns_job {
  const void* w;     // [depth, columns] of the kernel's element type, unit column stride
  count row_stride;  // in elements
  count depth;
  count columns;
  const float* x;  // [ceil(depth / columns_depth)][group][columns_depth, or what is left][tokens of the group], contiguous
  count tokens;
  float* sums;  // [panel of columns][tokens][columns_panel]: those of a panel lie together; the last panel may have room to spare
  int fetches;  // how often each line is asked for ahead of its use: 0 where that is left to the CPU, else 1 or 2
};

/** Tokens are summed up to this many at a time, in as few groups as possible, of equal size but for one token, the larger ones first. */
inline constexpr count columns_group = 6;
/** Rows of W that are summed before the next ones, and hence the length of a run of x. */
inline constexpr count columns_depth = 64;
/** Columns are best split between threads in multiples of this. */
inline constexpr count columns_panel = 64;

using columns_kernel = void (*)(const columns_job&);
using pack_kernel = void (*)(const pack_job&);
using store_kernel = void (*)(const store_job&);
using norm_kernel = void (*)(const norm_job&);

/**
 * The kernels of one tier for one element type of W. All that the drivers know of a tier: another unit of the CPU (AMX tiles, SME) is one more
 * table, of forms with their T, R and C, and a packer for its order of tokens, as the pairs of AVX512_BF16 are.
 */
struct kernel_table {
  tier which;
  int lanes;
  const form* (*form_for)(count tokens);                    // for a whole batch of this size
  const form* (*rest_form_for)(const form&, count tokens);  // for its last panel: same T
  const form* (*row_form_for)(count tokens);                // T = 1 whatever the size: one row's bits are the same in every batch
  pack_kernel pack_floats;                                  // for the tokens of further segments
  void (*widen[3])(const void*, float*, count);             // of float (a copy), bfloat16 and float16, unit stride
  void (*merge)(const merge_job&);
  void (*run_short)(const short_job&);
};

}  // namespace lora::inline v0::simd

#endif
