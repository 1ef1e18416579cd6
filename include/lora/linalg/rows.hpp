// SPDX-License-Identifier: Apache-2.0
//
// detail: drives the block kernels over a range of rows. Knows raw pointers, tiles and prefetching; shapes were checked in forward.hpp.
// A matrix whose rows are not contiguous, or whose elements the kernel does not read, is gathered tile by tile into scratch memory.
#ifndef LORA_LINALG_ROWS_HPP
#define LORA_LINALG_ROWS_HPP

#include <lora/nd/float_view.hpp>
#include <lora/simd/dispatch.hpp>

#include <cstddef>

namespace lora::inline v0::detail::inline LORA_ISA_TAG {

using simd::count;

// Sums of 48 rows are collected before y is written, so that y gets runs of 48 elements: writing 6 at a time cost up to 0.4 ms of a
// 5 ms product (16 to 32 tokens, Zen 4). Rounded down to whole blocks.
inline constexpr count tile_rows_wanted = 48;

// How far fetch::ahead looks. Once, into L1, keeps as many lines under way as L1 has buffers for, which is not enough for the rows of a few
// tokens: their lines are asked for twice, first into L2. Not where L2 may hold the rows of a thread already. Other distances: docs/benchmarks.
inline constexpr simd::ahead_by fetch_once{512, 0};
inline constexpr simd::ahead_by fetch_twice{640, 1280};
inline constexpr count fetch_twice_from_bytes = 2 << 20;

/** For a thread's rows of `depth` elements of `type`, against so many tokens. */
[[nodiscard]] constexpr simd::ahead_by fetch_distance(dtype type, count rows, count depth, count tokens) noexcept {
  const count size = type == dtype::f32 ? 4 : 2;
  const bool large = depth > 0 && rows >= (fetch_twice_from_bytes / size - 1) / depth + 1;
  return large && tokens <= simd::fetched_twice_to(type == dtype::f32) ? fetch_twice : fetch_once;
}

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
  /** Whether a block of rows meets one narrow panel after the other: batch_invariant, from 11 to 21 tokens on. */
  [[nodiscard]] bool shares_rows() const noexcept { return full->tokens_lane == 1 && number >= full->rows; }
  /** Units of k (one k each, or two for pairs) rounded up to whole steps of P. */
  [[nodiscard]] count padded(count depth, int unit = 1) const noexcept {
    return round_up((depth + unit - 1) / unit, lanes / full->tokens_lane);
  }
  [[nodiscard]] count packed_size(count depth, int unit = 1) const noexcept { return padded(depth, unit) * packed_tokens; }
  [[nodiscard]] count panel_size(count depth, int unit = 1) const noexcept { return padded(depth, unit) * panel_tokens; }

  /**
   * Packs k [from, to) of x [tokens, depth], of elements of `size` bytes, multiplied by `scale`, to where they lie among the
   * packed_size(depth, unit) units of 4 bytes at `out`. Where a run of k begins or ends within, it does so at a multiple of 64 units.
   */
  void pack(simd::pack_kernel kernel, const void* x, count size, count row_stride, count column_stride, count depth, count from, count to,
            float scale, float* out, int unit = 1) const noexcept {
    if (from == to) return;  // nothing to pack, and x may be a null pointer, which no offset may be added to
    for (count p = 0; p < number; ++p) {
      const simd::form& f = form_of(p);
      kernel({static_cast<const char*>(x) + (p * panel_tokens * row_stride + from * column_stride) * size, row_stride, column_stride,
              tokens_of(p), to - from, scale, f.tokens_lane, f.registers,
              out + p * panel_size(depth, unit) + from / unit * f.tokens_lane * f.registers});
    }
  }
};

[[nodiscard]] constexpr count bytes_of(dtype t) noexcept { return t == dtype::f32 ? 4 : 2; }

