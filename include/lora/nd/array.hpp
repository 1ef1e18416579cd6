// SPDX-License-Identifier: Apache-2.0
//
// ndarray<T, R>: owns the elements that views look at. 64-byte aligned, move-only; clone() is the copy. Slicing it gives views, which
// must not outlive it: asking a temporary array for a view does not compile.
//
//   auto a = lora::zeros<float>(4, 5, 6);                       // ndarray<float, 3>, C order
//   auto s = a(lora::range(1, lora::_), lora::all, 2);          // ndview<float, 2> of shape [3, 5]
//   auto f = lora::uninit<float>(lora::extents{rows, cols}, lora::order::F);
#ifndef LORA_ND_ARRAY_HPP
#define LORA_ND_ARRAY_HPP

#include <lora/core/bytes.hpp>
#include <lora/nd/view.hpp>

namespace lora::inline v0 {

/** The axes of a new array, from the farthest apart in memory to the nearest: {0, 1, 2} is C order, {2, 1, 0} F order. */
template <std::size_t R>
struct memory_order {
  std::array<index_t, R> axes;
  explicit constexpr memory_order(const std::array<index_t, R>& order) noexcept : axes(order) {}
  /** @pre as many axes as the array has */
  template <class... Integers>
    requires(sizeof...(Integers) == R && (detail::is_index_word<Integers> && ...))
  explicit constexpr memory_order(Integers... order) noexcept : axes{static_cast<index_t>(order)...} {}
};
template <class... Integers>
  requires(detail::is_index_word<Integers> && ...)
memory_order(Integers...) -> memory_order<sizeof...(Integers)>;

template <class T, std::size_t R>
class ndarray {
  static_assert(std::is_trivially_copyable_v<T> && !std::is_const_v<T>,
                "lora: ndarray holds plain elements (numbers); it never runs constructors or destructors");

 public:
  using element_type = T;
  using value_type = T;
  static constexpr std::size_t rank() noexcept { return R; }

  ndarray() noexcept = default;

  /**
   * Uninitialised elements; zeros() and full() give initialised ones.
   * @throws shape_error when the extents do not fit the address space; std::bad_alloc.
   */
  explicit ndarray(extents<R> shape, order o = order::C) : view_(nullptr, shape, o) {
    memory_ = aligned_bytes(static_cast<std::size_t>(view_.size()) * sizeof(T));
    view_ = ndview<T, R>(static_cast<T*>(memory_.data()), shape, view_.stride());
  }

  /**
   * Uninitialised elements in any memory order without gaps: memory_order{axes} names each axis once, from the farthest apart in memory to the
   * contiguous one. (0, 1, ..., R-1) is C order, the reverse is F order; uninit_like (nd/like.hpp) takes the order of another view.
   * @throws shape_error when `axes` does not name each axis once, or the extents do not fit the address space; std::bad_alloc.
   */
  ndarray(extents<R> shape, memory_order<R> order_of_axes) {
    const std::array<index_t, R>& axes = order_of_axes.axes;
    const strides<R> stride = strides_for(ndview<T, R>(nullptr, shape).permute(axes).shape());
    std::array<index_t, R> steps{};
    for (std::size_t i = 0; i < R; ++i) steps[static_cast<std::size_t>(axes[i])] = stride[i];
    memory_ = aligned_bytes(static_cast<std::size_t>(detail::product(shape.array().data(), R)) * sizeof(T));
    view_ = ndview<T, R>(static_cast<T*>(memory_.data()), shape, strides<R>(steps));
  }

  ndarray(ndarray&& other) noexcept : memory_(std::move(other.memory_)), view_(other.view_) { other.view_ = {}; }
  ndarray& operator=(ndarray&& other) noexcept {
    if (this != &other) {
      memory_ = std::move(other.memory_);
      view_ = other.view_;
      other.view_ = {};
    }
    return *this;
  }
  ndarray(const ndarray&) = delete;
  ndarray& operator=(const ndarray&) = delete;

