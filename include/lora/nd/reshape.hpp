// SPDX-License-Identifier: Apache-2.0
//
// reshape and try_reshape: the same elements under another shape, in logical C order (the last axis runs fastest, whatever the memory
// order), and never by a copy. reshape throws where only a copy could do it; try_reshape then gives nothing, so that the caller says
// whether to copy.
//
//   auto m = lora::reshape(t, n, -1);                                     // [n, the rest]
//   if (auto f = lora::try_reshape(s, lora::extents{20})) use(*f);        // s is a strided slice
//   else { auto c = lora::contiguous(s); use(lora::reshape(c, 20)); }     // ops/copy.hpp
#ifndef LORA_ND_RESHAPE_HPP
#define LORA_ND_RESHAPE_HPP

#include <lora/nd/broadcast.hpp>
#include <lora/nd/view.hpp>

#include <optional>

namespace lora::inline v0 {

namespace detail {

[[noreturn, gnu::cold, gnu::noinline]] inline void raise_reshape(const index_t* shape, std::size_t rank, const index_t* wanted,
                                                                 std::size_t wanted_rank, const char* why) {
  text t;
  t << "reshape: shape " << shape_text{shape, rank} << " does not become " << shape_text{wanted, wanted_rank} << ": " << why;
  raise<shape_error>(t);
}

/** Replaces an extent of -1 and requires the sizes to agree. */
constexpr void resolve_shape(const index_t* shape, std::size_t rank, index_t* wanted, std::size_t wanted_rank) {
  const auto refuse = [&](const char* why) { raise_reshape(shape, rank, wanted, wanted_rank, why); };
  const index_t size = product(shape, rank);
  std::size_t inferred = wanted_rank;
  bool empty = false;
  for (std::size_t i = 0; i < wanted_rank; ++i) {
    if (wanted[i] < -1) refuse("an extent is negative");
    if (wanted[i] == -1) {
      if (inferred != wanted_rank) refuse("only one extent can be -1");
      inferred = i;
    }
    empty = empty || wanted[i] == 0;
  }
  index_t known = 1;
  for (std::size_t i = 0; i < wanted_rank; ++i) {
    // Zeros are left out of the product, as in addressable(): an overflow of the others is an error next to a zero too.
    if (i != inferred && wanted[i] != 0 && !checked_mul(known, wanted[i], known)) refuse("the product of the extents overflows");
  }
  if (empty) known = 0;
  if (inferred != wanted_rank) {
    if (known == 0) refuse("-1 cannot be inferred beside an extent of 0");
    if (size % known != 0) refuse("the sizes differ");
    wanted[inferred] = size / known;
  } else if (size != known) {
    refuse("the sizes differ");
  }
}

/**
 * Strides under the new shape, or false when there are none. Neighbouring old axes that are laid out as one long axis form a run;
 * walking both shapes from the last axis, each new axis must be cut out of a single run, because a run is left only where the
 * distance between neighbours changes.
 */
[[nodiscard]] constexpr bool reshape_strides(const index_t* shape, const index_t* stride, std::size_t rank, const index_t* wanted,
                                             std::size_t wanted_rank, index_t* out_stride) noexcept {
  if (product(shape, rank) == 0) {
    fill_strides(wanted, wanted_rank, order::C, out_stride);
    return true;
  }
  std::size_t next = rank;  // old axes before this one are not taken yet
  index_t left = 1;         // elements of the current run that no new axis has taken
  index_t step = 1;         // distance between neighbours in it
  for (std::size_t i = wanted_rank; i-- > 0;) {
    if (wanted[i] == 1) {
      out_stride[i] = step;  // never walked along; this value keeps contiguous views contiguous by any rule
      continue;
    }
    if (left == 1) {
      while (shape[next - 1] == 1) --next;
      --next;
      step = stride[next];
      left = shape[next];
      index_t joined = 0;  // an overflow only means that the next axis does not join
      while (next > 0 && (shape[next - 1] == 1 || (checked_mul(step, left, joined) && stride[next - 1] == joined))) {
        left *= shape[next - 1];
        --next;
      }
    }
    if (left % wanted[i] != 0) return false;
    out_stride[i] = step;
    (void)checked_mul(step, wanted[i], step);  // can overflow only past the last axis of a run, where it is not used
    left /= wanted[i];
  }
  return true;
}

}  // namespace detail

/**
 * The elements of `v` in logical C order under another shape of the same size, or nothing when that needs a copy.
 *
 * @param v      a view or a named ndarray
 * @param shape  extents<R2>, or R2 integers of which one may be -1 (inferred)
 * @throws shape_error naming both shapes when the sizes differ or -1 cannot be inferred: these are mistakes, not a matter of layout.
 * @par Cost     O(R + R2), no allocation, no element is touched.
 */
template <std::size_t R2, class T, std::size_t R>
[[nodiscard]] constexpr std::optional<ndview<T, R2>> try_reshape(ndview<T, R> v, std::array<index_t, R2> shape) {
  detail::resolve_shape(v.shape().array().data(), R, shape.data(), R2);
  std::array<index_t, R2> stride{};
  if (!detail::reshape_strides(v.shape().array().data(), v.stride().array().data(), R, shape.data(), R2, stride.data()))
    return std::nullopt;
  return ndview<T, R2>(v.data(), extents<R2>(shape), strides<R2>(stride));
}
template <std::size_t R2, class T, std::size_t R>
[[nodiscard]] constexpr std::optional<ndview<T, R2>> try_reshape(ndview<T, R> v, const extents<R2>& shape) {
  return try_reshape(v, shape.array());
}
template <class T, std::size_t R, class... Integers>
  requires(sizeof...(Integers) > 0 && (detail::is_index_word<Integers> && ...))
[[nodiscard]] constexpr auto try_reshape(ndview<T, R> v, Integers... shape) {
  return try_reshape(v, std::array<index_t, sizeof...(Integers)>{detail::to_index(shape, "extent", true)...});
}

/** As try_reshape. @throws shape_error also when only a copy could do it. */
template <std::size_t R2, class T, std::size_t R>
[[nodiscard]] constexpr ndview<T, R2> reshape(ndview<T, R> v, std::array<index_t, R2> shape) {
  detail::resolve_shape(v.shape().array().data(), R, shape.data(), R2);
  std::array<index_t, R2> stride{};
  if (!detail::reshape_strides(v.shape().array().data(), v.stride().array().data(), R, shape.data(), R2, stride.data()))
    detail::raise_reshape(v.shape().array().data(), R, shape.data(), R2, "its memory order would need a copy (contiguous() makes one)");
  return ndview<T, R2>(v.data(), extents<R2>(shape), strides<R2>(stride));
}
template <std::size_t R2, class T, std::size_t R>
[[nodiscard]] constexpr ndview<T, R2> reshape(ndview<T, R> v, const extents<R2>& shape) {
  return reshape(v, shape.array());
}
template <class T, std::size_t R, class... Integers>
  requires(sizeof...(Integers) > 0 && (detail::is_index_word<Integers> && ...))
[[nodiscard]] constexpr auto reshape(ndview<T, R> v, Integers... shape) {
  return reshape(v, std::array<index_t, sizeof...(Integers)>{detail::to_index(shape, "extent", true)...});
}

template <detail::gives_view Owner, class... Shape>
[[nodiscard]] auto try_reshape(Owner& owner LORA_LIFETIMEBOUND, const Shape&... shape) {
  return try_reshape(owner.view(), shape...);
}
template <detail::gives_view Owner, class... Shape>
void try_reshape(const Owner&&, const Shape&...) = delete;  // lora: a view of a temporary array would dangle; name the array
template <detail::gives_view Owner, class... Shape>
[[nodiscard]] auto reshape(Owner& owner LORA_LIFETIMEBOUND, const Shape&... shape) {
  return reshape(owner.view(), shape...);
}
template <detail::gives_view Owner, class... Shape>
void reshape(const Owner&&, const Shape&...) = delete;  // lora: a view of a temporary array would dangle; name the array

}  // namespace lora::inline v0

#endif
