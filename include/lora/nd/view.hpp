// SPDX-License-Identifier: Apache-2.0
//
// ndview<T, R>: a pointer, R extents and R strides. It owns nothing, copies in registers, and every slice, transpose or reversal of
// it is again an ndview of a known rank over the same elements. Loops over elements are in ops/; owning arrays in nd/array.hpp.
//
//   lora::ndview<const float, 2> w(ptr, {rows, cols});              // C order
//   auto q = w(lora::range(0, 64), lora::all);                      // the first 64 rows, zero copy
//   auto t = w.transpose();                                         // [cols, rows]
//   float x = w(3, -1);                                             // one element; -1 is the last column
//
// Assigning a view rebinds it; elements move by copy, fill and apply (ops/). Assigning to a slice does not compile.
// A default-constructed view points at nothing and has extents of 0; at rank 0, where there are no extents, it must not be read.
#ifndef LORA_ND_VIEW_HPP
#define LORA_ND_VIEW_HPP

#include <lora/nd/slice.hpp>

#include <concepts>
#include <utility>

namespace lora::inline v0 {

template <class T, std::size_t R>
class ndview;

namespace detail {

[[noreturn, gnu::cold, gnu::noinline]] inline void raise_span_too_small(const index_t* shape, const index_t* stride, std::size_t rank,
                                                                        std::size_t available) {
  text t;
  t << "a view of shape " << shape_text{shape, rank} << " and strides " << shape_text{stride, rank} << " does not fit a span of "
    << available << " elements";
  raise<shape_error>(t);
}

[[noreturn, gnu::cold, gnu::noinline]] inline void raise_axes(const char* what, const index_t* axes, std::size_t rank) {
  text t;
  t << what << ": " << shape_text{axes, rank} << " is not an order of the axes 0.." << (rank == 0 ? 0 : rank - 1);
  raise<shape_error>(t);
}

/**
 * Anything contiguous with elements of type T: std::span, std::vector, std::array; without including any of them. Not a view or an
 * array of ours: data() and size() of a strided view do not describe a span.
 */
template <class Span, class T>
concept span_of_elements = requires(Span& s) {
  { s.data() } -> std::convertible_to<T*>;
  { s.size() } -> std::convertible_to<std::size_t>;
  requires std::is_same_v<std::remove_cv_t<std::remove_pointer_t<decltype(s.data())>>, std::remove_cv_t<T>>;
} && !requires(Span& s) { s.shape(); };

/**
 * Whether Span only refers to its elements, as std::span does: trivial to copy, and a const one still gives the same pointer.
 * std::array, which is trivial to copy too, owns its elements and is told by its tuple_size.
 */
template <class Span>
concept borrowed_span = std::is_trivially_copyable_v<Span> && requires(Span& s, const Span& c) {
  requires std::is_same_v<decltype(s.data()), decltype(c.data())>;
} && !requires { std::tuple_size<Span>::value; };

/** Pointer and length of a std::span, std::vector or std::array; only made on the way into a constructor of ndview. */
template <class T>
struct elements {
  template <span_of_elements<T> Span>
    requires(borrowed_span<Span>)
  constexpr elements(const Span& span) noexcept : data(span.data()), size(span.size()) {}

  template <class Owner>
    requires(span_of_elements<Owner, T> && !borrowed_span<std::remove_const_t<Owner>>)
  constexpr elements(Owner& owner LORA_LIFETIMEBOUND) noexcept : data(owner.data()), size(owner.size()) {}

  template <class Owner>
    requires(span_of_elements<Owner, const T> && !borrowed_span<std::remove_const_t<Owner>>)
  elements(const Owner&&) = delete;  // lora: a view of a temporary container would dangle; name the container

  T* data;
  std::size_t size;
};

}  // namespace detail

/**
 * A view of an R-dimensional array.
 *
 * Copying is trivial and shares the elements. const-ness of elements is in T: ndview<const float, 2> is a read-only view, and an
 * ndview<float, 2> converts to it. A const ndview<float, 2> still writes its elements, as a T* const would.
 *
 * @par Lifetime   The view must not outlive the memory it points into; owners refuse to give views of temporaries.
 * @par Threads    As the elements: any number of readers, or one writer.
 */
template <class T, std::size_t R>
class ndview {
 public:
  using element_type = T;
  using value_type = std::remove_cv_t<T>;
  static constexpr std::size_t rank() noexcept { return R; }

