// SPDX-License-Identifier: Apache-2.0
//
// pattern, peft_pattern: a subset of Python's regular expressions, matched in linear time and bounded memory, with Python's answers.
// PEFT's rank_pattern and alpha_pattern are written in it; std::regex overflows its stack and backtracks for seconds on such input.
//
//   lora::io::peft_pattern key("layers\\.[0-3]\\..*(q|v)_proj");
//   key.matches("model.layers.2.self_attn.q_proj");   // true: PEFT's rule, re.match(r"(.*\.)?(KEY)$", name)
//
// The subset: literals; '.', which does not match a newline; classes [a-z], [^...], with ranges and escapes; \d \D \w \W \s \S; escapes
// of punctuation; groups (...) and (?:...), at most 64 deep; alternation; * + ? {m} {m,} {m,n} {,n} with m, n <= 1000, also lazy (which
// changes no answer here); the anchors ^ and $. A pattern may expand to 20000 states. Patterns and texts are UTF-8 and matched by code
// points; \d \w \s are known for ASCII texts, and a text that is not ASCII is refused by a pattern that contains them.
//
// Everything else is refused by name: lookaround, backreferences, named, atomic and conditional groups, possessive quantifiers, flags,
// comments, \b \B \A \Z, and escapes of other letters and digits.
#ifndef LORA_IO_PATTERN_HPP
#define LORA_IO_PATTERN_HPP

#include <lora/core/error.hpp>
#include <lora/io/detail/pattern_compiler.hpp>

#include <string>

namespace lora::inline v0::io {

namespace pattern_detail {

// What pattern and peft_pattern share; Peft selects the rule.
template <bool Peft>
class matcher {
 public:
  /**
   * @throws value_error naming the pattern, what in it is not supported or wrong, and the position in bytes.
   * @par Cost   Linear in the expanded length; no recursion deeper than the limit on groups.
   */
  explicit matcher(std::string_view text) : text_(text) {
    if (const detail::pattern_failure f = detail::pattern_compiler(text_).compile(program_, Peft)) {
      detail::text t;
      t << "pattern " << detail::quote(text_) << ": " << f.sentence << " (position " << f.position << ")";
      detail::raise<value_error>(t);
    }
  }

  /**
   * @throws value_error when the text is not ASCII and the pattern contains \d, \w, \s or one of their negations.
   * @par Cost      At most size of the text x states. Plain dotted names are compared in place.
   * @par Threads   Safe from any number of threads.
   */
  [[nodiscard]] bool matches(std::string_view text) const {
    std::uint64_t steps = 0;
    const detail::pattern_answer answer = detail::pattern_runner(program_, text, Peft, steps).run();
    if (answer == detail::pattern_answer::undefined)
      detail::raise<value_error>(detail::text()
                                 << "pattern " << detail::quote(text_) << ": \\d, \\w and \\s are supported for ASCII texts only, not for "
                                 << detail::quote(text));
    return answer == detail::pattern_answer::yes;
  }

  /** The pattern as it was given. */
  [[nodiscard]] const std::string& text() const noexcept LORA_LIFETIMEBOUND { return text_; }

 private:
  std::string text_;
  detail::pattern_program program_;
};

}  // namespace pattern_detail

/** Matches whole texts, as re.fullmatch(PATTERN, text). */
class pattern : public pattern_detail::matcher<false> {
 public:
  using pattern_detail::matcher<false>::matcher;
};

/** Matches module names by PEFT's rule for rank_pattern and alpha_pattern: re.match(r"(.*\.)?(KEY)$", name). Its dots match anything. */
class peft_pattern : public pattern_detail::matcher<true> {
 public:
  using pattern_detail::matcher<true>::matcher;
};

}  // namespace lora::inline v0::io

#endif
