// SPDX-License-Identifier: Apache-2.0
//
// Extents and strides: the two small vectors that, with a pointer, make a view. Both count elements, never bytes, and are signed.
// Nothing here touches element data.
//
//   lora::extents<2> shape{rows, cols};              // any integral types; negative or too large ones throw
//   lora::strides<2> s{ld, 1};                       // may be negative (reversed) or 0 (broadcast)
//   lora::strides<2> c = lora::strides_for(shape);   // C order: the last axis is contiguous
#ifndef LORA_ND_SHAPE_HPP
#define LORA_ND_SHAPE_HPP

#include <lora/core/checked.hpp>
#include <lora/core/error.hpp>

#include <array>
#include <cstddef>
#include <type_traits>

namespace lora::inline v0 {

/** Counts and positions of elements. Signed, so that differences and reversed strides need no casts. */
using index_t = std::ptrdiff_t;

/** The highest rank of an any_view and of a view that the element-wise operations take. */
inline constexpr std::size_t max_rank = 8;

/** Memory order of a new array: C keeps the last axis contiguous, F the first. */
enum class order : unsigned char { C, F };

namespace detail {

template <class Error>
[[noreturn, gnu::cold, gnu::noinline]] void raise_extent(const char* what, unsigned long long magnitude, bool negative) {
  text t;
  t << what << " " << (negative ? "-" : "") << magnitude << (negative ? " is negative" : " does not fit a signed 64-bit index");
  raise<Error>(t);
}

/** Types that count: every integer but bool. */
template <class T>
inline constexpr bool is_index_word = std::is_integral_v<T> && !std::is_same_v<T, bool>;

template <class Error = shape_error, class Integer>
[[nodiscard]] constexpr index_t to_index(Integer value, const char* what, bool may_be_negative) {
  static_assert(is_index_word<Integer>,
                "lora: extents, strides, indices and slice bounds are integers; cast floating point values and bools yourself");
  if constexpr (std::is_signed_v<Integer>) {
    if (value < 0 && !may_be_negative) raise_extent<Error>(what, 0ULL - static_cast<unsigned long long>(value), true);
  } else {
    if (value > static_cast<unsigned long long>(PTRDIFF_MAX)) raise_extent<Error>(what, value, false);
  }
  return static_cast<index_t>(value);
}

/** An axis as a place: negative ones count from the end. Unchecked. */
template <class Integer>
[[nodiscard]] constexpr std::size_t axis_place(Integer axis, std::size_t rank) noexcept {
  static_assert(is_index_word<Integer>, "lora: an axis is named by an integer");
  if constexpr (std::is_signed_v<Integer>) {
    return axis < 0 ? rank - static_cast<std::size_t>(-static_cast<index_t>(axis)) : static_cast<std::size_t>(axis);
  } else {
    return static_cast<std::size_t>(axis);
  }
}

}  // namespace detail

template <class T, std::size_t R>
class ndview;

/** The lengths of the axes, outermost first; each >= 0. */
template <std::size_t R>
class extents {
 public:
  constexpr extents() noexcept = default;

  /** @throws shape_error when an extent is negative or does not fit index_t. */
  template <class... Integers>
    requires(sizeof...(Integers) == R && (detail::is_index_word<Integers> && ...) && R != 0)
  constexpr extents(Integers... values) : values_{detail::to_index(values, "extent", false)...} {}

  template <class... Numbers>
    requires(sizeof...(Numbers) == R && (std::is_arithmetic_v<Numbers> && ...) && !(detail::is_index_word<Numbers> && ...))
  extents(Numbers...) = delete;  // lora: extents are integers; cast floating point values and bools yourself

  /** @throws shape_error when an extent is negative. */
  explicit constexpr extents(const std::array<index_t, R>& values) : values_{values} {
    for (std::size_t i = 0; i < R; ++i) (void)detail::to_index(values_[i], "extent", false);
  }

  /** Of one axis; -1 is the last. */
  template <class Integer>
  [[nodiscard]] constexpr index_t operator[](Integer axis) const noexcept {
    return values_[detail::axis_place(axis, R)];
  }
  [[nodiscard]] constexpr const std::array<index_t, R>& array() const& noexcept { return values_; }
  // By value: `for (index_t n : a(0, all).shape().array())` would otherwise walk over a dead temporary.
  [[nodiscard]] constexpr std::array<index_t, R> array() const&& noexcept { return values_; }
  friend constexpr bool operator==(const extents&, const extents&) noexcept = default;

 private:
  template <class, std::size_t>
  friend class ndview;  // writes slices in place, and what it has checked unchecked
  std::array<index_t, R> values_{};
};

/** The distance in elements between neighbours along each axis; 0 and negative values are legal. */
template <std::size_t R>
class strides {
 public:
  constexpr strides() noexcept = default;

