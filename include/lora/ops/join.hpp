// SPDX-License-Identifier: Apache-2.0
//
// concatenate and stack: several views copied into one array, along an axis that they have or along a new one. The inputs are arguments, a
// braced list or a span of views, so their number may be known at compile time or at run time. The _into forms write to memory of yours.
//
//   auto all = lora::concatenate(0, a, b, c);                     // [2, 5], [3, 5], [1, 5] -> [6, 5]
//   auto two = lora::stack(-1, x, y);                             // [4, 5], [4, 5] -> [4, 5, 2]
//   std::vector<lora::ndview<const float, 2>> heads = ...;
//   lora::concatenate_into(out, 1, heads);
#ifndef LORA_OPS_JOIN_HPP
#define LORA_OPS_JOIN_HPP

#include <lora/nd/axes.hpp>
#include <lora/ops/copy.hpp>
#include <lora/simd/isa.hpp>

#include <initializer_list>

namespace lora::inline v0 {

namespace detail::inline LORA_ISA_TAG {

[[noreturn, gnu::cold, gnu::noinline]] inline void raise_join_nothing(const char* what) {
  raise<shape_error>(text() << what << ": there are no inputs, so the result has no shape");
}

[[noreturn, gnu::cold, gnu::noinline]] inline void raise_join(const char* what, std::size_t input, const index_t* shape,
                                                              const index_t* first, std::size_t rank, const char* rule, std::size_t axis) {
  text t;
  t << what << ": input " << input << " is " << shape_text{shape, rank} << " but input 0 is " << shape_text{first, rank} << rule;
  if (*rule != '\0') t << axis << " may differ";
  raise<shape_error>(t);
}

[[noreturn, gnu::cold, gnu::noinline]] inline void raise_join_length(const char* what, std::size_t input, const index_t* shape,
                                                                     std::size_t rank) {
  text t;
  t << what << ": with input " << input << ", " << shape_text{shape, rank} << ", the lengths together do not fit a signed 64-bit index";
  raise<shape_error>(t);
}

[[noreturn, gnu::cold, gnu::noinline]] inline void raise_join_out(const char* what, const index_t* shape, const index_t* out,
                                                                  std::size_t rank) {
  text t;
  t << what << ": the inputs together are " << shape_text{shape, rank} << " but the output is " << shape_text{out, rank};
  raise<shape_error>(t);
}

[[noreturn, gnu::cold, gnu::noinline]] inline void raise_join_overlap(const char* what, std::size_t input, const index_t* shape,
                                                                      std::size_t rank) {
  text t;
  t << what << ": input " << input << ", " << shape_text{shape, rank}
    << ", overlaps the output elsewhere than in its own place; clone() it first";
  raise<shape_error>(t);
}

template <class T, std::size_t R>
using join_input = ndview<const T, R>;

/** Shape of the result; every input is checked. */
template <class T, std::size_t R>
[[nodiscard]] extents<R> concatenated_shape(const char* what, const join_input<T, R>* inputs, std::size_t number, std::size_t axis) {
  std::array<index_t, R> shape = inputs[0].shape().array();
  for (std::size_t k = 1; k < number; ++k) {
    const index_t* const mine = inputs[k].shape().array().data();
    for (std::size_t i = 0; i < R; ++i)
      if (i != axis && mine[i] != shape[i]) raise_join(what, k, mine, inputs[0].shape().array().data(), R, ": only axis ", axis);
    if (!checked_add(shape[axis], mine[axis], shape[axis])) raise_join_length(what, k, mine, R);
  }
  return extents<R>(shape);
}

template <class T, std::size_t R>
[[nodiscard]] extents<R + 1> stacked_shape(const char* what, const join_input<T, R>* inputs, std::size_t number, std::size_t axis) {
  std::array<index_t, R + 1> shape{};
  for (std::size_t i = 0; i < R; ++i) shape[i + (i >= axis ? 1u : 0u)] = inputs[0].extent(i);
  shape[axis] = static_cast<index_t>(number);
  for (std::size_t k = 1; k < number; ++k)
    if (!(inputs[k].shape() == inputs[0].shape()))
      raise_join(what, k, inputs[k].shape().array().data(), inputs[0].shape().array().data(), R, "", 0);
  return extents<R + 1>(shape);
}

/** The place of input k in the output: `length` positions of `axis` from `start`, or the position `start` where it is one to be dropped. */
template <class T, std::size_t R>
[[nodiscard]] ndview<T, R> place_in(const ndview<T, R>& out, std::size_t axis, index_t start, index_t length) {
  axis_layout<R> l = layout_of(out);
  l.offset = start * l.stride[axis];
  l.shape[axis] = length;
  return view_of<R>(out.data(), l);
}

/** Every input into its place; an input may lie there already. All places are looked at before the first is written. */
template <class T, std::size_t R, std::size_t RIn>
void join_into(const char* what, const ndview<T, R>& out, const join_input<T, RIn>* inputs, std::size_t number, std::size_t axis) {
  const auto place = [&](std::size_t k, index_t start) {
    if constexpr (RIn == R) {
      return place_in(out, axis, start, inputs[k].extent(axis));
    } else {
      return squeeze(place_in(out, axis, start, 1), static_cast<index_t>(axis));
    }
  };
  const auto length = [&](std::size_t k) {
    if constexpr (RIn == R) {
      return inputs[k].extent(axis);
    } else {
      return static_cast<index_t>(k < number);  // one position each
    }
  };
  if (may_overlap_itself(out)) raise_copy_target(out.shape().array().data(), out.stride().array().data(), R);
  index_t start = 0;
  for (std::size_t k = 0; k < number; start += length(k), ++k)
    if (may_overlap(out, inputs[k]) && !same_elements(place(k, start), inputs[k]))
      raise_join_overlap(what, k, inputs[k].shape().array().data(), RIn);
  start = 0;
  for (std::size_t k = 0; k < number; start += length(k), ++k) copy(inputs[k], place(k, start));
}

template <class T, std::size_t R>
void concatenate_views(const ndview<T, R>& out, index_t axis, const join_input<T, R>* inputs, std::size_t number) {
  if (number == 0) raise_join_nothing("concatenate");
  const std::size_t a = checked_axis("concatenate", axis, inputs[0].shape().array().data(), R);
  const extents<R> shape = concatenated_shape<T, R>("concatenate", inputs, number, a);
  if (!(shape == out.shape())) raise_join_out("concatenate", shape.array().data(), out.shape().array().data(), R);
  join_into("concatenate", out, inputs, number, a);
}

template <class T, std::size_t R>
[[nodiscard]] ndarray<T, R> concatenated(index_t axis, const join_input<T, R>* inputs, std::size_t number) {
  static_assert(R >= 1, "lora: concatenate joins along an axis, and views of rank 0 have none; stack makes one");
  if (number == 0) raise_join_nothing("concatenate");
  const std::size_t a = checked_axis("concatenate", axis, inputs[0].shape().array().data(), R);
  ndarray<T, R> out(concatenated_shape<T, R>("concatenate", inputs, number, a));
  join_into("concatenate", out.view(), inputs, number, a);
  return out;
}

/** The position of a stack's new axis among R + 1. */
template <class T, std::size_t R>
[[nodiscard]] std::size_t stack_axis(index_t axis, const join_input<T, R>* inputs, std::size_t number) {
  if (number == 0) raise_join_nothing("stack");
  constexpr auto n = static_cast<index_t>(R) + 1;
  if (axis < -n || axis >= n) raise_axis("stack", axis, inputs[0].shape().array().data(), R);
  return static_cast<std::size_t>(axis < 0 ? axis + n : axis);
}

template <class T, std::size_t R>
void stack_views(const ndview<T, R + 1>& out, index_t axis, const join_input<T, R>* inputs, std::size_t number) {
  const std::size_t a = stack_axis<T, R>(axis, inputs, number);
  const extents<R + 1> shape = stacked_shape<T, R>("stack", inputs, number, a);
  if (!(shape == out.shape())) raise_join_out("stack", shape.array().data(), out.shape().array().data(), R + 1);
  join_into("stack", out, inputs, number, a);
}

template <class T, std::size_t R>
[[nodiscard]] ndarray<T, R + 1> stacked(index_t axis, const join_input<T, R>* inputs, std::size_t number) {
  const std::size_t a = stack_axis<T, R>(axis, inputs, number);
  ndarray<T, R + 1> out(stacked_shape<T, R>("stack", inputs, number, a));
  join_into("stack", out.view(), inputs, number, a);
  return out;
}

template <class V>
using view_of_input = decltype(as_view(std::declval<const V&>()));

/** Where a list's views begin; they lie one after another. */
template <class List>
[[nodiscard]] constexpr auto list_data(const List& list) noexcept {
  if constexpr (requires { list.data(); }) {
    return list.data();
  } else {
    return list.begin();
  }
}

template <class V>
inline constexpr bool is_ndview = false;
template <class T, std::size_t R>
inline constexpr bool is_ndview<ndview<T, R>> = true;

/** A run-time number of views: std::span, std::vector, std::array, std::initializer_list; not itself a view of numbers. */
template <class List>
concept list_of_views = !viewable<const List> && requires(const List& list) {
  { list.size() } -> std::convertible_to<std::size_t>;
  requires std::is_pointer_v<decltype(list_data(list))>;
  requires is_ndview<std::remove_cvref_t<decltype(*list_data(list))>>;
};

/** The list as read-only views: as it is when it holds such views, else with each view (not its elements) copied. */
template <class List>
class joined_list {
  using view = std::remove_cvref_t<decltype(*list_data(std::declval<const List&>()))>;

