// SPDX-License-Identifier: Apache-2.0
//
// loop_plan: the one way in which the library walks over the elements of several views of one shape. It reduces any layout to few long
// axes before the first element is touched, so that the work itself is a simple loop over a row. Not here: what is done to an element
// (ops/), checks on shapes and overlap (ops/, nd/overlap.hpp), SIMD.
//
//   lora::detail::loop_plan<2> plan(to.shape(), to.stride(), from.stride());   // the output comes first
//   plan.for_each_block([&](const auto& b) { ... });                           // rows of b.count elements
//
// The order in which elements are visited is the plan's own, and not part of any promise.
#ifndef LORA_ND_LOOP_HPP
#define LORA_ND_LOOP_HPP

#include <lora/nd/shape.hpp>

namespace lora::inline v0::detail {

/**
 * Axes of a pass over `operands` views, innermost first. `stride` is [axis][operand], with room for max_rank axes. Returns how many axes
 * are left (0: one element) and sets `empty` when there is nothing to visit.
 *
 * 1. Axes of length 1 are dropped. 2. An axis on which no operand has a positive stride is walked from its other end; one on which they
 * disagree is left alone. 3. Axes are sorted by |stride| of operand 0, the output, then of the others; where all are equal the last axis
 * stays innermost. 4. Neighbours that are one long axis for every operand are joined.
 */
inline std::size_t plan_axes(const index_t* shape, std::size_t rank, const index_t* const* strides, std::size_t operands, index_t* extent,
                             index_t* stride, index_t* offset, bool& empty) noexcept {
  const auto magnitude = [](index_t s) { return s < 0 ? -s : s; };
  for (std::size_t op = 0; op < operands; ++op) offset[op] = 0;
  empty = false;

  std::size_t axes = 0;
  std::size_t source[max_rank];  // of each axis kept, the axis of the views
  for (std::size_t i = rank; i-- > 0;) {
    if (shape[i] == 0) empty = true;
    if (shape[i] == 1) continue;
    // Insertion from the outside in: the new axis moves inwards past every axis with larger strides.
    std::size_t at = axes;
    for (; at > 0; --at) {
      bool smaller = false;
      for (std::size_t op = 0; op < operands; ++op) {
        const index_t mine = magnitude(strides[op][i]);
        const index_t other = magnitude(strides[op][source[at - 1]]);
        if (mine != other) {
          smaller = mine < other;
          break;
        }
      }
      if (!smaller) break;
      source[at] = source[at - 1];
    }
    source[at] = i;
    ++axes;
  }
  if (empty) return 0;

  std::size_t kept = 0;
  for (std::size_t k = 0; k < axes; ++k) {
    const std::size_t i = source[k];
    bool flip = true;
    for (std::size_t op = 0; op < operands; ++op) flip = flip && strides[op][i] <= 0;
    index_t* const row = stride + kept * operands;
    for (std::size_t op = 0; op < operands; ++op) {
      row[op] = flip ? -strides[op][i] : strides[op][i];
      if (flip) offset[op] += (shape[i] - 1) * strides[op][i];
    }
    bool join = kept != 0;
    for (std::size_t op = 0; op < operands && join; ++op) join = row[op] == (row - operands)[op] * extent[kept - 1];
    if (join) {
      extent[kept - 1] *= shape[i];
    } else {
      extent[kept] = shape[i];
      ++kept;
    }
  }
  return kept;
}

/** `rows` rows of `count` elements. For operand i, element (r, c) is at offset[i] + r * row_stride[i] + c * stride[i] from its origin. */
template <std::size_t N>
struct loop_block {
  index_t count;
  index_t rows;
  index_t stride[N];
  index_t row_stride[N];
  index_t offset[N];
};

/** The plan of a pass over N views of one shape; views may have different element types, because everything counts elements. */
template <std::size_t N>
class loop_plan {
 public:
  /** `first` is the strides of the output, or of the operand whose memory order matters most. */
  template <std::size_t R, class... Strides>
    requires(sizeof...(Strides) + 1 == N)
  loop_plan(const extents<R>& shape, const strides<R>& first, const Strides&... others) noexcept {
    static_assert(R <= max_rank, "lora: element-wise operations take views of at most 8 axes; reshape the view first");
    const index_t* const all_strides[N] = {first.array().data(), others.array().data()...};
    rank_ = plan_axes(shape.array().data(), R, all_strides, N, extent_, &stride_[0][0], offset_, empty_);
  }

  /** Number of axes left; 0 when one element or none is left. */
  [[nodiscard]] std::size_t rank() const noexcept { return rank_; }
  [[nodiscard]] bool empty() const noexcept { return empty_; }
  /** Axis 0 is the innermost. */
  [[nodiscard]] index_t extent(std::size_t axis) const noexcept { return extent_[axis]; }
  [[nodiscard]] index_t stride(std::size_t axis, std::size_t operand) const noexcept { return stride_[axis][operand]; }
  /** Where the walk starts, in elements from the operand's origin. */
  [[nodiscard]] index_t offset(std::size_t operand) const noexcept { return offset_[operand]; }

  /** Visits the same elements in the opposite order. */
  void reverse() noexcept {
    for (std::size_t axis = 0; axis < rank_; ++axis) {
      for (std::size_t op = 0; op < N; ++op) {
        offset_[op] += (extent_[axis] - 1) * stride_[axis][op];
        stride_[axis][op] = -stride_[axis][op];
      }
    }
  }

  /**
   * Calls visit(const loop_block<N>&) for the two innermost axes at each position of the outer ones. Two axes, so that the choice of a
   * loop body is made once for many rows: it matters when rows are short.
   */
  template <class Visit>
  void for_each_block(Visit&& visit) const {
    if (empty_) return;
    loop_block<N> block;
    block.count = rank_ > 0 ? extent_[0] : 1;
    block.rows = rank_ > 1 ? extent_[1] : 1;
    for (std::size_t op = 0; op < N; ++op) {
      block.stride[op] = rank_ > 0 ? stride_[0][op] : 1;  // a single element counts as contiguous
      block.row_stride[op] = rank_ > 1 ? stride_[1][op] : 0;
      block.offset[op] = offset_[op];
    }
    index_t position[max_rank] = {};
    for (;;) {
      visit(static_cast<const loop_block<N>&>(block));
      std::size_t axis = 2;
      for (; axis < rank_; ++axis) {
        for (std::size_t op = 0; op < N; ++op) block.offset[op] += stride_[axis][op];
        if (++position[axis] != extent_[axis]) break;
        position[axis] = 0;
        for (std::size_t op = 0; op < N; ++op) block.offset[op] -= stride_[axis][op] * extent_[axis];
      }
      if (axis >= rank_) return;
    }
  }

 private:
  std::size_t rank_;
  bool empty_;
  index_t extent_[max_rank]{};
  index_t stride_[max_rank][N]{};
  index_t offset_[N];
};

}  // namespace lora::inline v0::detail

#endif
