// SPDX-License-Identifier: Apache-2.0
//
// A compiled pattern and the loop that runs it: all states of the NFA are followed at once, so the time is at most (length of the text)
// x (number of states) whatever the pattern, and the memory is two lists of states. Nothing recurses and nothing backtracks. Not API.
#ifndef LORA_IO_DETAIL_PATTERN_PROGRAM_HPP
#define LORA_IO_DETAIL_PATTERN_PROGRAM_HPP

#include <lora/config.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace lora::inline v0::detail {

inline constexpr std::uint32_t last_code_point = 0x10ffff;

/** A set of code points: a bitmap for ASCII, ranges for the rest. */
struct char_class {
  std::uint64_t ascii[2] = {0, 0};
  std::uint32_t first = 0;  // ranges [first, first + count) of the program: sorted, disjoint
  std::uint32_t count = 0;
  bool negated = false;  // already folded into the bitmap
};

struct char_range {
  std::uint32_t low, high;
};

enum class pattern_op : std::uint8_t { consume, split, jump, at_begin, at_end, match };

struct pattern_instruction {
  pattern_op op;
  std::uint32_t x;  // consume: class; split, jump: target
  std::uint32_t y;  // split: the other target
};

struct pattern_program {
  std::vector<pattern_instruction> code;
  std::vector<char_class> classes;
  std::vector<char_range> ranges;
  std::vector<std::uint32_t> literal;  // the classes of a pattern that is a plain sequence of single characters
  bool is_literal = false;
  bool ascii_only = false;  // contains \d \w \s or their negations, whose meaning beyond ASCII needs Unicode's tables

  [[nodiscard]] bool contains(std::uint32_t which, std::uint32_t c) const noexcept {
    const char_class& k = classes[which];
    if (c < 128) return (k.ascii[c / 64] >> (c % 64) & 1u) != 0;
    const char_range* const begin = ranges.data() + k.first;
    const char_range* const behind =
        std::upper_bound(begin, begin + k.count, c, [](std::uint32_t v, const char_range& r) { return v < r.low; });
    return (behind != begin && c <= behind[-1].high) != k.negated;
  }
};

/** The code point at `at`, which is moved behind it. A byte that is not UTF-8 stands for itself, above the last code point. */
[[nodiscard]] inline std::uint32_t next_code_point(std::string_view s, std::size_t& at) noexcept {
  const auto lead = static_cast<unsigned char>(s[at++]);
  if (lead < 0x80) return lead;
  const std::size_t more = lead >= 0xf0 && lead < 0xf5 ? 3 : lead >= 0xe0 && lead < 0xf0 ? 2 : lead >= 0xc2 && lead < 0xe0 ? 1 : 0;
  std::uint32_t c = more == 3 ? lead & 0x07u : more == 2 ? lead & 0x0fu : lead & 0x1fu;
  if (more == 0 || s.size() - at < more) return last_code_point + 1 + lead;
  for (std::size_t i = 0; i < more; ++i) {
    const auto b = static_cast<unsigned char>(s[at + i]);
    if ((b & 0xc0u) != 0x80u) return last_code_point + 1 + lead;
    c = (c << 6) | (b & 0x3fu);
  }
  const bool canonical = (more == 1 || c >= (more == 2 ? 0x800u : 0x10000u)) && c <= last_code_point && (c < 0xd800u || c > 0xdfffu);
  if (!canonical) return last_code_point + 1 + lead;
  at += more;
  return c;
}

enum class pattern_answer : std::uint8_t { no, yes, undefined };  // undefined: \d \w \s met a text that is not ASCII

class pattern_runner {
 public:
  /** `steps` is increased by the number of states visited, for callers that bound the total. */
  pattern_runner(const pattern_program& program, std::string_view text, bool peft, std::uint64_t& steps) noexcept
      : program_(program), text_(text), peft_(peft), steps_(steps) {}

  [[nodiscard]] pattern_answer run() {
    steps_ += text_.size() / 16;  // the look at each byte below
    bool ascii = true;
    bool lines = false;
    for (const char c : text_) {
      ascii = ascii && static_cast<unsigned char>(c) < 0x80;
      lines = lines || c == '\n';
    }
    if (program_.ascii_only && !ascii) return pattern_answer::undefined;
    if (program_.is_literal && ascii && !lines) return literal() ? pattern_answer::yes : pattern_answer::no;
    return simulate() ? pattern_answer::yes : pattern_answer::no;
  }

 private:
  /** Most real keys are dotted names: a sequence of single characters is compared in place, at the end of the text. */
  [[nodiscard]] bool literal() noexcept {
    const std::size_t n = program_.literal.size();
    ++steps_;
    if (text_.size() < n || (!peft_ && text_.size() != n)) return false;
    const std::size_t begin = text_.size() - n;
    if (begin != 0 && text_[begin - 1] != '.') return false;
    for (std::size_t i = 0; i < n; ++i, ++steps_)
      if (!program_.contains(program_.literal[i], static_cast<unsigned char>(text_[begin + i]))) return false;
    return true;
  }

  [[nodiscard]] bool simulate() {
    marks_.assign(program_.code.size(), 0);
    std::vector<std::uint32_t> now;
    std::vector<std::uint32_t> next;
    std::size_t at = 0;
    std::uint32_t round = 1;
    bool accepted = follow(0, at, round, now);
    while (!accepted && !now.empty() && at < text_.size()) {
      const std::uint32_t c = next_code_point(text_, at);
      next.clear();
      ++round;
      for (const std::uint32_t state : now)
        if (program_.contains(program_.code[state].x, c)) accepted = follow(state + 1, at, round, next) || accepted;
      now.swap(next);
    }
    return accepted;
  }

  /** Adds the consuming states that are reached from `start` without reading; true when the text is accepted here. */
  bool follow(std::uint32_t start, std::size_t at, std::uint32_t round, std::vector<std::uint32_t>& out) {
    bool accepted = false;
    pending_.push_back(start);
    while (!pending_.empty()) {
      const std::uint32_t state = pending_.back();
      pending_.pop_back();
      if (marks_[state] == round) continue;
      marks_[state] = round;
      ++steps_;
      const pattern_instruction& i = program_.code[state];
      switch (i.op) {
        case pattern_op::consume:
          out.push_back(state);
          break;
        case pattern_op::split:
          pending_.push_back(i.y);
          [[fallthrough]];
        case pattern_op::jump:
          pending_.push_back(i.x);
          break;
        case pattern_op::at_begin:
          if (at == 0) pending_.push_back(state + 1);
          break;
        // As in Python, '$' holds at the end and in front of a newline that is the last character.
        case pattern_op::at_end:
          if (at == text_.size() || (at + 1 == text_.size() && text_[at] == '\n')) pending_.push_back(state + 1);
          break;
        case pattern_op::match:
          accepted = accepted || peft_ || at == text_.size();
          break;
      }
    }
    return accepted;
  }

  const pattern_program& program_;
  std::string_view text_;
  bool peft_;
  std::uint64_t& steps_;
  std::vector<std::uint32_t> marks_;
  std::vector<std::uint32_t> pending_;
};

}  // namespace lora::inline v0::detail

#endif
