// SPDX-License-Identifier: Apache-2.0
//
// Whether two views touch the same memory. An operation that writes asks this before its first write. The answer is exact for every
// view that slicing, transposing and broadcasting can make, the two halves of a matrix's columns included; only strides made by hand
// can exceed the bound on the work, and then the answer is the careful one.
//
//   lora::may_overlap(a(lora::all, lora::range(0, 4)), a(lora::all, lora::range(4, 8)));   // false, although their spans interleave
#ifndef LORA_ND_OVERLAP_HPP
#define LORA_ND_OVERLAP_HPP

#include <lora/nd/view.hpp>

#include <cstdint>

namespace lora::inline v0 {

namespace detail {

/** A view with its element type taken away: what a question about addresses needs. */
struct footprint {
  std::uintptr_t address;
  index_t width;  // bytes of an element
  const index_t* shape;
  const index_t* stride;
  std::size_t rank;
};

template <class T, std::size_t R>
[[nodiscard]] footprint footprint_of(const ndview<T, R>& v) noexcept {
  static_assert(R <= max_rank, "lora: operations on elements take views of at most 8 axes; reshape the view first");
  return {reinterpret_cast<std::uintptr_t>(v.data()), static_cast<index_t>(sizeof(T)), v.shape().array().data(), v.stride().array().data(),
          R};
}

/**
 * Searches for multiples 0 <= x[k] <= limit[k] with low <= sum of step[k] * x[k] <= high. Steps are positive and descending. For nested
 * strides each level leaves one or two candidates; the general problem is a knapsack, so the work is bounded.
 */
struct step_search {
  index_t step[2 * max_rank] = {};  // zeroed: inlined at a known rank, g++ 12 warns of their unused ends in the caller's file
  index_t limit[2 * max_rank] = {};
  index_t reach[2 * max_rank + 1];    // largest sum of the steps from k on
  index_t divisor[2 * max_rank + 1];  // greatest common divisor of the steps from k on
  std::size_t count = 0;
  int budget = 2000;

  void add(index_t s, index_t n) noexcept {
    std::size_t at = 0;
    while (at < count && step[at] > s) ++at;
    if (at < count && step[at] == s) {  // x + y with separate limits takes every value up to their sum
      limit[at] += n;
      return;
    }
    for (std::size_t i = count; i > at; --i) {
      step[i] = step[i - 1];
      limit[i] = limit[i - 1];
    }
    step[at] = s;
    limit[at] = n;
    ++count;
  }

  [[nodiscard]] bool solvable(index_t low, index_t high) noexcept {
    reach[count] = 0;
    divisor[count] = 0;
    for (std::size_t k = count; k-- > 0;) {
      reach[k] = reach[k + 1] + step[k] * limit[k];
      index_t a = step[k];
      for (index_t b = divisor[k + 1]; b != 0;) {
        const index_t rest = a % b;
        a = b;
        b = rest;
      }
      divisor[k] = a;
    }
    return solvable_from(0, low, high);
  }

