// SPDX-License-Identifier: Apache-2.0
//
// The kernels, written once and compiled once for each tier. Included by generic.hpp, avx2.hpp and avx512.hpp inside their own
// namespace, hence no include guard. The includer defines LORA_SIMD_TARGET (its target attribute) and, in its namespace:
//
//   reg, lanes, zero(), load(p), store(p, v), splat(f), first(v), madd(a, b, c) = a * b + c,
//   spread<T>(p)            P consecutive elements, repeated T times
//   spread_part<T>(p, n)    the same of n < P elements, zero beyond, reading no byte behind them
//   fold<T>(v, out)         sums each run of P lanes and stores T floats
//   pin(v)                  keeps v in a register: g++ 12 otherwise repeats the load in each instruction that uses it
//
// Kernels call nothing of std: an inline function of std compiled here could be the copy the linker keeps for everybody.

// One step: P consecutive k of R rows against C registers of tokens. `whole` false is the last, partial step of n < P elements.
template <int T, int R, int C, bool Whole>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE void run_step(reg (&sum)[R][C], const float* (&row)[R], const float*& x, [[maybe_unused]] int n) noexcept {
  reg token[C];
#pragma GCC unroll 8
  for (int c = 0; c < C; ++c) token[c] = load(x + c * lanes);
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    reg w;
    if constexpr (Whole) {
      w = spread<T>(row[r]);
      // Only these two can be folded into each multiply-add; elsewhere the pin would cost a copy.
      if constexpr (C > 1 && (T == 1 || T == lanes)) pin(w);
    } else {
      w = spread_part<T>(row[r], n);
    }
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) sum[r][c] = madd(w, token[c], sum[r][c]);
    row[r] += lanes / T;
  }
  x += C * lanes;
}

// One block: R rows, C registers of T tokens, all segments. The loops over r and c must vanish: without the pragma g++ 12 -O2 keeps the
// sums on the stack (a quarter of the speed).
template <int T, int R, int C>
LORA_SIMD_TARGET void run_block(const block_job& b) {
  constexpr int P = lanes / T;
  constexpr int steps_a_line = 16 / P > 0 ? 16 / P : 1;  // 16 floats of each row are one cache line
  reg sum[R][C];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) sum[r][c] = zero();

  const char* walk = b.walk;
  for (count s = 0; s < b.segment_count; ++s) {
    const segment& seg = b.segments[s];
    const float* row[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) row[r] = seg.w + (b.row + (r < b.rows_left ? r : b.rows_left - 1)) * seg.row_stride;
    const float* x = seg.packed + b.panel * seg.panel_stride;
    const count whole = seg.depth / P;
    count i = 0;
    for (; i + steps_a_line <= whole; i += steps_a_line) {
      if (walk != nullptr) {
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) __builtin_prefetch(walk + 64 * r, 0, 2);
        walk += 64 * R;
      }
#pragma GCC unroll 4
      for (int j = 0; j < steps_a_line; ++j) run_step<T, R, C, true>(sum, row, x, P);
    }
    for (; i < whole; ++i) run_step<T, R, C, true>(sum, row, x, P);
    if constexpr (P > 1) {
      const int rest = static_cast<int>(seg.depth - whole * P);
      if (rest != 0) run_step<T, R, C, false>(sum, row, x, rest);
    }
    walk = nullptr;  // the walk belongs to the first segment, W
  }

#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) fold<T>(sum[r][c], b.out + r * b.out_stride + c * T);
}

template <int T, int R, int C>
inline constexpr form form_of{T, R, C, &run_block<T, R, C>};

// Packs any strides. T and P are only known at run time here: the work is a copy, once a call.
LORA_SIMD_TARGET inline void pack_panel_plain(const pack_job& p) {
  const count T = p.tokens_lane;
  const count P = lanes / T;
  const count steps = (p.depth + P - 1) / P;
  const count step_size = static_cast<count>(p.registers) * lanes;
  for (count m = 0; m < p.registers * T; ++m) {
    float* out = p.out + (m / T) * lanes + (m % T) * P;
    if (m >= p.tokens) {
      for (count i = 0; i < steps; ++i)
        for (count q = 0; q < P; ++q) out[i * step_size + q] = 0.0f;
      continue;
    }
    const float* x = p.x + m * p.row_stride;
    count k = 0;
    for (count i = 0; i < steps; ++i)
      for (count q = 0; q < P; ++q, ++k) out[i * step_size + q] = k < p.depth ? x[k * p.column_stride] * p.scale : 0.0f;
  }
}

LORA_SIMD_TARGET inline void store_sums_plain(const store_job& s) {
  for (count m = 0; m < s.tokens; ++m) {
    float* y = s.y + m * s.row_stride;
    const float* sums = s.sums + m;
    if (s.bias != nullptr) {
      for (count n = 0; n < s.rows; ++n) y[n * s.column_stride] = sums[n * s.sums_stride] + s.bias[n];
    } else {
      for (count n = 0; n < s.rows; ++n) y[n * s.column_stride] = sums[n * s.sums_stride];
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
