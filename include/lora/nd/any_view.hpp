// SPDX-License-Identifier: Apache-2.0
//
// any_view: a view whose element type and rank are known only at run time, for the edges of a program (files, foreign arrays). It
// carries all 22 dtypes; as<T, R>() checks dtype, rank and write permission once and gives an ordinary ndview. dispatch() does the
// same over a list of types, dispatch_up_to() over types and ranks. slice() takes text, for programs whose users say what to look at.
//
//   lora::any_view w = table["fc1.weight"];
//   auto m = w.as<const float, 2>();                                             // throws when it is anything else
//   lora::dispatch<2, float, lora::bfloat16>(w, [](auto m) { use(m); });         // the types the caller supports
//   lora::any_view corner = lora::slice(w, "-4:, ::2");                          // as NumPy's w[-4:, ::2]
#ifndef LORA_ND_ANY_VIEW_HPP
#define LORA_ND_ANY_VIEW_HPP

#include <lora/core/dtype.hpp>
#include <lora/nd/slice_text.hpp>
#include <lora/nd/view.hpp>

#include <cstdint>
#include <initializer_list>

namespace lora::inline v0 {

template <class T, std::size_t R>
class ndarray;

namespace detail {

[[noreturn, gnu::cold, gnu::noinline]] inline void raise_rank(std::size_t rank, std::size_t wanted, const index_t* shape) {
  text t;
  t << "a view of rank " << wanted << " was asked of an array of rank " << rank << ", shape " << shape_text{shape, rank};
  raise<shape_error>(t);
}

[[noreturn, gnu::cold, gnu::noinline]] inline void raise_rank_range(std::size_t rank, std::size_t highest, const index_t* shape) {
  text t;
  t << "an array of rank " << rank << ", shape " << shape_text{shape, rank} << ", is not supported here; supported: ranks 0 to " << highest;
  raise<shape_error>(t);
}

[[noreturn, gnu::cold, gnu::noinline]] inline void raise_read_only() {
  raise<dtype_error>(text() << "a mutable view was asked of a read-only array; use as<const T, R>()");
}

[[noreturn, gnu::cold, gnu::noinline]] inline void raise_too_many_indices(std::size_t indices, const index_t* shape, std::size_t rank) {
  text t;
  t << "slice: " << indices << " indices for an array of rank " << rank << ", shape " << shape_text{shape, rank};
  raise<index_error>(t);
}

[[noreturn, gnu::cold, gnu::noinline]] inline void raise_packed_slice(dtype type, const index_t* shape, std::size_t rank) {
  text t;
  t << "slice: elements of dtype " << name_of(type) << " share bytes, so that a part of shape " << shape_text{shape, rank}
    << " has no address of its own; only the whole can be taken";
  raise<dtype_error>(t);
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

  /** Erases a named array. */
  template <element T, std::size_t R>
    requires(R <= max_rank)
  any_view(ndarray<T, R>& a LORA_LIFETIMEBOUND) noexcept : any_view(a.view()) {}
  template <element T, std::size_t R>
    requires(R <= max_rank)
  any_view(const ndarray<T, R>& a LORA_LIFETIMEBOUND) noexcept : any_view(a.view()) {}
  template <element T, std::size_t R>
  any_view(const ndarray<T, R>&& a) = delete;  // lora: a view of a temporary array would dangle; name the array

  /**
   * From parts known at run time, C order. `read_only` views give only ndview<const T, R>.
   * @throws shape_error when rank > 8, an extent is negative or the array does not fit the address space.
   */
  any_view(const void* data, dtype type, const index_t* shape, std::size_t rank, bool read_only = true, order o = order::C)
      : any_view(data, type, read_only, shape, rank) {
    detail::fill_strides(shape_.data(), rank, o, strides_.data());
  }

  /**
   * The same with strides, in elements; `data` is the address of element (0, 0, ...). The caller answers for the bounds.
   * @throws shape_error also when a stride reaches further than the address space.
   */
  any_view(const void* data, dtype type, const index_t* shape, std::size_t rank, const index_t* strides, bool read_only = true)
      : any_view(data, type, read_only, shape, rank) {
    for (std::size_t i = 0; i < rank; ++i) strides_[i] = strides[i];
    const auto reach = detail::span_of(shape_.data(), strides_.data(), rank);
    if (!reach.fits || !addressable(&reach.size, 1, whole_bytes(type))) {
      detail::text t;
      t << "shape " << detail::shape_text{shape, rank} << " with strides " << detail::shape_text{strides, rank} << " of elements of "
        << whole_bytes(type) << " bytes does not fit the address space";
      detail::raise<shape_error>(t);
    }
  }

  [[nodiscard]] const void* data() const noexcept { return data_; }
  [[nodiscard]] dtype type() const noexcept { return type_; }
  [[nodiscard]] std::size_t rank() const noexcept { return rank_; }
  [[nodiscard]] bool read_only() const noexcept { return read_only_; }
  /** Of one axis; -1 is the last. */
  template <class Integer>
  [[nodiscard]] index_t extent(Integer axis) const noexcept {
    return shape_[detail::axis_place(axis, rank_)];
  }
  template <class Integer>
  [[nodiscard]] index_t stride(Integer axis) const noexcept {
    return strides_[detail::axis_place(axis, rank_)];
  }
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

  /** Axes in reverse order. */
  [[nodiscard]] any_view transpose() const noexcept {
    any_view v = *this;
    for (std::size_t i = 0; i < rank_; ++i) {
      v.shape_[i] = shape_[rank_ - 1u - i];
      v.strides_[i] = strides_[rank_ - 1u - i];
    }
    return v;
  }

  /** Axes in the order given: a.permute({2, 0, 1}) has a's axis 2 first. @throws shape_error unless it names each axis exactly once. */
  [[nodiscard]] any_view permute(const index_t* axes, std::size_t count) const {
    if (count != rank_) {
      detail::text t;
      t << "permute: " << detail::shape_text{axes, count} << " does not name each axis of shape " << detail::shape_text{shape(), rank_};
      detail::raise<shape_error>(t);
    }
    any_view v = *this;
    unsigned seen = 0;
    for (std::size_t i = 0; i < count; ++i) {
      const auto axis = static_cast<std::size_t>(axes[i]);
      if (axis >= rank_ || (seen >> axis & 1u) != 0) detail::raise_axes("permute", axes, rank_);
      seen |= 1u << axis;
      v.shape_[i] = shape_[axis];
      v.strides_[i] = strides_[axis];
    }
    return v;
  }
  [[nodiscard]] any_view permute(std::initializer_list<index_t> axes) const { return permute(axes.begin(), axes.size()); }

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
    if (!std::is_const_v<T> && read_only_) detail::raise_read_only();
    if (!is_aligned()) detail::raise<dtype_error>(detail::text() << "the array is not aligned for " << name_of(type_) << "; copy it first");
    std::array<index_t, R> shape{};
    std::array<index_t, R> stride{};
    for (std::size_t i = 0; i < R; ++i) {
      shape[i] = shape_[i];
      stride[i] = strides_[i];
    }
    return ndview<T, R>(static_cast<T*>(data_), extents<R>(shape), strides_of<R>(stride));
  }

