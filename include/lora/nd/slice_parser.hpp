// SPDX-License-Identifier: Apache-2.0
//
// Reads a slice written as NumPy writes it between the brackets, at compile time for literals and at run time for tools: see
// nd/slice_text.hpp, which is what programs include. The same function does both, allocates nothing and recurses nowhere.
//
//   slice_item items[4];
//   auto r = slice_parser("1:, :, 2", 8, items, 4).run();   // r.error == none, r.items == 3, r.counts.indices == 1
#ifndef LORA_ND_SLICE_PARSER_HPP
#define LORA_ND_SLICE_PARSER_HPP

#include <lora/nd/slice.hpp>

namespace lora::inline v0 {

namespace detail {

enum class slice_text_error : unsigned {
  none,
  empty_text,
  empty_item,
  missing_comma,
  bad_character,
  bad_word,
  bad_number,
  number_too_large,
  dangling_sign,
  bad_bound,
  zero_step,
  too_many_colons,
  second_ellipsis,
  missing_bracket,
  extra_bracket,
  too_many_brackets,
  square_bracket,
  slice_in_parentheses,
  fancy_index,
  too_many_items,
};

struct slice_text_result {
  slice_text_error error = slice_text_error::none;
  std::size_t column = 0;  // of the error, from 1
  std::size_t items = 0;
  slice_counts counts{};
  bool unit_steps = true;
};

/** Reads the text once; at compile time and at run time alike. Items beyond `capacity` are counted, not stored. */
class slice_parser {
 public:
  constexpr slice_parser(const char* text, std::size_t size, slice_item* out, std::size_t capacity)
      : text_(text), end_(size), out_(out), capacity_(capacity) {}

  constexpr slice_text_result run() {
    if (!balanced() || !open_parentheses() || at_ == end_) return result_;
    while (item()) {
      skip_blanks();
      if (at_ == end_) break;
      if (peek() != ',') {
        unexpected();
        break;
      }
      ++at_;
      skip_blanks();
      if (at_ == end_) break;  // one comma may trail
    }
    return result_;
  }

 private:
  enum class value_kind : unsigned char { number, none, ellipsis };
  struct value {
    value_kind kind = value_kind::none;
    index_t number = 0;
    std::size_t at = 0;
  };

  constexpr bool fail(slice_text_error error, std::size_t at) {
    result_.error = error;
    result_.column = at + 1;
    return false;
  }

  [[nodiscard]] constexpr char peek(std::size_t ahead = 0) const { return at_ + ahead < end_ ? text_[at_ + ahead] : '\0'; }
  static constexpr bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f'; }
  static constexpr bool is_digit(char c) { return c >= '0' && c <= '9'; }
  static constexpr bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
  constexpr void skip_blanks() {
    while (at_ < end_ && is_blank(text_[at_])) ++at_;
  }
  [[nodiscard]] constexpr bool at_bound_end() const { return at_ == end_ || peek() == ',' || peek() == ':'; }

  /** Something stands where an item or a bracket should have ended. */
  constexpr bool unexpected() {
    const char c = peek();
    if (c == '[' || c == ']') return fail(slice_text_error::square_bracket, at_);
    if (is_digit(c) || is_letter(c) || c == '(' || (c == '.' && peek(1) == '.' && peek(2) == '.'))
      return fail(slice_text_error::missing_comma, at_);
    return fail(slice_text_error::bad_character, at_);
  }

  constexpr bool balanced() {
    // Python allows 200 levels too, of which a[...] is one; without a limit, hostile text would take quadratic time below.
    constexpr std::size_t deepest = 199;
    std::size_t depth = 0;
    std::size_t outermost = 0;
    for (std::size_t i = 0; i < end_; ++i) {
      if (text_[i] == '(') {
        if (depth == 0) outermost = i;
        if (++depth > deepest) return fail(slice_text_error::too_many_brackets, i);
      } else if (text_[i] == ')') {
        if (depth == 0) return fail(slice_text_error::extra_bracket, i);
        --depth;
      }
    }
    return depth == 0 || fail(slice_text_error::missing_bracket, outermost);
  }

  /** Drops parentheses around the whole, as in (1, 2). An empty tuple leaves nothing to read, and is a slice; empty text is not. */
  constexpr bool open_parentheses() {
    for (;;) {
      skip_blanks();
      while (end_ > at_ && is_blank(text_[end_ - 1])) --end_;
      if (at_ == end_) return in_parentheses_ || fail(slice_text_error::empty_text, at_);
      if (text_[at_] != '(') return true;
      std::size_t closing = at_;
      for (std::size_t depth = 0;; ++closing) {
        if (text_[closing] == '(') ++depth;
        if (text_[closing] == ')' && --depth == 0) break;
      }
      if (closing != end_ - 1) return true;
      ++at_;
      --end_;
      in_parentheses_ = true;
    }
  }