 public:
  using value_type = typename view::value_type;
  static constexpr std::size_t rank = view::rank();

  explicit joined_list(const List& list) : count_(list.size()) {
    if constexpr (std::is_const_v<typename view::element_type>) {
      first_ = list_data(list);
    } else {
      memory_ = aligned_bytes(count_ * sizeof(join_input<value_type, rank>));
      auto* const at = static_cast<join_input<value_type, rank>*>(memory_.data());
      for (std::size_t i = 0; i < count_; ++i) ::new (static_cast<void*>(at + i)) join_input<value_type, rank>(list_data(list)[i]);
      first_ = at;
    }
  }
  [[nodiscard]] const join_input<value_type, rank>* data() const noexcept { return first_; }
  [[nodiscard]] std::size_t size() const noexcept { return count_; }

 private:
  aligned_bytes memory_;
  const join_input<value_type, rank>* first_ = nullptr;
  std::size_t count_;
};

/** The arguments of a call as one array of read-only views. */
template <class First, class... Rest>
struct joined_pack {
  using first = view_of_input<First>;
  using value_type = typename first::value_type;
  static constexpr std::size_t rank = first::rank();
  static_assert(((view_of_input<Rest>::rank() == rank) && ...), "lora: joined views have one rank; expand_dims adds an axis");
  static_assert((std::is_same_v<typename view_of_input<Rest>::value_type, value_type> && ...),
                "lora: joined views have one element type; cast (ops/cast.hpp) converts");

