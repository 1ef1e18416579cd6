// SPDX-License-Identifier: Apache-2.0
//
// Reductions of rows and columns of a matrix in raw memory. What is reduced how is a tag below; the walk over views of any rank is in
// ops/. Not here: checks, empty inputs, the conversion of a result to its final type.
//
//   const auto& k = lora::simd::reducer<lora::simd::op_sum, float>();
//   k.rows(x, columns, 1, rows, row_stride, sums);            // sums[r] = the sum of row r
//   k.columns(x, row_stride, rows, columns, 1, sums);         // sums[c] = the sum of column c, rows <= 128
#ifndef LORA_SIMD_REDUCE_HPP
#define LORA_SIMD_REDUCE_HPP

#include <lora/simd/convert.hpp>

namespace lora::inline v0::simd {

struct op_sum {};
struct op_sum_wide {};  // in double, for what a float or an integer sum would lose
struct op_product {};
struct op_max {};
struct op_min {};
struct op_sum_abs {};
struct op_sum_squares {};  // in double: squares of floats are exact and cannot overflow there
struct op_max_abs {};
struct op_count {};  // elements that are not zero

/** `lane` is the type of a lane while a few elements are added up, `total` that of a finished result. */
template <class Lane, class Total = Lane>
struct reduces_in {
  using lane = Lane;
  using total = Total;
};

/**
 * Integers are added in int64 with wrap-around, in unsigned lanes because signed ones must not overflow. Up to 16 bits they are added in
 * int32 first: 2^16 of them fit, which is a block (chain in reduce.inl).
 */
template <class Op, class T>
[[nodiscard]] constexpr auto reduction_types() noexcept {
  constexpr bool narrow = sizeof(T) <= 2 && !is_real<T>;
  if constexpr (is_same<Op, op_sum_wide> || is_same<Op, op_sum_squares>) {
    return reduces_in<double>{};
  } else if constexpr (is_same<Op, op_count>) {
    if constexpr (sizeof(T) == 8)
      return reduces_in<std::int64_t>{};
    else
      return reduces_in<std::int32_t, std::int64_t>{};
  } else if constexpr (is_same<Op, op_max> || is_same<Op, op_min>) {
    if constexpr (is_half_bits<T>)
      return reduces_in<float>{};
    else
      return reduces_in<stored<T>>{};
  } else if constexpr (is_half_bits<T> || is_same<T, float>) {
    return reduces_in<float>{};
  } else if constexpr (is_same<T, double> || is_same<Op, op_sum_abs> || is_same<Op, op_max_abs>) {
    return reduces_in<double>{};
  } else if constexpr (is_same<Op, op_sum> && narrow) {
    return reduces_in<std::int32_t, std::int64_t>{};
  } else {
    return reduces_in<std::uint64_t>{};
  }
}

template <class Op, class T>
using lane_of = typename decltype(reduction_types<Op, T>())::lane;
template <class Op, class T>
using total_of = typename decltype(reduction_types<Op, T>())::total;

/** The most rows that `columns` takes. */
inline constexpr count columns_most_rows = 128;

/** The kernels of one operation on one element type. Strides and counts in elements; nothing may be empty. */
template <class T, class Total>
struct reduce_table {
  /** out[r] = the reduction of in[r * row_stride + i * stride] over i < n, for each r < rows. */
  void (*rows)(const T* in, count n, count stride, count rows, count row_stride, Total* out);
  /** out[c] = the reduction of in[r * row_stride + c * stride] over r < rows <= 128, for each c < n. */
  void (*columns)(const T* in, count row_stride, count rows, count n, count stride, Total* out);
  /** a[i] = a[i] and b[i] together. */
  void (*combine)(Total* a, const Total* b, count n);
  /** The reduction of n totals. */
  Total (*fold)(const Total* a, count n);
};

}  // namespace lora::inline v0::simd

#define LORA_SIMD_BODY <lora/simd/reduce_lanes.inl>
#include <lora/simd/for_each_tier.inl>
#define LORA_SIMD_BODY <lora/simd/reduce.inl>
#include <lora/simd/for_each_tier.inl>

namespace lora::inline v0::simd::inline LORA_ISA_TAG {

/** The kernels of `wanted`, or of the active tier where that is lower. */
template <class Op, class T>
[[nodiscard]] const reduce_table<T, total_of<Op, T>>& reducer(tier wanted = tier::avx512) noexcept {
#if LORA_X86
  switch (usable_tier(wanted)) {
    case tier::avx512_bf16:
    case tier::avx512:
      return vec_avx512::reduce_kernels<Op, T>;
    case tier::avx2:
      return vec_avx2::reduce_kernels<Op, T>;
    case tier::generic:
      break;
  }
#endif
  (void)wanted;
  return vec_generic::reduce_kernels<Op, T>;
}

using sum_twice_kernel = void (*)(const double* in, count n, count stride, double* hi, double* lo);

/** Adds doubles into hi and the rounding errors of that into lo. */
template <class Lazy = void>
[[nodiscard]] sum_twice_kernel twice_summer(tier wanted = tier::avx512) noexcept {
#if LORA_X86
  switch (usable_tier(wanted)) {
    case tier::avx512_bf16:
    case tier::avx512:
      return &vec_avx512::sum_twice<Lazy>;
    case tier::avx2:
      return &vec_avx2::sum_twice<Lazy>;
    case tier::generic:
      break;
  }
#endif
  (void)wanted;
  return &vec_generic::sum_twice<Lazy>;
}

template <class T>
using find_kernel = void (*)(const T* in, count n, count stride, count rows, count row_stride, const total_of<op_max, T>* values,
                             count* out);

/** out[r] = the first i < n for which in[r * row_stride + i * stride] equals values[r] (NaN: is NaN), or n. */
template <class T>
[[nodiscard]] find_kernel<T> finder(tier wanted = tier::avx512) noexcept {
#if LORA_X86
  switch (usable_tier(wanted)) {
    case tier::avx512_bf16:
    case tier::avx512:
      return &vec_avx512::find_rows<T>;
    case tier::avx2:
      return &vec_avx2::find_rows<T>;
    case tier::generic:
      break;
  }
#endif
  (void)wanted;
  return &vec_generic::find_rows<T>;
}

}  // namespace lora::inline v0::simd::inline LORA_ISA_TAG

#endif