  constexpr ndview() noexcept = default;

  /** C order over `data`. @throws shape_error when the extents do not fit the address space. */
  constexpr ndview(T* data, extents<R> shape, order o = order::C) : data_(data), shape_(shape) {
    detail::require_addressable(shape_.array().data(), R, sizeof(T));
    std::array<index_t, R> stride{};
    detail::fill_strides(shape_.array().data(), R, o, stride.data());
    strides_ = strides<R>(stride);
  }

  /** Explicit strides, in elements; `data` is the address of element (0, 0, ...). The caller answers for the bounds. */
  constexpr ndview(T* data, extents<R> shape, strides<R> stride) : data_(data), shape_(shape), strides_(stride) {
    detail::require_addressable(shape_.array().data(), R, sizeof(T));
  }

  /** Over a std::span, std::vector or std::array. @throws shape_error when the view would reach outside it. */
  constexpr ndview(detail::elements<T> span LORA_LIFETIMEBOUND, extents<R> shape, strides<R> stride) : ndview(span.data, shape, stride) {
    require_inside(span.size);
  }
  constexpr ndview(detail::elements<T> span LORA_LIFETIMEBOUND, extents<R> shape, order o = order::C) : ndview(span.data, shape, o) {
    require_inside(span.size);
  }

  constexpr ndview(const ndview&) noexcept = default;
  /** A read-only view of the same elements. */
  template <class U>
    requires(std::is_const_v<T> && std::is_same_v<U, value_type>)
  constexpr ndview(const ndview<U, R>& other) noexcept : data_(other.data()), shape_(other.shape()), strides_(other.stride()) {}

  constexpr ndview& operator=(const ndview&) & noexcept = default;
  /** Assigning to a temporary view would change nothing that anyone can see: use copy(from, to) or fill(to, value). A template,
      because clang 14 would not call a type with a deleted assignment operator trivially copyable. */
  template <class Anything>
  constexpr ndview& operator=(Anything&&) && = delete;  // lora: assigning to a slice moves no elements; use copy or fill

  [[nodiscard]] constexpr T* data() const noexcept { return data_; }
  // By value from a temporary: a(0, all).shape() must not refer into a view that is gone.
  [[nodiscard]] constexpr const extents<R>& shape() const& noexcept { return shape_; }
  [[nodiscard]] constexpr extents<R> shape() const&& noexcept { return shape_; }
  [[nodiscard]] constexpr const strides<R>& stride() const& noexcept { return strides_; }
  [[nodiscard]] constexpr strides<R> stride() const&& noexcept { return strides_; }
  /** Of one axis; -1 is the last. */
  template <class Integer>
  [[nodiscard]] constexpr index_t extent(Integer axis) const noexcept {
    return shape_[axis];
  }
  template <class Integer>
  [[nodiscard]] constexpr index_t stride(Integer axis) const noexcept {
    return strides_[axis];
  }
  /** Number of elements; 1 for rank 0. */
  [[nodiscard]] constexpr index_t size() const noexcept { return detail::product(shape_.array().data(), R); }
  [[nodiscard]] constexpr bool empty() const noexcept { return size() == 0; }

  /** Whether the elements lie in order without gaps, by NumPy's rules for axes of length 1 and 0. */
  [[nodiscard]] constexpr bool is_contiguous(order o = order::C) const noexcept {
    return detail::contiguous_in(shape_.array().data(), strides_.array().data(), R, o);
  }

