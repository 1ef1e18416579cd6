// SPDX-License-Identifier: Apache-2.0
//
// Slices written as NumPy writes them between the brackets: a literal that is parsed while compiling, and the same text at run time.
//
//   using namespace lora::literals;
//   auto s = a("1:, :, 2"_s);                                 // a(range(1, _), all, 2); bad text does not compile
//   auto t = a("..., ::-1"_s);  auto u = a("2:99"_s.clamp());
//   lora::any_view w = lora::slice(v, "0, ::2");              // nd/any_view.hpp; bad text throws
//
// All of Python's grammar for basic indices: signed integers (also hexadecimal, octal, binary, and 1_000), start:stop:step, `...` or
// Ellipsis, None, newaxis or np.newaxis, blanks and line ends, a trailing comma, parentheses around a number or around the whole
// tuple. Not taken: names, arithmetic, comments, and fancy indices (lists, booleans, nested tuples), which copy in NumPy.
// Numbers that do not fit index_t are refused, although Python would cut them.
#ifndef LORA_ND_SLICE_TEXT_HPP
#define LORA_ND_SLICE_TEXT_HPP

#include <lora/nd/slice_parser.hpp>

#include <utility>

namespace lora::inline v0 {

namespace detail {

/** Exists to be instantiated for a bad literal: compilers show the sentence, and Error and Column with it. */
template <slice_text_error Error, std::size_t Column>
struct bad_slice_text {
  using e = slice_text_error;
  static_assert(Error != e::empty_text, "lora: slice text: the text is empty; the whole is `...` or `()`");
  static_assert(Error != e::empty_item, "lora: slice text: nothing stands before a comma (Column says where)");
  static_assert(Error != e::missing_comma, "lora: slice text: a comma or a colon is missing between two items (Column says where)");
  static_assert(Error != e::bad_character, "lora: slice text: a character that no slice holds (Column says where)");
  static_assert(Error != e::bad_word, "lora: slice text: the words of a slice are None, newaxis, np.newaxis and Ellipsis");
  static_assert(Error != e::bad_number, "lora: slice text: not an integer as Python writes it (Column says where)");
  static_assert(Error != e::number_too_large, "lora: slice text: a number does not fit a signed 64-bit index (Column says where)");
  static_assert(Error != e::dangling_sign, "lora: slice text: a sign stands before a number only (Column says where)");
  static_assert(Error != e::bad_bound, "lora: slice text: the bounds and the step of a range are integers or None");
  static_assert(Error != e::zero_step, "lora: slice text: a step is 0; it is positive or negative (Column says where)");
  static_assert(Error != e::too_many_colons, "lora: slice text: a third colon; a range is start:stop:step (Column says where)");
  static_assert(Error != e::second_ellipsis, "lora: slice text: a second ellipsis; only one can stand for all the axes that are left");
  static_assert(Error != e::missing_bracket, "lora: slice text: a parenthesis is never closed (Column says which)");
  static_assert(Error != e::extra_bracket, "lora: slice text: a parenthesis was never opened (Column says which)");
  static_assert(Error != e::too_many_brackets, "lora: slice text: more than 199 parentheses inside each other");
  static_assert(Error != e::square_bracket,
                "lora: slice text: a square bracket; the text is what stands between them, and a list of indices would copy");
  static_assert(Error != e::slice_in_parentheses, "lora: slice text: a range inside parentheses, which Python does not take either");
  static_assert(Error != e::fancy_index, "lora: slice text: a tuple inside the tuple or a boolean; such an index copies");
  static_assert(Error != e::too_many_items, "lora: slice text: more than 32 items");
};

[[noreturn, gnu::cold, gnu::noinline]] inline void raise_slice_text(quoted slice, const slice_text_result& r) {
  text t;
  t << "slice " << slice << ", column " << r.column << ": " << sentence_of(r.error);
  if (r.error == slice_text_error::zero_step) raise<index_error>(t);
  raise<value_error>(t);
}

/** A string literal as a template argument. */
template <std::size_t N>
struct fixed_text {
  consteval fixed_text(const char (&text)[N]) {
    for (std::size_t i = 0; i < N; ++i) data[i] = text[i];
  }
  char data[N]{};
};

inline constexpr std::size_t max_literal_items = 32;

/** What the literal operator learns from its text. Each item takes a character and a comma, but the last. */
template <std::size_t N>
struct parsed_literal {
  consteval explicit parsed_literal(const fixed_text<N>& text) {
    result = slice_parser(text.data, N - 1, items.data(), items.size()).run();
    if (result.error == slice_text_error::none && result.items > max_literal_items) {
      result.error = slice_text_error::too_many_items;
      return;
    }
    for (std::size_t i = 0; i < result.items && i < max_literal_items; ++i)
      kinds |= static_cast<unsigned long long>(items[i].kind) << 2 * i;
  }
  std::array<slice_item, N / 2 + 1> items{};
  slice_text_result result{};
  unsigned long long kinds = 0;
};

}  // namespace detail

/**
 * A slice whose kinds of items are known at compile time: what "1:, :, 2"_s gives. Two bits of Kinds an item. Numbers are data, so that
 * texts of the same form share their code.
 */
template <std::size_t Items, unsigned long long Kinds, bool UnitSteps>
class slice_literal {
 public:
  explicit constexpr slice_literal(const detail::slice_item* items) noexcept {
    for (std::size_t i = 0; i < Items; ++i) items_[i] = items[i];
  }