  /** @throws shape_error when a stride does not fit index_t. */
  template <class... Integers>
    requires(sizeof...(Integers) == R && (detail::is_index_word<Integers> && ...) && R != 0)
  constexpr strides(Integers... values) : values_{detail::to_index(values, "stride", true)...} {}

  template <class... Numbers>
    requires(sizeof...(Numbers) == R && (std::is_arithmetic_v<Numbers> && ...) && !(detail::is_index_word<Numbers> && ...))
  strides(Numbers...) = delete;  // lora: strides are integers; cast floating point values and bools yourself

  explicit constexpr strides(const std::array<index_t, R>& values) noexcept : values_{values} {}

  /** Of one axis; -1 is the last. */
  template <class Integer>
  [[nodiscard]] constexpr index_t operator[](Integer axis) const noexcept {
    return values_[detail::axis_place(axis, R)];
  }
  [[nodiscard]] constexpr const std::array<index_t, R>& array() const& noexcept { return values_; }
  [[nodiscard]] constexpr std::array<index_t, R> array() const&& noexcept { return values_; }
  friend constexpr bool operator==(const strides&, const strides&) noexcept = default;

 private:
  template <class, std::size_t>
  friend class ndview;  // writes slices in place, and what it has checked unchecked
  std::array<index_t, R> values_{};
};

template <class... Integers>
  requires(std::is_arithmetic_v<Integers> && ...)
extents(Integers...) -> extents<sizeof...(Integers)>;
template <class... Integers>
  requires(std::is_arithmetic_v<Integers> && ...)
strides(Integers...) -> strides<sizeof...(Integers)>;

namespace detail {

constexpr void fill_strides(const index_t* shape, std::size_t rank, order o, index_t* out) noexcept {
  index_t step = 1;
  for (std::size_t i = 0; i < rank; ++i) {
    const std::size_t axis = o == order::C ? rank - 1 - i : i;
    out[axis] = step;
    // An extent of 0 must not turn the outer strides into 0, which would read as a broadcast.
    step *= shape[axis] > 0 ? shape[axis] : 1;
  }
}

/** NumPy's rule: axes of length 1 may have any stride, and an array with no elements is contiguous in both orders. */
[[nodiscard]] constexpr bool contiguous_in(const index_t* shape, const index_t* stride, std::size_t rank, order o) noexcept {
  for (std::size_t i = 0; i < rank; ++i)
    if (shape[i] == 0) return true;
  index_t step = 1;
  for (std::size_t i = 0; i < rank; ++i) {
    const std::size_t axis = o == order::C ? rank - 1 - i : i;
    if (shape[axis] == 1) continue;
    if (stride[axis] != step) return false;
    step *= shape[axis];
  }
  return true;
}

[[nodiscard]] constexpr index_t product(const index_t* values, std::size_t n) noexcept {
  index_t p = 1;
  for (std::size_t i = 0; i < n; ++i) p *= values[i];
  return p;
}

[[noreturn, gnu::cold, gnu::noinline]] inline void raise_too_large(const index_t* shape, std::size_t rank, std::size_t element_size) {
  text t;
  for (std::size_t i = 0; i < rank; ++i)
    if (shape[i] < 0) raise<shape_error>(t << "shape " << shape_text{shape, rank} << " has a negative extent");
  t << "shape " << shape_text{shape, rank} << " of elements of " << element_size << " bytes does not fit the address space";
  raise<shape_error>(t);
}

constexpr void require_addressable(const index_t* shape, std::size_t rank, std::size_t element_size) {
  if (!addressable(shape, rank, element_size)) raise_too_large(shape, rank, element_size);
}

/** Elements from the lowest to one past the highest address that a view touches, and how far the lowest lies below its origin. */
struct span_of_view {
  index_t below;
  index_t size;
  bool fits;
};

[[nodiscard]] constexpr span_of_view span_of(const index_t* shape, const index_t* stride, std::size_t rank) noexcept {
  index_t low = 0;
  index_t high = 0;
  for (std::size_t i = 0; i < rank; ++i) {
    if (shape[i] == 0) return {0, 0, true};
    index_t reach = 0;
    if (!checked_mul(shape[i] - 1, stride[i], reach)) return {0, 0, false};
    if (!checked_add(reach < 0 ? low : high, reach, reach < 0 ? low : high)) return {0, 0, false};
  }
  index_t size = 0;
  if (low == PTRDIFF_MIN || !checked_add(high, -low, size) || !checked_add(size, index_t{1}, size)) return {0, 0, false};
  return {-low, size, true};
}

}  // namespace detail

/** Strides of a contiguous array of this shape. @throws shape_error when their product does not fit index_t. */
template <std::size_t R>
[[nodiscard]] constexpr strides<R> strides_for(const extents<R>& shape, order o = order::C) {
  detail::require_addressable(shape.array().data(), R, 1);
  std::array<index_t, R> s{};
  detail::fill_strides(shape.array().data(), R, o, s.data());
  return strides<R>(s);
}

}  // namespace lora::inline v0

#endif
