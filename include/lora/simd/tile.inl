// SPDX-License-Identifier: Apache-2.0
//
// The kernels, written once and compiled once for each tier. Included by generic.hpp, avx2.hpp and avx512.hpp inside their own
// namespace, hence no include guard. The includer defines LORA_SIMD_TARGET (its target attribute) and, in its namespace:
//
//   reg, lanes, zero(), load(p), store(p, v), splat(f), first(v), madd(a, b, c) = a * b + c,
//   spread<T>(W{}, p)          P consecutive units of element type W, repeated T times
//   spread_part<T>(W{}, p, n)  the same of n < P * unit_depth elements, zero beyond, reading no byte behind them
//   madd(W{}, w, x, c)         c + the products of units; for all but pairs the madd above
//   fold<T>(v, out)            sums each run of P lanes and stores T floats
//   folded_together<T>         registers that fold_together<T>(v, out) takes: fold<T> of each, bit for bit
//   spread_head<N>(p)          spread_part<1> of N = 4 floats, and of 8 where there are more lanes
//   scaled_part(p, n, f)       n floats times f, zero beyond; may read 8 where n < 8
//   accumulate(sum, a, b)      sum = madd(a, b, sum) in the register that sum is in
//   pin(v)                     keeps v in a register: g++ 12 otherwise repeats the load in each instruction that uses it
//   widening<W, T>             how rows of W are widened (kernel.hpp); where not in a register:
//   widen_block<fours>(W{}, p, out)   2 * lanes elements as floats, in order or in fours
//
// Kernels call nothing of std: an inline function of std compiled here could be the copy the linker keeps for everybody.

// One step: P consecutive units of R rows against C registers of tokens. `Whole` false is the last, partial step of n < P * unit_depth k.
template <class W, int T, int R, int C, bool Whole>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE void run_step(reg (&sum)[R][C], const row_element<W>* (&row)[R], const float*& x,
                                                  [[maybe_unused]] int n) noexcept {
  reg token[C];
#pragma GCC unroll 8
  for (int c = 0; c < C; ++c) token[c] = load(x + c * lanes);
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    reg w;
    if constexpr (Whole) {
      w = spread<T>(W{}, row[r]);
      // Of floats only these two can be folded into each multiply-add; elsewhere the pin would cost a copy.
      if constexpr (C > 1 && (T == 1 || T == lanes || !std::is_same_v<W, float>)) pin(w);
    } else {
      w = spread_part<T>(W{}, row[r], n);
    }
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) sum[r][c] = madd(W{}, w, token[c], sum[r][c]);
    row[r] += lanes / T * unit_depth<W>;
  }
  x += C * lanes;
}

// Elements of each row that are widened at a time. Measured (4096 x 4096, W from memory, bfloat16, 8 / 12 / 16 / 24 / 32 tokens, ms):
// 32: 3.04 3.55 4.0 5.7 7.3; 64: 2.65 3.2 3.9 5.5 7.3; 128: 2.7 3.4 4.0 - 7.4; 256: 3.2 - 4.6 - 8.3.
inline constexpr int strip_depth = 64;

// As run_step, of widened rows: `w` is where this step begins in the first of them. By accumulate(), because g++ 12 otherwise moves the sums
// between registers, and at -O2 two of 24 or 25 to the stack (bfloat16, 33 to 40 tokens: 9.8 ms, so 8.8; at -O3 8.7 both).
template <int T, int R, int C>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE void run_widened_step(reg (&sum)[R][C], const float* w, const float* x) noexcept {
  reg token[C];
#pragma GCC unroll 8
  for (int c = 0; c < C; ++c) {
    token[c] = load(x + c * lanes);
    pin(token[c]);
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    const reg v = spread<T>(0.0f, w + r * strip_depth);
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) accumulate(sum[r][c], v, token[c]);
  }
}

