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
#include <lora/nd/like.hpp>
#include <lora/nd/loop.hpp>
#include <lora/nd/overlap.hpp>
#include <lora/simd/transpose.hpp>

namespace lora::inline v0 {

namespace detail::inline LORA_ISA_TAG {

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
 * One row of Count * Size to (Count + 1) * Size bytes, both included: pieces from its start, and one that ends where it ends. Everything is read
 * before anything is written, as memmove does.
 */
template <std::size_t Size, std::size_t Count>
LORA_ALWAYS_INLINE void copy_pieces(char* to, const char* from, std::size_t bytes) noexcept {
  typedef unsigned char piece __attribute__((vector_size(Size)));  // in registers: g++ 12 takes arrays of bytes through the stack
  piece head[Count];
  piece tail;
#pragma GCC unroll 8
  for (std::size_t i = 0; i < Count; ++i) __builtin_memcpy(&head[i], from + i * Size, Size);
  __builtin_memcpy(&tail, from + bytes - Size, Size);
#pragma GCC unroll 8
  for (std::size_t i = 0; i < Count; ++i) __builtin_memcpy(to + i * Size, &head[i], Size);
  __builtin_memcpy(to + bytes - Size, &tail, Size);
}

/** Rows of contiguous bytes; strides in bytes. The choice of the loop is made once for all of them: a call of memmove a row costs more. */
inline void copy_rows(index_t rows, char* to, index_t to_stride, const char* from, index_t from_stride, std::size_t bytes) noexcept {
  const auto each = [&](auto one_row) {
    for (index_t r = 0; r < rows; ++r) one_row(to + r * to_stride, from + r * from_stride);
  };
  if (bytes > 128) return each([=](char* t, const char* f) { __builtin_memmove(t, f, bytes); });
  if (bytes > 112) return each([=](char* t, const char* f) { copy_pieces<16, 7>(t, f, bytes); });
  if (bytes > 96) return each([=](char* t, const char* f) { copy_pieces<16, 6>(t, f, bytes); });
  if (bytes > 80) return each([=](char* t, const char* f) { copy_pieces<16, 5>(t, f, bytes); });
  if (bytes > 64) return each([=](char* t, const char* f) { copy_pieces<16, 4>(t, f, bytes); });
  if (bytes > 48) return each([=](char* t, const char* f) { copy_pieces<16, 3>(t, f, bytes); });
  if (bytes > 32) return each([=](char* t, const char* f) { copy_pieces<16, 2>(t, f, bytes); });
  if (bytes >= 16) return each([=](char* t, const char* f) { copy_pieces<16, 1>(t, f, bytes); });
  if (bytes >= 8) return each([=](char* t, const char* f) { copy_pieces<8, 1>(t, f, bytes); });
  if (bytes >= 4) return each([=](char* t, const char* f) { copy_pieces<4, 1>(t, f, bytes); });
  if (bytes >= 2) return each([=](char* t, const char* f) { copy_pieces<2, 1>(t, f, bytes); });
  each([=](char* t, const char* f) { *t = *f; });
}

/**
 * Copies a block of elements of Width bytes. Elements, or rows where these are contiguous, are taken one after another and each is read whole
 * before it is written, so that a walk in the right direction may overlap.
 */
template <std::size_t Width>
void copy_block(const loop_block<2>& b, char* to, const char* from) noexcept {
  constexpr auto width = static_cast<index_t>(Width);
  to += b.offset[0] * width;
  from += b.offset[1] * width;
  const bool forward = b.stride[0] == 1 && b.stride[1] == 1;
  const bool backward = b.stride[0] == -1 && b.stride[1] == -1;
  if (forward || backward) {
    const index_t first = forward ? 0 : (b.count - 1) * width;
    return copy_rows(b.rows, to - first, b.row_stride[0] * width, from - first, b.row_stride[1] * width,
                     static_cast<std::size_t>(b.count * width));
  }
  const index_t to_step = b.stride[0] * width;
  const index_t from_step = b.stride[1] * width;
  for (index_t r = 0; r < b.rows; ++r) {
    char* t = to + r * b.row_stride[0] * width;
    const char* f = from + r * b.row_stride[1] * width;
    for (index_t i = 0; i < b.count; ++i, t += to_step, f += from_step) {
      alignas(16) char element[Width];
      __builtin_memcpy(element, f, Width);
      __builtin_memcpy(t, element, Width);
    }
  }
}

template <std::size_t Width>
void copy_planned(const loop_plan<2>& plan, void* to, const void* from) noexcept {
  plan.for_each_block([&](const loop_block<2>& b) { copy_block<Width>(b, static_cast<char*>(to), static_cast<const char*>(from)); });
}

/**
 * Whether the destination is contiguous along axis 0 of the plan and the source along another one, returned in `axis`: a transposition, which
 * a walk in anyone's order does badly. Not for a few elements, which the walk does as fast.
 */
[[nodiscard]] inline bool is_transposition(const loop_plan<2>& plan, std::size_t& axis) noexcept {
  const auto unit = [](index_t stride) { return stride == 1 || stride == -1; };
  if (plan.rank() < 2 || !unit(plan.stride(0, 0)) || unit(plan.stride(0, 1))) return false;
  for (axis = 1; axis < plan.rank(); ++axis)
    if (unit(plan.stride(axis, 1))) return plan.extent(0) >= 4 && plan.extent(axis) >= 4;
  return false;
}

/** Source and destination are apart. `axis` is from is_transposition. */
template <std::size_t Width, class Isa = simd::isa_tag>
void copy_transposed(const loop_plan<2>& plan, std::size_t axis, void* to, const void* from) noexcept {
  constexpr auto width = static_cast<index_t>(Width);
  auto* t = static_cast<char*>(to) + plan.offset(0) * width;
  const auto* f = static_cast<const char*>(from) + plan.offset(1) * width;
  const index_t rows = plan.extent(0);
  const index_t columns = plan.extent(axis);
  index_t to_step = plan.stride(axis, 0) * width;
  index_t from_step = plan.stride(0, 1) * width;
  // An axis on which the contiguous side runs backwards is walked from its other end.
  if (plan.stride(0, 0) < 0) {
    t -= (rows - 1) * width;
    f += (rows - 1) * from_step;
    from_step = -from_step;
  }
  if (plan.stride(axis, 1) < 0) {
    f -= (columns - 1) * width;
    t += (columns - 1) * to_step;
    to_step = -to_step;
  }
  index_t size = width;
  for (std::size_t k = 0; k < plan.rank(); ++k) size *= plan.extent(k);
  const bool stream = static_cast<std::size_t>(size) >= simd::stream_from;
  index_t position[max_rank] = {};
  for (;;) {
    simd::transpose<static_cast<int>(Width)>(f, from_step, t, to_step, rows, columns, stream);
    std::size_t k = 1;
    for (; k < plan.rank(); ++k) {
      if (k == axis) continue;
      t += plan.stride(k, 0) * width;
      f += plan.stride(k, 1) * width;
      if (++position[k] != plan.extent(k)) break;
      position[k] = 0;
      t -= plan.stride(k, 0) * width * plan.extent(k);
      f -= plan.stride(k, 1) * width * plan.extent(k);
    }
    if (k >= plan.rank()) return;
  }
}

/** Source and destination are apart. */
template <std::size_t Width>
void copy_apart(const loop_plan<2>& plan, void* to, const void* from) noexcept {
  if constexpr (Width == 1 || Width == 2 || Width == 4 || Width == 8) {
    std::size_t axis = 0;
    if (!plan.empty() && is_transposition(plan, axis)) return copy_transposed<Width>(plan, axis, to, from);
  }
  copy_planned<Width>(plan, to, from);
}

/** Shapes are equal. */
template <class T, std::size_t R>
void copy_views(const ndview<const T, R>& from, const ndview<T, R>& to) {
  if (to.is_contiguous() && from.is_contiguous()) {  // some nanoseconds, and memmove takes any overlap
    if (!to.empty()) __builtin_memmove(static_cast<void*>(to.data()), from.data(), static_cast<std::size_t>(to.size()) * sizeof(T));
    return;
  }
  if (may_overlap_itself(to)) raise_copy_target(to.shape().array().data(), to.stride().array().data(), R);
  if (same_elements(from, to)) return;
  loop_plan<2> plan(to.shape(), to.stride(), from.stride());
  if (!may_overlap(from, to)) return copy_apart<sizeof(T)>(plan, to.data(), from.data());

  bool same_steps = true;
  for (std::size_t axis = 0; axis < plan.rank(); ++axis) same_steps = same_steps && plan.stride(axis, 0) == plan.stride(axis, 1);
  if (same_steps) {
    // The destination is the source moved as a whole. Its strides are nested and now positive (an axis that is negative for both was
    // turned round), so the plan walks in the order of addresses, and away from the destination nothing is overwritten before it is read.
    if (to.data() + plan.offset(0) > from.data() + plan.offset(1)) plan.reverse();
    return copy_planned<sizeof(T)>(plan, to.data(), from.data());
  }
  ndarray<T, R> between(from.shape());
  copy_apart<sizeof(T)>(loop_plan<2>(from.shape(), between.stride(), from.stride()), between.data(), from.data());
  copy_apart<sizeof(T)>(loop_plan<2>(from.shape(), to.stride(), between.stride()), to.data(), between.data());
}

}  // namespace detail::inline LORA_ISA_TAG

inline namespace LORA_ISA_TAG {

/**
 * Copies the elements of `from` to the same positions of `to`.
 *
 * @param from  view or ndarray
 * @param to    view or ndarray of the same shape and element type; may overlap `from` in any way: afterwards it holds what `from` held
 *              before. No two of its own elements may share an address.
 * @throws shape_error naming both shapes when they differ, or when `to` overlaps itself; nothing is written then. std::bad_alloc.
 * @par Cost      One pass; memmove where both are contiguous, tiles in registers where one is the other's transpose (elements of 1, 2, 4 and 8
 *                bytes, any two axes). A temporary of from's size only when the two overlap and have different
 *                strides (a matrix onto its own transpose); a shift within one array needs none.
 * @par Threads   Safe beside any call that writes neither and reads no element of `to`.
 */
template <detail::viewable From, detail::named_array_or_view To>
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

/** A copy in the memory order of `from`, without its gaps, as NumPy's copy(order='K') lays it out. @throws std::bad_alloc. */
template <detail::viewable From>
[[nodiscard]] auto clone(const From& from) {
  auto a = uninit_like(from);
  copy(from, a);
  return a;
}

}  // namespace LORA_ISA_TAG
}  // namespace lora::inline v0

#endif
