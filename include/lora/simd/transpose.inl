// SPDX-License-Identifier: Apache-2.0
//
// The transposing copy, in the namespace of one tier; see transpose.hpp.
//
// A tile is `rows` rows of the source by `columns` of its columns. Each 16-byte lane of a register holds n = 16 / Width elements of one source
// row; register r, lane l is row l * n + r. Interleaving registers log2(n) times transposes every n x n lane at once, and register c then
// is a whole register's worth of destination row c. Loads are row by row, a row's pieces together: at a stride of a power of two the rows of a
// tile fall into one set of the L1 cache, which cannot keep more than 8 or 12 of them, so that a line must be used up when it is touched.

#if LORA_SIMD_TIER == 2
inline constexpr int transpose_bytes = 64;
#elif LORA_SIMD_TIER == 1
inline constexpr int transpose_bytes = 32;
#elif defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)
inline constexpr int transpose_bytes = 64;
#elif defined(__AVX2__)
inline constexpr int transpose_bytes = 32;
#else
inline constexpr int transpose_bytes = 16;
#endif
// 16 registers of 32 on AVX-512, 8 of 16 elsewhere (16 for bytes, where n is 16); no wider than a cache line of the source.
template <int Width>
inline constexpr int transpose_groups = (transpose_bytes == 64 ? 16 : 8) * Width / 16 > 4   ? 4
                                        : (transpose_bytes == 64 ? 16 : 8) * Width / 16 < 1 ? 1
                                                                                            : (transpose_bytes == 64 ? 16 : 8) * Width / 16;

template <int Width>
struct transpose_unit;
template <>
struct transpose_unit<1> {
  using type = unsigned char;
};
template <>
struct transpose_unit<2> {
  using type = unsigned short;
};
template <>
struct transpose_unit<4> {
  using type = unsigned int;
};
template <>
struct transpose_unit<8> {
  using type = unsigned long long;
};

/** Bytes: of a register. Groups of n columns: all registers of a tile live at once. */
template <int Width, int Bytes, int Groups>
struct transpose_tile {
  using unit = typename transpose_unit<Width>::type;
  typedef unit reg __attribute__((vector_size(Bytes)));
  typedef unit lane __attribute__((vector_size(16)));
  static constexpr int n = 16 / Width;      // elements of a lane
  static constexpr int lanes = Bytes / 16;  // of a register
  static constexpr int rows = n * lanes;    // of the source; elements of a destination row that one store writes
  static constexpr int groups = Groups;
  static constexpr int columns = n * groups;

  template <bool High, int... I>
  LORA_SIMD_TARGET LORA_ALWAYS_INLINE static reg interleave(reg a, reg b, std::integer_sequence<int, I...>) noexcept {
    // Within each lane: a's and b's halves, alternating.
    return __builtin_shufflevector(a, b, ((I / n) * n + (High ? n / 2 : 0) + (I % n) / 2 + (I % 2 == 0 ? 0 : rows))...);
  }

  LORA_SIMD_TARGET LORA_ALWAYS_INLINE static reg gather(const char* p, std::ptrdiff_t row_step) noexcept {
    // p is the piece of the first row; the other lanes are n rows further each.
    if constexpr (lanes == 1) {
      reg v;
      __builtin_memcpy(&v, p, sizeof v);
      return v;
    } else {
      lane part[lanes];
#pragma GCC unroll 4
      for (int l = 0; l < lanes; ++l) __builtin_memcpy(&part[l], p + l * n * row_step, sizeof(lane));
      return join(part, std::make_integer_sequence<int, rows>{}, std::make_integer_sequence<int, 2 * n>{});
    }
  }
  template <int... I, int... J>
  LORA_SIMD_TARGET LORA_ALWAYS_INLINE static reg join(const lane* part, std::integer_sequence<int, I...>,
                                                      std::integer_sequence<int, J...>) noexcept {
    if constexpr (lanes == 2) {
      return __builtin_shufflevector(part[0], part[1], J...);
    } else {
      const auto low = __builtin_shufflevector(part[0], part[1], J...);
      const auto high = __builtin_shufflevector(part[2], part[3], J...);
      return __builtin_shufflevector(low, high, I...);
    }
  }