  constexpr bool item() {
    if (peek() == ',') return fail(slice_text_error::empty_item, at_);
    slice_item item;
    value v;
    const bool starts_with_colon = peek() == ':';
    if (!starts_with_colon) {
      if (!read(v)) return false;
      skip_blanks();
    }
    if (peek() == ':') {
      if (in_parentheses_) return fail(slice_text_error::slice_in_parentheses, at_);
      if (!starts_with_colon && !as_bound(v, item.has_start, item.start)) return false;
      bool has_step = false;
      if (!bound_after_colon(item.has_stop, item.stop)) return false;
      if (peek() == ':') {
        if (!bound_after_colon(has_step, item.step)) return false;
        if (!has_step) item.step = 1;
        if (item.step == 0) return fail(slice_text_error::zero_step, bound_at_);
      }
      if (peek() == ':') return fail(slice_text_error::too_many_colons, at_);
      result_.unit_steps = result_.unit_steps && item.step == 1;
      ++result_.counts.axes;
    } else if (v.kind == value_kind::number) {
      item.kind = slice_kind::index;
      item.start = v.number;
      ++result_.counts.indices;
    } else if (v.kind == value_kind::none) {
      item.kind = slice_kind::newaxis;
      ++result_.counts.added;
    } else {
      if (result_.counts.ellipses != 0) return fail(slice_text_error::second_ellipsis, v.at);
      item.kind = slice_kind::ellipsis;
      ++result_.counts.ellipses;
    }
    if (result_.items < capacity_) out_[result_.items] = item;
    ++result_.items;
    return true;
  }

  constexpr bool bound_after_colon(bool& present, index_t& number) {
    ++at_;
    skip_blanks();
    if (at_bound_end()) return true;
    value v;
    if (!read(v) || !as_bound(v, present, number)) return false;
    skip_blanks();
    return true;
  }

  /** None is an omitted bound, as in Python. */
  constexpr bool as_bound(const value& v, bool& present, index_t& number) {
    bound_at_ = v.at;
    if (v.kind == value_kind::ellipsis) return fail(slice_text_error::bad_bound, v.at);
    present = v.kind == value_kind::number;
    number = v.number;
    return true;
  }

  /** A number, None or an ellipsis, with the signs and parentheses around it. */
  constexpr bool read(value& v) {
    std::size_t depth = 0;
    bool has_sign = false;
    bool negative = false;
    for (;; ++at_) {
      skip_blanks();
      if (peek() == '(') {
        ++depth;
      } else if (peek() == '+' || peek() == '-') {
        has_sign = true;
        negative = negative != (peek() == '-');
      } else {
        break;
      }
    }
    v.at = at_;
    const char c = peek();
    if (is_digit(c)) {
      v.kind = value_kind::number;
      if (!read_number(negative, v.number)) return false;
    } else if (has_sign) {
      return fail(slice_text_error::dangling_sign, at_ == end_ ? at_ - 1 : at_);
    } else if (is_letter(c)) {
      if (!read_word(v.kind)) return false;
    } else if (c == '.' && peek(1) == '.' && peek(2) == '.') {
      v.kind = value_kind::ellipsis;
      at_ += 3;
    } else if (depth != 0 && (c == ')' || c == ',')) {
      return fail(slice_text_error::fancy_index, at_);
    } else if (depth != 0 && c == ':') {
      return fail(slice_text_error::slice_in_parentheses, at_);
    } else if (c == '.' && is_digit(peek(1))) {
      return fail(slice_text_error::bad_number, at_);
    } else {
      return unexpected();
    }
    for (; depth != 0; --depth) {
      skip_blanks();
      if (peek() == ',') return fail(slice_text_error::fancy_index, at_);
      if (peek() == ':') return fail(slice_text_error::slice_in_parentheses, at_);
      if (peek() != ')') return unexpected();
      ++at_;
    }
    return true;
  }

