// SPDX-License-Identifier: Apache-2.0
//
// The product where W lies transposed (columns_job in kernel.hpp), written once for every tier and included behind tile.inl, from whose
// vocabulary it needs in addition
//
//   columns_held   registers of columns that fit beside the sums of 6 tokens
//
// A panel is 64 rows of W by 64 columns: 256 bytes of each row of floats. The first group of tokens reads the panel where it lies and
// leaves it, widened, in a buffer in L1, from which all further groups take it; meanwhile the panel to the right is fetched into L2, row
// by row, spread over all the passes (of few tokens with the panel behind it). Then the panels of the next 64 rows. Each sum is one chain in rising k however this is cut.
//
// Measured: f32, 4096 x 4096, W from memory in 4 KiB pages, one thread of a Xeon (model 207), ms, the product alone, each line beside the
// first in one process. Whole calls took 9.0 to 9.7 ms for 32 tokens and 16.0 to 17.3 for 64, varying from process to process:
//
//   tokens                                        1      8      16     32     64
//   row-major W                                   4.12   4.52   4.92   7.48   13.7
//   this                                          4.41   4.71   5.46   8.37   15.2
//   16 rows held in registers, as before           4.44   4.74   6.02   10.1   18.0
//   panels of 32 rows / of 96                     4.53   4.55   5.36   8.64   16.5  /  -  5.50  7.22  10.6  16.8
//   fetched 4 panels ahead                        -      4.90   5.44   9.53   18.5
//   blocks of 128 x 256 copied to L2 meanwhile    -      7.7    7.7    10.5   15.0
//
// The sums of a panel lie together, 16 KiB for 64 tokens. In rows of all columns they touched a page for each token, which beside the 64
// pages of W is more than the 96 that the L1 TLB knows. Whole calls, rank 16, over row-major W in the same rounds, 24 / 32 / 48 / 64
// tokens: 1.11 to 1.16, 1.13 to 1.16, 1.14 to 1.19, 1.06 to 1.13, and 1.35, 1.26, 1.30, 1.21 before. Panels of 80 or 96 rows: 1.09 to
// 1.21, 1.15 to 1.42.
//
// Whole rows must be walked through before the next ones (tiles of 1024 columns: 5.02 ms at 8 tokens): each change of page costs a walk
// through the page table. Twice as many columns at once for half as many visits of a row was no gain (5.80 at 16 tokens).

// Registers of columns beside G tokens: as many sums as the registers hold.
template <int G>
inline constexpr int columns_beside = columns_held >= 4 || G > 3 ? columns_held
                                      : G == 1                   ? 8
                                                                 : 4;

// Whether one pass over the rows takes in the whole width of a panel, so that copying it costs no visit of its own.
inline constexpr bool columns_at_once = columns_held * lanes >= columns_panel;

// The rows of the next panel that are still to be fetched, one each `every` rows that are summed. `bytes` of each: a panel, or two, so that
// each line but those at the ends of a tile is asked for twice, which keeps more of them under way.
struct columns_fetch {
  std::uintptr_t at;  // as a number: behind the last row it belongs to nothing
  std::uintptr_t row_bytes;
  count rows;
  count every;
  std::uintptr_t bytes;
};

enum class columns_from { w, w_kept, block };

