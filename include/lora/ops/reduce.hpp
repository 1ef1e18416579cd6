// SPDX-License-Identifier: Apache-2.0
//
// Reductions: sum, mean, product, max, min, count_nonzero, any_true, all_true and norms, over all axes of a view or over some. argmax and
// argmin are in ops/argmax.hpp. Each function has these forms:
//
//   float s = lora::sum(v);                              // over all axes
//   auto r = lora::sum(v, lora::axes{1, -1});            // over some: an ndarray without them, C order
//   lora::sum(v, lora::axes{1, -1}, out);                // the same into a view of that shape
//
// v(all, newaxis)-like slices of the result put axes of length 1 back where a broadcast needs them (NumPy's keepdims). The names any and
// all are not used: lora::all is the word of a slice.
//
// | element           | sum, product | mean   | max, min | count_nonzero | any_true, all_true | norms  |
// |-------------------|--------------|--------|----------|---------------|--------------------|--------|
// | double            | double       | double | double   | int64         | bool               | double |
// | float             | float        | float  | float    | int64         | bool               | float  |
// | float16, bfloat16 | same         | same   | same     | int64         | bool               | float  |
// | integers, bool    | int64        | double | same     | int64         | bool               | double |
//
// As NumPy, but: the 16-bit formats are added in float and rounded once; sums of uint8_t are int64 (NumPy: uint64). Integer sums and
// products wrap around, as NumPy's. Of no elements: sum, norms and count 0, product 1, mean NaN, any_true false, all_true true; max and
// min are errors. NaN: max, min and norms of anything with a NaN are NaN; NaN counts as not zero.
//
// Bits: the same for the same shape, strides, element type and tier; they may differ between tiers and between layouts of the same values.
#ifndef LORA_OPS_REDUCE_HPP
#define LORA_OPS_REDUCE_HPP

#include <lora/ops/reduce_plan.hpp>
#include <lora/ops/reduce_rules.hpp>

#include <cmath>