// The next strip_depth elements of R rows against the tokens.
template <class W, int T, int R, int C>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE void run_strip(reg (&sum)[R][C], const row_element<W>* (&row)[R], const float*& x) noexcept {
  constexpr int P = lanes / T;
  constexpr int block = 2 * lanes;
  constexpr bool fours = widening<W, T> == widened_by::strips_of_fours;
  // What is unrolled: 8 elements, of which four and four lie together or all eight do.
  constexpr int run = 8;
  constexpr int run_distance = fours ? 4 : run;
  static_assert(strip_depth % block == 0 && P <= (fours ? 4 : 8));
  alignas(64) float wide[R * strip_depth];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int k = 0; k < strip_depth; k += block) widen_block<fours>(W{}, row[r] + k, wide + r * strip_depth + k);
    row[r] += strip_depth;
  }
  for (int b = 0; b < strip_depth; b += block)
    for (int i = 0; i < block / run; ++i) {
      const float* w = wide + b + i * run_distance;
      asm("" : "+r"(w));  // one address for all rows, not one a row
#pragma GCC unroll 8
      for (int k = 0; k < run; k += P, x += C * lanes) run_widened_step<T>(sum, w + (fours ? k / 4 * lanes + k % 4 : k), x);
    }
}

// The lines that each row reaches `l1` and `l2` bytes further on, into these caches. As numbers: behind the last row the address belongs to
// nothing. Near and far, then the next row: the far ones of all rows first took 2 to 4 % longer in bfloat16.
template <int R, int Lines, bool Twice, class E>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE void fetch_ahead(const E* const (&row)[R], count l1, [[maybe_unused]] count l2) noexcept {
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    const auto at = reinterpret_cast<std::uintptr_t>(row[r]);
    if constexpr (Twice) {
#pragma GCC unroll 2
      for (int l = 0; l < Lines; ++l)
        __builtin_prefetch(reinterpret_cast<const void*>(at + static_cast<std::uintptr_t>(l2 + 64 * l)), 0, 2);
    }
#pragma GCC unroll 2
    for (int l = 0; l < Lines; ++l) __builtin_prefetch(reinterpret_cast<const void*>(at + static_cast<std::uintptr_t>(l1 + 64 * l)), 0, 3);
  }
}

