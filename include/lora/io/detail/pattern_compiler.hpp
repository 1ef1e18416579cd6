// SPDX-License-Identifier: Apache-2.0
//
// From the text of a pattern to a Thompson NFA: the parser's tree is written out as instructions, counted repeats by repetition. Both
// count what they make against one cap, so that `((a{1000}){1000}){1000}` costs a refusal. Not API.
#ifndef LORA_IO_DETAIL_PATTERN_COMPILER_HPP
#define LORA_IO_DETAIL_PATTERN_COMPILER_HPP

#include <lora/io/detail/pattern_parser.hpp>

namespace lora::inline v0::detail {

class pattern_compiler {
 public:
  explicit pattern_compiler(std::string_view text) noexcept : text_(text) {}

  /**
   * `peft`: wraps the pattern as ^(?:.*\.)?(?:PATTERN)$, which is what PEFT's re.match(r"(.*\.)?(KEY)$", name) decides. The program
   * then accepts where it reaches `match`; otherwise only at the end of the text.
   */
  [[nodiscard]] pattern_failure compile(pattern_program& out, bool peft) {
    program_ = &out;
    if (peft) {
      // 0: split 1, 5   1: split 2, 4   2: any   3: jump 1   4: '.'   5: the pattern
      const std::uint32_t any = add_class(out, {{'\n', '\n'}}, true);
      const std::uint32_t dot = add_class(out, {{'.', '.'}}, false);
      push(pattern_op::split, 1, 5);
      push(pattern_op::split, 2, 4);
      push(pattern_op::consume, any);
      push(pattern_op::jump, 1);
      push(pattern_op::consume, dot);
    }
    failure_ = pattern_parser(text_, out, tree_).parse();
    if (failure_) return failure_;
    emit(tree_.root);
    if (peft) push(pattern_op::at_end);
    push(pattern_op::match);
    if (!failure_) find_literal();
    return failure_;
  }

 private:
  std::uint32_t push(pattern_op op, std::uint32_t x = 0, std::uint32_t y = 0) {
    program_->code.push_back({op, x, y});
    return static_cast<std::uint32_t>(program_->code.size() - 1);
  }
  [[nodiscard]] std::uint32_t here() const noexcept { return static_cast<std::uint32_t>(program_->code.size()); }

  void emit(std::uint32_t which) {
    // Counted in visits, not in instructions: an empty group repeated often makes none of them.
    if (++emitted_ > pattern_max_states) failure_ = {"the pattern expands to more than 20000 states", 0};
    if (failure_) return;
    const pattern_node& n = tree_.nodes[which];
    switch (n.what) {
      case pattern_kind::empty:
        return;
      case pattern_kind::consume:
        push(pattern_op::consume, n.which);
        return;
      case pattern_kind::at_begin:
        push(pattern_op::at_begin);
        return;
      case pattern_kind::at_end:
        push(pattern_op::at_end);
        return;
      case pattern_kind::sequence:
        for (const std::uint32_t i : n.nodes) emit(i);
        return;
      case pattern_kind::alternatives: {
        std::vector<std::uint32_t> ends;
        for (std::size_t i = 0; i + 1 < n.nodes.size() && !failure_; ++i) {
          const std::uint32_t fork = push(pattern_op::split, here() + 1);
          emit(n.nodes[i]);
          ends.push_back(push(pattern_op::jump));
          program_->code[fork].y = here();
        }
        emit(n.nodes.back());
        for (const std::uint32_t e : ends) program_->code[e].x = here();
        return;
      }
      case pattern_kind::repeat: {
        for (std::uint32_t i = 0; i < n.low && !failure_; ++i) emit(n.which);
        if (n.high == pattern_unlimited) {
          const std::uint32_t loop = push(pattern_op::split, here() + 1);
          emit(n.which);
          push(pattern_op::jump, loop);
          program_->code[loop].y = here();
          return;
        }
        std::vector<std::uint32_t> forks;
        for (std::uint32_t i = n.low; i < n.high && !failure_; ++i) {
          forks.push_back(push(pattern_op::split, here() + 1));
          emit(n.which);
        }
        for (const std::uint32_t f : forks) program_->code[f].y = here();
        return;
      }
    }
  }

  void find_literal() {
    const pattern_node& n = tree_.nodes[tree_.root];
    if (n.what != pattern_kind::consume && n.what != pattern_kind::sequence) return;
    for (const std::uint32_t i : n.nodes)
      if (tree_.nodes[i].what != pattern_kind::consume) return;
    program_->is_literal = true;
    if (n.what == pattern_kind::consume) program_->literal.push_back(n.which);
    for (const std::uint32_t i : n.nodes) program_->literal.push_back(tree_.nodes[i].which);
  }

  std::string_view text_;
  std::size_t emitted_ = 0;
  pattern_failure failure_;
  pattern_program* program_ = nullptr;
  pattern_tree tree_;
};

}  // namespace lora::inline v0::detail

#endif
