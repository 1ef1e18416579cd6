// SPDX-License-Identifier: Apache-2.0
//
// The reductions, in the namespace of one tier; see reduce.hpp. The order of the additions is the same for each call with the same counts
// and strides. In a row, eight chains of at most 16 vectors make a block, and blocks are added as a balanced tree: an element goes through
// at most 15 + 3 + 1 additions in its block (or 7 + 1 in what is left over), then log2 of the number of blocks and of the lanes. In
// columns, groups of 8 rows are added as a tree and at most 16 groups, or 15 and 4 + 3 single rows, as a chain: 3 + 14 + 4.

template <class Op, class L, class T>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE vec<L> take(const stored<T>* p) noexcept {
  return prepared<Op, L, T, lanes_of<L>>(load_as<vec_n<stored<T>, lanes_of<L>>>(p));
}
/** n < lanes elements, neutral lanes behind them. */
template <class Op, class L, class T>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE vec<L> take_part(const stored<T>* p, count n) noexcept {
  constexpr int N = lanes_of<L>;
  using word = word_of<L>;
  vec_n<word, N> place;
#pragma GCC unroll 64
  for (int i = 0; i < N; ++i) place[i] = static_cast<word>(i);
  const vec<L> v = prepared<Op, L, T, N>(load_part<stored<T>, N>(p, n));
  return place < static_cast<word>(n) ? v : neutral_lanes<Op, L, N>();
}

// Vectors in a chain. 16 for what rounds; more elsewhere, but so few that the eight chains of a block, all their lanes together, are at most
// 2^16 numbers of 16 bits: these are folded in int32.
template <class Op, class L>
inline constexpr count chain = (is_same<L, float> || is_same<L, double>)&&!picks<Op> ? 16
                               : is_same<L, std::int32_t>                            ? 8192 / lanes_of<L>
                                                                                     : 1024;

/** Fewer than 8 whole vectors and a rest, into one. */
template <class Op, class L, class T>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE vec<L> reduce_few(const stored<T>* p, count whole, count rest) noexcept {
  constexpr int N = lanes_of<L>;
  nan_watch<Op, L, N> watch;
  vec<L> sum = rest != 0 ? take_part<Op, L, T>(p + whole * N, rest) : take<Op, L, T>(p + --whole * N);
  watch.look(sum, sum);
  for (count i = 0; i < whole; ++i) {
    const vec<L> x = take<Op, L, T>(p + i * N);
    watch.look(x, x);
    sum = joined<Op>(sum, x);
  }
  return watch.applied(sum);
}

/** n elements, 0 < n <= 8 * chain * lanes, into one vector. */
template <class Op, class L, class T>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE vec<L> reduce_block(const stored<T>* p, count n) noexcept {
  constexpr int N = lanes_of<L>;
  const count whole = n / N;
  const count rest = n - whole * N;
  if (whole < 8) return reduce_few<Op, L, T>(p, whole, rest);
  nan_watch<Op, L, N> watch;
  vec<L> sum[8];
#pragma GCC unroll 8
  for (int k = 0; k < 8; ++k) sum[k] = neutral_lanes<Op, L, N>();
  count i = 0;
  for (; i + 8 <= whole; i += 8) {
#pragma GCC unroll 4
    for (int k = 0; k < 8; k += 2) {
      const vec<L> a = take<Op, L, T>(p + (i + k) * N);
      const vec<L> b = take<Op, L, T>(p + (i + k + 1) * N);
      watch.look(a, b);
      sum[k] = joined<Op>(sum[k], a);
      sum[k + 1] = joined<Op>(sum[k + 1], b);
    }
  }
  const vec<L> first = joined<Op>(joined<Op>(sum[0], sum[1]), joined<Op>(sum[2], sum[3]));
  const vec<L> second = joined<Op>(joined<Op>(sum[4], sum[5]), joined<Op>(sum[6], sum[7]));
  const vec<L> most = watch.applied(joined<Op>(first, second));
  if (i == whole && rest == 0) return most;
  return joined_nan<Op, L>(most, reduce_few<Op, L, T>(p + i * N, whole - i, rest));
}

/** n elements `stride` apart, side by side into `to`. Reads no element between them: others may be writing those. */
template <class S>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE void gather(S* to, const S* from, count stride, count n) noexcept {
  count i = 0;
#if LORA_SIMD_TIER == 2
  if constexpr (sizeof(S) == 4) {
    if (stride > -(count{1} << 26) && stride < (count{1} << 26)) {
      const __m512i places = _mm512_mullo_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                                                _mm512_set1_epi32(static_cast<int>(stride)));
      for (; i + 16 <= n; i += 16) _mm512_storeu_si512(to + i, _mm512_i32gather_epi32(places, from + i * stride, 4));
    }
  }
