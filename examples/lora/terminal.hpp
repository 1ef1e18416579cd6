// SPDX-License-Identifier: Apache-2.0
//
// What a person sees: a progress bar on a terminal, bars of text, sizes, and text from files made safe to print.
#ifndef LORA_EXAMPLES_LORA_TERMINAL_HPP
#define LORA_EXAMPLES_LORA_TERMINAL_HPP

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace program {

/** One line whatever `s` holds: control characters and bytes that are not UTF-8 as \n, \x1b; so a file name cannot steer a terminal. */
[[nodiscard]] std::string escaped(std::string_view s);

/** "12.6 MB". */
[[nodiscard]] std::string size_text(double bytes);

/** `value` of `largest` in eighths of a character, `width` characters at most; something is shown for whatever is not 0. */
[[nodiscard]] std::string bar(double value, double largest, std::size_t width = 24);

/** `s` cut in the middle and padded to `width` characters (of UTF-8). */
[[nodiscard]] std::string column(std::string_view s, std::size_t width);

/** Characters of UTF-8 in `s`. */
[[nodiscard]] std::size_t characters(std::string_view s) noexcept;

/** On stderr, when that is a terminal, from one second of work on. */
class progress {
 public:
  progress(std::string what, std::uint64_t total);
  progress(const progress&) = delete;
  progress& operator=(const progress&) = delete;
  /** Takes the bar away: an error message then stands alone on its line. */
  ~progress();
  void advance(std::uint64_t amount);

 private:
  using clock = std::chrono::steady_clock;

  std::string what_;
  std::uint64_t total_;
  std::uint64_t done_ = 0;
  clock::time_point begin_ = clock::now();
  clock::time_point shown_ = begin_;
  bool terminal_;
  bool visible_ = false;
};

}  // namespace program

#endif