namespace lora::inline v0 {

namespace detail {

inline namespace LORA_ISA_TAG {

/** The Euclidean norm of doubles whose squares overflow or vanish: of the elements divided by a power of two near the largest. */
template <class Lazy>
double scaled_l2(const loop_plan<2>& plan, const double* in, simd::tier tier) {
  double largest = 0;
  reduce_planned<simd::op_max_abs>(plan, in, tier, [&](index_t, double m) { largest = m; });
  if (!(largest > 0) || largest > std::numeric_limits<double>::max()) return largest;
  const int exponent = std::ilogb(largest);
  // Two factors: 2^1074 itself is not a double.
  const double down = std::ldexp(1.0, -exponent / 2);
  const double rest = std::ldexp(1.0, -exponent - (-exponent / 2));
  double sum = 0;
  double lost = 0;
  plan.for_each_block([&](const loop_block<2>& b) {
    for (index_t r = 0; r < b.rows; ++r) {
      for (index_t i = 0; i < b.count; ++i) {
        const double x = in[b.offset[0] + r * b.row_stride[0] + i * b.stride[0]] * down * rest;
        const double y = x * x - lost;  // Kahan's sum: at most a few roundings, whatever the length
        const double next = sum + y;
        lost = (next - sum) - y;
        sum = next;
      }
    }
  });
  return std::ldexp(std::sqrt(sum), exponent);
}

// Squares in double are exact enough between these; a norm outside is computed again, scaled.
[[nodiscard]] inline bool l2_is_safe(double norm) noexcept { return (norm >= 0x1p-480 && norm <= 0x1p511) || norm != norm; }

template <class Lazy>
double sum_twice(const loop_plan<2>& plan, const double* in, simd::tier tier) {
  double hi = 0;
  double lo = 0;
  plan.for_each_block([&](const loop_block<2>& b) {
    for (index_t r = 0; r < b.rows; ++r)
      simd::twice_summer<Lazy>(tier)(in + b.offset[0] + r * b.row_stride[0], b.count, b.stride[0], &hi, &lo);
  });
  return lo - lo == 0 ? hi + lo : hi;  // an infinity leaves NaN behind in lo
}

template <class Rule, class T>
inline constexpr bool has_nothing = requires { Rule::template nothing<T>(); };

template <class Rule, class T>
inline constexpr bool sums_twice = std::is_same_v<Rule, sum_compensated_rule> && std::is_same_v<T, double>;
/** Whether each result of doubles is, or may have to be, computed by itself. */
template <class Rule, class T>
inline constexpr bool one_by_one =
    sums_twice<Rule, T> || (std::is_same_v<Rule, norm_rule<simd::op_sum_squares>> && std::is_same_v<T, double>);

/** One result of such a rule; the plan is of the elements that go into it. */
template <class Rule>
void again(const loop_plan<2>& plan, const double* in, simd::tier tier, double& answer) {
  if constexpr (sums_twice<Rule, double>)
    answer = sum_twice<Rule>(plan, in, tier);
  else if (!l2_is_safe(answer))
    answer = scaled_l2<Rule>(plan, in, tier);
}

/** Writes finished results of n elements each; one type for views of all ranks, so that the loops are compiled once. */
template <class Rule, class T>
struct result_writer {
  typename Rule::template result<T>* to;
  index_t n;
  template <class Total>
  void operator()(index_t at, Total total) const {
    to[at] = Rule::template finish<T>(total, n);
  }
};

template <class Rule, class T, std::size_t R>
auto reduce_all(const ndview<const T, R>& v, simd::tier tier) {
  using Op = typename Rule::template op<T>;
  if (v.empty()) {
    if constexpr (has_nothing<Rule, T>)
      return Rule::template nothing<T>();
    else
      raise_nothing(Rule::name, v.shape().array().data(), R);
  }
  const loop_plan<2> plan(v.shape(), v.stride(), strides<R>());
  const index_t n = v.size();
  typename Rule::template result<T> answer{};
  if constexpr (!sums_twice<Rule, T>) reduce_planned<Op>(plan, v.data(), tier, result_writer<Rule, T>{&answer, n});
  if constexpr (one_by_one<Rule, T>) again<Rule>(plan, v.data(), tier, answer);
  return answer;
}

/** The shape without the marked axes, and the number of elements that go into one result. */
template <std::size_t R, std::size_t Rest>
index_t reduced_shape(const extents<R>& shape, const bool* marked, std::array<index_t, Rest>& out) noexcept {
  index_t n = 1;
  std::size_t at = 0;
  for (std::size_t i = 0; i < R; ++i) {
    if (marked[i])
      n *= shape[i];
    else if (at < Rest)
      out[at++] = shape[i];
  }
  return n;
}

template <class Rule, class T, std::size_t R, class Out, std::size_t Rest>
void reduce_marked(const ndview<const T, R>& v, const bool* marked, const ndview<Out, Rest>& out, simd::tier tier) {
  using Op = typename Rule::template op<T>;
  std::array<index_t, Rest> wanted{};
  const index_t n = reduced_shape(v.shape(), marked, wanted);
  if (wanted != out.shape().array())
    raise_reduced_shape(Rule::name, v.shape().array().data(), R, wanted.data(), out.shape().array().data(), Rest);
  if (may_overlap_itself(out) || may_overlap(out, v)) raise_reduced_overlap(Rule::name, out.shape().array().data(), Rest);
  if constexpr (!has_nothing<Rule, T>)
    if (n == 0) raise_nothing(Rule::name, v.shape().array().data(), R);  // also when there are no results: NumPy's rule
  if (out.empty()) return;
  std::array<index_t, R> out_stride{};
  for (std::size_t i = 0, at = 0; i < R; ++i)
    if (!marked[i] && at < Rest) out_stride[i] = out.stride(at++);
  Out* const to = out.data();
  if constexpr (has_nothing<Rule, T>) {
    if (n == 0) {
      loop_plan<1>(out.shape(), out.stride()).for_each_block([&](const loop_block<1>& b) {
        for (index_t r = 0; r < b.rows; ++r)
          for (index_t i = 0; i < b.count; ++i) to[b.offset[0] + r * b.row_stride[0] + i * b.stride[0]] = Rule::template nothing<T>();
      });
      return;
    }
  }
  if constexpr (!sums_twice<Rule, T>) {
    const loop_plan<2> plan(v.shape(), v.stride(), strides<R>(out_stride));
    reduce_planned<Op>(plan, v.data(), tier, result_writer<Rule, T>{to, n});
  }
  if constexpr (one_by_one<Rule, T>) {
    axis_walk kept;
    std::array<index_t, R> inner{};
    for (std::size_t i = 0; i < R; ++i) {
      inner[i] = marked[i] ? v.extent(i) : 1;
      if (!marked[i]) kept.add(v.extent(i), v.stride(i), out_stride[i]);
    }
    const loop_plan<2> one(extents<R>(inner), v.stride(), strides<R>());
    do again<Rule>(one, v.data() + kept.in, tier, to[kept.out]);
    while (kept.next());
  }
}

/** The forms of a reduction; see the head of this file. */
template <class Rule, class T, std::size_t R>
struct reduction {
  using result = typename Rule::template result<T>;
  static_assert(is_castable<T>,
                "lora: reductions take float, double, float16, bfloat16, uint8_t, int8_t, int16_t, int32_t, int64_t and bool; cast first");

  static result run(const ndview<const T, R>& v, simd::tier tier = simd::tier::avx512) { return reduce_all<Rule>(v, tier); }
  template <std::size_t N>
  static auto run(const ndview<const T, R>& v, const axes<N>& along, simd::tier tier = simd::tier::avx512) {
    static_assert(N <= R, "lora: a reduction names more axes than the view has");
    bool marked[R + 1];
    mark_axes(Rule::name, along.array().data(), N, v.shape().array().data(), R, marked);
    std::array<index_t, (N <= R ? R - N : 0)> shape{};
    (void)reduced_shape(v.shape(), marked, shape);
    ndarray<result, (N <= R ? R - N : 0)> out{extents<(N <= R ? R - N : 0)>(shape)};
    reduce_marked<Rule>(v, marked, out.view(), tier);
    return out;
  }
  template <std::size_t N, named_array_or_view Out>
  static void run(const ndview<const T, R>& v, const axes<N>& along, Out&& out, simd::tier tier = simd::tier::avx512) {
    using to = decltype(as_view(out));
    static_assert(std::is_same_v<typename to::element_type, result>,
                  "lora: the output of a reduction has the element type of its result (see the table in ops/reduce.hpp), and is not const");
    static_assert(N <= R && to::rank() == (N <= R ? R - N : 0),
                  "lora: the output of a reduction has the input's axes without those that are reduced");
    bool marked[R + 1];
    mark_axes(Rule::name, along.array().data(), N, v.shape().array().data(), R, marked);
    reduce_marked<Rule>(v, marked, as_view(out), tier);
  }
};

template <class Rule, class V, class... Where>
decltype(auto) reduce(const V& v, Where&&... where) {
  using view = decltype(as_view(v));
  return reduction<Rule, typename view::value_type, view::rank()>::run(ndview<const typename view::value_type, view::rank()>(as_view(v)),
                                                                       std::forward<Where>(where)...);
}

}  // namespace LORA_ISA_TAG
}  // namespace detail

inline namespace LORA_ISA_TAG {

/**
 * The sum of the elements: sum(v), sum(v, axes), sum(v, axes, out). A simd::tier as the last argument lowers the family of kernels.
 *
 * @param v     view or ndarray, any layout
 * @param axes  distinct, negative from the end
 * @param out   view or named ndarray of v's shape without those axes; shares no byte with v
 * @throws index_error naming operation, axis and shape for an axis that is not there; shape_error for one named twice, for an `out` of
 *         another shape, or one that overlaps v or itself: nothing is written then. std::bad_alloc for the result of the second form.
 * @par Cost      One pass over the elements in the order of their addresses; no allocation but the result's.
 * @par Accuracy  Pairwise in blocks: |result - exact| <= gamma(d) * sum |x| + one rounding to the result's type for the 16-bit formats;
 *                d = 48 + log2(n) for n elements, of 2^-24 (double: 2^-53), whatever the layout. Long contiguous sums: d <= 23 + log2(n / 1024).
 * @par Threads   Safe beside any call that writes no element of v and touches no element of out.
 */
template <detail::viewable V, class... Where>
decltype(auto) sum(const V& v, Where&&... where) {
  return detail::reduce<detail::sum_rule>(v, std::forward<Where>(where)...);
}

/**
 * As sum, nearly as if rounded once: float and the 16-bit formats are added in double, double with the rounding errors of all additions
 * added beside it. Integers as sum.
 * @par Cost      float: as sum, at half the lanes. double: four times the additions, and outer axes are walked once for each result.
 * @par Accuracy  |result - exact| <= 2u |exact| + gamma(n)^2 sum |x|, u and gamma those of double inside, plus the one rounding to float.
 */
template <detail::viewable V, class... Where>
decltype(auto) sum_compensated(const V& v, Where&&... where) {
  return detail::reduce<detail::sum_compensated_rule>(v, std::forward<Where>(where)...);
}

/**
 * sum divided by the number of elements, as sum otherwise. Integers of up to 32 bits are added exactly (fewer than 2^32 of them) and
 * divided in double; int64_t is added in double.
 */
template <detail::viewable V, class... Where>
decltype(auto) mean(const V& v, Where&&... where) {
  return detail::reduce<detail::mean_rule>(v, std::forward<Where>(where)...);
}

/**
 * The product of the elements, as sum otherwise.
 * @par Accuracy  Where nothing overflows or vanishes: |result - exact| <= gamma(n - 1) |exact|, multiplied in float for the 16-bit formats.
 */
template <detail::viewable V, class... Where>
decltype(auto) product(const V& v, Where&&... where) {
  return detail::reduce<detail::product_rule>(v, std::forward<Where>(where)...);
}

/** The largest element; NaN when there is one. Of +0 and -0 either. Exact. As sum otherwise. @throws shape_error also for no elements. */
template <detail::viewable V, class... Where>
decltype(auto) max(const V& v, Where&&... where) {
  return detail::reduce<detail::pick_rule<simd::op_max>>(v, std::forward<Where>(where)...);
}

/** The smallest element, as max. */
template <detail::viewable V, class... Where>
decltype(auto) min(const V& v, Where&&... where) {
  return detail::reduce<detail::pick_rule<simd::op_min>>(v, std::forward<Where>(where)...);
}

/** How many elements are not zero; NaN is not. As sum otherwise. */
template <detail::viewable V, class... Where>
decltype(auto) count_nonzero(const V& v, Where&&... where) {
  return detail::reduce<detail::count_rule>(v, std::forward<Where>(where)...);
}

/** Whether some element is not zero (NaN is not), as sum otherwise. Always reads them all. */
template <detail::viewable V, class... Where>
decltype(auto) any_true(const V& v, Where&&... where) {
  return detail::reduce<detail::truth_rule<false>>(v, std::forward<Where>(where)...);
}

/** Whether no element is zero, as any_true. */
template <detail::viewable V, class... Where>
decltype(auto) all_true(const V& v, Where&&... where) {
  return detail::reduce<detail::truth_rule<true>>(v, std::forward<Where>(where)...);
}

/** The sum of the absolute values, with the accuracy of sum, in float or (for double and integers) double. As sum otherwise. */
template <detail::viewable V, class... Where>
decltype(auto) norm_l1(const V& v, Where&&... where) {
  return detail::reduce<detail::norm_rule<simd::op_sum_abs>>(v, std::forward<Where>(where)...);
}

/**
 * The square root of the sum of the squares. Overflows only when the norm itself is too large for its type, and loses nothing to squares
 * that vanish: squares are added in double, and doubles outside 2^-480 .. 2^511 are scaled by a power of two first.
 * @par Accuracy  float: 2^-24 relative and a few units of double. double: gamma((d + 4) / 2) relative, d that of sum.
 */
template <detail::viewable V, class... Where>
decltype(auto) norm_l2(const V& v, Where&&... where) {
  return detail::reduce<detail::norm_rule<simd::op_sum_squares>>(v, std::forward<Where>(where)...);
}

/** The largest absolute value; NaN when there is one, 0 for no elements. Exact, but for int64_t beyond 2^53, which is rounded to double. */
template <detail::viewable V, class... Where>
decltype(auto) norm_max(const V& v, Where&&... where) {
  return detail::reduce<detail::norm_rule<simd::op_max_abs>>(v, std::forward<Where>(where)...);
}

}  // namespace LORA_ISA_TAG
}  // namespace lora::inline v0

#endif