/** One matrix of the product, any strides, with the tokens packed for it. */
struct operand {
  const void* data;
  dtype type;
  bool is_w;  // read by the kernel as it is; else as floats
  int unit;   // k in a unit of `packed`
  count row_stride;
  count column_stride;
  count depth;
  const float* packed;
  count first = 0;  // the row of the product that `data` begins with

  [[nodiscard]] bool in_place() const noexcept { return (column_stride == 1 || depth <= 1) && (is_w || type == dtype::f32); }
  [[nodiscard]] const char* row(count n) const noexcept {
    return static_cast<const char*>(data) + (n - first) * row_stride * bytes_of(type);
  }
};

/** n elements `stride` apart, widened to floats. */
inline void widen(const simd::kernel_table& k, dtype type, const void* from, count stride, float* to, count n) noexcept {
  if (stride == 1) {
    k.widen[type == dtype::f32 ? 0 : type == dtype::bf16 ? 1 : 2](from, to, n);
  } else if (type == dtype::f32) {
    for (count i = 0; i < n; ++i) to[i] = static_cast<const float*>(from)[i * stride];
  } else {
    for (count i = 0; i < n; ++i) {
      const std::uint16_t bits = static_cast<const std::uint16_t*>(from)[i * stride];
      to[i] = type == dtype::bf16 ? bfloat16_to_float(bits) : float16_to_float(bits);
    }
  }
}

/** Copies `rows` rows of an operand into `to` [rows, depth]: as they are, or as floats. */
inline void gather(const simd::kernel_table& k, const operand& o, const void* from, count rows, void* to) noexcept {
  for (count r = 0; r < rows; ++r) {
    const char* row = static_cast<const char*>(from) + r * o.row_stride * bytes_of(o.type);
    if (o.is_w && o.type != dtype::f32) {
      for (count i = 0; i < o.depth; ++i)
        static_cast<std::uint16_t*>(to)[r * o.depth + i] = reinterpret_cast<const std::uint16_t*>(row)[i * o.column_stride];
    } else {
      widen(k, o.type, row, o.column_stride, static_cast<float*>(to) + r * o.depth, o.depth);
    }
  }
}

/** What becomes of a finished sum: factor * sum + (bias + more). */
struct epilogue {
  float_view<1> bias;             // or none
  const float* more = nullptr;    // a second bias; null where there is no first
  const float* factor = nullptr;  // or none
};

/** The bias of outputs [first, first + outputs) as floats: where it lies, or in `room`; null for none. */
[[nodiscard]] inline const float* bias_of(const simd::kernel_table& k, const epilogue& e, count first, count outputs,
                                          float* room) noexcept {
  if (e.bias.data() == nullptr) return nullptr;
  const dtype type = e.bias.type();
  const char* from = static_cast<const char*>(e.bias.data()) + first * e.bias.stride(0) * bytes_of(type);
  if (type == dtype::f32 && e.bias.stride(0) == 1 && e.more == nullptr) return reinterpret_cast<const float*>(from);
  widen(k, type, from, e.bias.stride(0), room, outputs);
  if (e.more != nullptr)
    for (count i = 0; i < outputs; ++i) room[i] += e.more[first + i];
  return room;
}

/**
 * How long rows are cut. Packed tokens that L2 does not hold would come from beyond it once for every block of rows. So `depth` k are
 * summed at a time, of `rows` rows, whose sums wait in memory meanwhile. Each sum is still one chain of steps: where it is cut changes no
 * bit.
 */
struct bands {
  count number = 1;
  count depth = 0;     // k of a band, a multiple of 64; the last band may have fewer
  count rows = 0;      // whole tiles
  count partials = 0;  // floats that the waiting sums of these rows take
};