  template <bool Stream>
  LORA_SIMD_TARGET LORA_ALWAYS_INLINE static void put(char* p, reg v) noexcept {
#if LORA_X86
    if constexpr (Stream) {
      auto* const target = static_cast<reg*>(static_cast<void*>(p));
#if defined(__AVX__) || LORA_SIMD_TIER > 0
      asm("vmovntdq %1, %0" : "=m"(*target) : "v"(v));
#else
      asm("movntdq %1, %0" : "=m"(*target) : "x"(v));
#endif
      return;
    }
#endif
    __builtin_memcpy(p, &v, sizeof v);
  }

  /** to[j * to_step + i] = from[i * from_step + j], steps in bytes. */
  template <bool Stream>
  LORA_SIMD_TARGET LORA_ALWAYS_INLINE static void run(const char* from, std::ptrdiff_t from_step, char* to,
                                                      std::ptrdiff_t to_step) noexcept {
    reg v[groups][n];
#pragma GCC unroll 16
    for (int r = 0; r < n; ++r) {
#pragma GCC unroll 4
      for (int g = 0; g < groups; ++g) v[g][r] = gather(from + r * from_step + g * 16, from_step);
    }
    constexpr auto all = std::make_integer_sequence<int, rows>{};
#pragma GCC unroll 4
    for (int g = 0; g < groups; ++g) {
      // Interleaving k with k + n / 2, log2(n) times, is the transposition: each step rotates the bits of (register, element) by one.
#pragma GCC unroll 4
      for (int half = 1; half < n; half *= 2) {
        reg next[n];
#pragma GCC unroll 8
        for (int k = 0; k < n / 2; ++k) {
          next[2 * k] = interleave<false>(v[g][k], v[g][k + n / 2], all);
          next[2 * k + 1] = interleave<true>(v[g][k], v[g][k + n / 2], all);
        }
#pragma GCC unroll 16
        for (int k = 0; k < n; ++k) v[g][k] = next[k];
      }
#pragma GCC unroll 16
      for (int c = 0; c < n; ++c) put<Stream>(to + (g * n + c) * to_step, v[g][c]);
    }
  }
};

/**
 * Tiles over [first, rows) x [0, columns), at least one tile in both; what is left at the ends is a tile that begins earlier and writes some
 * elements twice. (Source and destination are apart.) Steps tiles follow each other downwards, so that a line of the destination is finished
 * before the next column is begun. Without Stream, the next line of each destination row is asked for while this one is written: an ordinary
 * store waits for its line, and the rows are too many and too far apart for the CPU to guess.
 */
template <class Tile, int Width, int Steps, bool Stream>
LORA_SIMD_TARGET void transpose_tiles(const char* from, std::ptrdiff_t from_step, char* to, std::ptrdiff_t to_step, std::ptrdiff_t first,
                                      std::ptrdiff_t rows, std::ptrdiff_t columns) noexcept {
  constexpr std::ptrdiff_t step = Tile::rows * Steps;
  std::ptrdiff_t i = first;
  for (;;) {
    std::ptrdiff_t j = 0;
    for (;;) {
      char* const t = to + j * to_step + i * Width;
      if constexpr (!Stream && step * Width == 64) {
        for (int c = 0; c < Tile::columns; ++c) __builtin_prefetch(t + c * to_step + 64, 1, 3);
      }
#pragma GCC unroll 1
      for (int s = 0; s < Steps; ++s)
        Tile::template run<Stream>(from + (i + s * Tile::rows) * from_step + j * Width, from_step, t + s * Tile::rows * Width, to_step);
      j += Tile::columns;
      if (j >= columns) break;
      if (j > columns - Tile::columns) j = columns - Tile::columns;
    }
    i += step;
    if (i >= rows) break;
    if (i > rows - step) {
      if constexpr (Stream) break;  // the caller's: a streamed store must be aligned
      i = rows - step;
    }
  }
}