  /**
   * With R integers: the element, negative indices counting from the end; unchecked unless LORA_CHECKS >= 1. (A view of rank 0 has
   * one element, v().)
   * With slice words (range, all, newaxis, ellipsis; trailing axes may be left out): a view, always checked. So is a slice written
   * as text, "1:, 2"_s (nd/slice_text.hpp), the element of one that holds R integers included.
   *
   * @throws index_error naming index, axis and shape, when a slice reaches outside.
   * @par Cost   an element: one multiply-add an axis. A slice: some nanoseconds, no allocation.
   */
  template <int Checks = LORA_CHECKS, class... S>
    requires(detail::slices<R, S...>)
  [[nodiscard]] LORA_ALWAYS_INLINE constexpr decltype(auto) operator()(const S&... words) const {
    if constexpr (detail::slice_words<S...>::compiled) {
      return compiled<S...>(words...);
    } else if constexpr (detail::names_element<R, S...>) {
      return element<Checks>(std::make_index_sequence<R>{}, words...);
    } else {
      const std::array<detail::slice_item, sizeof...(S)> items{detail::to_item(words)...};
      return sliced<detail::rank_after<R, S...>>(items.data(), sizeof...(S));
    }
  }

  // Deleted rather than missing: compilers show the line of a deleted function, so the sentence at its end is the message.
  template <class... S>
    requires(!detail::slice_words<S...>::valid)
  void operator()(const S&...) const = delete;  // lora: the words of a slice are integers, range, all, newaxis and ellipsis
  template <class... S>
    requires(detail::slice_words<S...>::valid && !detail::slices<R, S...>)
  void operator()(const S&...) const = delete;  // lora: more indices than the view has axes, or a second ellipsis

  /** Only for rank 1: in C++20 a[i, j] on a higher rank would compile and mean a[j]. */
  template <int Checks = LORA_CHECKS>
  [[nodiscard]] constexpr T& operator[](index_t i) const
    requires(R == 1)
  {
    return this->template operator()<Checks>(i);
  }
  template <class Index>
    requires(R != 1)
  void operator[](const Index&) const = delete;  // lora: in C++20 v[i, j] means v[j]; write v(i, j)

  /** The element, with its indices checked at every level of LORA_CHECKS. @throws index_error. */
  template <class... Integers>
    requires(sizeof...(Integers) == R && (detail::is_index_word<Integers> && ...))
  [[nodiscard]] constexpr T& at(Integers... indices) const {
    const std::array<index_t, R> i{detail::to_index<index_error>(indices, "index", true)...};
    index_t offset = 0;
    for (std::size_t axis = 0; axis < R; ++axis) {
      const index_t n = shape_[axis];
      if (i[axis] < -n || i[axis] >= n) detail::raise_index(i[axis], axis, shape_.array().data(), R);
      offset += (i[axis] < 0 ? i[axis] + n : i[axis]) * strides_[axis];
    }
    return data_[offset];
  }

  /** Axes in reverse order. */
  [[nodiscard]] constexpr ndview transpose() const noexcept {
    std::array<index_t, R> shape_out{};
    std::array<index_t, R> stride_out{};
    for (std::size_t i = 0; i < R; ++i) {
      shape_out[i] = shape_[R - 1 - i];
      stride_out[i] = strides_[R - 1 - i];
    }
    return from_parts(data_, shape_out, stride_out);
  }

  /** Axes in the order given at compile time: a.permute<2, 0, 1>() has a's axis 2 first. */
  template <std::size_t... Axes>
    requires(sizeof...(Axes) == R)
  [[nodiscard]] constexpr ndview permute() const noexcept {
    static_assert(((Axes < R) && ...), "lora: permute names an axis that the view does not have");
    static_assert((std::size_t{0} | ... | (std::size_t{1} << Axes)) == (std::size_t{1} << R) - 1,
                  "lora: permute must name each axis exactly once");
    return from_parts(data_, {shape_[Axes]...}, {strides_[Axes]...});
  }

  /** Axes in an order known at run time. @throws shape_error when it does not name each axis exactly once. */
  [[nodiscard]] constexpr ndview permute(const std::array<index_t, R>& axes) const {
    std::array<bool, R> seen{};
    std::array<index_t, R> shape_out{};
    std::array<index_t, R> stride_out{};
    for (std::size_t i = 0; i < R; ++i) {
      const auto axis = static_cast<std::size_t>(axes[i]);
      if (axes[i] < 0 || axis >= R || seen[axis]) detail::raise_axes("permute", axes.data(), R);
      seen[axis] = true;
      shape_out[i] = shape_[axis];
      stride_out[i] = strides_[axis];
    }
    return from_parts(data_, shape_out, stride_out);
  }

