// SPDX-License-Identifier: Apache-2.0
//
// From the text of a pattern to a tree: a recursive-descent parser for the subset of Python's re that io/pattern.hpp lists. What lies
// outside it is refused by name. The recursion is as deep as groups are nested, which has a limit. Not API.
#ifndef LORA_IO_DETAIL_PATTERN_PARSER_HPP
#define LORA_IO_DETAIL_PATTERN_PARSER_HPP

#include <lora/io/detail/pattern_program.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace lora::inline v0::detail {

inline constexpr std::size_t pattern_max_states = 20000;
inline constexpr unsigned pattern_max_groups = 64;  // nested in each other
inline constexpr std::uint32_t pattern_max_repeat = 1000;

struct pattern_failure {
  const char* sentence = nullptr;
  std::size_t position = 0;  // in bytes from the beginning of the pattern
  explicit operator bool() const noexcept { return sentence != nullptr; }
};

/** Adds a class to the program; the ranges may overlap and come in any order. */
inline std::uint32_t add_class(pattern_program& program, std::vector<char_range> ranges, bool negated) {
  std::vector<char_range>& all = program.ranges;
  char_class k;
  k.negated = negated;
  k.first = static_cast<std::uint32_t>(all.size());
  std::sort(ranges.begin(), ranges.end(), [](const char_range& a, const char_range& b) { return a.low < b.low; });
  for (const char_range& r : ranges) {
    for (std::uint32_t c = r.low; c <= r.high && c < 128; ++c) k.ascii[c / 64] |= std::uint64_t{1} << (c % 64);
    if (r.high < 128) continue;
    if (all.size() > k.first && r.low <= all.back().high)
      all.back().high = std::max(all.back().high, r.high);
    else
      all.push_back(r);
  }
  k.count = static_cast<std::uint32_t>(all.size()) - k.first;
  if (negated) {
    k.ascii[0] = ~k.ascii[0];
    k.ascii[1] = ~k.ascii[1];
  }
  program.classes.push_back(k);
  return static_cast<std::uint32_t>(program.classes.size() - 1);
}

enum class pattern_kind : std::uint8_t { empty, consume, at_begin, at_end, sequence, alternatives, repeat };
inline constexpr std::uint32_t pattern_unlimited = 0xffffffffu;

struct pattern_node {
  pattern_kind what = pattern_kind::empty;
  std::uint32_t which = 0;             // consume: class; repeat: the node
  std::uint32_t low = 0, high = 0;     // repeat
  std::vector<std::uint32_t> nodes{};  // sequence, alternatives
};

struct pattern_tree {
  std::vector<pattern_node> nodes;
  std::uint32_t root = 0;
};

class pattern_parser {
 public:
  /** Nodes go to `tree`, classes to `program`; all three must outlive the object. */
  pattern_parser(std::string_view text, pattern_program& program, pattern_tree& tree) noexcept
      : text_(text), program_(program), nodes_(tree.nodes), tree_(tree) {}

  [[nodiscard]] pattern_failure parse() {
    tree_.root = alternation(0);
    if (!failure_ && at_ != text_.size()) fail("')' without '('", at_);
    return failure_;
  }

 private:
  void fail(const char* sentence, std::size_t position) noexcept {
    if (!failure_) failure_ = {sentence, position};
  }
  [[nodiscard]] bool done() const noexcept { return failure_.sentence != nullptr || at_ == text_.size(); }
  [[nodiscard]] char peek(std::size_t ahead = 0) const noexcept { return at_ + ahead < text_.size() ? text_[at_ + ahead] : '\0'; }

  std::uint32_t add(pattern_node n) {
    if (nodes_.size() >= pattern_max_states)
      fail("the pattern is too long", at_);
    else
      nodes_.push_back(std::move(n));
    return static_cast<std::uint32_t>(nodes_.size() - 1);
  }

  // ---- classes ----

  std::uint32_t single(std::uint32_t c) { return add_class(program_, {{c, c}}, false); }
  std::uint32_t any_class() { return add_class(program_, {{'\n', '\n'}}, true); }

  [[nodiscard]] static bool is_class_escape(char c) noexcept { return std::string_view("dDwWsS").find(c) != std::string_view::npos; }

