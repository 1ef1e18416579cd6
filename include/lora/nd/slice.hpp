// SPDX-License-Identifier: Apache-2.0
//
// The words of a slice and the one function that applies them. A call such as a(range(1, _), all, 2) is turned into a small array of
// slice_items; everything after that is ordinary code, compiled once, not once for each combination of words.
//
//   a(range(1, _), all, 2)      NumPy's a[1:, :, 2]
//   a(range(_, _, -1))          a[::-1]
//   a(ellipsis, newaxis, -1)    a[..., None, -1]
//
// The same as text, a("1:, :, 2"_s), is in nd/slice_text.hpp.
// Bounds are strict: an index outside [-n, n) and a range bound outside [-n, n] throw, with axis and shape in the message.
// range(...).clamp() follows Python's rule instead and cuts bounds to the axis.
#ifndef LORA_ND_SLICE_HPP
#define LORA_ND_SLICE_HPP

#include <lora/nd/shape.hpp>

#include <concepts>

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
    << " (clamp() cuts bounds to the axis)";
  raise<index_error>(t);
}

[[noreturn, gnu::cold, gnu::noinline]] inline void raise_zero_step(std::size_t axis) {
  text t;
  t << "slice step 0 for axis " << axis << ": a step is positive or negative";
  raise<index_error>(t);
}

/** How many items there are of each kind: what a slice does to a rank. */
struct slice_counts {
  std::size_t indices = 0;
  std::size_t axes = 0;
  std::size_t added = 0;
  std::size_t ellipses = 0;

  LORA_ALWAYS_INLINE constexpr void add(slice_kind kind) noexcept {
    indices += kind == slice_kind::index ? 1u : 0u;
    axes += kind == slice_kind::range ? 1u : 0u;
    added += kind == slice_kind::newaxis ? 1u : 0u;
    ellipses += kind == slice_kind::ellipsis ? 1u : 0u;
  }
  [[nodiscard]] constexpr std::size_t consumed() const noexcept { return indices + axes; }
};

struct slice_result {
  index_t offset = 0;
  std::size_t rank = 0;
};

/**
 * A slice on its way from one shape to another: one call an item, in order. Inlined into whoever knows the items: apply_slice() below,
 * which is compiled once and loops, and slice_literal (nd/slice_text.hpp), where they are constants and little is left of the code.
 */
struct slice_walk {
  const index_t* shape;
  const index_t* stride;
  std::size_t rank;
  index_t* out_shape;
  index_t* out_stride;
  std::size_t axis = 0;
  slice_result result{};
  bool empty = false;

  // Wraps instead of overflowing: an array without elements may have any strides, and an empty range may start one past the end. The
  // products are then not used; for all others they fit, because the elements they lead to have addresses.
  LORA_ALWAYS_INLINE static constexpr index_t times(index_t a, index_t b) {
    return static_cast<index_t>(static_cast<std::size_t>(a) * static_cast<std::size_t>(b));
  }
  LORA_ALWAYS_INLINE constexpr void advance(index_t i) {
    result.offset = static_cast<index_t>(static_cast<std::size_t>(result.offset) + static_cast<std::size_t>(times(i, stride[axis])));
  }

  LORA_ALWAYS_INLINE constexpr void keep(index_t extent, index_t step) {
    out_shape[result.rank] = extent;
    out_stride[result.rank] = step;
    ++result.rank;
    empty = empty || extent == 0;
  }

  LORA_ALWAYS_INLINE constexpr void keep_axes(std::size_t count) {
    for (std::size_t i = 0; i < count; ++i, ++axis) keep(shape[axis], stride[axis]);
  }

  LORA_ALWAYS_INLINE constexpr void take(slice_kind kind, const slice_item& item, std::size_t under_ellipsis) {
    switch (kind) {
      case slice_kind::newaxis:
        keep(1, 0);
        break;
      case slice_kind::ellipsis:
        keep_axes(under_ellipsis);
        break;
      case slice_kind::index:
        take_index(item.start);
        break;
      case slice_kind::range:
        take_range(item);
        break;
    }
  }

  LORA_ALWAYS_INLINE constexpr void take_index(index_t index) {
    const index_t n = shape[axis];
    const index_t i = index < 0 ? index + n : index;  // cannot overflow: index < 0 <= n
    // One comparison for both ends: a negative i is a huge unsigned number.
    if (static_cast<std::size_t>(i) >= static_cast<std::size_t>(n)) raise_index(index, axis, shape, rank);
    advance(i);
    ++axis;
  }

  LORA_ALWAYS_INLINE constexpr void take_range(const slice_item& item) {
    if (item.step == 1)  // apart from the rest, because a division costs as much as all of this
      take_unit_range(item);
    else
      take_stepped_range(item);
  }