// Measured on a Xeon (model 207, 2 MiB of L2), f32, 64 tokens at in = 11008 / 14336: 49 / 84 ms in shorter turns of whole rows, 41 / 51 so.
// Bands of 1/4 to 1 MiB of tokens and 192 or 384 KiB of waiting sums were within 3 % of each other.
inline constexpr count band_bytes = 1 << 20;
inline constexpr count partial_bytes = 192 << 10;
// Where a step is of one token (batch_invariant), many narrow panels share a block of rows, which then should stay in L1 with the tokens of a
// panel: 6 rows and 4 tokens of so many floats take 40 KiB. With the next block's rows fetched one a panel, 64 tokens by 4096 x 4096 took 19.1 to
// 19.7 ms, 20.4 to 21.0 without both. Rows of 16 bits are widened again for each panel: for them the same was 5 to 10 %
// slower. Where a walk fetches W, which takes whole rows, bands of them would leave it out.
inline constexpr count row_form_band = 1024;

/** For rows of `depth` elements of `type`, fetched in the way `how`, tokens packed `unit` k to 4 bytes. */
[[nodiscard]] inline bands bands_of(const panels& batch, dtype type, simd::fetch how, count depth, int unit) noexcept {
  const bool one_a_panel = batch.shares_rows() && type == dtype::f32 && how == simd::fetch::ahead;
  const count most = one_a_panel ? row_form_band : band_bytes / 4 / batch.packed_tokens;
  const count units = batch.padded(depth, unit);
  if (units <= most) return {};
  const count number = (units - 1) / most + 1;
  const count band = round_up((units - 1) / number + 1, 64);
  const count row_floats = batch.packed_tokens * (batch.lanes / batch.full->tokens_lane);
  const count rows = round_up(partial_bytes / 4 / row_floats, tile_rows(*batch.full));
  return {(units - 1) / band + 1, band * unit, rows, rows * row_floats};
}

struct rows_job {
  const simd::kernel_table* kernels;
  const panels* batch;
  const operand* operands;
  count operand_count;
  epilogue finish;
  simd::store_kernel store;
  void* y;
  count y_size;  // bytes of an element
  count y_row_stride;
  count y_column_stride;
  simd::fetch fetch;  // of the rows of the first operand
  simd::ahead_by ahead;
  bands cut;  // of the first operand
};

/** One band [from, to) of the first operand's k, of a tile of rows or what is left of it. */
struct tile_job {
  simd::segment* segments;  // of its first row and of all k
  count segment_count;
  count rows;
  count rows_below;  // these and all that follow
  count from;
  count to;
  count after;      // elements from the end of the last block's first row to what is summed next, behind the tile
  float* sums;      // of the tile; written by the last band
  float* partials;  // sums that wait for the next band
};

inline void run_tile(const rows_job& job, const tile_job& t) noexcept {
  const panels& batch = *job.batch;
  const operand& o = job.operands[0];
  simd::segment& w = t.segments[0];
  const count R = batch.full->rows;
  const count stride = batch.packed_tokens;
  const count steps = batch.lanes / batch.full->tokens_lane;  // floats of a sum that waits
  const count depth = t.to - t.from;
  const bool cut = depth != o.depth;
  const bool last = t.to == o.depth;
  const count size = w.is_w ? bytes_of(o.type) : 4;

  simd::block_job b{t.segments, last ? t.segment_count : 1, 0, 0, nullptr, stride, nullptr};
  b.resumes = t.from != 0;
  b.suspends = !last;
  if (cut) {
    w.w = static_cast<const char*>(w.w) + t.from * size;
    w.depth = depth;
  }
  for (count row = 0; row < t.rows; row += R) {
    b.row = row;
    b.rows_left = t.rows - row;
    const bool below = row + R < t.rows;
    b.wrap = (below ? R * w.row_stride - depth : t.after) * size;
    for (b.panel = 0; b.panel < batch.number; ++b.panel) {
      const simd::form& f = batch.form_of(b.panel);
      if (cut) w.packed = o.packed + t.from / o.unit * f.tokens_lane * f.registers;
      b.out = t.sums + row * stride + b.panel * batch.panel_tokens;
      b.partial = t.partials + (row * stride + b.panel * R * batch.panel_tokens) * steps;
      // The rows that come next are fetched once, while the first panel is summed; a walk takes whole rows.
      const bool walks = job.fetch == simd::fetch::walk && b.panel == 0 && !cut && row + 2 * R <= t.rows_below;
      b.walk = walks ? static_cast<const char*>(w.w) + (row + R) * w.row_stride * size : nullptr;
      b.ahead = job.fetch != simd::fetch::ahead || b.panel != 0 ? simd::ahead_by{} : job.ahead;
      if (job.fetch == simd::fetch::ahead && batch.shares_rows() && o.type == dtype::f32) {
        // One row of the next block a panel. As a number: behind the last row the address belongs to nothing.
        b.ahead = {};
        const count next = (b.panel * w.row_stride + depth) * size + b.wrap;
        const auto at = reinterpret_cast<std::uintptr_t>(w.w) + static_cast<std::uintptr_t>(row * w.row_stride * size + next);
        b.beside = b.panel < R ? at : 0;
      }
      f.run(b);
    }
  }
}