// G tokens, C registers of columns, `rows` rows: of W, of W with a copy left in `block`, or of that copy. A function of its own, or g++
// keeps less in registers (32 tokens with W in the cache: 7.4 instead of 6.95 ms).
template <class W, columns_from From, int G, int C>
LORA_SIMD_TARGET [[gnu::noinline]] void add_columns(const row_element<W>* w, count row_stride, count rows, float* block, const float* x,
                                                    float* sums, columns_fetch& next) noexcept {
  reg sum[G][C];
#pragma GCC unroll 8
  for (int g = 0; g < G; ++g)
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) sum[g][c] = load(sums + g * columns_panel + c * lanes);
  for (count k = 0; k < rows;) {
    if (next.rows != 0) {
      for (std::uintptr_t i = 0; i < next.bytes; i += 128) {  // a panel of 16-bit elements
        __builtin_prefetch(reinterpret_cast<const void*>(next.at + i), 0, 2);
        __builtin_prefetch(reinterpret_cast<const void*>(next.at + i + 64), 0, 2);
      }
      next.at += next.row_bytes;
      --next.rows;
    }
    const count stop = rows - k > next.every ? k + next.every : rows;
    for (; k < stop; ++k, x += G) {
      reg token[G];
      reg row[C];
      if constexpr (G <= C) {
#pragma GCC unroll 8
        for (int g = 0; g < G; ++g) {
          token[g] = splat(x[g]);
          pin(token[g]);
        }
      }
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) {
        if constexpr (From == columns_from::block) {
          row[c] = load(block + k * columns_panel + c * lanes);
        } else {
          row[c] = spread<1>(W{}, w + k * row_stride + c * lanes);
        }
        pin(row[c]);  // else read again for every token
        if constexpr (From == columns_from::w_kept) store(block + k * columns_panel + c * lanes, row[c]);
        if constexpr (G <= C) {
#pragma GCC unroll 8
          for (int g = 0; g < G; ++g) sum[g][c] = madd(row[c], token[g], sum[g][c]);
        }
      }
      if constexpr (G > C) {
#pragma GCC unroll 8
        for (int g = 0; g < G; ++g) {
          reg one = splat(x[g]);
          pin(one);
#pragma GCC unroll 8
          for (int c = 0; c < C; ++c) sum[g][c] = madd(row[c], one, sum[g][c]);
        }
      }
    }
  }
#pragma GCC unroll 8
  for (int g = 0; g < G; ++g)
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) store(sums + g * columns_panel + c * lanes, sum[g][c]);
}

// One group of G tokens against one whole panel.
template <class W, columns_from From, int G>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE void add_panel_of(const row_element<W>* w, count row_stride, count rows, float* block, const float* x,
                                                      float* sums, columns_fetch& next) noexcept {
  constexpr int C = columns_beside<G>;
  for (count n = 0; n < columns_panel; n += C * lanes) add_columns<W, From, G, C>(w + n, row_stride, rows, block + n, x, sums + n, next);
}

template <class W, columns_from From>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE void add_panel(count tokens, const row_element<W>* w, count row_stride, count rows, float* block,
                                                   const float* x, float* sums, columns_fetch& next) noexcept {
  // Of several groups none has fewer than 3 tokens, and the first has at least 4.
  switch (tokens) {
    case 6:
      add_panel_of<W, From, 6>(w, row_stride, rows, block, x, sums, next);
      return;
    case 5:
      add_panel_of<W, From, 5>(w, row_stride, rows, block, x, sums, next);
      return;
    case 4:
      add_panel_of<W, From, 4>(w, row_stride, rows, block, x, sums, next);
      return;
    default:
      break;
  }
  if constexpr (From != columns_from::w_kept) {
    if (tokens == 3) add_panel_of<W, From, 3>(w, row_stride, rows, block, x, sums, next);
  }
  if constexpr (From == columns_from::w || !columns_at_once) {
    if (tokens == 2) add_panel_of<W, From, 2>(w, row_stride, rows, block, x, sums, next);
  }
  if constexpr (From == columns_from::w) {
    if (tokens == 1) add_panel_of<W, From, 1>(w, row_stride, rows, block, x, sums, next);
  }
}

template <class W>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE void keep_panel(const row_element<W>* w, count row_stride, count rows, float* block) noexcept {
  for (count k = 0; k < rows; ++k)
#pragma GCC unroll 16
    for (count n = 0; n < columns_panel; n += lanes) store(block + k * columns_panel + n, spread<1>(W{}, w + k * row_stride + n));
}

