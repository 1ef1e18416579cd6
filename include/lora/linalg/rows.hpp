// SPDX-License-Identifier: Apache-2.0
//
// detail: drives the block kernels over a range of rows. Knows raw pointers, tiles and prefetching; shapes were checked in forward.hpp.
// A matrix whose rows are not contiguous is gathered tile by tile into scratch memory: slower, never wrong.
#ifndef LORA_LINALG_ROWS_HPP
#define LORA_LINALG_ROWS_HPP

#include <lora/simd/dispatch.hpp>

#include <cstddef>

namespace lora::inline v0::detail::inline LORA_ISA_TAG {

using simd::count;

// Sums of 48 rows are collected before y is written, so that y gets runs of 48 elements: writing 6 at a time cost up to 0.4 ms of a
// 5 ms product (16 to 32 tokens, Zen 4). Rounded down to whole blocks.
inline constexpr count tile_rows_wanted = 48;

[[nodiscard]] constexpr count tile_rows(const simd::form& f) noexcept { return tile_rows_wanted / f.rows * f.rows; }
[[nodiscard]] constexpr count round_up(count n, count unit) noexcept { return (n + unit - 1) / unit * unit; }

/** How a batch of tokens is cut into panels for a form. */
struct panels {
  const simd::form* full;
  const simd::form* last;  // for the last panel, which may hold fewer registers
  count tokens;
  count panel_tokens;  // T * C of a full panel
  count number;
  count packed_tokens;  // tokens with their zero padding, T * C of every panel added up
  int lanes;

  panels(const simd::kernel_table& k, const simd::form& f, count n) noexcept
      : full(&f), last(&f), tokens(n), panel_tokens(static_cast<count>(f.tokens_lane) * f.registers), lanes(k.lanes) {
    number = (n + panel_tokens - 1) / panel_tokens;
    const count rest = n - (number - 1) * panel_tokens;
    last = k.rest_form_for(f, rest);
    packed_tokens = (number - 1) * panel_tokens + static_cast<count>(last->tokens_lane) * last->registers;
  }

  [[nodiscard]] const simd::form& form_of(count panel) const noexcept { return panel + 1 == number ? *last : *full; }
  [[nodiscard]] count tokens_of(count panel) const noexcept { return panel + 1 == number ? tokens - panel * panel_tokens : panel_tokens; }
  /** k rounded up to whole steps of P. */
  [[nodiscard]] count padded(count depth) const noexcept { return round_up(depth, lanes / full->tokens_lane); }
  [[nodiscard]] count packed_size(count depth) const noexcept { return padded(depth) * packed_tokens; }
  [[nodiscard]] count panel_size(count depth) const noexcept { return padded(depth) * panel_tokens; }

  /** Packs x [tokens, depth], multiplied by `scale`, into packed_size(depth) floats. */
  void pack(const simd::kernel_table& k, const float* x, count row_stride, count column_stride, count depth, float scale,
            float* out) const noexcept {
    if (depth == 0) return;  // nothing to pack, and x may be a null pointer, which no offset may be added to
    for (count p = 0; p < number; ++p)
      k.pack_panel({x + p * panel_tokens * row_stride, row_stride, column_stride, tokens_of(p), depth, scale, form_of(p).tokens_lane,
                    form_of(p).registers, out + p * panel_size(depth)});
  }
};

/** One matrix of the product, any strides, with the tokens packed for it. */
struct operand {
  const float* data;
  count row_stride;
  count column_stride;
  count depth;
  const float* packed;

  [[nodiscard]] bool in_place() const noexcept { return column_stride == 1 || depth <= 1; }
};

struct rows_job {
  const simd::kernel_table* kernels;
  const panels* batch;
  const operand* operands;
  count operand_count;
  const float* bias;  // or null
  count bias_stride;
  float* y;
  count y_row_stride;
  count y_column_stride;
  bool walk;  // prefetch the next rows of the first operand
};

/**
 * y[:, begin:end] = sum over operands of tokens times rows, plus bias. Rows of one call do not depend on each other's range.
 * `scratch` holds, from the front: a segment an operand, the sums of a tile, the bias of a tile, gathered rows.
 */
inline void run_rows(const rows_job& job, count begin, count end, void* scratch) noexcept {
  const panels& batch = *job.batch;
  const count R = batch.full->rows;
  const count tile = tile_rows(*batch.full);
  const count stride = batch.packed_tokens;

  auto* segments = static_cast<simd::segment*>(scratch);
  auto* sums = reinterpret_cast<float*>(segments + job.operand_count);
  float* tile_bias = sums + tile * stride;
  float* gathered = tile_bias + tile;

  for (count n = begin; n < end; n += tile) {
    const count rows = end - n < tile ? end - n : tile;

    float* free = gathered;
    count used = 0;
    for (count i = 0; i < job.operand_count; ++i) {
      const operand& o = job.operands[i];
      if (o.depth == 0) continue;  // adds nothing, and its pointer may be null
      simd::segment& s = segments[used++];
      s = {o.data + n * o.row_stride, o.row_stride, o.depth, o.packed, batch.panel_size(o.depth)};
      if (!o.in_place()) {
        for (count r = 0; r < rows; ++r)
          for (count k = 0; k < o.depth; ++k) free[r * o.depth + k] = s.w[r * o.row_stride + k * o.column_stride];
        s.w = free;
        s.row_stride = o.depth;
        free += tile * o.depth;
      }
    }
    const float* bias = nullptr;
    if (job.bias != nullptr) {
      bias = job.bias + n * job.bias_stride;
      if (job.bias_stride != 1) {
        for (count r = 0; r < rows; ++r) tile_bias[r] = bias[r * job.bias_stride];
        bias = tile_bias;
      }
    }

    simd::block_job b{segments, used, 0, 0, sums, stride, nullptr};
    for (b.row = 0; b.row < rows; b.row += R) {
      b.rows_left = rows - b.row;
      const count next = n + b.row + R;
      for (b.panel = 0; b.panel < batch.number; ++b.panel) {
        b.out = sums + b.row * stride + b.panel * batch.panel_tokens;
        // The rows that come next are fetched once, while the first panel is summed.
        b.walk = job.walk && b.panel == 0 && next + R <= end
                     ? reinterpret_cast<const char*>(job.operands[0].data + next * job.operands[0].row_stride)
                     : nullptr;
        batch.form_of(b.panel).run(b);
      }
    }
    job.kernels->store_sums(
        {sums, stride, rows, batch.tokens, bias, job.y + n * job.y_column_stride, job.y_row_stride, job.y_column_stride});
  }
}

}  // namespace lora::inline v0::detail::inline LORA_ISA_TAG

#endif