#endif
#pragma GCC unroll 8
  for (; i < n; ++i) to[i] = from[i * stride];
}

/** One row of any length. Blocks are joined as a balanced tree: sum q of the stack is of 2^q blocks, as the digits of their number. */
template <class Op, class T>
LORA_SIMD_TARGET [[gnu::noinline]] total_of<Op, T> reduce_long_row(const T* row, count n, count stride) {
  using L = lane_of<Op, T>;
  using S = stored<T>;
  constexpr int N = lanes_of<L>;
  constexpr count gathered = 512;
  constexpr bool as_vectors = is_same<L, total_of<Op, T>>;
  const count block = stride == 1 ? 8 * chain<Op, L> * N : gathered;
  const S* p = reinterpret_cast<const S*>(row);
  S buffer[gathered];
  vec<L> stack[48];
  total_of<Op, T> total{};
  count depth = 0;
  for (count blocks = 1; n > 0; ++blocks) {
    const count here = n < block ? n : block;
    const S* from = p;
    if (stride != 1) {
      gather(buffer, p, stride, here);
      from = buffer;
    }
    const vec<L> v = reduce_block<Op, L, T>(from, here);
    p += here * stride;
    n -= here;
    if constexpr (as_vectors) {
      stack[depth++] = v;
      for (count q = blocks; (q & 1) == 0; q /= 2, --depth) stack[depth - 2] = joined_nan<Op, L>(stack[depth - 2], stack[depth - 1]);
    } else {
      total += fold_lanes<Op, L, N>(v);
    }
  }
  if constexpr (as_vectors) {
    for (; depth > 1; --depth) stack[depth - 2] = joined_nan<Op, L>(stack[depth - 2], stack[depth - 1]);
    total = fold_lanes<Op, L, N>(stack[0]);
  }
  return total;
}

template <class Op, class T>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE total_of<Op, T> reduce_row(const T* row, count n, count stride) noexcept {
  using L = lane_of<Op, T>;
  constexpr int N = lanes_of<L>;
  const count whole = n / N;
  if (stride == -1) {
    row -= n - 1;
    stride = 1;
  }
  if (stride != 1 || whole >= 8) return reduce_long_row<Op, T>(row, n, stride);
  return fold_lanes<Op, L, N>(reduce_few<Op, L, T>(reinterpret_cast<const stored<T>*>(row), whole, n - whole * N));
}

template <class Op, class T>
LORA_SIMD_TARGET void reduce_rows(const T* in, count n, count stride, count rows, count row_stride, total_of<Op, T>* out) {
  for (count r = 0; r < rows; ++r) out[r] = reduce_row<Op, T>(in + r * row_stride, n, stride);
}

/** The sum of Rows rows at one register of columns, as a tree. */
template <class Op, class L, class T, int Rows, bool Whole>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE vec<L> add_rows(const stored<T>* p, count row_stride, count n,
                                                    nan_watch<Op, L, lanes_of<L>>& watch) noexcept {
  vec<L> x[Rows];
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r) x[r] = Whole ? take<Op, L, T>(p + r * row_stride) : take_part<Op, L, T>(p + r * row_stride, n);
#pragma GCC unroll 8
  for (int r = 0; r < Rows; r += 2) watch.look(x[r], x[Rows == 1 ? 0 : r + 1]);
#pragma GCC unroll 3
  for (int step = 1; step < Rows; step *= 2) {
#pragma GCC unroll 8
    for (int r = 0; r < Rows; r += 2 * step) x[r] = joined<Op>(x[r], x[r + step]);
  }
  return x[0];
}

/** Rows rows added into `out`, or written there when they are the first. */
template <class Op, class T, int Rows>
LORA_SIMD_TARGET [[gnu::noinline]] void add_columns(const stored<T>* p, count row_stride, count n, bool first, total_of<Op, T>* out) {
  using A = total_of<Op, T>;
  // Lanes as wide as the totals, so that a register of columns is a register of totals.
  using L = A;
  constexpr int N = lanes_of<L>;
  count i = 0;
  for (; i + N <= n; i += N) {
    nan_watch<Op, L, N> watch;
    const vec<L> sum = watch.applied(add_rows<Op, L, T, Rows, true>(p + i, row_stride, N, watch));
    store(out + i, first ? sum : joined_nan<Op, L>(load_as<vec<L>>(out + i), sum));
  }
  if (i < n) {
    nan_watch<Op, L, N> watch;
    const vec<L> sum = watch.applied(add_rows<Op, L, T, Rows, false>(p + i, row_stride, n - i, watch));
    const vec<L> all = first ? sum : joined_nan<Op, L>(load_part<L, N>(out + i, n - i), sum);
    store_part<L, N>(out + i, all, n - i);
  }
}

