// SPDX-License-Identifier: Apache-2.0
//
// JSON text for the writers of io/: strings escaped as serde_json and Python's json do for UTF-8, numbers in the fewest digits that read
// back as the same float or double, whatever the locale. Not API.
//
//   std::string out;  append_string(out, name);  out += ": ";  append_number(out, 0.1f);
#ifndef LORA_IO_DETAIL_JSON_WRITER_HPP
#define LORA_IO_DETAIL_JSON_WRITER_HPP

#include <lora/config.hpp>

#include <charconv>
#include <string>
#include <string_view>

namespace lora::inline v0::detail {

/** With its quotation marks. Bytes above 0x7f are passed on: the text is UTF-8 when `s` is (see is_utf8). */
inline void append_string(std::string& out, std::string_view s) {
  constexpr const char* hex = "0123456789abcdef";
  out += '"';
  for (const char c : s) {
    const auto u = static_cast<unsigned char>(c);
    const char* const from = "\"\\\b\f\n\r\t";
    const char* const to = "\"\\bfnrt";
    const std::size_t at = std::string_view(from).find(c);
    if (at != std::string_view::npos) {
      out += '\\';
      out += to[at];
    } else if (u < 0x20) {
      out += "\\u00";
      out += hex[u >> 4];
      out += hex[u & 15];
    } else {
      out += c;
    }
  }
  out += '"';
}

/** An integer, or a finite float or double in its shortest form: 0.1, 1e-30, 16. */
template <class Number>
void append_number(std::string& out, Number value) {
  char digits[32];  // the longest double is 24 characters, the longest integer 20
  const auto end = std::to_chars(digits, digits + sizeof digits, value);
  out.append(digits, end.ptr);
}

/** Well-formed UTF-8 (RFC 3629): no overlong forms, no surrogates, nothing above U+10FFFF. */
[[nodiscard]] inline bool is_utf8(std::string_view s) noexcept {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(s[i]); };
  for (std::size_t i = 0; i < s.size();) {
    const unsigned first = byte(i);
    if (first < 0x80) {
      ++i;
      continue;
    }
    const std::size_t more = first >= 0xc2 && first <= 0xdf   ? 1
                             : first >= 0xe0 && first <= 0xef ? 2
                             : first >= 0xf0 && first <= 0xf4 ? 3
                                                              : 0;
    if (more == 0 || s.size() - i <= more) return false;
    // The second byte is where overlong forms, surrogates and what lies above U+10FFFF differ from the rest.
    const unsigned second = byte(i + 1);
    const unsigned low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    const unsigned high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
    if (second < low || second > high) return false;
    for (std::size_t k = 2; k <= more; ++k)
      if ((byte(i + k) & 0xc0) != 0x80) return false;
    i += more + 1;
  }
  return true;
}

}  // namespace lora::inline v0::detail

#endif
