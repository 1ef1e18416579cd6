// SPDX-License-Identifier: Apache-2.0
//
// any_view: a view whose element type and rank are known only at run time, for the edges of a program (files, foreign arrays). It
// carries all 22 dtypes; as<T, R>() checks dtype, rank and write permission once and gives an ordinary ndview. dispatch() does the
// same over a list of types.
//
//   lora::any_view w = table["fc1.weight"];
//   auto m = w.as<const float, 2>();                                             // throws when it is anything else
//   lora::dispatch<2, float, lora::bfloat16>(w, [](auto m) { use(m); });         // the types the caller supports
#ifndef LORA_ND_ANY_VIEW_HPP
#define LORA_ND_ANY_VIEW_HPP

#include <lora/core/dtype.hpp>
#include <lora/nd/view.hpp>

#include <cstdint>

namespace lora::inline v0 {

namespace detail {

[[noreturn, gnu::cold, gnu::noinline]] inline void raise_rank(std::size_t rank, std::size_t wanted, const index_t* shape) {
  text t;
  t << "a view of rank " << wanted << " was asked of an array of rank " << rank << ", shape " << shape_text{shape, rank};
  raise<shape_error>(t);
}

[[noreturn, gnu::cold, gnu::noinline]] inline void raise_dtype(dtype have, const dtype* supported, std::size_t count) {
  text t;
  t << "dtype " << name_of(have) << " is not supported here; supported:";
  for (std::size_t i = 0; i < count; ++i) t << " " << name_of(supported[i]);
  raise<dtype_error>(t);
}

}  // namespace detail

/**
 * {pointer, dtype, rank <= 8, extents, strides, read-only flag}. Owns nothing.
 *
 * For the sub-byte types (f4, f6_*) strides still count elements and data() is the first packed byte; such an array can be carried
 * and written back, never indexed.
 */
class any_view {
 public:
  /** Nothing: one axis of length 0. (Rank 0 would claim one element where there is none.) */
  any_view() noexcept = default;

  /** Erases a typed view. */
  template <element T, std::size_t R>
    requires(R <= max_rank)
  any_view(ndview<T, R> v) noexcept
      : data_(const_cast<std::remove_cv_t<T>*>(v.data())),
        type_(dtype_of<T>),
        rank_(static_cast<std::uint8_t>(R)),
        read_only_(std::is_const_v<T>) {
    for (std::size_t i = 0; i < R; ++i) {
      shape_[i] = v.extent(i);
      strides_[i] = v.stride(i);
    }
  }

  /**
   * From parts known at run time, C order. `read_only` views give only ndview<const T, R>.
   * @throws shape_error when rank > 8, an extent is negative or the array does not fit the address space.
   */
  any_view(const void* data, dtype type, const index_t* shape, std::size_t rank, bool read_only = true, order o = order::C)
      : data_(const_cast<void*>(data)), type_(type), read_only_(read_only) {
    if (rank > max_rank) {
      detail::text t;
      t << "an array of rank " << rank << ": the highest supported rank is " << max_rank;
      detail::raise<shape_error>(t);
    }
    rank_ = static_cast<std::uint8_t>(rank);
    for (std::size_t i = 0; i < rank; ++i) shape_[i] = shape[i];
    detail::require_addressable(shape_.data(), rank, size_of(type) == 0 ? 1 : size_of(type));
    detail::fill_strides(shape_.data(), rank, o, strides_.data());
  }

