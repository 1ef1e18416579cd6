// SPDX-License-Identifier: Apache-2.0
//
// A pattern, a newline, a text: the pattern is refused by value_error, or answers under both rules within its bound on steps, and in the
// same way without the shortcut for plain sequences.
// Run with -max_len=256.
#include <lora/io/pattern.hpp>

#include <cstdlib>

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const std::size_t line = input.find('\n');
  const std::string_view text = line == std::string_view::npos ? std::string_view{} : input.substr(line + 1);
  for (const bool peft : {false, true}) {
    lora::detail::pattern_program program;
    if (const auto f = lora::detail::pattern_compiler(input.substr(0, line)).compile(program, peft)) {
      require(f.position <= size);
      continue;
    }
    require(program.code.size() <= 4 * lora::detail::pattern_max_states);
    std::uint64_t steps = 0;
    const auto answer = lora::detail::pattern_runner(program, text, peft, steps).run();
    require(steps <= (text.size() + 1) * program.code.size() + text.size());
    program.is_literal = false;
    require(lora::detail::pattern_runner(program, text, peft, steps).run() == answer);
  }
  try {
    (void)lora::io::peft_pattern(input.substr(0, line)).matches(text);
  } catch (const lora::value_error& e) {
    require(std::string_view(e.what()).starts_with("pattern '"));
  }
  return 0;
}
