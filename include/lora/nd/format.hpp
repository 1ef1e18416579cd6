// SPDX-License-Identifier: Apache-2.0
//
// std::format and {fmt} for views, arrays and any_view: the text of to_string. It serves what is there: std::format where the standard
// library has it, {fmt} where <fmt/format.h> (or any header of it that defines fmt::formatter) was included before this one; it never
// includes {fmt} by itself, so nobody depends on it who does not use it.
//
//   #include <fmt/format.h>
//   #include <lora/nd/format.hpp>
//   fmt::print("{}\n", w);          // str(w)
//   fmt::print("{:.3}\n", w);       // precision 3
//   fmt::print("{:r}\n", w);        // repr(w)
//
// A format is [sign][.precision][letter]. Sign: '+', '-' or ' '. Letter: 's' str (the default), 'r' repr, 'f' floatmode fixed. Width and
// fill are refused: a table of several lines has none.
#ifndef LORA_ND_FORMAT_HPP
#define LORA_ND_FORMAT_HPP

#include <lora/nd/print.hpp>

#if __has_include(<version>)
#include <version>
#endif
#if defined(__cpp_lib_format)
#include <format>
#endif

namespace lora::inline v0::detail {

/** Reads a format up to '}' into options. Gives the place of '}', or of what it does not understand. */
template <class Iterator>
[[nodiscard]] constexpr Iterator parse_print_format(Iterator at, Iterator end, print_options& o, bool& good) {
  good = true;
  if (at != end && (*at == '+' || *at == '-' || *at == ' ')) o.sign = *at++;
  if (at != end && *at == '.') {
    ++at;
    good = at != end && *at >= '0' && *at <= '9';
    o.precision = 0;
    for (; at != end && *at >= '0' && *at <= '9'; ++at)
      if (o.precision < 10000) o.precision = o.precision * 10 + (*at - '0');
  }
  if (at != end && (*at == 's' || *at == 'r' || *at == 'f')) {
    if (*at == 'r') o.style = print_style::repr;
    if (*at == 'f') o.floatmode = float_mode::fixed;
    ++at;
  }
  good = good && (at == end || *at == '}');
  return at;
}

/** The formatter of both libraries; Error is what they throw at a format that is none. */
template <class Printed, class Error>
struct print_formatter {
  print_options options{};

  template <class Context>
  constexpr auto parse(Context& context) {
    bool good = true;
    const auto at = parse_print_format(context.begin(), context.end(), options, good);
    if (!good) LORA_THROW(Error("lora: the format of an array is [+|-| ][.precision][s|r|f]"));
    return at;
  }
  template <class Context>
  auto format(const Printed& v, Context& context) const {
    auto out = context.out();
    for (const char c : to_string(v, options)) *out++ = c;
    return out;
  }
};

}  // namespace lora::inline v0::detail

#if defined(__cpp_lib_format)
template <class T, std::size_t R>
struct std::formatter<lora::ndview<T, R>, char> : lora::detail::print_formatter<lora::ndview<T, R>, std::format_error> {};
template <class T, std::size_t R>
struct std::formatter<lora::ndarray<T, R>, char> : lora::detail::print_formatter<lora::ndarray<T, R>, std::format_error> {};
template <>
struct std::formatter<lora::any_view, char> : lora::detail::print_formatter<lora::any_view, std::format_error> {};
#endif

#if defined(FMT_VERSION)
template <class T, std::size_t R>
struct fmt::formatter<lora::ndview<T, R>, char> : lora::detail::print_formatter<lora::ndview<T, R>, fmt::format_error> {};
template <class T, std::size_t R>
struct fmt::formatter<lora::ndarray<T, R>, char> : lora::detail::print_formatter<lora::ndarray<T, R>, fmt::format_error> {};
template <>
struct fmt::formatter<lora::any_view, char> : lora::detail::print_formatter<lora::any_view, fmt::format_error> {};
#endif

#endif
