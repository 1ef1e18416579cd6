// SPDX-License-Identifier: Apache-2.0
//
// argmax and argmin: where the largest or smallest element is. NumPy's rules: the first of equal ones, the first NaN before everything
// else; over all axes a flat index in C order (of the shape, whatever the memory order), along one axis an index into it.
//
//   lora::index_t i = lora::argmax(v);
//   auto best = lora::argmax(logits, lora::axes{-1});           // ndarray<std::int64_t, R - 1>
//
// How: the maximum of a block of elements that is still in L1 is found first, by the kernels of max; only where it is better than all
// before is the block searched for it. So the speed is that of max.
#ifndef LORA_OPS_ARGMAX_HPP
#define LORA_OPS_ARGMAX_HPP

#include <lora/ops/reduce.hpp>

namespace lora::inline v0 {

namespace detail {

inline namespace LORA_ISA_TAG {

/** Whether a comes before b, and whether neither does: NaN is before everything. */
template <class Op, class A>
[[nodiscard]] LORA_ALWAYS_INLINE bool goes_before(A a, A b) noexcept {
  if (a != a) return b == b;
  return std::is_same_v<Op, simd::op_max> ? a > b : a < b;
}
template <class A>
[[nodiscard]] LORA_ALWAYS_INLINE bool goes_beside(A a, A b) noexcept {
  return a == b || (a != a && b != b);
}

/** The best so far of rows that are shown one after another: where its row is, and its index once somebody asked. */
template <class Op, class T>
class arg_search {
 public:
  using A = simd::total_of<Op, T>;

  explicit arg_search(simd::tier tier) noexcept : kernels_(simd::reducer<Op, T>(tier)), tier_(tier) {}

  /** `rows` rows of n elements; element i of row r has index base + r * base_step + i * index_step, all of these positive. */
  void show(const T* in, index_t n, index_t stride, index_t rows, index_t row_stride, index_t base, index_t base_step, index_t index_step) {
    constexpr index_t most = 64;
    A values[most];
    for (index_t first = 0; first < rows; first += most) {
      const index_t here = rows - first < most ? rows - first : most;
      kernels_.rows(in + first * row_stride, n, stride, here, row_stride, values);
      for (index_t r = 0; r < here; ++r) {
        const A value = values[r];
        const place row{in + (first + r) * row_stride, n, stride, base + (first + r) * base_step, index_step};
        if (best_.in == nullptr || goes_before<Op>(value, value_)) {
          value_ = value;
          best_ = row;
          found_ = -1;
        } else if (goes_beside(value, value_) && row.base < best_.base + (best_.n - 1) * best_.index_step && row.base < index()) {
          const index_t other = row.base + position(row) * index_step;
          if (other < found_) found_ = other;
        }
      }
    }
  }

  /** One row of any length, in blocks that stay in L1 between being reduced and being searched. */
  void show_row(const T* in, index_t n, index_t stride, index_t base, index_t index_step) {
    constexpr index_t block = 1024;
    const index_t whole = n / block;
    if (whole != 0) show(in, block, stride, whole, block * stride, base, block * index_step, index_step);
    if (n - whole * block != 0)
      show(in + whole * block * stride, n - whole * block, stride, 1, 0, base + whole * block * index_step, 0, index_step);
  }

  [[nodiscard]] index_t index() noexcept {
    if (found_ < 0) found_ = best_.base + position(best_) * best_.index_step;
    return found_;
  }

 private:
  struct place {
    const T* in = nullptr;
    index_t n = 0;
    index_t stride = 0;
    index_t base = 0;
    index_t index_step = 0;
  };

  [[nodiscard]] index_t position(const place& row) const noexcept {
    index_t at = 0;
    simd::finder<T>(tier_)(row.in, row.n, row.stride, 1, 0, &value_, &at);
    return at;
  }

  const simd::reduce_table<T, A>& kernels_;
  simd::tier tier_;
  A value_{};
  place best_;
  index_t found_ = -1;
};

template <class Op>
inline constexpr const char* arg_name = std::is_same_v<Op, simd::op_max> ? "argmax" : "argmin";

template <class Op, class T, std::size_t R>
index_t arg_all(const ndview<const T, R>& v, simd::tier tier) {
  if (v.empty()) raise_nothing(arg_name<Op>, v.shape().array().data(), R);
  // The second operand is the index itself; its strides are positive, so no axis is turned round.
  const loop_plan<2> plan(v.shape(), v.stride(), strides_for(v.shape()));
  arg_search<Op, T> search(tier);
  plan.for_each_block([&](const loop_block<2>& b) {
    const T* const in = v.data() + b.offset[0];
    if (b.count <= 1024) {
      search.show(in, b.count, b.stride[0], b.rows, b.row_stride[0], b.offset[1], b.row_stride[1], b.stride[1]);
    } else {
      for (index_t r = 0; r < b.rows; ++r)
        search.show_row(in + r * b.row_stride[0], b.count, b.stride[0], b.offset[1] + r * b.row_stride[1], b.stride[1]);
    }
  });
  return search.index();
}

/** Columns: out[c] = the row of the best of each column, rows at `row_stride`; the best of 16 rows first, then which of them. */
template <class Op, class T>
void arg_columns(const T* in, index_t row_stride, index_t rows, index_t n, index_t stride, std::int64_t* out, index_t out_stride,
                 simd::tier tier) {
  using A = simd::total_of<Op, T>;
  const auto& kernels = simd::reducer<Op, T>(tier);
  const auto find = simd::finder<T>(tier);
  constexpr index_t tile = 512;
  // Rows reduced together. Few, because each column searches them once more; but narrow ones in long runs, where calls cost more.
  const index_t group = n <= 64 ? simd::columns_most_rows : 16;
  alignas(64) A best[tile];
  alignas(64) A values[tile];
  index_t from[tile];
  for (index_t first = 0; first < n; first += tile) {
    const index_t here = n - first < tile ? n - first : tile;
    const T* const column = in + first * stride;
    for (index_t c = 0; c < here; ++c) from[c] = 0;
    kernels.columns(column, row_stride, rows < group ? rows : group, here, stride, best);
    for (index_t r = group; r < rows; r += group) {
      kernels.columns(column + r * row_stride, row_stride, rows - r < group ? rows - r : group, here, stride, values);
      for (index_t c = 0; c < here; ++c) {
        if (goes_before<Op>(values[c], best[c])) {
          best[c] = values[c];
          from[c] = r;
        }
      }
    }
    for (index_t c = 0; c < here; ++c) {
      const index_t left = rows - from[c] < group ? rows - from[c] : group;
      index_t at = 0;
      find(column + from[c] * row_stride + c * stride, left, row_stride, 1, 0, best + c, &at);
      out[(first + c) * out_stride] = from[c] + at;
    }
  }
}

template <class Op, class T, std::size_t R, std::size_t Rest>
void arg_axis(const ndview<const T, R>& v, const bool* marked, const ndview<std::int64_t, Rest>& out, simd::tier tier) {
  std::array<index_t, Rest> wanted{};
  const index_t n = reduced_shape(v.shape(), marked, wanted);
  if (wanted != out.shape().array())
    raise_reduced_shape(arg_name<Op>, v.shape().array().data(), R, wanted.data(), out.shape().array().data(), Rest);
  if (may_overlap_itself(out) || may_overlap(out, v)) raise_reduced_overlap(arg_name<Op>, out.shape().array().data(), Rest);
  if (n == 0) raise_nothing(arg_name<Op>, v.shape().array().data(), R);
  if (out.empty()) return;
  std::array<index_t, R> out_stride{};
  std::array<index_t, R> index_stride{};
  for (std::size_t i = 0, at = 0; i < R; ++i) {
    if (marked[i])
      index_stride[i] = 1;  // positive: this axis is not turned round, nor joined with another
    else if (at < Rest)
      out_stride[i] = out.stride(at++);
  }
  const loop_plan<3> plan(v.shape(), v.stride(), strides<R>(out_stride), strides<R>(index_stride));
  const T* const in = v.data() + plan.offset(0);
  std::int64_t* const to = out.data() + plan.offset(1);

  axis_walk kept;
  index_t length = 1;  // of the axis that is searched, and its stride
  index_t step = 1;
  bool inner = true;  // whether it is the innermost
  for (std::size_t axis = 0; axis < plan.rank(); ++axis) {
    if (plan.stride(axis, 2) != 0) {
      length = plan.extent(axis);
      step = plan.stride(axis, 0);
      inner = axis == 0;
    } else {
      kept.add(plan.extent(axis), plan.stride(axis, 0), plan.stride(axis, 1));
    }
  }
  if (n == 1) inner = kept.rank == 0;  // the axis is not in the plan
  if (!inner) {
    const index_t columns = kept.extent[0];
    const index_t columns_in = kept.in_stride[0];
    const index_t columns_out = kept.out_stride[0];
    kept.drop_first();
    do arg_columns<Op>(in + kept.in, step, length, columns, columns_in, to + kept.out, columns_out, tier);
    while (kept.next());
    return;
  }
  // Rows: their maxima a few at a time, while they are in the cache.
  using A = simd::total_of<Op, T>;
  const auto& kernels = simd::reducer<Op, T>(tier);
  const auto find = simd::finder<T>(tier);
  axis_walk rows;
  rows.add(kept.rank != 0 ? kept.extent[0] : 1, kept.rank != 0 ? kept.in_stride[0] : 0, kept.rank != 0 ? kept.out_stride[0] : 0);
  if (kept.rank != 0) kept.drop_first();
  constexpr index_t most = 64;
  const index_t fit = 16384 / static_cast<index_t>(sizeof(T)) / length;  // rows in half of an L1
  const index_t together = length > 2048 || fit < 1 ? 1 : most < fit ? most : fit;
  do {
    for (index_t first = 0; first < rows.extent[0]; first += together) {
      const index_t here = rows.extent[0] - first < together ? rows.extent[0] - first : together;
      const T* const row = in + kept.in + first * rows.in_stride[0];
      std::int64_t* const answer = to + kept.out + first * rows.out_stride[0];
      if (length > 2048) {
        arg_search<Op, T> search(tier);
        search.show_row(row, length, step, 0, 1);
        *answer = search.index();
      } else {
        A values[most];
        kernels.rows(row, length, step, here, rows.in_stride[0], values);
        index_t at[most];
        find(row, length, step, here, rows.in_stride[0], values, at);
        for (index_t r = 0; r < here; ++r) answer[r * rows.out_stride[0]] = at[r];
      }
    }
  } while (kept.next());
}

/** The forms of argmax and argmin. */
template <class Op, class T, std::size_t R>
struct arg_reduction {
  static_assert(is_castable<T>,
                "lora: reductions take float, double, float16, bfloat16, uint8_t, int8_t, int16_t, int32_t, int64_t and bool; cast first");

  static index_t run(const ndview<const T, R>& v, simd::tier tier = simd::tier::avx512) { return arg_all<Op>(v, tier); }
  static auto run(const ndview<const T, R>& v, const axes<1>& along, simd::tier tier = simd::tier::avx512) {
    static_assert(R >= 1, "lora: a view of rank 0 has no axis to search along");
    bool marked[R + 1];
    mark_axes(arg_name<Op>, along.array().data(), 1, v.shape().array().data(), R, marked);
    std::array<index_t, R - 1> shape{};
    (void)reduced_shape(v.shape(), marked, shape);
    ndarray<std::int64_t, R - 1> out{extents<R - 1>(shape)};
    arg_axis<Op>(v, marked, out.view(), tier);
    return out;
  }
  template <named_array_or_view Out>
  static void run(const ndview<const T, R>& v, const axes<1>& along, Out&& out, simd::tier tier = simd::tier::avx512) {
    using to = decltype(as_view(out));
    static_assert(std::is_same_v<typename to::element_type, std::int64_t>, "lora: argmax and argmin write std::int64_t");
    static_assert(R >= 1 && to::rank() + 1 == R, "lora: the output of argmax has the input's axes without the one that is searched");
    bool marked[R + 1];
    mark_axes(arg_name<Op>, along.array().data(), 1, v.shape().array().data(), R, marked);
    arg_axis<Op>(v, marked, as_view(out), tier);
  }
};

template <class Op, class V, class... Where>
decltype(auto) arg_reduce(const V& v, Where&&... where) {
  using view = decltype(as_view(v));
  return arg_reduction<Op, typename view::value_type, view::rank()>::run(ndview<const typename view::value_type, view::rank()>(as_view(v)),
                                                                         std::forward<Where>(where)...);
}

}  // namespace LORA_ISA_TAG
}  // namespace detail

inline namespace LORA_ISA_TAG {

/**
 * The index of the largest element: argmax(v) flat in C order, argmax(v, axes{k}) along one axis, argmax(v, axes{k}, out). The first of
 * equal elements, the first NaN when there is one. A simd::tier as the last argument lowers the family of kernels.
 *
 * @throws as max (ops/reduce.hpp), of which this is the companion.
 * @par Cost      One pass at the speed of max and a second look at the blocks that hold a new maximum; no allocation but the result's.
 * @par Threads   Safe beside any call that writes no element of v and touches no element of out.
 */
template <detail::viewable V, class... Where>
decltype(auto) argmax(const V& v, Where&&... where) {
  return detail::arg_reduce<simd::op_max>(v, std::forward<Where>(where)...);
}

/** The index of the smallest element, as argmax. */
template <detail::viewable V, class... Where>
decltype(auto) argmin(const V& v, Where&&... where) {
  return detail::arg_reduce<simd::op_min>(v, std::forward<Where>(where)...);
}

}  // namespace LORA_ISA_TAG
}  // namespace lora::inline v0

#endif
