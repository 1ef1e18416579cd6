// SPDX-License-Identifier: Apache-2.0
//
// The words of a slice and the one function that applies them. A call such as a(range(1, _), all, 2) is turned into a small array of
// slice_items; everything after that is ordinary code, compiled once, not once for each combination of words.
//
//   a(range(1, _), all, 2)      NumPy's a[1:, :, 2]
//   a(range(_, _, -1))          a[::-1]
//   a(ellipsis, newaxis, -1)    a[..., None, -1]
//
// Bounds are strict: an index outside [-n, n) and a range bound outside [-n, n] throw, with axis and shape in the message.
// range(...).clamp() follows Python's rule instead and cuts bounds to the axis.
#ifndef LORA_ND_SLICE_HPP
#define LORA_ND_SLICE_HPP

#include <lora/nd/shape.hpp>

namespace lora::inline v0 {

/** An omitted bound, as in range(1, _). */
struct omitted_t {
  explicit constexpr omitted_t() = default;
};
inline constexpr omitted_t _{};

/** A whole axis: NumPy's `:`. */
struct all_t {
  explicit constexpr all_t() = default;
};
inline constexpr all_t all{};

/** A new axis of length 1: NumPy's `None`. */
struct newaxis_t {
  explicit constexpr newaxis_t() = default;
};
inline constexpr newaxis_t newaxis{};

/** As many whole axes as are needed: NumPy's `...`. */
struct ellipsis_t {
  explicit constexpr ellipsis_t() = default;
};
inline constexpr ellipsis_t ellipsis{};

namespace detail {

enum class slice_kind : unsigned char { index, range, newaxis, ellipsis };

/** One word of a slice in the form that the shared code reads. */
struct slice_item {
  slice_kind kind = slice_kind::range;
  bool has_start = false;
  bool has_stop = false;
  bool clamped = false;
  index_t start = 0;
  index_t stop = 0;
  index_t step = 1;
};

[[noreturn, gnu::cold, gnu::noinline]] inline void raise_index(index_t index, std::size_t axis, const index_t* shape, std::size_t rank) {
  text t;
  t << "index " << index << " is out of bounds for axis " << axis << " of shape " << shape_text{shape, rank};
  raise<index_error>(t);
}

[[noreturn, gnu::cold, gnu::noinline]] inline void raise_bound(index_t bound, std::size_t axis, const index_t* shape, std::size_t rank) {
  text t;
  t << "slice bound " << bound << " is out of bounds for axis " << axis << " of shape " << shape_text{shape, rank}
    << " (range(...).clamp() cuts bounds to the axis)";
  raise<index_error>(t);
}

[[noreturn, gnu::cold, gnu::noinline]] inline void raise_zero_step(std::size_t axis) {
  text t;
  t << "slice step 0 for axis " << axis << ": a step is positive or negative";
  raise<index_error>(t);
}

/** One bound in [0, n], or [-1, n-1] when the step is negative, by Python's rule for the clamped form and strictly otherwise. */
[[nodiscard]] constexpr index_t resolve_bound(const slice_item& item, index_t bound, std::size_t axis, const index_t* shape,
                                              std::size_t rank) {
  const index_t n = shape[axis];
  const index_t low = item.step < 0 ? -1 : 0;
  const index_t high = item.step < 0 ? n - 1 : n;
  if (!item.clamped && (bound < -n || bound > n)) raise_bound(bound, axis, shape, rank);
  if (bound < 0) {
    // bound + n cannot overflow: bound < 0 <= n.
    return bound + n < low ? low : bound + n;
  }
  return bound > high ? high : bound;
}

struct slice_result {
  index_t offset = 0;
  std::size_t rank = 0;
};

/**
 * Applies `count` items to a shape. Items that consume an axis must not be more than `rank`, and there is at most one ellipsis (the
 * callers see to both); missing items mean whole axes. `out_shape` and `out_stride` have room for rank plus the number of newaxis
 * items. The offset of a result without elements is 0, so that no address outside the array is ever formed.
 */
constexpr slice_result apply_slice(const slice_item* items, std::size_t count, const index_t* shape, const index_t* stride,
                                   std::size_t rank, index_t* out_shape, index_t* out_stride) {
  std::size_t consuming = 0;
  for (std::size_t i = 0; i < count; ++i) consuming += (items[i].kind == slice_kind::index || items[i].kind == slice_kind::range) ? 1u : 0u;

  slice_result r;
  std::size_t axis = 0;
  const auto keep = [&](index_t extent, index_t step) {
    out_shape[r.rank] = extent;
    out_stride[r.rank] = step;
    ++r.rank;
  };
  const auto keep_axes = [&](std::size_t n) {
    for (std::size_t i = 0; i < n; ++i, ++axis) keep(shape[axis], stride[axis]);
  };

  for (std::size_t i = 0; i < count; ++i) {
    const slice_item& item = items[i];
    switch (item.kind) {
      case slice_kind::newaxis:
        keep(1, 0);
        break;
      case slice_kind::ellipsis:
        keep_axes(rank - consuming);
        break;
      case slice_kind::index: {
        const index_t n = shape[axis];
        if (item.start < -n || item.start >= n) raise_index(item.start, axis, shape, rank);
        r.offset += (item.start < 0 ? item.start + n : item.start) * stride[axis];
        ++axis;
        break;
      }
      case slice_kind::range: {
        if (item.step == 0) raise_zero_step(axis);
        const index_t n = shape[axis];
        const index_t start = item.has_start ? resolve_bound(item, item.start, axis, shape, rank) : (item.step < 0 ? n - 1 : 0);
        const index_t stop = item.has_stop ? resolve_bound(item, item.stop, axis, shape, rank) : (item.step < 0 ? -1 : n);
        const index_t distance = item.step < 0 ? start - stop : stop - start;
        // In unsigned arithmetic, because the most negative step has no positive counterpart.
        const auto width = item.step < 0 ? 0 - static_cast<std::size_t>(item.step) : static_cast<std::size_t>(item.step);
        const index_t extent = distance <= 0 ? 0 : static_cast<index_t>((static_cast<std::size_t>(distance) - 1) / width) + 1;
        r.offset += start * stride[axis];
        // With at most one element the step is never taken; a huge one must not overflow the product.
        keep(extent, extent > 1 ? stride[axis] * item.step : stride[axis]);
        ++axis;
        break;
      }
    }
  }
  keep_axes(rank - axis);
  // Also where an axis was empty before: an index on another axis then has nothing to point at.
  for (std::size_t i = 0; i < r.rank; ++i)
    if (out_shape[i] == 0) r.offset = 0;
  return r;
}

}  // namespace detail

/** A strided range along one axis: range(start, stop), range(start, stop, step); each bound an integer or `_`. */
class range {
 public:
  template <class Start, class Stop>
  constexpr range(Start start, Stop stop) : range(start, stop, 1) {}