  void append_class_escape(char c, std::vector<char_range>& out) {
    program_.ascii_only = true;
    switch (c) {
      case 'd':
        out.insert(out.end(), {{'0', '9'}});
        break;
      case 'D':
        out.insert(out.end(), {{0, '0' - 1}, {'9' + 1, last_code_point}});
        break;
      case 'w':
        out.insert(out.end(), {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}});
        break;
      case 'W':
        out.insert(out.end(), {{0, '0' - 1}, {'9' + 1, 'A' - 1}, {'Z' + 1, '_' - 1}, {'_' + 1, 'a' - 1}, {'z' + 1, last_code_point}});
        break;
      // Python's str.isspace, which \s is defined by, includes the four separators 0x1c to 0x1f.
      case 's':
        out.insert(out.end(), {{'\t', '\r'}, {0x1c, ' '}});
        break;
      default:
        out.insert(out.end(), {{0, '\t' - 1}, {'\r' + 1, 0x1b}, {' ' + 1, last_code_point}});
        break;
    }
  }

  [[nodiscard]] static bool is_letter(char c) noexcept { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

  /** A code point of the pattern itself. */
  [[nodiscard]] std::uint32_t character() {
    const std::size_t before = at_;
    const std::uint32_t c = next_code_point(text_, at_);
    if (c > last_code_point) fail("the pattern is not UTF-8", before);
    return c;
  }

  /** Behind a backslash that is not followed by one of dDwWsS: a character that stands for itself, or something outside the subset. */
  [[nodiscard]] std::uint32_t escaped(std::size_t backslash) {
    const char c = peek();
    if (at_ == text_.size())
      fail("a backslash at the end", backslash);
    else if (c >= '0' && c <= '9')
      fail("backreferences and octal escapes are not supported", backslash);
    else if (c == 'b' || c == 'B')
      fail("\\b and \\B are not supported", backslash);
    else if (c == 'A' || c == 'Z')
      fail("\\A and \\Z are not supported; patterns are anchored already", backslash);
    else if (is_letter(c))
      fail("an escape other than \\d \\D \\w \\W \\s \\S and punctuation is not supported", backslash);
    else
      return character();
    return 0;
  }

  std::uint32_t bracket() {
    const std::size_t begin = at_++;
    bool negated = false;
    if (peek() == '^' && at_ < text_.size()) {
      negated = true;
      ++at_;
    }
    std::vector<char_range> ranges;
    for (bool first = true;; first = false) {
      if (at_ >= text_.size()) fail("a '[' without ']'", begin);
      if (failure_) return 0;
      if (peek() == ']' && !first) break;
      const std::size_t item_at = at_;
      bool is_set = false;
      const std::uint32_t low = bracket_item(ranges, is_set);
      if (failure_) return 0;
      // A '-' before the closing bracket stands for itself.
      if (peek() == '-' && at_ + 1 < text_.size() && peek(1) != ']') {
        ++at_;
        bool high_is_set = false;
        const std::uint32_t high = bracket_item(ranges, high_is_set);
        if (!failure_ && (is_set || high_is_set || high < low))
          fail("a character range that runs backwards or has a class as its end", item_at);
        ranges.push_back({low, high});
      } else if (!is_set) {
        ranges.push_back({low, low});
      }
    }
    ++at_;
    return add_class(program_, std::move(ranges), negated);
  }

  std::uint32_t bracket_item(std::vector<char_range>& ranges, bool& is_set) {
    if (peek() != '\\') return character();
    const std::size_t backslash = at_++;
    if (is_class_escape(peek()) && at_ < text_.size()) {
      append_class_escape(text_[at_++], ranges);
      is_set = true;
      return 0;
    }
    return escaped(backslash);
  }

  // ---- structure ----

  std::uint32_t alternation(unsigned depth) {
    pattern_node n;
    n.what = pattern_kind::alternatives;
    n.nodes.push_back(sequence(depth));
    while (!done() && peek() == '|') {
      ++at_;
      n.nodes.push_back(sequence(depth));
    }
    return n.nodes.size() == 1 ? n.nodes[0] : add(std::move(n));
  }

  std::uint32_t sequence(unsigned depth) {
    pattern_node n;
    n.what = pattern_kind::sequence;
    while (!done() && peek() != '|' && peek() != ')') n.nodes.push_back(quantified(depth));
    return n.nodes.size() == 1 ? n.nodes[0] : add(std::move(n));
  }

  std::uint32_t quantified(unsigned depth) {
    const std::uint32_t inner = atom(depth);
    std::uint32_t low = 0;
    std::uint32_t high = 0;
    const std::size_t at = at_;
    if (done() || !quantifier(low, high)) return inner;
    if (nodes_[inner].what == pattern_kind::at_begin || nodes_[inner].what == pattern_kind::at_end)
      if (text_[at - 1] != ')') fail("nothing to repeat", at);  // as Python: ^* is an error, (^)* is not
    if (!done() && peek() == '+') fail("possessive quantifiers are not supported", at_);
    if (!done() && peek() == '?') ++at_;  // lazy: the same texts match as a whole
    std::uint32_t unused = 0;
    const std::size_t second = at_;
    if (!done() && quantifier(unused, unused)) fail("multiple repeat", second);
    pattern_node n;
    n.what = pattern_kind::repeat;
    n.which = inner;
    n.low = low;
    n.high = high;
    return add(std::move(n));
  }

  /** Reads a quantifier if there is one. '{' that begins none stands for itself, as in Python. */
  bool quantifier(std::uint32_t& low, std::uint32_t& high) {
    const char c = peek();
    if (c == '*' || c == '+' || c == '?') {
      ++at_;
      low = c == '+' ? 1 : 0;
      high = c == '?' ? 1 : pattern_unlimited;
      return true;
    }
    if (c != '{' || peek(1) == '}') return false;
    std::size_t p = at_ + 1;
    const auto number = [&](std::uint32_t missing) {
      std::uint32_t value = missing;
      for (bool first = true; p < text_.size() && text_[p] >= '0' && text_[p] <= '9'; ++p, first = false) {
        value = (first ? 0 : value) * 10 + static_cast<std::uint32_t>(text_[p] - '0');
        if (value > pattern_max_repeat) value = pattern_max_repeat + 1;
      }
      return value;
    };
    const std::uint32_t from = number(0);
    std::uint32_t to = from;
    if (p < text_.size() && text_[p] == ',') {
      ++p;
      to = number(pattern_unlimited);
    }
    if (p >= text_.size() || text_[p] != '}') return false;
    if (from > pattern_max_repeat || (to != pattern_unlimited && to > pattern_max_repeat))
      fail("a repeat count above 1000 is not supported", at_);
    if (to < from) fail("the repeat counts run backwards", at_);
    at_ = p + 1;
    low = from;
    high = to;
    return true;
  }

  std::uint32_t leaf(pattern_kind what, std::uint32_t which = 0) {
    pattern_node n;
    n.what = what;
    n.which = which;
    return add(std::move(n));
  }

  std::uint32_t atom(unsigned depth) {
    const std::size_t at = at_;
    std::uint32_t low = 0;
    switch (peek()) {
      case '.':
        ++at_;
        return leaf(pattern_kind::consume, any_class());
      case '^':
        ++at_;
        return leaf(pattern_kind::at_begin);
      case '$':
        ++at_;
        return leaf(pattern_kind::at_end);
      case '[':
        return leaf(pattern_kind::consume, bracket());
      case '(':
        return group(depth);
      case '\\':
        ++at_;
        if (at_ < text_.size() && is_class_escape(peek())) {
          std::vector<char_range> ranges;
          append_class_escape(text_[at_++], ranges);
          return leaf(pattern_kind::consume, add_class(program_, std::move(ranges), false));
        }
        return leaf(pattern_kind::consume, single(escaped(at)));
      default:
        break;
    }
    if (quantifier(low, low)) {
      fail("nothing to repeat", at);
      return leaf(pattern_kind::empty);
    }
    return leaf(pattern_kind::consume, single(character()));
  }

  std::uint32_t group(unsigned depth) {
    const std::size_t begin = at_++;
    if (depth >= pattern_max_groups) fail("groups are nested deeper than 64", begin);
    if (peek() == '?' && at_ < text_.size()) {
      const char c = peek(1);
      if (c == ':')
        at_ += 2;
      else if (c == '=' || c == '!')
        fail("lookahead is not supported", begin);
      else if (c == '<')
        fail("lookbehind is not supported", begin);
      else if (c == 'P')
        fail("named groups and their references are not supported", begin);
      else if (c == '#')
        fail("comments are not supported", begin);
      else if (c == '>')
        fail("atomic groups are not supported", begin);
      else if (c == '(')
        fail("conditional groups are not supported", begin);
      else
        fail("flags and other extensions '(?...' are not supported", begin);
    }
    if (failure_) return leaf(pattern_kind::empty);
    const std::uint32_t inner = alternation(depth + 1);
    if (!failure_ && peek() != ')') fail("a '(' without ')'", begin);
    ++at_;
    return inner;
  }

  std::string_view text_;
  pattern_program& program_;
  std::vector<pattern_node>& nodes_;
  pattern_tree& tree_;
  std::size_t at_ = 0;
  pattern_failure failure_;
};

}  // namespace lora::inline v0::detail

#endif
