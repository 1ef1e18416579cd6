// SPDX-License-Identifier: Apache-2.0
//
// float_view<R>: a read-only view of R axes whose elements are float, bfloat16 or float16, which of them being known at run time only.
// It is what the small operands of a product are given as (A, B, a bias), so that adapters of different types meet in one call; the
// large ones (W, x, y) are ordinary ndviews.
//
//   lora::float_view<2> a = view_of_bfloat16;       // from any ndview or named ndarray of the three
//   if (a.type() == lora::dtype::f32) use(a.as<float>());
#ifndef LORA_ND_FLOAT_VIEW_HPP
#define LORA_ND_FLOAT_VIEW_HPP

#include <lora/core/dtype.hpp>
#include <lora/nd/view.hpp>

namespace lora::inline v0 {

/** The element types that products compute with: float, bfloat16 and float16. */
template <class T>
concept float_element = std::is_same_v<std::remove_cv_t<T>, float> || std::is_same_v<std::remove_cv_t<T>, bfloat16> ||
                        std::is_same_v<std::remove_cv_t<T>, float16>;

template <class T, std::size_t R>
class ndarray;

/** {pointer, type, R extents, R strides}; trivially copyable, owns nothing. Default-constructed it views nothing (data() is null). */
template <std::size_t R>
class float_view {
 public:
  static constexpr std::size_t rank() noexcept { return R; }

  constexpr float_view() noexcept = default;

  /** As the constructors of ndview. */
  template <float_element T>
  constexpr float_view(const T* data, extents<R> shape, order o = order::C) : float_view(ndview<const T, R>(data, shape, o)) {}
  template <float_element T>
  constexpr float_view(const T* data, extents<R> shape, strides<R> stride) : float_view(ndview<const T, R>(data, shape, stride)) {}

  template <float_element T>
  constexpr float_view(const ndview<T, R>& v) noexcept : data_(v.data()), shape_(v.shape()), strides_(v.stride()), type_(dtype_of<T>) {}
  template <float_element T>
  float_view(const ndarray<T, R>& a LORA_LIFETIMEBOUND) noexcept : float_view(a.view()) {}
  template <float_element T>
  float_view(ndarray<T, R>&& a) = delete;  // lora: a view of a temporary array would dangle; name the array

  [[nodiscard]] constexpr const void* data() const noexcept { return data_; }
  /** f32, bf16 or f16. */
  [[nodiscard]] constexpr dtype type() const noexcept { return type_; }
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
  [[nodiscard]] constexpr index_t size() const noexcept { return detail::product(shape_.array().data(), R); }
  [[nodiscard]] constexpr bool empty() const noexcept { return size() == 0; }

  /** The typed view. @throws dtype_error naming both types when the elements are others. */
  template <float_element T>
  [[nodiscard]] constexpr ndview<const T, R> as() const {
    if (type_ != dtype_of<T>)
      detail::raise<dtype_error>(detail::text() << "elements of type " << name_of(type_) << " were asked for as " << name_of(dtype_of<T>));
    return {static_cast<const T*>(data_), shape_, strides_};
  }

  /** Calls f with the typed view. */
  template <class F>
  constexpr decltype(auto) visit(F&& f) const {
    if (type_ == dtype::bf16) return f(as<bfloat16>());
    if (type_ == dtype::f16) return f(as<float16>());
    return f(as<float>());
  }

  /** One element, widened (exact). For tests and rare looks: unchecked, and the type is asked for each time. */
  template <class... Integers>
    requires(sizeof...(Integers) == R && (detail::is_index_word<Integers> && ...))
  [[nodiscard]] constexpr float operator()(Integers... indices) const {
    return visit([&](const auto& v) { return static_cast<float>(v(indices...)); });
  }

 private:
  const void* data_ = nullptr;
  extents<R> shape_{};
  strides<R> strides_{};
  dtype type_ = dtype::f32;
};

}  // namespace lora::inline v0

#endif