 private:
  [[nodiscard]] bool solvable_from(std::size_t k, index_t low, index_t high) noexcept {
    if (--budget < 0) return true;
    if (high < 0 || low > reach[k]) return false;
    if (low <= 0 || high >= reach[k]) return true;                              // all x at 0, or all at their limits
    if ((low + divisor[k] - 1) / divisor[k] * divisor[k] > high) return false;  // no multiple of the divisor in between
    index_t x = low <= reach[k + 1] ? 0 : (low - reach[k + 1] + step[k] - 1) / step[k];
    for (; x <= limit[k] && step[k] * x <= high; ++x)
      if (solvable_from(k + 1, low - step[k] * x, high - step[k] * x)) return true;
    return false;
  }
};

[[nodiscard]] inline bool may_overlap(const footprint& a, const footprint& b) noexcept {
  const auto sa = span_of(a.shape, a.stride, a.rank);
  const auto sb = span_of(b.shape, b.stride, b.rank);
  if ((sa.fits && sa.size == 0) || (sb.fits && sb.size == 0)) return false;
  index_t bytes_a = 0;
  index_t bytes_b = 0;
  index_t both = 0;
  if (!sa.fits || !sb.fits || !checked_mul(sa.size, a.width, bytes_a) || !checked_mul(sb.size, b.width, bytes_b) ||
      !checked_add(bytes_a, bytes_b, both))
    return true;
  // Distance from the lowest byte of b to the lowest byte of a. Addresses of one process differ by less than PTRDIFF_MAX.
  const auto distance = static_cast<index_t>((a.address - static_cast<std::uintptr_t>(sa.below * a.width)) -
                                             (b.address - static_cast<std::uintptr_t>(sb.below * b.width)));
  if (distance >= bytes_b || -distance >= bytes_a) return false;
  // Elements share a byte when -width_a < (address in a) - (address in b) < width_b. Counting b's axes from their far ends turns its
  // terms positive and moves the bounds by b's reach.
  step_search search;
  for (std::size_t i = 0; i < a.rank; ++i)
    if (a.shape[i] > 1 && a.stride[i] != 0) search.add((a.stride[i] < 0 ? -a.stride[i] : a.stride[i]) * a.width, a.shape[i] - 1);
  for (std::size_t i = 0; i < b.rank; ++i)
    if (b.shape[i] > 1 && b.stride[i] != 0) search.add((b.stride[i] < 0 ? -b.stride[i] : b.stride[i]) * b.width, b.shape[i] - 1);
  const index_t shift = (bytes_b - b.width) - distance;
  return search.solvable(shift - (a.width - 1), shift + (b.width - 1));
}

/** Nested strides: sorted, each is longer than everything inside it. True for all slices of an ordinary array. */
[[nodiscard]] inline bool may_overlap_itself(const index_t* shape, const index_t* stride, std::size_t rank) noexcept {
  index_t step[max_rank];
  index_t last[max_rank];
  std::size_t axes = 0;
  for (std::size_t i = 0; i < rank; ++i) {
    if (shape[i] == 0) return false;
    if (shape[i] == 1) continue;
    if (stride[i] == PTRDIFF_MIN) return true;
    const index_t s = stride[i] < 0 ? -stride[i] : stride[i];
    std::size_t at = axes++;
    for (; at > 0 && step[at - 1] > s; --at) {
      step[at] = step[at - 1];
      last[at] = last[at - 1];
    }
    step[at] = s;
    last[at] = shape[i] - 1;
  }
  index_t reach = 0;
  for (std::size_t i = 0; i < axes; ++i) {
    index_t add = 0;
    if (step[i] <= reach || !checked_mul(step[i], last[i], add) || !checked_add(reach, add, reach)) return true;
  }
  return false;
}

}  // namespace detail

/** Whether some byte belongs to an element of each view. May say true for strides made by hand that no slicing gives. */
template <class A, std::size_t RA, class B, std::size_t RB>
[[nodiscard]] bool may_overlap(const ndview<A, RA>& a, const ndview<B, RB>& b) noexcept {
  return detail::may_overlap(detail::footprint_of(a), detail::footprint_of(b));
}

/**
 * Whether two elements of the view may share an address, which makes it unfit to be written by an element-wise operation. True for a
 * stride of 0 along more than one element, and for strides made by hand that are not nested.
 */
template <class T, std::size_t R>
[[nodiscard]] bool may_overlap_itself(const ndview<T, R>& v) noexcept {
  static_assert(R <= max_rank, "lora: operations on elements take views of at most 8 axes; reshape the view first");
  return detail::may_overlap_itself(v.shape().array().data(), v.stride().array().data(), R);
}

/** Whether the views have the same type, shape and elements at the same addresses. Strides of axes of length 1 do not count. */
template <class A, class B, std::size_t R>
[[nodiscard]] bool same_elements(const ndview<A, R>& a, const ndview<B, R>& b) noexcept {
  if (!std::is_same_v<std::remove_cv_t<A>, std::remove_cv_t<B>> || !(a.shape() == b.shape())) return false;
  if (a.empty()) return true;
  if (static_cast<const void*>(a.data()) != static_cast<const void*>(b.data())) return false;
  for (std::size_t i = 0; i < R; ++i)
    if (a.extent(i) > 1 && a.stride(i) != b.stride(i)) return false;
  return true;
}

}  // namespace lora::inline v0

#endif
