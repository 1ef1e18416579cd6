// SPDX-License-Identifier: Apache-2.0
//
// Text from outside put into JSON, XML and metric labels: escapes of each, and bytes that are not UTF-8 become U+FFFD, so that what is
// written is well formed whatever a path or an error message holds. Not API.
#ifndef LORA_INTEROP_DETAIL_ESCAPE_HPP
#define LORA_INTEROP_DETAIL_ESCAPE_HPP

#include <lora/config.hpp>

#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace lora::inline v0::detail {

/** Length of the UTF-8 sequence that begins at s[i], or 0 if none does (overlong forms and surrogates included: Unicode 15, table 3-7). */
[[nodiscard]] inline std::size_t utf8_at(std::string_view s, std::size_t i) noexcept {
  const auto byte = [&](std::size_t k) { return k < s.size() ? static_cast<unsigned char>(s[k]) : 0u; };
  const unsigned lead = byte(i);
  if (lead < 0x80) return 1;
  const std::size_t n = lead >= 0xc2 && lead <= 0xdf ? 2u : lead >= 0xe0 && lead <= 0xef ? 3u : lead >= 0xf0 && lead <= 0xf4 ? 4u : 0u;
  if (n == 0) return 0;
  const unsigned low = lead == 0xe0 ? 0xa0u : lead == 0xf0 ? 0x90u : 0x80u;
  const unsigned high = lead == 0xed ? 0x9fu : lead == 0xf4 ? 0x8fu : 0xbfu;
  if (byte(i + 1) < low || byte(i + 1) > high) return 0;
  for (std::size_t k = 2; k < n; ++k)
    if (byte(i + k) < 0x80 || byte(i + k) > 0xbf) return 0;
  return n;
}

/** Appends `s`; `escape(out, c)` is asked for each ASCII character and says whether it wrote something in its place. */
template <class Escape>
void append_escaped(std::string& out, std::string_view s, Escape escape) {
  for (std::size_t i = 0; i < s.size();) {
    const std::size_t n = utf8_at(s, i);
    if (n == 0) {
      out += "\xef\xbf\xbd";
      ++i;
      continue;
    }
    if (n > 1 || !escape(out, s[i])) out.append(s, i, n);
    i += n;
  }
}

/** With the quotes. */
inline void append_json(std::string& out, std::string_view s) {
  out += '"';
  append_escaped(out, s, [](std::string& o, char c) {
    const auto u = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\')
      (o += '\\') += c;
    else if (c == '\n')
      o += "\\n";
    else if (c == '\t')
      o += "\\t";
    else if (c == '\r')
      o += "\\r";
    else if (u < 0x20 || u == 0x7f)
      ((o += "\\u00") += "0123456789abcdef"[u >> 4]) += "0123456789abcdef"[u & 15];
    else
      return false;
    return true;
  });
  out += '"';
}

/** For XML text and attributes in double quotes; what XML 1.0 cannot hold (control characters, U+FFFE, U+FFFF) becomes U+FFFD. */
inline void append_xml(std::string& out, std::string_view s) {
  const std::size_t begin = out.size();
  append_escaped(out, s, [](std::string& o, char c) {
    const auto u = static_cast<unsigned char>(c);
    if (c == '<')
      o += "&lt;";
    else if (c == '>')
      o += "&gt;";
    else if (c == '&')
      o += "&amp;";
    else if (c == '"')
      o += "&quot;";
    else if (u < 0x20 || u == 0x7f)
      o += "\xef\xbf\xbd";
    else
      return false;
    return true;
  });
  for (const char last : {'\xbe', '\xbf'}) {
    const char bytes[] = {'\xef', '\xbf', last};
    const std::string_view none(bytes, 3);
    for (std::size_t at = out.find(none, begin); at != std::string::npos; at = out.find(none, at + 3)) out.replace(at, 3, "\xef\xbf\xbd");
  }
}

/** The shortest digits that read back as the same number. @pre finite. */
inline void append_number(std::string& out, double value) {
  char digits[32];
  out.append(digits, std::to_chars(digits, digits + sizeof digits, value).ptr);
}

/** "2026-11-22T22:40:19.125Z". */
[[nodiscard]] inline std::string iso_time(std::chrono::system_clock::time_point t) {
  using namespace std::chrono;
  const auto ms = floor<milliseconds>(t);
  const auto day = floor<days>(ms);
  const year_month_day date(day);
  const auto rest = static_cast<std::uint64_t>((ms - day).count());
  std::string out = std::to_string(static_cast<int>(date.year()));
  const auto two = [&](char before, std::uint64_t n) {
    ((out += before) += static_cast<char>('0' + n / 10)) += static_cast<char>('0' + n % 10);
  };
  two('-', static_cast<unsigned>(date.month()));
  two('-', static_cast<unsigned>(date.day()));
  two('T', rest / 3600000);
  two(':', rest / 60000 % 60);
  two(':', rest / 1000 % 60);
  two('.', rest % 1000 / 10);
  (out += static_cast<char>('0' + rest % 10)) += 'Z';
  return out;
}

}  // namespace lora::inline v0::detail

#endif