// All k of one segment. W comes from memory by one of two prefetches, each the better one on another kind of CPU (simd/isa.hpp): `walk`
// is where the next R rows begin, to be fetched line after line in the order of their addresses, into L2; `ahead` are the numbers of bytes
// by which each row is fetched in front of its use, running on into the next R rows at its end. Where many panels of tokens share
// the rows, `beside` is one row of the next block, into L2, so that fetching is spread over several panels.
template <class W, int T, int R, int C>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE void run_segment(reg (&sum)[R][C], const block_job& b, const segment& seg, const char* walk,
                                                     ahead_by ahead, std::uintptr_t beside) noexcept {
  constexpr int step = lanes / T * unit_depth<W>;
  constexpr int line = 64 / static_cast<int>(sizeof(row_element<W>));
  constexpr int steps_a_line = line / step > 0 ? line / step : 1;
  constexpr count size = static_cast<count>(sizeof(row_element<W>));
  constexpr bool strips = widening<W, T> != widened_by::registers;
  constexpr int lines_a_turn = strips ? strip_depth / line : 1;
  constexpr int steps_a_turn = steps_a_line * lines_a_turn;
  const row_element<W>* row[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
    row[r] = static_cast<const row_element<W>*>(seg.w) + (b.row + (r < b.rows_left ? r : b.rows_left - 1)) * seg.row_stride;
  const float* x = seg.packed + b.panel * seg.panel_stride;
  const count whole = seg.depth / step;
  count i = 0;
  // Where a row ends, what lies ahead of it is what the job says comes next: the row R further on, or the next run of k.
  const count wrap_l1 = whole - ahead.l1 / (step * size);
  const count wrap_l2 = whole - ahead.l2 / (step * size);
  for (; i + steps_a_turn <= whole; i += steps_a_turn) {
    // To the compiler these change: else g++ 12 -O3 makes a loop for each way of fetching, in which two of 25 sums are on the stack (bfloat16,
    // 33 to 40 tokens: 10.1 ms, so 8.8).
    asm("" : "+r"(ahead.l1), "+r"(ahead.l2));
    const count l1 = i < wrap_l1 ? ahead.l1 : ahead.l1 + b.wrap;
    if (ahead.l2 != 0) {
      fetch_ahead<R, lines_a_turn, true>(row, l1, i < wrap_l2 ? ahead.l2 : ahead.l2 + b.wrap);
    } else if (ahead.l1 != 0) {
      fetch_ahead<R, lines_a_turn, false>(row, l1, 0);
    } else if (walk != nullptr) {
#pragma GCC unroll 16
      for (int r = 0; r < R * lines_a_turn; ++r) __builtin_prefetch(walk + 64 * r, 0, 2);
      walk += 64 * R * lines_a_turn;
    } else if (beside != 0) {
#pragma GCC unroll 2
      for (std::uintptr_t l = 0; l < lines_a_turn; ++l) __builtin_prefetch(reinterpret_cast<const void*>(beside + 64 * l), 0, 2);
      beside += 64 * lines_a_turn;
    }
    if constexpr (strips) {
      run_strip<W, T>(sum, row, x);
    } else {
#pragma GCC unroll 4
      for (int j = 0; j < steps_a_line; ++j) run_step<W, T, R, C, true>(sum, row, x, step);
    }
  }
  for (; i < whole; ++i) run_step<W, T, R, C, true>(sum, row, x, step);
  if constexpr (step > 1) {
    const int rest = static_cast<int>(seg.depth - whole * step);
    if (rest != 0) run_step<W, T, R, C, false>(sum, row, x, rest);
  }
}

// One block: R rows, C registers of T tokens, all segments. The loops over r and c must vanish: without the pragma g++ 12 -O2 keeps the
// sums on the stack (a quarter of the speed).
template <class W, int T, int R, int C>
LORA_SIMD_TARGET void run_block(const block_job& b) {
  reg sum[R][C];
  if (b.resumes) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) sum[r][c] = load(b.partial + (r * C + c) * lanes);
  } else {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) sum[r][c] = zero();
  }

  for (count s = 0; s < b.segment_count; ++s) {
    const segment& seg = b.segments[s];
    // Only the first segment, W, comes from memory.
    const char* walk = s == 0 ? b.walk : nullptr;
    const ahead_by ahead = s == 0 ? b.ahead : ahead_by{};
    const std::uintptr_t beside = s == 0 ? b.beside : 0;
    if constexpr (std::is_same_v<W, float>) {
      run_segment<float, T, R, C>(sum, b, seg, walk, ahead, beside);
    } else if (seg.is_w) {
      run_segment<W, T, R, C>(sum, b, seg, walk, ahead, beside);
    } else {
      run_segment<float, T, R, C>(sum, b, seg, nullptr, {}, 0);
    }
  }

  if (b.suspends) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) store(b.partial + (r * C + c) * lanes, sum[r][c]);
    return;
  }
  constexpr int G = folded_together<T>;
  // Groups that end with a row lie where they belong; others do where nothing lies between the rows.
  constexpr bool by_rows = C % G == 0;
  constexpr int sums = R * C;
  float folded[by_rows ? 1 : sums * T];
  float* const out = by_rows || b.out_stride == C * T ? b.out : folded;
#pragma GCC unroll 32
  for (int i = 0; i + G <= sums; i += G) {
    reg group[G];
#pragma GCC unroll 8
    for (int j = 0; j < G; ++j) group[j] = sum[(i + j) / C][(i + j) % C];
    fold_together<T>(group, by_rows ? out + i / C * b.out_stride + i % C * T : out + i * T);
  }