  /** A second array with the same elements and the same memory order. */
  [[nodiscard]] ndarray clone() const {
    ndarray a;
    a.memory_ = aligned_bytes(memory_.size());
    if (memory_.size() != 0) __builtin_memcpy(a.memory_.data(), memory_.data(), memory_.size());
    a.view_ = ndview<T, R>(static_cast<T*>(a.memory_.data()), view_.shape(), view_.stride());
    return a;
  }

  [[nodiscard]] ndview<T, R> view() & noexcept LORA_LIFETIMEBOUND { return view_; }
  [[nodiscard]] ndview<const T, R> view() const& noexcept LORA_LIFETIMEBOUND { return view_; }
  void view() && = delete;       // lora: a view of a temporary array would dangle; name the array
  void view() const&& = delete;  // lora: a view of a temporary array would dangle; name the array

  operator ndview<T, R>() & noexcept LORA_LIFETIMEBOUND { return view_; }
  operator ndview<const T, R>() const& noexcept LORA_LIFETIMEBOUND { return view_; }
  operator ndview<T, R>() && = delete;             // lora: a view of a temporary array would dangle; name the array
  operator ndview<const T, R>() const&& = delete;  // lora: a view of a temporary array would dangle; name the array

  /** As ndview: an element for R integers, otherwise a view. */
  template <int Checks = LORA_CHECKS, class... S>
    requires(detail::slices<R, S...>)
  [[nodiscard]] decltype(auto) operator()(const S&... words) & LORA_LIFETIMEBOUND {
    return view_.template operator()<Checks>(words...);
  }
  template <int Checks = LORA_CHECKS, class... S>
    requires(detail::slices<R, S...>)
  [[nodiscard]] decltype(auto) operator()(const S&... words) const& LORA_LIFETIMEBOUND {
    return ndview<const T, R>(view_).template operator()<Checks>(words...);
  }
  template <class... S>
    requires(detail::slices<R, S...>)
  void operator()(const S&...) && = delete;  // lora: a slice of a temporary array would dangle; name the array
  template <class... S>
    requires(detail::slices<R, S...>)
  void operator()(const S&...) const&& = delete;  // lora: a slice of a temporary array would dangle; name the array
  template <class... S>
    requires(!detail::slice_words<S...>::valid)
  void operator()(const S&...) const& = delete;  // lora: the words of a slice are integers, range, all, newaxis and ellipsis
  template <class... S>
    requires(detail::slice_words<S...>::valid && !detail::slices<R, S...>)
  void operator()(const S&...) const& = delete;  // lora: more indices than the array has axes, or a second ellipsis

  /** Only for rank 1: in C++20 a[i, j] on a higher rank would compile and mean a[j]. */
  template <int Checks = LORA_CHECKS>
      [[nodiscard]] T& operator[](index_t i) & LORA_LIFETIMEBOUND
        requires(R == 1)
  {
    return view_.template operator[]<Checks>(i);
  }
  template <int Checks = LORA_CHECKS>
  [[nodiscard]] const T& operator[](index_t i) const& LORA_LIFETIMEBOUND
    requires(R == 1)
  {
    return view_.template operator[]<Checks>(i);
  }
  void operator[](index_t) && = delete;       // lora: an element of a temporary array would dangle; name the array
  void operator[](index_t) const&& = delete;  // lora: an element of a temporary array would dangle; name the array
  template <class Index>
    requires(R != 1)
  void operator[](const Index&) const& = delete;  // lora: in C++20 a[i, j] means a[j]; write a(i, j)

  [[nodiscard]] T* data() & noexcept LORA_LIFETIMEBOUND { return view_.data(); }
  [[nodiscard]] const T* data() const& noexcept LORA_LIFETIMEBOUND { return view_.data(); }
  void data() && = delete;       // lora: a pointer into a temporary array would dangle; name the array
  void data() const&& = delete;  // lora: a pointer into a temporary array would dangle; name the array