  LORA_ALWAYS_INLINE constexpr void take_unit_range(const slice_item& item) {
    const index_t n = shape[axis];
    const index_t start = item.has_start ? bound(item, item.start, 0, n) : 0;
    const index_t stop = item.has_stop ? bound(item, item.stop, 0, n) : n;
    advance(start);
    keep(stop > start ? stop - start : 0, stride[axis]);
    ++axis;
  }

  LORA_ALWAYS_INLINE constexpr void take_stepped_range(const slice_item& item) {
    if (item.step == 0) raise_zero_step(axis);
    const index_t n = shape[axis];
    const bool back = item.step < 0;
    const index_t low = back ? -1 : 0;
    const index_t high = back ? n - 1 : n;
    const index_t start = item.has_start ? bound(item, item.start, low, high) : (back ? high : low);
    const index_t stop = item.has_stop ? bound(item, item.stop, low, high) : (back ? low : high);
    const index_t distance = back ? start - stop : stop - start;
    // In unsigned arithmetic, because the most negative step has no positive counterpart.
    const auto width = back ? 0 - static_cast<std::size_t>(item.step) : static_cast<std::size_t>(item.step);
    index_t extent = 0;
    if (distance > 0) extent = width == 1 ? distance : static_cast<index_t>((static_cast<std::size_t>(distance) - 1) / width) + 1;
    advance(start);
    keep(extent, extent > 1 ? times(stride[axis], item.step) : stride[axis]);  // with at most one element the step is never taken
    ++axis;
  }

  /** One bound, counted from the start of the axis and cut to [low, high]; strict ones that lie outside [-n, n] are refused first. */
  LORA_ALWAYS_INLINE constexpr index_t bound(const slice_item& item, index_t value, index_t low, index_t high) const {
    const index_t n = shape[axis];
    const index_t b = value < 0 ? value + n : value;
    if (static_cast<std::size_t>(b) > static_cast<std::size_t>(n) && !item.clamped) raise_bound(value, axis, shape, rank);
    return b < low ? low : (b > high ? high : b);
  }

  /** The offset of a result without elements is 0, so that no address outside the array is ever formed. */
  LORA_ALWAYS_INLINE constexpr slice_result finish() {
    // Also where an axis was empty before: an index on another axis then has nothing to point at.
    if (empty) result.offset = 0;
    return result;
  }
};

/**
 * Applies `count` items to a shape. Items that consume an axis must not be more than `rank`, and there is at most one ellipsis (the
 * callers see to both); missing items mean whole axes. `out_shape` and `out_stride` have room for rank plus the number of newaxis
 * items.
 */
constexpr slice_result apply_slice(const slice_item* items, std::size_t count, const index_t* shape, const index_t* stride,
                                   std::size_t rank, index_t* out_shape, index_t* out_stride) {
  slice_counts counts;
  for (std::size_t i = 0; i < count; ++i) counts.add(items[i].kind);
  slice_walk walk{shape, stride, rank, out_shape, out_stride};
  for (std::size_t i = 0; i < count; ++i) walk.take(items[i].kind, items[i], rank - counts.consumed());
  walk.keep_axes(rank - walk.axis);
  return walk.finish();
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

/** A whole slice in one argument, its kinds of items known at compile time: slice_literal (nd/slice_text.hpp). */
template <class S>
concept compiled_slice = requires {
  { S::counts } -> std::same_as<const slice_counts&>;
};

/** What a pack of words does to a rank. */
template <class... S>
struct slice_words {
  static constexpr slice_counts counts{(std::size_t{0} + ... + (is_index_word<S> ? 1u : 0u)),
                                       (std::size_t{0} + ... + (is_axis_word<S> ? 1u : 0u)),
                                       (std::size_t{0} + ... + (std::is_same_v<S, newaxis_t> ? 1u : 0u)),
                                       (std::size_t{0} + ... + (std::is_same_v<S, ellipsis_t> ? 1u : 0u))};
  static constexpr bool valid = (is_slice_word<S> && ...);
  static constexpr bool compiled = false;
};
template <compiled_slice S>
struct slice_words<S> {
  static constexpr slice_counts counts = S::counts;
  static constexpr bool valid = true;
  static constexpr bool compiled = true;
};

/** Whether a view of rank R can be called with words of these types. */
template <std::size_t R, class... S>
inline constexpr bool slices =
    slice_words<S...>::valid && slice_words<S...>::counts.consumed() <= R && slice_words<S...>::counts.ellipses <= 1;

/** Whether it then names one element: R integers and nothing else. */
template <std::size_t R, class... S>
inline constexpr bool names_element = slice_words<S...>::counts.indices == R && slice_words<S...>::counts.axes == 0 &&
                                      slice_words<S...>::counts.added == 0 && slice_words<S...>::counts.ellipses == 0;

/** The rank of what it gives otherwise. */
template <std::size_t R, class... S>
inline constexpr std::size_t rank_after = R - slice_words<S...>::counts.indices + slice_words<S...>::counts.added;

}  // namespace detail
}  // namespace lora::inline v0

#endif