  friend any_view slice(const any_view& v, const slice_text& text);

 private:
  template <std::size_t R>
  using strides_of = lora::strides<R>;

  static constexpr std::size_t whole_bytes(dtype type) noexcept { return size_of(type) == 0 ? 1 : size_of(type); }

  // What both constructors from parts share; the strides are still to come.
  any_view(const void* data, dtype type, bool read_only, const index_t* shape, std::size_t rank)
      : data_(const_cast<void*>(data)), type_(type), rank_(static_cast<std::uint8_t>(rank)), read_only_(read_only) {
    if (rank > max_rank) {
      detail::text t;
      t << "an array of rank " << rank << ": the highest supported rank is " << max_rank;
      detail::raise<shape_error>(t);
    }
    for (std::size_t i = 0; i < rank; ++i) shape_[i] = shape[i];
    detail::require_addressable(shape_.data(), rank, whole_bytes(type));
  }

  void* data_ = nullptr;
  dtype type_ = dtype::u8;
  std::uint8_t rank_ = 1;
  bool read_only_ = true;
  std::array<index_t, max_rank> shape_{};
  std::array<index_t, max_rank> strides_{};
};

/**
 * The part of `v` that the text names, as NumPy's v[text] without a copy: same dtype, same permission to write.
 *
 * @param text  what stands between NumPy's brackets: slice(v, "1:, ::-1, 2"). Bounds are strict; slice_text("1:99").clamp() cuts them.
 * @throws value_error naming the text and the column when it is not a slice; index_error naming index, axis and shape when it reaches
 *         outside, or has more indices than v has axes; shape_error when the result has more than 8 axes; dtype_error when the elements
 *         are smaller than a byte (f4, f6_*) and the slice is not the whole.
 * @par Cost    reading the text and some nanoseconds, no allocation.
 */
[[nodiscard]] inline any_view slice(const any_view& v, const slice_text& text) {
  const detail::slice_counts& counts = text.item_counts();
  if (counts.consumed() > v.rank_) detail::raise_too_many_indices(counts.consumed(), v.shape(), v.rank_);
  if (v.rank_ - counts.indices + counts.added > max_rank) {
    detail::text t;
    t << "slice: a result of rank " << v.rank_ - counts.indices + counts.added << " from shape " << detail::shape_text{v.shape(), v.rank_}
      << "; the highest supported rank is " << max_rank;
    detail::raise<shape_error>(t);
  }
  any_view s = v;
  const auto r = detail::apply_slice(text.items(), text.size(), v.shape(), v.strides(), v.rank_, s.shape_.data(), s.strides_.data());
  s.rank_ = static_cast<std::uint8_t>(r.rank);
  if (size_of(v.type_) == 0) {
    // As many elements, from the same first one on, are the same elements in the same order: bounds cannot reach outside.
    if (r.offset != 0 || s.size() != v.size()) detail::raise_packed_slice(v.type_, v.shape(), v.rank_);
  } else {
    s.data_ = static_cast<unsigned char*>(v.data_) + r.offset * static_cast<index_t>(size_of(v.type_));
  }
  return s;
}

namespace detail {

template <bool Mutable, class T>
using dispatched = std::conditional_t<Mutable, T, const T>;

// `supported` keeps the whole list for the message while the pack shrinks from the front.
template <bool Mutable, std::size_t R, class F, class First, class... Rest>
decltype(auto) dispatch_among(const any_view& v, F& f, const dtype* supported, std::size_t count) {
  if constexpr (sizeof...(Rest) == 0) {
    if (v.type() != dtype_of<First>) raise_dtype(v.type(), supported, count);
    return f(v.as<dispatched<Mutable, First>, R>());
  } else {
    if (v.type() == dtype_of<First>) return f(v.as<dispatched<Mutable, First>, R>());
    return dispatch_among<Mutable, R, F, Rest...>(v, f, supported, count);
  }
}

template <class... Types>
inline constexpr dtype dtypes_of[] = {dtype_of<Types>...};

// From the highest rank down, so that the last one is rank 0.
template <bool Mutable, std::size_t R, std::size_t MaxRank, class F, class... Types>
decltype(auto) dispatch_rank(const any_view& v, F& f) {
  if constexpr (R != 0) {
    if (v.rank() < R) return dispatch_rank<Mutable, R - 1, MaxRank, F, Types...>(v, f);
  }
  if (v.rank() != R) raise_rank_range(v.rank(), MaxRank, v.shape());
  return dispatch_among<Mutable, R, F, Types...>(v, f, dtypes_of<Types...>, sizeof...(Types));
}

}  // namespace detail

/**
 * Calls f with the typed read-only view for the one of Types that `v` holds.
 * @throws dtype_error naming what it holds and what is supported; shape_error when the rank is not R.
 */
template <std::size_t R, element... Types, class F>
  requires(sizeof...(Types) != 0)
decltype(auto) dispatch(const any_view& v, F&& f) {
  return detail::dispatch_among<false, R, F, Types...>(v, f, detail::dtypes_of<Types...>, sizeof...(Types));
}

/** As dispatch, with a view that writes. @throws dtype_error also when `v` is read-only. */
template <std::size_t R, element... Types, class F>
  requires(sizeof...(Types) != 0)
decltype(auto) dispatch_mutable(const any_view& v, F&& f) {
  return detail::dispatch_among<true, R, F, Types...>(v, f, detail::dtypes_of<Types...>, sizeof...(Types));
}

/**
 * Calls f with the typed read-only view of whatever rank `v` has, 0 to MaxRank. f must return the same type for all of them.
 * It is compiled (MaxRank + 1) * sizeof...(Types) times: dispatch_up_to<max_rank, float>(v, f) nine times. Keep it small, or let it
 * hand on to a function that takes pointers to extents and strides.
 * @throws dtype_error naming what it holds and what is supported; shape_error when the rank is higher.
 */
template <std::size_t MaxRank, element... Types, class F>
  requires(sizeof...(Types) != 0 && MaxRank <= max_rank)
decltype(auto) dispatch_up_to(const any_view& v, F&& f) {
  return detail::dispatch_rank<false, MaxRank, MaxRank, F, Types...>(v, f);
}

/** As dispatch_up_to, with a view that writes. @throws dtype_error also when `v` is read-only. */
template <std::size_t MaxRank, element... Types, class F>
  requires(sizeof...(Types) != 0 && MaxRank <= max_rank)
decltype(auto) dispatch_up_to_mutable(const any_view& v, F&& f) {
  return detail::dispatch_rank<true, MaxRank, MaxRank, F, Types...>(v, f);
}

}  // namespace lora::inline v0

#endif