#pragma GCC unroll 8
  for (int i = sums / G * G; i < sums; ++i) fold<T>(sum[i / C][i % C], out + i * T);
  if constexpr (!by_rows)
    if (out != b.out)
      for (int r = 0; r < R; ++r)
        for (int t = 0; t < C * T; ++t) b.out[r * b.out_stride + t] = folded[r * C * T + t];
}

#include <lora/simd/short.inl>

template <class W, int T, int R, int C>
inline constexpr form form_of{T, R, C, &run_block<W, T, R, C>};

LORA_SIMD_TARGET LORA_ALWAYS_INLINE void put(float* p, float v) noexcept { *p = v; }
LORA_SIMD_TARGET LORA_ALWAYS_INLINE void put(bfloat16* p, float v) noexcept { p->bits = lora::detail::float_to_bfloat16(v); }
LORA_SIMD_TARGET LORA_ALWAYS_INLINE void put(float16* p, float v) noexcept { p->bits = lora::detail::float_to_float16(v); }
LORA_SIMD_TARGET LORA_ALWAYS_INLINE float get(const float* p) noexcept { return *p; }
LORA_SIMD_TARGET LORA_ALWAYS_INLINE float get(const bfloat16* p) noexcept { return lora::detail::bfloat16_to_float(p->bits); }
LORA_SIMD_TARGET LORA_ALWAYS_INLINE float get(const float16* p) noexcept { return lora::detail::float16_to_float(p->bits); }

// n elements with unit stride as floats.
template <class X>
LORA_SIMD_TARGET void widen_row(const void* from, float* to, count n) {
  const auto* x = static_cast<const row_element<X>*>(from);
  count k = 0;
  for (; k + lanes <= n; k += lanes) store(to + k, spread<1>(X{}, x + k));
  if (k < n) {
    float part[lanes];
    store(part, spread_part<1>(X{}, x + k, static_cast<int>(n - k)));
    for (count i = 0; k + i < n; ++i) to[k + i] = part[i];
  }
}

// P floats at a time from a run of k to where one token's elements lie in the steps.
template <int P>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE void pack_run(const float* from, count n, float scale, float* out, count step_size) noexcept {
  count k = 0;
  for (; k + P <= n; k += P, out += step_size)
    for (int q = 0; q < P; ++q) out[q] = from[k + q] * scale;
  if (k < n)
    for (int q = 0; q < P; ++q) out[q] = k + q < n ? from[k + q] * scale : 0.0f;
}

// Packs any strides and element types.
template <class X>
LORA_SIMD_TARGET void pack_panel_plain(const pack_job& p) {
  const count T = p.tokens_lane;
  const count P = lanes / T;
  const count steps = (p.depth + P - 1) / P;
  const count step_size = static_cast<count>(p.registers) * lanes;
  constexpr count run = 256;  // a multiple of every P
  float buffer[run];
  for (count m = 0; m < p.registers * T; ++m) {
    float* out = p.out + (m / T) * lanes + (m % T) * P;
    if (m >= p.tokens) {
      for (count i = 0; i < steps; ++i)
        for (count q = 0; q < P; ++q) out[i * step_size + q] = 0.0f;
      continue;
    }
    const X* x = static_cast<const X*>(p.x) + m * p.row_stride;
    for (count k = 0; k < p.depth; k += run, out += run / P * step_size) {
      const count n = p.depth - k < run ? p.depth - k : run;
      const float* from = buffer;
      if (p.column_stride != 1) {
        for (count i = 0; i < n; ++i) buffer[i] = get(x + (k + i) * p.column_stride);
      } else if constexpr (std::is_same_v<X, float>) {
        from = x + k;
      } else {
        widen_row<X>(x + k, buffer, n);
      }
      switch (P) {
        case 1:
          pack_run<1>(from, n, p.scale, out, step_size);
          break;
        case 2:
          pack_run<2>(from, n, p.scale, out, step_size);
          break;
        case 4:
          pack_run<4>(from, n, p.scale, out, step_size);
          break;
        case 8:
          pack_run<8>(from, n, p.scale, out, step_size);
          break;
        default:
          pack_run<16>(from, n, p.scale, out, step_size);
          break;
      }
    }
  }
}