  [[nodiscard]] const void* data() const noexcept { return data_; }
  [[nodiscard]] dtype type() const noexcept { return type_; }
  [[nodiscard]] std::size_t rank() const noexcept { return rank_; }
  [[nodiscard]] bool read_only() const noexcept { return read_only_; }
  [[nodiscard]] index_t extent(std::size_t axis) const noexcept { return shape_[axis]; }
  [[nodiscard]] index_t stride(std::size_t axis) const noexcept { return strides_[axis]; }
  [[nodiscard]] const index_t* shape() const noexcept { return shape_.data(); }
  [[nodiscard]] const index_t* strides() const noexcept { return strides_.data(); }
  /** Number of elements; 1 for rank 0. */
  [[nodiscard]] index_t size() const noexcept { return detail::product(shape_.data(), rank_); }
  /** Bytes of the elements, packed and rounded up; exact for views without gaps. */
  [[nodiscard]] std::size_t size_bytes() const noexcept {
    const auto n = static_cast<std::size_t>(size());
    // Counting bits would overflow from 2^58 elements on; only the packed types, which have no whole bytes, need it: n * 6 / 8.
    if (size_of(type_) != 0) return n * size_of(type_);
    return n / 8 * bits_of(type_) + (n % 8 * bits_of(type_) + 7) / 8;
  }
  [[nodiscard]] bool is_contiguous(order o = order::C) const noexcept {
    return detail::contiguous_in(shape_.data(), strides_.data(), rank_, o);
  }
  /** Whether the elements can be read in place; always so when there are none. */
  [[nodiscard]] bool is_aligned() const noexcept {
    return reinterpret_cast<std::uintptr_t>(data_) % alignment_of(type_) == 0 || size() == 0;
  }

  /** Whether as<T, R>() would succeed. */
  template <element T, std::size_t R>
  [[nodiscard]] bool is() const noexcept {
    return type_ == dtype_of<T> && rank_ == R && (std::is_const_v<T> || !read_only_) && is_aligned();
  }

  /**
   * The typed view.
   * @throws dtype_error when the elements have another type, the array is read-only and T is not const, or the address is not
   *         aligned for T; shape_error when the rank differs.
   */
  template <element T, std::size_t R>
  [[nodiscard]] ndview<T, R> as() const {
    static_assert(R <= max_rank, "lora: any_view carries at most 8 axes");
    if (type_ != dtype_of<T>) {
      constexpr dtype wanted = dtype_of<T>;
      detail::raise_dtype(type_, &wanted, 1);
    }
    if (rank_ != R) detail::raise_rank(rank_, R, shape_.data());
    if (!std::is_const_v<T> && read_only_)
      detail::raise<dtype_error>(detail::text() << "a mutable view was asked of a read-only array; use as<const T, R>()");
    if (!is_aligned()) detail::raise<dtype_error>(detail::text() << "the array is not aligned for " << name_of(type_) << "; copy it first");
    std::array<index_t, R> shape{};
    std::array<index_t, R> stride{};
    for (std::size_t i = 0; i < R; ++i) {
      shape[i] = shape_[i];
      stride[i] = strides_[i];
    }
    return ndview<T, R>(static_cast<T*>(data_), extents<R>(shape), strides_of<R>(stride));
  }

 private:
  template <std::size_t R>
  using strides_of = lora::strides<R>;

  void* data_ = nullptr;
  dtype type_ = dtype::u8;
  std::uint8_t rank_ = 1;
  bool read_only_ = true;
  std::array<index_t, max_rank> shape_{};
  std::array<index_t, max_rank> strides_{};
};

namespace detail {

// `supported` keeps the whole list for the message while the pack shrinks from the front.
template <std::size_t R, class F, class First, class... Rest>
decltype(auto) dispatch_among(const any_view& v, F& f, const dtype* supported, std::size_t count) {
  if constexpr (sizeof...(Rest) == 0) {
    if (v.type() != dtype_of<First>) raise_dtype(v.type(), supported, count);
    return f(v.as<const First, R>());
  } else {
    if (v.type() == dtype_of<First>) return f(v.as<const First, R>());
    return dispatch_among<R, F, Rest...>(v, f, supported, count);
  }
}

}  // namespace detail

/**
 * Calls f with the typed read-only view for the one of Types that `v` holds.
 * @throws dtype_error naming what it holds and what is supported; shape_error when the rank is not R.
 */
template <std::size_t R, element First, element... Rest, class F>
decltype(auto) dispatch(const any_view& v, F&& f) {
  static constexpr dtype supported[] = {dtype_of<First>, dtype_of<Rest>...};
  return detail::dispatch_among<R, F, First, Rest...>(v, f, supported, sizeof...(Rest) + 1);
}

}  // namespace lora::inline v0

#endif
