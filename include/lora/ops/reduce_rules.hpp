// SPDX-License-Identifier: Apache-2.0
//
// detail: what the reductions of ops/reduce.hpp differ in. A rule names the operation of simd/ that does the work, the type of the result,
// and how a total of n elements becomes one; `nothing` is the result for no elements, and rules without it refuse them.
//
//   sum_rule::result<std::int8_t>                      // std::int64_t
#ifndef LORA_OPS_REDUCE_RULES_HPP
#define LORA_OPS_REDUCE_RULES_HPP

#include <lora/ops/cast.hpp>
#include <lora/simd/reduce.hpp>

#include <cmath>

namespace lora::inline v0::detail {

template <class T>
using sum_type = std::conditional_t<std::is_integral_v<T>, std::int64_t, T>;
template <class T>
using norm_type = std::conditional_t<std::is_integral_v<T> || std::is_same_v<T, double>, double, float>;

struct sum_rule {
  static constexpr const char* name = "sum";
  template <class T>
  using op = simd::op_sum;
  template <class T>
  using result = sum_type<T>;
  template <class T, class A>
  static sum_type<T> finish(A total, index_t) noexcept {
    if constexpr (std::is_integral_v<T>)
      return static_cast<std::int64_t>(total);
    else
      return convert<T>(total);
  }
  template <class T>
  static sum_type<T> nothing() noexcept {
    return convert<sum_type<T>>(std::int8_t{0});
  }
};

struct product_rule : sum_rule {
  static constexpr const char* name = "product";
  template <class T>
  using op = simd::op_product;
  template <class T>
  static sum_type<T> nothing() noexcept {
    return convert<sum_type<T>>(std::int8_t{1});
  }
};

struct sum_compensated_rule : sum_rule {
  static constexpr const char* name = "sum_compensated";
  template <class T>
  using op = std::conditional_t<std::is_integral_v<T>, simd::op_sum, simd::op_sum_wide>;
};

struct mean_rule {
  static constexpr const char* name = "mean";
  // Sums of up to 32 bits are exact in int64, as long as there are fewer than 2^32 elements.
  template <class T>
  using op = std::conditional_t<std::is_same_v<T, std::int64_t>, simd::op_sum_wide, simd::op_sum>;
  template <class T>
  using result = std::conditional_t<std::is_integral_v<T>, double, T>;
  template <class T, class A>
  static result<T> finish(A total, index_t n) noexcept {
    if constexpr (std::is_same_v<A, float>) {
      return convert<T>(total / static_cast<float>(n));
    } else if constexpr (std::is_floating_point_v<A>) {
      return total / static_cast<double>(n);
    } else {
      return static_cast<double>(static_cast<std::int64_t>(total)) / static_cast<double>(n);
    }
  }
  template <class T>
  static result<T> nothing() noexcept {
    return convert<result<T>>(std::numeric_limits<float>::quiet_NaN());
  }
};

template <class Op>
struct pick_rule {
  static constexpr const char* name = std::is_same_v<Op, simd::op_max> ? "max" : "min";
  template <class T>
  using op = Op;
  template <class T>
  using result = T;
  template <class T, class A>
  static T finish(A total, index_t) noexcept {
    if constexpr (is_half<T>)
      return T(total);
    else
      return static_cast<T>(total);
  }
};

struct count_rule {
  static constexpr const char* name = "count_nonzero";
  template <class T>
  using op = simd::op_count;
  template <class T>
  using result = std::int64_t;
  template <class T, class A>
  static std::int64_t finish(A total, index_t) noexcept {
    return total;
  }
  template <class T>
  static std::int64_t nothing() noexcept {
    return 0;
  }
};

template <bool All>
struct truth_rule {
  static constexpr const char* name = All ? "all_true" : "any_true";
  template <class T>
  using op = simd::op_count;
  template <class T>
  using result = bool;
  template <class T, class A>
  static bool finish(A total, index_t n) noexcept {
    return All ? total == n : total != 0;
  }
  template <class T>
  static bool nothing() noexcept {
    return All;
  }
};

template <class Op>
struct norm_rule {
  static constexpr const char* name = std::is_same_v<Op, simd::op_sum_abs>       ? "norm_l1"
                                      : std::is_same_v<Op, simd::op_sum_squares> ? "norm_l2"
                                                                                 : "norm_max";
  template <class T>
  using op = Op;
  template <class T>
  using result = norm_type<T>;
  template <class T, class A>
  static norm_type<T> finish(A total, index_t) noexcept {
    if constexpr (std::is_same_v<Op, simd::op_sum_squares>)
      return static_cast<norm_type<T>>(std::sqrt(total));
    else
      return static_cast<norm_type<T>>(total);
  }
  template <class T>
  static norm_type<T> nothing() noexcept {
    return 0;
  }
};

}  // namespace lora::inline v0::detail

#endif