// Packs bfloat16 in pairs, as they are. With an odd depth the last pair's second half is zero.
LORA_SIMD_TARGET inline void pack_pairs_plain(const pack_job& p) {
  const count T = p.tokens_lane;
  const count P = lanes / T;
  const count pairs = (p.depth + 1) / 2;
  const count steps = (pairs + P - 1) / P;
  const count step_size = static_cast<count>(p.registers) * lanes;
  for (count m = 0; m < p.registers * T; ++m) {
    float* out = p.out + (m / T) * lanes + (m % T) * P;
    const bool there = m < p.tokens;
    const bfloat16* x = there ? static_cast<const bfloat16*>(p.x) + m * p.row_stride : nullptr;
    count k = 0;
    for (count i = 0; i < steps; ++i)
      for (count q = 0; q < P; ++q, k += 2) {
        std::uint32_t pair = 0;
        if (there && k < p.depth) pair = x[k * p.column_stride].bits;
        if (there && k + 1 < p.depth) pair |= static_cast<std::uint32_t>(x[(k + 1) * p.column_stride].bits) << 16;
        __builtin_memcpy(out + i * step_size + q, &pair, sizeof pair);
      }
  }
}

template <class Y>
LORA_SIMD_TARGET void store_sums_plain(const store_job& s) {
  for (count m = 0; m < s.tokens; ++m) {
    Y* y = static_cast<Y*>(s.y) + m * s.row_stride;
    const float* sums = s.sums + m;
    if (s.factor != nullptr) {
      for (count n = 0; n < s.rows; ++n) {
        float v = sums[n * s.sums_stride] * s.factor[n];
#if LORA_X86
        asm("" : "+x"(v));  // rounded here: neither compiler may fuse it with the addition
#else
        asm("" : "+w"(v));
#endif
        put(y + n * s.column_stride, s.bias != nullptr ? v + s.bias[n] : v);
      }
    } else if (s.bias != nullptr) {
      for (count n = 0; n < s.rows; ++n) put(y + n * s.column_stride, sums[n * s.sums_stride] + s.bias[n]);
    } else {
      for (count n = 0; n < s.rows; ++n) put(y + n * s.column_stride, sums[n * s.sums_stride]);
    }
  }
}

LORA_SIMD_TARGET inline void run_merge_row(const merge_job& t) {
  constexpr int width = 4;
  count k = 0;
  for (; k + width * lanes <= t.depth; k += width * lanes) {
    reg sum[width];
#pragma GCC unroll 4
    for (int c = 0; c < width; ++c) sum[c] = load(t.w + k + c * lanes);
    for (count j = 0; j < t.rank; ++j) {
      const reg b = splat(t.scale * t.b[j * t.b_stride]);
      const float* a = t.a + j * t.a_stride + k;
#pragma GCC unroll 4
      for (int c = 0; c < width; ++c) sum[c] = madd(b, load(a + c * lanes), sum[c]);
    }
#pragma GCC unroll 4
    for (int c = 0; c < width; ++c) store(t.out + k + c * lanes, sum[c]);
  }
  for (; k < t.depth; ++k) {
    // Through the same instruction as above, one lane wide, so that an element's bits do not depend on its column.
    reg sum = splat(t.w[k]);
    for (count j = 0; j < t.rank; ++j) sum = madd(splat(t.scale * t.b[j * t.b_stride]), splat(t.a[j * t.a_stride + k]), sum);
    t.out[k] = first(sum);
  }
}