/**
 * y[:, begin:end] = sum over operands of tokens times rows, finished. Rows of one call do not depend on each other's range.
 * `scratch` holds, from the front: a segment an operand, the sums of a tile, the bias of a tile, sums that wait, gathered rows.
 */
inline void run_rows(const rows_job& job, count begin, count end, void* scratch) noexcept {
  const panels& batch = *job.batch;
  const operand& w = job.operands[0];
  const count R = batch.full->rows;
  const count tile = tile_rows(*batch.full);
  const count stride = batch.packed_tokens;
  const count band = job.cut.number > 1 ? job.cut.depth : w.depth;
  // Rows that must be gathered are so once, tile by tile.
  const count group = job.cut.number > 1 && w.in_place() ? job.cut.rows : tile;

  auto* segments = static_cast<simd::segment*>(scratch);
  auto* sums = reinterpret_cast<float*>(segments + job.operand_count);
  float* tile_bias = sums + tile * stride;
  float* partials = tile_bias + tile;
  float* gathered = partials + job.cut.partials;

  for (count g = begin; g < end; g += group) {
    const count group_end = end - g < group ? end : g + group;
    count from = 0;
    do {  // even of no k
      const count to = w.depth - from < band ? w.depth : from + band;
      for (count n = g; n < group_end; n += tile) {
        const count rows = group_end - n < tile ? group_end - n : tile;
        float* free = gathered;
        count used = 0;
        segments[0] = {};  // all operands may be empty
        for (count i = 0; i < job.operand_count; ++i) {
          const operand& o = job.operands[i];
          if (o.depth == 0) continue;  // adds nothing, and its pointer may be null
          simd::segment& s = segments[used++];
          s = {o.row(n), o.row_stride, o.depth, o.packed, batch.panel_size(o.depth, o.unit), o.is_w};
          if (!o.in_place()) {
            if (i != 0 || from == 0) gather(*job.kernels, o, s.w, rows, free);
            s.w = free;
            s.row_stride = o.depth;
            free += tile * o.depth;
          }
        }
        const count last_block = n + (rows - 1) / R * R;
        const bool below = n + tile < group_end;
        const count next_row = below ? n + tile : to != w.depth ? g : group_end;
        const count next_k = below ? from : to != w.depth ? to : 0;
        const count after = next_row < end && used != 0 ? (next_row - last_block) * segments[0].row_stride + next_k - to : 0;
        run_tile(job, {segments, used, rows, end - n, from, to, after, sums,
                       partials + (n - g) * stride * (batch.lanes / batch.full->tokens_lane)});
        if (to != w.depth) continue;
        const float* bias = bias_of(*job.kernels, job.finish, n, rows, tile_bias);
        job.store({sums, stride, rows, batch.tokens, bias, static_cast<char*>(job.y) + n * job.y_column_stride * job.y_size,
                   job.y_row_stride, job.y_column_stride, job.finish.factor == nullptr ? nullptr : job.finish.factor + n});
      }
      from = to;
    } while (from < w.depth);
  }
}

}  // namespace lora::inline v0::detail::inline LORA_ISA_TAG

#endif