  /** The same slice by Python's rule: bounds of ranges outside their axis are cut to it instead of refused. */
  [[nodiscard]] constexpr slice_literal clamp() const noexcept {
    slice_literal s = *this;
    for (detail::slice_item& item : s.items_) item.clamped = true;
    return s;
  }

  // For ndview: what the slice does to a rank, and the slice itself.
  static constexpr detail::slice_counts counts = [] {
    detail::slice_counts c;
    for (std::size_t i = 0; i < Items; ++i) c.add(static_cast<detail::slice_kind>(Kinds >> 2 * i & 3));
    return c;
  }();

  template <std::size_t Rank>
  LORA_ALWAYS_INLINE constexpr detail::slice_result apply(const index_t* shape, const index_t* stride, index_t* out_shape,
                                                          index_t* out_stride) const {
    if constexpr (UnitSteps) {
      detail::slice_walk walk{shape, stride, Rank, out_shape, out_stride};
      take<Rank>(walk, std::make_index_sequence<Items>{});
      if constexpr (counts.ellipses == 0 && counts.consumed() < Rank) walk.keep_axes(Rank - counts.consumed());
      return walk.finish();
    } else {
      return detail::apply_slice(items_.data(), Items, shape, stride, Rank, out_shape, out_stride);
    }
  }

 private:
  // Each item is a few instructions when its kind is known; the general code would be dissolved into the same, at the optimiser's cost.
  template <std::size_t Rank, std::size_t... I>
  LORA_ALWAYS_INLINE constexpr void take(detail::slice_walk& walk, std::index_sequence<I...>) const {
    (take_one<Rank, static_cast<detail::slice_kind>(Kinds >> 2 * I & 3)>(walk, items_[I]), ...);
  }
  template <std::size_t Rank, detail::slice_kind Kind>
  LORA_ALWAYS_INLINE static constexpr void take_one(detail::slice_walk& walk, const detail::slice_item& item) {
    if constexpr (Kind == detail::slice_kind::newaxis) walk.keep(1, 0);
    if constexpr (Kind == detail::slice_kind::ellipsis) walk.keep_axes(Rank - counts.consumed());
    if constexpr (Kind == detail::slice_kind::index) walk.take_index(item.start);
    if constexpr (Kind == detail::slice_kind::range) walk.take_unit_range(item);
  }

  std::array<detail::slice_item, Items> items_{};
};

/**
 * A slice whose text is known at run time; lora::slice (nd/any_view.hpp) applies it. Refers to the text only while it is constructed.
 *
 * @throws value_error naming the text, the column and what is wrong there; index_error for a step of 0.
 * @par Cost   one pass over the text, no allocation.
 */
class slice_text {
 public:
  slice_text(const char* text) : slice_text(detail::quoted{text, __builtin_strlen(text)}) {}

  /** From a std::string or std::string_view. */
  template <class String>
    requires requires(const String& s) {
      { s.data() } -> std::same_as<const char*>;
      { s.size() } -> std::convertible_to<std::size_t>;
    }
  slice_text(const String& text) : slice_text(detail::quote(text)) {}

  /** The same slice by Python's rule: bounds of ranges outside their axis are cut to it instead of refused. */
  [[nodiscard]] slice_text clamp() const noexcept {
    slice_text s = *this;
    for (detail::slice_item& item : s.items_) item.clamped = true;
    return s;
  }

  /** The items; only the first ones are there when they are more than an any_view can have axes for. */
  [[nodiscard]] const detail::slice_item* items() const noexcept { return items_.data(); }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] const detail::slice_counts& item_counts() const noexcept { return counts_; }

 private:
  explicit slice_text(detail::quoted text) {
    const auto r = detail::slice_parser(text.data, text.size, items_.data(), items_.size()).run();
    if (r.error != detail::slice_text_error::none) detail::raise_slice_text(text, r);
    size_ = r.items;
    counts_ = r.counts;
  }

  // Every axis taken, as many added, and an ellipsis.
  std::array<detail::slice_item, 2 * max_rank + 1> items_{};
  std::size_t size_ = 0;
  detail::slice_counts counts_{};
};

inline namespace literals {

/** "1:, :, 2"_s: a slice, for the call operator of views and arrays. Text that is not a slice does not compile. */
template <detail::fixed_text Text>
[[nodiscard]] consteval auto operator""_s() {
  constexpr detail::parsed_literal parsed(Text);
  if constexpr (parsed.result.error != detail::slice_text_error::none) {
    (void)detail::bad_slice_text<parsed.result.error, parsed.result.column>{};
    return slice_literal<0, 0, true>(nullptr);  // one error is enough
  } else {
    return slice_literal<parsed.result.items, parsed.kinds, parsed.result.unit_steps>(parsed.items.data());
  }
}

}  // namespace literals
}  // namespace lora::inline v0

#endif