template <class Op, class T>
LORA_SIMD_TARGET void reduce_columns(const T* in, count row_stride, count rows, count n, count stride, total_of<Op, T>* out) {
  using S = stored<T>;
  const S* p = reinterpret_cast<const S*>(in);
  if (stride == 1) {
    count r = 0;
    for (; r + 8 <= rows; r += 8) add_columns<Op, T, 8>(p + r * row_stride, row_stride, n, r == 0, out);
    if ((rows & 4) != 0) {
      add_columns<Op, T, 4>(p + r * row_stride, row_stride, n, r == 0, out);
      r += 4;
    }
    for (; r < rows; ++r) add_columns<Op, T, 1>(p + r * row_stride, row_stride, n, r == 0, out);
    return;
  }
  // Elements apart from each other: 8 rows of up to 128 of them are gathered first.
  constexpr count width = 128;
  S buffer[8 * width];
  for (count c = 0; c < n; c += width) {
    const count here = n - c < width ? n - c : width;
    for (count r = 0; r < rows; r += 8) {
      const count group = rows - r < 8 ? rows - r : 8;
      for (count k = 0; k < group; ++k) {
        const S* const from = p + (r + k) * row_stride + c * stride;
        gather(buffer + k * width, from, stride, here);
      }
      if (group == 8) {
        add_columns<Op, T, 8>(buffer, width, here, r == 0, out + c);
      } else {
        for (count k = 0; k < group; ++k) add_columns<Op, T, 1>(buffer + k * width, width, here, r + k == 0, out + c);
      }
    }
  }
}

/** What remains to be done with totals: the same operation without its preparation. */
template <class Op>
struct joins_by {
  using type = Op;
};
template <>
struct joins_by<op_count> {
  using type = op_sum;
};
template <>
struct joins_by<op_sum_abs> {
  using type = op_sum;
};
template <>
struct joins_by<op_sum_squares> {
  using type = op_sum;
};
template <>
struct joins_by<op_sum_wide> {
  using type = op_sum;
};
template <>
struct joins_by<op_max_abs> {
  using type = op_max;
};

template <class Op, class A>
LORA_SIMD_TARGET void combine_totals(A* a, const A* b, count n) {
  constexpr int N = lanes_of<A>;
  using join = typename joins_by<Op>::type;
  count i = 0;
  for (; i + N <= n; i += N) store(a + i, joined_nan<join, A>(load_as<vec<A>>(a + i), load_as<vec<A>>(b + i)));
  for (; i < n; ++i) a[i] = joined_nan<join, A>(a[i], b[i]);
}

template <class Op, class A>
LORA_SIMD_TARGET A fold_totals(const A* a, count n) {
  using join = typename joins_by<Op>::type;
  if constexpr (is_same<A, std::int64_t> && is_same<join, op_sum>) {
    A total = 0;
    for (count i = 0; i < n; ++i) total += a[i];
    return total;
  } else {
    return reduce_long_row<join, A>(a, n, 1);
  }
}

template <class Op, class T>
inline constexpr reduce_table<T, total_of<Op, T>> reduce_kernels{&reduce_rows<Op, T>, &reduce_columns<Op, T>,
                                                                 &combine_totals<Op, total_of<Op, T>>, &fold_totals<Op, total_of<Op, T>>};

/** One bit for each lane of x that equals `value`, or that is NaN when it is. */
template <class L>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE std::uint64_t lanes_equal(vec<L> x, L value) noexcept {
  const vec<L> all = splat_n<L, lanes_of<L>>(value);
#if LORA_SIMD_TIER == 2
  if constexpr (is_same<L, float>) {
    const auto a = reinterpret_cast<__m512>(x);
    return value == value ? _mm512_cmp_ps_mask(a, reinterpret_cast<__m512>(all), _CMP_EQ_OQ) : _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);
  } else if constexpr (is_same<L, double>) {
    const auto a = reinterpret_cast<__m512d>(x);
    return value == value ? _mm512_cmp_pd_mask(a, reinterpret_cast<__m512d>(all), _CMP_EQ_OQ) : _mm512_cmp_pd_mask(a, a, _CMP_UNORD_Q);
  } else {
    const auto a = reinterpret_cast<__m512i>(x);
    const auto b = reinterpret_cast<__m512i>(all);
    if constexpr (sizeof(L) == 1) return _mm512_cmpeq_epi8_mask(a, b);
    if constexpr (sizeof(L) == 2) return _mm512_cmpeq_epi16_mask(a, b);
    if constexpr (sizeof(L) == 4) return _mm512_cmpeq_epi32_mask(a, b);
    if constexpr (sizeof(L) == 8) return _mm512_cmpeq_epi64_mask(a, b);
  }
