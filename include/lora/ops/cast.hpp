// SPDX-License-Identifier: Apache-2.0
//
// cast: copies elements from one view to another of a different element type, with every rounding and every value out of range defined.
// Types: float, double, float16, bfloat16, std::uint8_t, int8_t, int16_t, int32_t, int64_t, bool, each to each.
//
//   lora::cast(weights_bf16, weights_f32);                     // from, to
//   auto x = lora::detail::convert<lora::float16>(0.1);        // one element, one rounding
//
// | to \ from        | floating point                                                 | integer                    |
// |------------------|----------------------------------------------------------------|----------------------------|
// | floating point   | to nearest, ties to even, once; too large: infinity; NaN: NaN  | to nearest, ties to even   |
// | integer          | towards zero, as static_cast; out of range: nearest limit; NaN: 0 | out of range: nearest limit |
// | bool             | true unless it is 0 or -0: NaN is true, as in NumPy            | true unless 0              |
//
// From bool: 0 or 1.
#ifndef LORA_OPS_CAST_HPP
#define LORA_OPS_CAST_HPP

#include <lora/core/half.hpp>
#include <lora/ops/apply.hpp>
#include <lora/ops/copy.hpp>
#include <lora/simd/convert.hpp>

#include <bit>
#include <cstdint>
#include <limits>