  constexpr bool read_number(bool negative, index_t& number) {
    const std::size_t first = at_;
    unsigned base = 10;
    const char prefix = peek() == '0' ? peek(1) : '\0';
    if (prefix == 'x' || prefix == 'X') base = 16;
    if (prefix == 'o' || prefix == 'O') base = 8;
    if (prefix == 'b' || prefix == 'B') base = 2;
    const bool padded = base == 10 && peek() == '0';
    if (base != 10) at_ += 2;
    unsigned long long magnitude = 0;
    bool fits = true;
    bool any = false;
    bool underscore_may_follow = base != 10;
    for (; is_digit(peek()) || is_letter(peek()); ++at_) {
      const char c = peek();
      if (c == '_') {
        if (!underscore_may_follow) return fail(slice_text_error::bad_number, first);
        underscore_may_follow = false;
        continue;
      }
      const unsigned digit = static_cast<unsigned>(is_digit(c) ? c - '0' : (c >= 'a' ? c - 'a' : c - 'A') + 10);
      if (digit >= base) return fail(slice_text_error::bad_number, first);
      fits = fits && checked_mul<unsigned long long>(magnitude, base, magnitude) &&
             checked_add<unsigned long long>(magnitude, digit, magnitude);
      any = underscore_may_follow = true;
    }
    // Python takes 00, but not 01, which looked octal once; and 1. would be a float.
    if (!any || !underscore_may_follow || (padded && (magnitude != 0 || !fits)) || peek() == '.')
      return fail(slice_text_error::bad_number, first);
    constexpr auto largest = static_cast<unsigned long long>(PTRDIFF_MAX);
    if (!fits || magnitude > largest + (negative ? 1 : 0)) return fail(slice_text_error::number_too_large, first);
    number = static_cast<index_t>(negative ? 0 - magnitude : magnitude);
    return true;
  }

  constexpr bool take_word(const char* word) {
    std::size_t n = 0;
    while (word[n] != '\0' && peek(n) == word[n]) ++n;
    if (word[n] != '\0' || is_letter(peek(n)) || is_digit(peek(n))) return false;
    at_ += n;
    return true;
  }

  constexpr bool read_word(value_kind& kind) {
    const std::size_t first = at_;
    kind = value_kind::ellipsis;
    if (take_word("Ellipsis")) return true;
    kind = value_kind::none;
    if (take_word("None") || take_word("newaxis")) return true;
    if (take_word("np") || take_word("numpy")) {
      skip_blanks();
      if (peek() != '.') return fail(slice_text_error::bad_word, first);
      ++at_;
      skip_blanks();
      return take_word("newaxis") || fail(slice_text_error::bad_word, first);
    }
    return fail(take_word("True") || take_word("False") ? slice_text_error::fancy_index : slice_text_error::bad_word, first);
  }

  const char* text_;
  std::size_t at_ = 0;
  std::size_t end_;
  slice_item* out_;
  std::size_t capacity_;
  std::size_t bound_at_ = 0;
  bool in_parentheses_ = false;
  slice_text_result result_{};
};

/** The sentences of run-time errors. Those of the compiler, which must be literals of their own, stand in nd/slice_text.hpp. */
[[nodiscard]] constexpr const char* sentence_of(slice_text_error e) noexcept {
  switch (e) {
    case slice_text_error::none:
      return "no error";
    case slice_text_error::empty_text:
      return "the text is empty; the whole is `...` or `()`";
    case slice_text_error::empty_item:
      return "nothing stands before this comma";
    case slice_text_error::missing_comma:
      return "a comma or a colon is missing before this";
    case slice_text_error::bad_character:
      return "no slice holds this character (numbers, `:`, `...`, None, newaxis, commas and parentheses are all there is)";
    case slice_text_error::bad_word:
      return "the words of a slice are None, newaxis, np.newaxis and Ellipsis";
    case slice_text_error::bad_number:
      return "not an integer as Python writes it (no fraction, no exponent, no leading zeros, single underscores between digits)";
    case slice_text_error::number_too_large:
      return "the number does not fit a signed 64-bit index";
    case slice_text_error::dangling_sign:
      return "a sign stands before a number only";
    case slice_text_error::bad_bound:
      return "the bounds and the step of a range are integers or None";
    case slice_text_error::zero_step:
      return "the step is 0; it is positive or negative";
    case slice_text_error::too_many_colons:
      return "a third colon; a range is start:stop:step";
    case slice_text_error::second_ellipsis:
      return "a second ellipsis; only one can stand for all the axes that are left";
    case slice_text_error::missing_bracket:
      return "this parenthesis is never closed";
    case slice_text_error::extra_bracket:
      return "this parenthesis was never opened";
    case slice_text_error::too_many_brackets:
      return "more than 199 parentheses inside each other";
    case slice_text_error::square_bracket:
      return "a square bracket; the text is what stands between them, and a list of indices would copy, which a slice never does";
    case slice_text_error::slice_in_parentheses:
      return "a range inside parentheses, which Python does not take either";
    case slice_text_error::fancy_index:
      return "a tuple inside the tuple or a boolean; such an index copies, which a slice never does";
    case slice_text_error::too_many_items:
      return "more than 32 items";
  }
  return "";
}

}  // namespace detail
}  // namespace lora::inline v0

#endif