#else
  using word = word_of<L>;
  const auto same = bits_as<word, lanes_of<L>>(value == value ? x == all : x != x);
#if LORA_SIMD_TIER == 1
  if constexpr (sizeof(L) == 4) return static_cast<unsigned>(_mm256_movemask_ps(reinterpret_cast<__m256>(same)));
  if constexpr (sizeof(L) == 8) return static_cast<unsigned>(_mm256_movemask_pd(reinterpret_cast<__m256d>(same)));
#endif
  std::uint64_t bits = 0;
  for (int i = 0; i < lanes_of<L>; ++i) bits |= static_cast<std::uint64_t>(same[i] & 1) << i;
  return bits;
#endif
}

/** out[r] = the first i < n for which in[r * row_stride + i * stride] equals values[r] (NaN: is NaN), where there is one. */
template <class T>
LORA_SIMD_TARGET void find_rows(const T* in, count n, count stride, count rows, count row_stride, const total_of<op_max, T>* values,
                                count* out) {
  using L = total_of<op_max, T>;
  using S = stored<T>;
  constexpr int N = lanes_of<L>;
  constexpr count gathered = 256;
  S buffer[gathered];
  for (count r = 0; r < rows; ++r) {
    const S* const row = reinterpret_cast<const S*>(in + r * row_stride);
    const L value = values[r];
    out[r] = n;
    for (count first = 0; first < n; first += gathered) {
      const count here = n - first < gathered ? n - first : gathered;
      const S* p = row + first;
      if (stride != 1) {
        gather(buffer, row + first * stride, stride, here);
        p = buffer;
      }
      std::uint64_t bits = 0;
      count i = 0;
      for (; i + N <= here; i += N) {
        bits = lanes_equal<L>(take<op_max, L, T>(p + i), value);
        if (bits != 0) break;
      }
      // The lanes behind a part are neutral, and might be equal too: but only behind one that is.
      if (bits == 0 && i < here) bits = lanes_equal<L>(take_part<op_max, L, T>(p + i, here - i), value);
      if (bits != 0) {
        const count at = i + __builtin_ctzll(bits);
        if (at < here) {
          out[r] = first + at;
          break;
        }
      }
    }
  }
}

/**
 * Adds n doubles into hi, and what the additions lost into lo: each addition's rounding error is computed exactly (Knuth's two-sum) and the
 * errors are added up beside the sum (Ogita, Rump and Oishi, "Accurate sum and dot product", 2005, Sum2).
 */
template <class Lazy>
LORA_SIMD_TARGET void sum_twice(const double* p, count n, count stride, double* hi, double* lo) {
  constexpr int N = lanes_of<double>;
  constexpr int chains = 4;
  vec<double> sum[chains];
  vec<double> lost[chains];
#pragma GCC unroll 4
  for (int k = 0; k < chains; ++k) sum[k] = lost[k] = vec<double>{};
  count i = 0;
  if (stride == 1) {
    for (; i + chains * N <= n; i += chains * N) {
#pragma GCC unroll 4
      for (int k = 0; k < chains; ++k) {
        const vec<double> x = load(p + i + k * N);
        const vec<double> next = sum[k] + x;
        const vec<double> part = next - sum[k];
        lost[k] += (sum[k] - (next - part)) + (x - part);
        sum[k] = next;
      }
    }
  }
  double high = *hi;
  double low = *lo;
  for (; i < n; ++i) {
    const double x = p[i * stride];
    const double next = high + x;
    const double part = next - high;
    low += (high - (next - part)) + (x - part);
    high = next;
  }
  if (stride == 1 && n >= chains * N) {
#pragma GCC unroll 4
    for (int k = 0; k < chains; ++k) {
      for (int j = 0; j < N; ++j) {
        const double x = sum[k][j];
        const double next = high + x;
        const double part = next - high;
        low += (high - (next - part)) + (x - part) + lost[k][j];
        high = next;
      }
    }
  }
  *hi = high;
  *lo = low;
}