namespace lora::inline v0 {

namespace detail {

template <class T>
inline constexpr bool is_half = std::is_same_v<T, float16> || std::is_same_v<T, bfloat16>;
template <class T>
inline constexpr bool is_cast_integer =
    std::is_same_v<T, std::uint8_t> || std::is_same_v<T, std::int8_t> || std::is_same_v<T, std::int16_t> ||
    std::is_same_v<T, std::int32_t> || std::is_same_v<T, std::int64_t>;
template <class T>
inline constexpr bool is_castable =
    is_half<T> || is_cast_integer<T> || std::is_same_v<T, float> || std::is_same_v<T, double> || std::is_same_v<T, bool>;

/**
 * The float next to `value` towards zero, with its last bit set when that lost something. A second rounding, to a type with at least two
 * bits less, then gives what one rounding of `value` itself gives: the last bit stands for everything cut off, and it can never look like
 * a tie that was none. (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums: proved algorithms using rounding to odd", 2008.)
 */
[[nodiscard]] inline float rounded_to_odd(double value) noexcept {
  const auto nearest = static_cast<float>(value);
  const auto back = static_cast<double>(nearest);
  if (back == value || value != value) return nearest;
  auto bits = std::bit_cast<std::uint32_t>(nearest);
  if (value > 0 ? back > value : back < value) --bits;  // went away from zero; from infinity this is the largest float
  return std::bit_cast<float>(bits | 1u);
}
[[nodiscard]] inline float rounded_to_odd(std::int64_t value) noexcept {
  const std::uint64_t magnitude = value < 0 ? 0 - static_cast<std::uint64_t>(value) : static_cast<std::uint64_t>(value);
  const int cut = static_cast<int>(std::bit_width(magnitude)) - 24;
  if (cut <= 0) return static_cast<float>(value);
  const std::uint64_t kept = magnitude >> cut;
  const std::uint64_t lost = (kept << cut) != magnitude ? 1 : 0;
  const auto power = std::bit_cast<float>(static_cast<std::uint32_t>(127 + cut) << 23);
  const float rounded = static_cast<float>(kept | lost) * power;
  return value < 0 ? -rounded : rounded;
}

template <class To, class From>
[[nodiscard]] constexpr To saturated(From value) noexcept {
  using limits = std::numeric_limits<To>;
  if constexpr (std::is_floating_point_v<From>) {
    // One past the largest value is a power of two, hence exact in From; the largest value itself may not be.
    constexpr From beyond = static_cast<From>(limits::max() / 2 + 1) * 2;
    if (value != value) return 0;
    if (value >= beyond) return limits::max();
    if (value <= static_cast<From>(limits::min())) return limits::min();
    return static_cast<To>(value);
  } else {
    const auto wide = static_cast<std::int64_t>(value);  // every integer type here fits
    if (wide > static_cast<std::int64_t>(limits::max())) return limits::max();
    if (wide < static_cast<std::int64_t>(limits::min())) return limits::min();
    return static_cast<To>(wide);
  }
}

/** One element. */
template <class To, class From>
[[nodiscard]] inline To convert(From value) noexcept {
  static_assert(is_castable<To> && is_castable<From>,
                "lora: cast converts among float, double, float16, bfloat16, uint8_t, int8_t, int16_t, int32_t, int64_t and bool");
  if constexpr (std::is_same_v<To, From>) {
    return value;
  } else if constexpr (std::is_same_v<From, bool>) {
    return convert<To>(static_cast<std::uint8_t>(value ? 1 : 0));
  } else if constexpr (std::is_same_v<To, bool>) {
    if constexpr (is_half<From>)
      return (value.bits & 0x7fffu) != 0;
    else
      return value != 0;
  } else if constexpr (is_half<From>) {
    return convert<To>(static_cast<float>(value));  // exact
  } else if constexpr (is_half<To>) {
    if constexpr (std::is_same_v<From, float>) {
      return To(value);
    } else if constexpr (std::is_same_v<From, double>) {
      return To(rounded_to_odd(value));
    } else {
      return To(rounded_to_odd(static_cast<std::int64_t>(value)));
    }
  } else if constexpr (std::is_floating_point_v<To>) {
    return static_cast<To>(value);
  } else {
    return saturated<To>(value);
  }
}

inline namespace LORA_ISA_TAG {

/** Rows that are contiguous on both sides go through the kernels of simd/, others one element after another: the bits are the same. */
template <class T, class F, std::size_t R>
void cast_views(const ndview<F, R>& from, const ndview<T, R>& to, simd::tier tier) {
  using source = std::remove_const_t<F>;
  if (may_overlap_itself(to)) raise_output_overlaps_itself("cast", to.shape().array().data(), to.stride().array().data(), R);
  check_input("cast", 0, to, from);
  const source* const f = from.data();
  T* const t = to.data();
  const loop_plan<2> plan(to.shape(), to.stride(), from.stride());
  plan.for_each_block([&](const loop_block<2>& b) {
    if constexpr (simd::has_converter<T, source>) {
      if (b.stride[0] == 1 && b.stride[1] == 1)
        return simd::converter<T, source>(tier)(f + b.offset[1], b.row_stride[1], t + b.offset[0], b.row_stride[0], b.rows, b.count);
    }
    auto one = [](source value) { return convert<T>(value); };
    apply_rows<apply_row<pace::any, pace::any>>(one, b, std::index_sequence<0>{}, t, f);
  });
}

}  // namespace LORA_ISA_TAG
}  // namespace detail

inline namespace LORA_ISA_TAG {

/**
 * Copies the elements of `from` to the same positions of `to`, each converted by the table at the head of this file.
 *
 * @param from  view or ndarray
 * @param to    view or ndarray of the same shape; shares no byte with `from`, unless both have one type: then this is copy
 * @param tier  the highest family of kernels to use; the result does not depend on it
 * @throws shape_error naming both shapes when they differ, or when the views overlap; nothing is written then.
 * @par Cost      One pass, no allocation; at the speed of memory where both are contiguous along the axis that is innermost in `to`.
 * @par Accuracy  One rounding, in the default rounding mode; a float16 or bfloat16 is never reached through a rounded float.
 * @par Threads   Safe beside any call that writes neither and reads no element of `to`.
 */
template <detail::viewable From, detail::named_array_or_view To>
void cast(const From& from, To&& to, simd::tier tier = simd::tier::avx512) {
  using source = decltype(detail::as_view(from));
  using target = decltype(detail::as_view(to));
  using F = typename source::value_type;
  using T = typename target::value_type;
  static_assert(!std::is_const_v<typename target::element_type>, "lora: cast writes to a read-only view (const elements, or a broadcast)");
  static_assert(source::rank() == target::rank(), "lora: cast takes two views of one rank; slice or reshape one of them");
  if constexpr (std::is_same_v<F, T>) {
    copy(from, to);
  } else {
    const source f = detail::as_view(from);
    const target t = detail::as_view(to);
    if (!(f.shape() == t.shape())) detail::raise_copy_shape("cast", f.shape().array().data(), t.shape().array().data(), target::rank());
    detail::cast_views(f, t, tier);
  }
}

}  // namespace LORA_ISA_TAG
}  // namespace lora::inline v0

#endif