 private:
  template <class, std::size_t>
  friend class ndview;

  // Straight into the result: a part of what fits the address space fits it too, and there is nothing else to check.
  template <std::size_t Out>
  [[nodiscard]] constexpr ndview<T, Out> sliced(const detail::slice_item* items, std::size_t count) const {
    ndview<T, Out> v;
    v.data_ = data_ + detail::apply_slice(items, count, shape_.values_.data(), strides_.values_.data(), R, v.shape_.values_.data(),
                                          v.strides_.values_.data())
                          .offset;
    return v;
  }

  template <class Slice>
  [[nodiscard]] LORA_ALWAYS_INLINE constexpr ndview<T, detail::rank_after<R, Slice>> compiled(const Slice& slice) const
    requires(!detail::names_element<R, Slice>)
  {
    ndview<T, detail::rank_after<R, Slice>> v;
    v.data_ =
        data_ +
        slice.template apply<R>(shape_.values_.data(), strides_.values_.data(), v.shape_.values_.data(), v.strides_.values_.data()).offset;
    return v;
  }
  template <class Slice>
  [[nodiscard]] LORA_ALWAYS_INLINE constexpr T& compiled(const Slice& slice) const
    requires(detail::names_element<R, Slice>)
  {
    return data_[slice.template apply<R>(shape_.values_.data(), strides_.values_.data(), nullptr, nullptr).offset];
  }

  constexpr void require_inside(std::size_t available) const {
    const auto reach = detail::span_of(shape_.array().data(), strides_.array().data(), R);
    if (!reach.fits || reach.below != 0 || static_cast<std::size_t>(reach.size) > available)
      detail::raise_span_too_small(shape_.array().data(), strides_.array().data(), R, available);
  }

  static constexpr ndview from_parts(T* data, const std::array<index_t, R>& shape, const std::array<index_t, R>& stride) noexcept {
    ndview v;
    v.data_ = data;
    v.shape_.values_ = shape;  // extents of a view: they have been checked
    v.strides_.values_ = stride;
    return v;
  }

  template <int Checks, std::size_t... Axis, class... Integers>
  [[nodiscard]] LORA_ALWAYS_INLINE constexpr T& element(std::index_sequence<Axis...>, Integers... indices) const noexcept {
    if constexpr (Checks >= 1) (check_index(Axis, indices), ...);
    return data_[(index_t{0} + ... + wrapped(Axis, indices))];
  }

  // In the index's own type: a size_t above PTRDIFF_MAX must not turn into a negative index that counts from the end.
  template <class Integer>
  constexpr void check_index(std::size_t axis, Integer i) const noexcept {
    bool inside = false;
    if constexpr (std::is_signed_v<Integer>) {
      inside = i >= -shape_[axis] && i < shape_[axis];
    } else {
      inside = i < static_cast<std::size_t>(shape_[axis]);
    }
    if (!inside) fail_index(axis, detail::text() << i);
  }

  [[gnu::cold, gnu::noinline]] void fail_index(std::size_t axis, const detail::text& index) const noexcept {
    detail::text t;
    t << "index " << index.c_str() << " is out of bounds for axis " << axis << " of shape " << detail::shape_text{shape_.array().data(), R};
    LORA_ASSERT_HANDLER(t.c_str());
  }

  // The test for a negative index folds away for unsigned types and for loop counters that the compiler can bound.
  template <class Integer>
  [[nodiscard]] LORA_ALWAYS_INLINE constexpr index_t wrapped(std::size_t axis, Integer i) const noexcept {
    if constexpr (std::is_signed_v<Integer>) {
      return (i < 0 ? static_cast<index_t>(i) + shape_[axis] : static_cast<index_t>(i)) * strides_[axis];
    } else {
      return static_cast<index_t>(i) * strides_[axis];
    }
  }

  T* data_ = nullptr;
  extents<R> shape_{};
  strides<R> strides_{};
};

}  // namespace lora::inline v0

#endif