#if LORA_SIMD_TIER == 0
/** For matrices smaller than a tile of any tier in one direction: pixels, a few columns. */
template <int Width>
void transpose_narrow(const char* from, std::ptrdiff_t from_step, char* to, std::ptrdiff_t to_step, std::ptrdiff_t rows,
                      std::ptrdiff_t columns) noexcept {
  using tile = transpose_tile<Width, 16, 1>;
  if (rows >= tile::rows && columns >= tile::columns)
    return transpose_tiles<tile, Width, 1, false>(from, from_step, to, to_step, 0, rows, columns);
  using unit = typename transpose_unit<Width>::type;
  for (std::ptrdiff_t j = 0; j < columns; ++j) {
    for (std::ptrdiff_t i = 0; i < rows; ++i) {
      unit element;
      __builtin_memcpy(&element, from + i * from_step + j * Width, Width);
      __builtin_memcpy(to + j * to_step + i * Width, &element, Width);
    }
  }
}
#endif

/** See transpose.hpp. */
template <int Width>
LORA_SIMD_TARGET void transpose(const char* from, std::ptrdiff_t from_step, char* to, std::ptrdiff_t to_step, std::ptrdiff_t rows,
                                std::ptrdiff_t columns, bool stream) noexcept {
  using tile = transpose_tile<Width, transpose_bytes, transpose_groups<Width>>;
  constexpr int steps = 64 / transpose_bytes;
  constexpr std::ptrdiff_t line = 64 / Width;
  if (rows < line || columns < tile::columns) return vec_generic::transpose_narrow<Width>(from, from_step, to, to_step, rows, columns);
  // Blocks that the second-level TLB covers: 256 destination rows are a page each. 64 to 4096 by 64 to 4096 were tried at 512^2 to 4096^2
  // floats; beyond the extremes they differ little.
  constexpr std::ptrdiff_t block_rows = 1024;
  constexpr std::ptrdiff_t block_columns = 256;
  // Streamed stores write whole aligned lines, beginning at row `skip`. In pieces (registers of less than a line) they are 14 times slower than
  // ordinary ones: a line that is left before it is full goes out on its own.
  const auto past = static_cast<std::ptrdiff_t>(reinterpret_cast<unsigned long long>(to) % 64);
  const std::ptrdiff_t skip = past == 0 ? 0 : (64 - past) / Width;
  const bool streams = stream && steps == 1 && to_step % 64 == 0 && past % Width == 0 && rows - skip >= line;
  for (std::ptrdiff_t i = 0; i < rows;) {
    std::ptrdiff_t next = i + block_rows;
    if (next > rows - block_rows / 2) next = rows;  // a last block is never less than a tile
    for (std::ptrdiff_t j = 0; j < columns;) {
      std::ptrdiff_t end = j + block_columns;
      if (end > columns - block_columns / 2) end = columns;
      const char* const f = from + j * Width;
      char* const t = to + j * to_step;
      if (streams) {
        if (i == 0 && skip != 0) transpose_tiles<tile, Width, steps, false>(f, from_step, t, to_step, 0, line, end - j);
        transpose_tiles<tile, Width, steps, steps == 1>(f, from_step, t, to_step, i + skip, next == rows ? rows : next + skip, end - j);
        if (next == rows) transpose_tiles<tile, Width, steps, false>(f, from_step, t, to_step, rows - line, rows, end - j);
      } else {
        transpose_tiles<tile, Width, steps, false>(f, from_step, t, to_step, i, next, end - j);
      }
      j = end;
    }
    i = next;
  }
#if LORA_X86
  if (streams) asm volatile("sfence" ::: "memory");
#endif
}