  /** @throws index_error when a bound does not fit index_t. A step of 0 is refused where the range is applied. */
  template <class Start, class Stop, class Step>
  constexpr range(Start start, Stop stop, Step step) {
    item_.has_start = take(start, item_.start);
    item_.has_stop = take(stop, item_.stop);
    if (!take(step, item_.step)) item_.step = 1;
  }

  /** The same range by Python's rule: bounds outside the axis are cut to it instead of refused. */
  [[nodiscard]] constexpr range clamp() const noexcept {
    range r = *this;
    r.item_.clamped = true;
    return r;
  }

  [[nodiscard]] constexpr const detail::slice_item& item() const noexcept { return item_; }

 private:
  template <class Bound>
  static constexpr bool take(Bound bound, index_t& out) {
    if constexpr (std::is_same_v<Bound, omitted_t>) {
      return false;
    } else {
      out = detail::to_index<index_error>(bound, "slice bound", true);
      return true;
    }
  }

  detail::slice_item item_{};
};

namespace detail {

template <class S>
inline constexpr bool is_axis_word = std::is_same_v<S, range> || std::is_same_v<S, all_t>;
template <class S>
inline constexpr bool is_slice_word = is_index_word<S> || is_axis_word<S> || std::is_same_v<S, newaxis_t> || std::is_same_v<S, ellipsis_t>;

template <class S>
[[nodiscard]] constexpr slice_item to_item(const S& word) {
  slice_item item;
  if constexpr (is_index_word<S>) {
    item.kind = slice_kind::index;
    item.start = to_index<index_error>(word, "index", true);
  } else if constexpr (std::is_same_v<S, range>) {
    item = word.item();
  } else if constexpr (std::is_same_v<S, newaxis_t>) {
    item.kind = slice_kind::newaxis;
  } else if constexpr (std::is_same_v<S, ellipsis_t>) {
    item.kind = slice_kind::ellipsis;
  }
  return item;
}

/** What a pack of words does to a rank. */
template <class... S>
struct slice_words {
  static constexpr std::size_t indices = (std::size_t{0} + ... + (is_index_word<S> ? 1u : 0u));
  static constexpr std::size_t axes = (std::size_t{0} + ... + (is_axis_word<S> ? 1u : 0u));
  static constexpr std::size_t added = (std::size_t{0} + ... + (std::is_same_v<S, newaxis_t> ? 1u : 0u));
  static constexpr std::size_t ellipses = (std::size_t{0} + ... + (std::is_same_v<S, ellipsis_t> ? 1u : 0u));
  static constexpr bool valid = (is_slice_word<S> && ...);
  static constexpr std::size_t consumed = indices + axes;
};

/** Whether a view of rank R can be called with words of these types. */
template <std::size_t R, class... S>
inline constexpr bool slices = slice_words<S...>::valid && slice_words<S...>::consumed <= R && slice_words<S...>::ellipses <= 1;

}  // namespace detail
}  // namespace lora::inline v0

#endif
