// SPDX-License-Identifier: Apache-2.0
//
// copy: moves elements from one view to another of the same shape and element type; the views may overlap in any way. contiguous and
// clone: copies that own their memory. Conversions between element types are in ops/cast.hpp.
//
//   lora::copy(a(lora::range(0, 2)), a(lora::range(2, 4)));    // from, to
//   auto c = lora::contiguous(w.transpose());                  // ndarray, C order
#ifndef LORA_OPS_COPY_HPP
#define LORA_OPS_COPY_HPP

#include <lora/nd/array.hpp>
#include <lora/nd/loop.hpp>
#include <lora/nd/overlap.hpp>

namespace lora::inline v0 {

namespace detail {

[[noreturn, gnu::cold, gnu::noinline]] inline void raise_copy_shape(const char* what, const index_t* from, const index_t* to,
                                                                    std::size_t rank) {
  text t;
  t << what << ": from is " << shape_text{from, rank} << " but to is " << shape_text{to, rank};
  raise<shape_error>(t);
}

[[noreturn, gnu::cold, gnu::noinline]] inline void raise_copy_target(const index_t* shape, const index_t* stride, std::size_t rank) {
  text t;
  t << "copy: elements of the destination share addresses: shape " << shape_text{shape, rank} << ", strides " << shape_text{stride, rank};
  raise<shape_error>(t);
}

/**
 * Copies a block of elements of Width bytes. Elements are taken one after another and each is read whole before it is written, so that a
 * walk in the right direction may overlap; a contiguous row is one memmove.
 */
template <std::size_t Width>
void copy_block(const loop_block<2>& b, char* to, const char* from) noexcept {
  constexpr auto width = static_cast<index_t>(Width);
  // Below this many bytes a call of memmove costs more than the loop.
  constexpr index_t short_row = 64;
  const bool forward = b.stride[0] == 1 && b.stride[1] == 1;
  const bool backward = b.stride[0] == -1 && b.stride[1] == -1;
  const index_t row_bytes = b.count * width;
  const bool whole_rows = (forward || backward) && (row_bytes >= short_row || b.rows == 1);
  for (index_t r = 0; r < b.rows; ++r) {
    char* const t = to + (b.offset[0] + r * b.row_stride[0]) * width;
    const char* const f = from + (b.offset[1] + r * b.row_stride[1]) * width;
    if (whole_rows) {
      const index_t first = forward ? 0 : (b.count - 1) * width;
      __builtin_memmove(t - first, f - first, static_cast<std::size_t>(row_bytes));
    } else {
      for (index_t i = 0; i < b.count; ++i) {
        alignas(16) char element[Width];
        __builtin_memcpy(element, f + i * b.stride[1] * width, Width);
        __builtin_memcpy(t + i * b.stride[0] * width, element, Width);
      }
    }
  }
}

template <std::size_t Width>
void copy_planned(const loop_plan<2>& plan, void* to, const void* from) noexcept {
  plan.for_each_block([&](const loop_block<2>& b) { copy_block<Width>(b, static_cast<char*>(to), static_cast<const char*>(from)); });
}

/** Shapes are equal. */
template <class T, std::size_t R>
void copy_views(const ndview<const T, R>& from, const ndview<T, R>& to) {
  if (may_overlap_itself(to)) raise_copy_target(to.shape().array().data(), to.stride().array().data(), R);
  if (same_elements(from, to)) return;
  loop_plan<2> plan(to.shape(), to.stride(), from.stride());
  if (!may_overlap(from, to)) return copy_planned<sizeof(T)>(plan, to.data(), from.data());

  bool same_steps = true;
  for (std::size_t axis = 0; axis < plan.rank(); ++axis) same_steps = same_steps && plan.stride(axis, 0) == plan.stride(axis, 1);
  if (same_steps) {
    // The destination is the source moved as a whole. Its strides are nested and now positive (an axis that is negative for both was
    // turned round), so the plan walks in the order of addresses, and away from the destination nothing is overwritten before it is read.
    if (to.data() + plan.offset(0) > from.data() + plan.offset(1)) plan.reverse();
    return copy_planned<sizeof(T)>(plan, to.data(), from.data());
  }
  ndarray<T, R> between(from.shape());
  copy_planned<sizeof(T)>(loop_plan<2>(from.shape(), between.stride(), from.stride()), between.data(), from.data());
  copy_planned<sizeof(T)>(loop_plan<2>(from.shape(), to.stride(), between.stride()), to.data(), between.data());
}

}  // namespace detail

/**
 * Copies the elements of `from` to the same positions of `to`.
 *
 * @param from  view or ndarray
 * @param to    view or ndarray of the same shape and element type; may overlap `from` in any way: afterwards it holds what `from` held
 *              before. No two of its own elements may share an address.
 * @throws shape_error naming both shapes when they differ, or when `to` overlaps itself; nothing is written then. std::bad_alloc.
 * @par Cost      One pass; memmove where both are contiguous. A temporary of from's size only when the two overlap and have different
 *                strides (a matrix onto its own transpose); a shift within one array needs none.
 * @par Threads   Safe beside any call that writes neither and reads no element of `to`.
 */
template <detail::viewable From, detail::viewable To>
void copy(const From& from, To&& to) {
  using source = decltype(detail::as_view(from));
  using target = decltype(detail::as_view(to));
  using T = typename target::value_type;
  static_assert(!std::is_const_v<typename target::element_type>, "lora: copy writes to a read-only view (const elements, or a broadcast)");
  static_assert(std::is_same_v<typename source::value_type, T>, "lora: copy keeps the element type; cast (ops/cast.hpp) converts");
  static_assert(source::rank() == target::rank(), "lora: copy takes two views of one rank; slice or reshape one of them");
  const source f = detail::as_view(from);
  const target t = detail::as_view(to);
  if (!(f.shape() == t.shape())) detail::raise_copy_shape("copy", f.shape().array().data(), t.shape().array().data(), target::rank());
  detail::copy_views<T, target::rank()>(f, t);
}

/**
 * A copy in C order, whatever the layout of `from`. Always copies, also when `from` is contiguous already (is_contiguous() tells).
 * @throws std::bad_alloc.
 */
template <detail::viewable From>
[[nodiscard]] auto contiguous(const From& from) {
  using source = decltype(detail::as_view(from));
  ndarray<typename source::value_type, source::rank()> a(detail::as_view(from).shape());
  copy(from, a);
  return a;
}

/** A copy that keeps the memory order: F order where `from` is contiguous in F order only, else C order. @throws std::bad_alloc. */
template <detail::viewable From>
[[nodiscard]] auto clone(const From& from) {
  const auto view = detail::as_view(from);
  using source = decltype(detail::as_view(from));
  const bool f_order = view.is_contiguous(order::F) && !view.is_contiguous(order::C);
  ndarray<typename source::value_type, source::rank()> a(view.shape(), f_order ? order::F : order::C);
  copy(from, a);
  return a;
}

}  // namespace lora::inline v0

#endif