// A register of columns or, with `part` < lanes, the columns that are left: their sums pass through a buffer, W through `block`.
template <class W>
LORA_SIMD_TARGET void add_register(count tokens, const row_element<W>* w, count row_stride, count rows, int part, float* block,
                                   const float* x, float* sums) noexcept {
  columns_fetch none{0, 0, 0, rows, 0};
  if (part < lanes) {
    for (count k = 0; k < rows; ++k) store(block + k * columns_panel, spread_part<1>(W{}, w + k * row_stride, part));
    float buffer[lanes] = {};
    for (count m = 0; m < tokens; ++m) {
      float own[columns_depth];  // the group's x of this token alone
      for (count k = 0; k < rows; ++k) own[k] = x[k * tokens + m];
      for (int i = 0; i < part; ++i) buffer[i] = sums[m * columns_panel + i];
      add_columns<float, columns_from::block, 1, 1>(nullptr, 0, rows, block, own, buffer, none);
      for (int i = 0; i < part; ++i) sums[m * columns_panel + i] = buffer[i];
    }
    return;
  }
  switch (tokens) {
    case 6:
      add_columns<W, columns_from::w, 6, 1>(w, row_stride, rows, block, x, sums, none);
      break;
    case 5:
      add_columns<W, columns_from::w, 5, 1>(w, row_stride, rows, block, x, sums, none);
      break;
    case 4:
      add_columns<W, columns_from::w, 4, 1>(w, row_stride, rows, block, x, sums, none);
      break;
    case 3:
      add_columns<W, columns_from::w, 3, 1>(w, row_stride, rows, block, x, sums, none);
      break;
    case 2:
      add_columns<W, columns_from::w, 2, 1>(w, row_stride, rows, block, x, sums, none);
      break;
    default:
      add_columns<W, columns_from::w, 1, 1>(w, row_stride, rows, block, x, sums, none);
      break;
  }
}

template <class W>
LORA_SIMD_TARGET void run_columns(const columns_job& j) {
  constexpr count size = static_cast<count>(sizeof(row_element<W>));
  // Passes over the rows of a panel, over which fetching the next one is spread.
  const int beside = j.tokens == 1 ? columns_beside<1> : j.tokens <= 3 ? columns_beside<3> : columns_held;
  const count passes = beside * lanes < columns_panel ? columns_panel / (beside * lanes) : 1;
  alignas(64) float block[columns_depth * columns_panel];
  const count groups = (j.tokens + columns_group - 1) / columns_group;
  const count whole = j.columns / columns_panel * columns_panel;
  for (count k = 0; k < j.depth; k += columns_depth) {
    const count rows = j.depth - k < columns_depth ? j.depth - k : columns_depth;
    const auto* top = static_cast<const row_element<W>*>(j.w) + k * j.row_stride;
    for (count n = 0; n < j.columns; n += columns_panel) {
      // To the right of the last panel lies the first one of the next rows.
      const auto here = reinterpret_cast<std::uintptr_t>(top + n);
      const bool last = n + columns_panel >= whole;
      const count right = last ? columns_depth * j.row_stride - n : columns_panel;
      const count there = last && j.depth - k - columns_depth < rows ? j.depth - k - columns_depth : rows;
      columns_fetch next{here + static_cast<std::uintptr_t>(right * size), static_cast<std::uintptr_t>(j.row_stride * size),
                         j.fetches != 0 && there > 0 ? there : 0, groups * passes,
                         static_cast<std::uintptr_t>(j.fetches * columns_panel * size)};
      count m = 0;
      for (count g = groups; g > 0; --g) {
        const count tokens = (j.tokens - m + g - 1) / g;
        const float* const own = j.x + k * j.tokens + m * rows;
        float* const sums = j.sums + n * j.tokens + m * columns_panel;
        if (n >= whole) {
          for (count c = n; c < j.columns; c += lanes)
            add_register<W>(tokens, top + c, j.row_stride, rows, j.columns - c < lanes ? static_cast<int>(j.columns - c) : lanes, block,
                            own, sums + c - n);
        } else if constexpr (columns_at_once) {
          if (groups == 1)
            add_panel<W, columns_from::w>(tokens, top + n, j.row_stride, rows, block, own, sums, next);
          else if (m == 0)
            add_panel<W, columns_from::w_kept>(tokens, top + n, j.row_stride, rows, block, own, sums, next);
          else
            add_panel<float, columns_from::block>(tokens, nullptr, 0, rows, block, own, sums, next);
        } else if (j.tokens == 1) {
          add_panel_of<W, columns_from::w, 1>(top + n, j.row_stride, rows, block, own, sums, next);
        } else {
          if (m == 0) keep_panel<W>(top + n, j.row_stride, rows, block);
          add_panel<float, columns_from::block>(tokens, nullptr, 0, rows, block, own, sums, next);
        }
        m += tokens;
      }
    }
  }
}