  join_input<value_type, rank> views[1 + sizeof...(Rest)];
};

/** The output of an _into form as a view; `Added` axes more than the inputs have. */
template <class Inputs, std::size_t Added, class Out>
[[nodiscard]] auto join_output(Out& out) {
  using to = decltype(as_view(out));
  static_assert(!std::is_const_v<typename to::element_type>, "lora: the output is a read-only view (const elements, or a broadcast)");
  static_assert(std::is_same_v<typename to::value_type, typename Inputs::value_type>,
                "lora: the output has the inputs' element type; cast (ops/cast.hpp) converts");
  static_assert(to::rank() == Inputs::rank + Added, "lora: the output of concatenate has the inputs' rank, that of stack one axis more");
  return as_view(out);
}

}  // namespace detail::inline LORA_ISA_TAG

inline namespace LORA_ISA_TAG {

/**
 * The inputs one after another along an axis that they have.
 *
 * @param axis    may be negative (from the end)
 * @param inputs  one or more views or ndarrays of one rank and element type, equal in every extent but that of `axis`; or a braced list, a
 *                std::span or a std::vector of views
 * @return        a new array in C order
 * @throws shape_error naming the input and both shapes when they do not fit, when there are none, or when the result does not fit the
 *         address space; index_error when the axis does not exist; std::bad_alloc.
 * @par Cost      One copy of every element; an allocation.
 */
template <detail::viewable First, detail::viewable... Rest>
[[nodiscard]] auto concatenate(index_t axis, const First& first, const Rest&... rest) {
  using pack = detail::joined_pack<First, Rest...>;
  const pack inputs{{detail::as_view(first), detail::as_view(rest)...}};
  return detail::concatenated<typename pack::value_type, pack::rank>(axis, inputs.views, 1 + sizeof...(Rest));
}
template <detail::list_of_views List>
[[nodiscard]] auto concatenate(index_t axis, const List& list) {
  const detail::joined_list<List> inputs(list);
  return detail::concatenated<typename detail::joined_list<List>::value_type, detail::joined_list<List>::rank>(axis, inputs.data(),
                                                                                                               inputs.size());
}
template <class T, std::size_t R>
[[nodiscard]] auto concatenate(index_t axis, std::initializer_list<ndview<T, R>> list) {
  return concatenate<std::initializer_list<ndview<T, R>>>(axis, list);
}

/**
 * The inputs one after another along a new axis, which is `axis` of the result: stack(0, x, y) of two views [4, 5] is [2, 4, 5].
 * Parameters and errors as for concatenate; all inputs have one shape.
 */
template <detail::viewable First, detail::viewable... Rest>
[[nodiscard]] auto stack(index_t axis, const First& first, const Rest&... rest) {
  using pack = detail::joined_pack<First, Rest...>;
  const pack inputs{{detail::as_view(first), detail::as_view(rest)...}};
  return detail::stacked<typename pack::value_type, pack::rank>(axis, inputs.views, 1 + sizeof...(Rest));
}
template <detail::list_of_views List>
[[nodiscard]] auto stack(index_t axis, const List& list) {
  const detail::joined_list<List> inputs(list);
  return detail::stacked<typename detail::joined_list<List>::value_type, detail::joined_list<List>::rank>(axis, inputs.data(),
                                                                                                          inputs.size());
}
template <class T, std::size_t R>
[[nodiscard]] auto stack(index_t axis, std::initializer_list<ndview<T, R>> list) {
  return stack<std::initializer_list<ndview<T, R>>>(axis, list);
}

/**
 * concatenate into memory of the caller's.
 *
 * @param out  view or ndarray of the result's shape, written; no two of its elements share an address. An input may be its own place in
 *             `out` (then it stays as it is), or share no byte with `out`.
 * @throws as concatenate, also when `out` has another shape or an input overlaps it elsewhere; nothing is written then.
 * @par Cost   One copy of every element that is not in its place; no allocation (a list of mutable views is copied, view by view).
 */
template <detail::named_array_or_view Out, detail::viewable First, detail::viewable... Rest>
void concatenate_into(Out&& out, index_t axis, const First& first, const Rest&... rest) {
  using pack = detail::joined_pack<First, Rest...>;
  const pack inputs{{detail::as_view(first), detail::as_view(rest)...}};
  detail::concatenate_views(detail::join_output<pack, 0>(out), axis, inputs.views, 1 + sizeof...(Rest));
}
template <detail::named_array_or_view Out, detail::list_of_views List>
void concatenate_into(Out&& out, index_t axis, const List& list) {
  const detail::joined_list<List> inputs(list);
  detail::concatenate_views(detail::join_output<detail::joined_list<List>, 0>(out), axis, inputs.data(), inputs.size());
}
template <detail::named_array_or_view Out, class T, std::size_t R>
void concatenate_into(Out&& out, index_t axis, std::initializer_list<ndview<T, R>> list) {
  concatenate_into<Out&, std::initializer_list<ndview<T, R>>>(out, axis, list);
}

/** stack into memory of the caller's; as concatenate_into. */
template <detail::named_array_or_view Out, detail::viewable First, detail::viewable... Rest>
void stack_into(Out&& out, index_t axis, const First& first, const Rest&... rest) {
  using pack = detail::joined_pack<First, Rest...>;
  const pack inputs{{detail::as_view(first), detail::as_view(rest)...}};
  detail::stack_views(detail::join_output<pack, 1>(out), axis, inputs.views, 1 + sizeof...(Rest));
}
template <detail::named_array_or_view Out, detail::list_of_views List>
void stack_into(Out&& out, index_t axis, const List& list) {
  const detail::joined_list<List> inputs(list);
  detail::stack_views(detail::join_output<detail::joined_list<List>, 1>(out), axis, inputs.data(), inputs.size());
}
template <detail::named_array_or_view Out, class T, std::size_t R>
void stack_into(Out&& out, index_t axis, std::initializer_list<ndview<T, R>> list) {
  stack_into<Out&, std::initializer_list<ndview<T, R>>>(out, axis, list);
}

}  // namespace LORA_ISA_TAG
}  // namespace lora::inline v0

#endif