  [[nodiscard]] const extents<R>& shape() const& noexcept { return view_.shape(); }
  [[nodiscard]] extents<R> shape() const&& noexcept { return view_.shape(); }
  [[nodiscard]] const strides<R>& stride() const& noexcept { return view_.stride(); }
  [[nodiscard]] strides<R> stride() const&& noexcept { return view_.stride(); }
  /** Of one axis; -1 is the last. */
  template <class Integer>
  [[nodiscard]] index_t extent(Integer axis) const noexcept {
    return view_.extent(axis);
  }
  template <class Integer>
  [[nodiscard]] index_t stride(Integer axis) const noexcept {
    return view_.stride(axis);
  }
  [[nodiscard]] index_t size() const noexcept { return view_.size(); }
  [[nodiscard]] bool empty() const noexcept { return view_.empty(); }
  [[nodiscard]] bool is_contiguous(order o = order::C) const noexcept { return view_.is_contiguous(o); }

  /** As ndview: a view with the axes in reverse order, the element with its indices checked. */
  [[nodiscard]] ndview<T, R> transpose() & noexcept LORA_LIFETIMEBOUND { return view_.transpose(); }
  [[nodiscard]] ndview<const T, R> transpose() const& noexcept LORA_LIFETIMEBOUND { return view_.transpose(); }
  void transpose() && = delete;       // lora: a view of a temporary array would dangle; name the array
  void transpose() const&& = delete;  // lora: a view of a temporary array would dangle; name the array
  template <class... Integers>
      [[nodiscard]] T& at(Integers... indices) & LORA_LIFETIMEBOUND {
    return view_.at(indices...);
  }
  template <class... Integers>
  [[nodiscard]] const T& at(Integers... indices) const& LORA_LIFETIMEBOUND {
    return view_.at(indices...);
  }

 private:
  aligned_bytes memory_;
  ndview<T, R> view_;
};

/** Uninitialised array. */
template <class T, std::size_t R>
[[nodiscard]] ndarray<T, R> uninit(extents<R> shape, order o = order::C) {
  return ndarray<T, R>(shape, o);
}
template <class T, class... Integers>
  requires(sizeof...(Integers) > 0 && (std::is_integral_v<Integers> && ...))
[[nodiscard]] ndarray<T, sizeof...(Integers)> uninit(Integers... shape) {
  return ndarray<T, sizeof...(Integers)>(extents<sizeof...(Integers)>(shape...));
}

/** Array with every element equal to `value`. */
template <class T, std::size_t R>
[[nodiscard]] ndarray<T, R> full(extents<R> shape, T value, order o = order::C) {
  ndarray<T, R> a(shape, o);
  T* p = a.data();
  for (index_t i = 0, n = a.size(); i < n; ++i) p[i] = value;
  return a;
}

/** Array with every element zero. */
template <class T, std::size_t R>
[[nodiscard]] ndarray<T, R> zeros(extents<R> shape, order o = order::C) {
  return full<T, R>(shape, T{}, o);
}
template <class T, class... Integers>
  requires(sizeof...(Integers) > 0 && (std::is_integral_v<Integers> && ...))
[[nodiscard]] ndarray<T, sizeof...(Integers)> zeros(Integers... shape) {
  return zeros<T>(extents<sizeof...(Integers)>(shape...));
}

namespace detail {

// What the operations on elements accept, as a view: a view, or an array (a temporary one too: it lives until the call returns).
template <class T, std::size_t R>
[[nodiscard]] constexpr ndview<T, R> as_view(const ndview<T, R>& v) noexcept {
  return v;
}
template <class T, std::size_t R>
[[nodiscard]] ndview<T, R> as_view(ndarray<T, R>& a) noexcept {
  return a.view();
}
template <class T, std::size_t R>
[[nodiscard]] ndview<const T, R> as_view(const ndarray<T, R>& a) noexcept {
  return a.view();
}

template <class V>
concept viewable = requires(V& v) { as_view(v); };

template <class V>
inline constexpr bool is_array = false;
template <class T, std::size_t R>
inline constexpr bool is_array<ndarray<T, R>> = true;

/** What the operations write to. V is deduced by V&&: not a temporary array, whose elements would be lost with it. */
template <class V>
concept named_array_or_view = viewable<V> && (std::is_lvalue_reference_v<V> || !is_array<std::remove_cv_t<V>>);

}  // namespace detail
}  // namespace lora::inline v0

#endif
