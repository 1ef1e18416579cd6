// SPDX-License-Identifier: Apache-2.0
//
// detail::digits_of: the decimal digits of a number as NumPy prints them: the shortest that give the number back in its own type (float16,
// float or double), or, where fewer or more are asked for, those of its exact value. How numbers are laid out in a table is in nd/print.hpp.
//
//   lora::detail::digits_of(0.1f, lora::detail::float_kind::f32)    // {"1", -1}: 1e-1
#ifndef LORA_ND_DIGITS_HPP
#define LORA_ND_DIGITS_HPP

#include <lora/core/half.hpp>
#include <lora/core/text.hpp>

#include <charconv>
#include <cmath>
#include <string>

namespace lora::inline v0::detail {

/** The type whose neighbours the digits must tell apart. The value itself travels as a double, which holds all three. */
enum class float_kind : unsigned char { f16, f32, f64 };

/** d.ddd * 10^exponent; "0" and 0 for zero. No sign. */
struct decimal {
  std::string digits;
  int exponent = 0;
};

/** "d.ddde-05" taken apart. */
[[nodiscard]] inline decimal parse_scientific(const char* first, const char* last) {
  decimal d;
  const char* at = first;
  for (; at != last && *at != 'e'; ++at)
    if (*at != '.') d.digits += *at;
  if (at == last) return d;
  ++at;
  if (*at == '+') ++at;  // from_chars takes no plus sign
  (void)std::from_chars(at, last, d.exponent);
  while (d.digits.size() > 1 && d.digits.back() == '0') d.digits.pop_back();
  return d;
}

/**
 * The sign of digits * 10^power - units / 2^25, exactly. With at most five digits and units below 2^42, as float16 has them, both sides of
 * the comparison stay below 2^59: 10^5 * 10^4 * 2^25, or (beside a negative power) 10^5 * 2^25 and as much.
 */
[[nodiscard]] constexpr int compare_decimal(std::int64_t digits, int power, std::int64_t units) noexcept {
  std::int64_t left = digits * (std::int64_t{1} << 25);
  for (; power > 0; --power) left *= 10;
  for (; power < 0; ++power) units *= 10;
  return left < units ? -1 : left > units ? 1 : 0;
}

/**
 * The shortest decimal between the midpoints to the neighbours of a positive float16, the nearest where several are as short. There is no
 * to_chars for the type. Lengths are tried upwards; for each, the correctly rounded decimal, and the one on the value's other side:
 * below a power of two the neighbour is nearer, so the rounded decimal can be outside while the other is inside.
 */
[[nodiscard]] inline decimal shortest_float16(double value) {
  const std::uint16_t bits = float16(static_cast<float>(value)).bits;
  const auto units = [](int b) {  // of 2^-25, in which all midpoints are whole numbers
    return static_cast<std::int64_t>((b >= 0x7c00 ? 65536.0f : float16_to_float(static_cast<std::uint16_t>(b))) * 0x1p25f);
  };
  const std::int64_t mine = units(bits);
  const std::int64_t low = (units(bits - 1) + mine) / 2;
  const std::int64_t high = (mine + units(bits + 1)) / 2;
  const int even = bits % 2 == 0 ? 1 : 0;  // a midpoint rounds to the even neighbour
  const auto inside = [&](std::int64_t digits, int power) {
    return compare_decimal(digits, power, low) > -even && compare_decimal(digits, power, high) < even;
  };
  char buffer[32];
  for (int length = 1;; ++length) {
    const auto end = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific, length - 1).ptr;
    decimal d = parse_scientific(buffer, end);
    d.digits.resize(static_cast<std::size_t>(length), '0');
    std::int64_t digits = 0;
    for (const char c : d.digits) digits = digits * 10 + (c - '0');
    const int power = d.exponent - length + 1;
    if (length < 5 && !inside(digits, power)) {  // five digits tell all float16 apart
      digits += compare_decimal(digits, power, mine) < 0 ? 1 : -1;
      if (!inside(digits, power)) continue;
      d.digits = std::to_string(digits);
      d.exponent = power + static_cast<int>(d.digits.size()) - 1;
    }
    while (d.digits.size() > 1 && d.digits.back() == '0') d.digits.pop_back();
    return d;
  }
}

/** The shortest digits of a finite, non-negative value. */
[[nodiscard]] inline decimal digits_of(double value, float_kind kind) {
  if (value == 0) return {"0", 0};
  if (kind == float_kind::f16) return shortest_float16(value);
  char buffer[64];
  const auto end = kind == float_kind::f32
                       ? std::to_chars(buffer, buffer + sizeof buffer, static_cast<float>(value), std::chars_format::scientific).ptr
                       : std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific).ptr;
  return parse_scientific(buffer, end);
}

/** The exact value rounded to `places` digits behind the point, ties to even. */
[[nodiscard]] inline std::string exact_positional(double value, int places) {
  std::string s(static_cast<std::size_t>(places) + 330, '\0');  // the largest double has 309 digits before the point
  s.resize(static_cast<std::size_t>(std::to_chars(s.data(), s.data() + s.size(), value, std::chars_format::fixed, places).ptr - s.data()));
  if (places == 0) s += '.';
  return s;
}

/** How many digits behind the point: the shortest when `unique`, at least `least`, and at most `most` (-1: any number). */
struct places {
  bool unique = true;
  int most = -1;
  int least = 0;
};

/** 123.45, always with a point, for a finite non-negative value. */
[[nodiscard]] inline std::string positional(double value, float_kind kind, const places& p) {
  if (!p.unique) return exact_positional(value, p.most);
  decimal d = digits_of(value, kind);
  const int count = static_cast<int>(d.digits.size());
  const int behind = count - 1 - d.exponent > 0 ? count - 1 - d.exponent : 0;
  std::string s;
  if (p.most >= 0 && behind > p.most) {
    s = exact_positional(value, p.most);
  } else if (behind < p.least) {
    s = exact_positional(value, p.least);  // digits beyond the shortest are those of the value, not zeros
  } else {
    const auto whole = static_cast<std::size_t>(d.exponent < 0 ? 0 : d.exponent + 1);
    if (whole == 0) {
      s = "0." + std::string(static_cast<std::size_t>(-1 - d.exponent), '0') + d.digits;
    } else {
      if (d.digits.size() < whole) d.digits.resize(whole, '0');
      s = d.digits.substr(0, whole) + "." + d.digits.substr(whole);
    }
  }
  return s;
}

/** 1.2345e+08, always with a point, for a finite non-negative value; the exponent has at least `exponent_digits` digits. */
[[nodiscard]] inline std::string scientific(double value, float_kind kind, const places& p, int exponent_digits) {
  decimal d = digits_of(value, kind);
  const int behind = static_cast<int>(d.digits.size()) - 1;
  int wanted = behind;
  if (!p.unique || (p.most >= 0 && behind > p.most)) {
    wanted = p.most;
  } else if (behind < p.least) {
    wanted = p.least;
  }
  if (wanted != behind) {
    std::string s(static_cast<std::size_t>(wanted) + 32, '\0');
    const auto end = std::to_chars(s.data(), s.data() + s.size(), value, std::chars_format::scientific, wanted).ptr;
    d = parse_scientific(s.data(), end);
    d.digits.resize(static_cast<std::size_t>(wanted) + 1, '0');
  }
  const std::string exponent = std::to_string(d.exponent < 0 ? -d.exponent : d.exponent);
  std::string s = d.digits.substr(0, 1) + "." + d.digits.substr(1) + (d.exponent < 0 ? "e-" : "e+");
  if (exponent.size() < static_cast<std::size_t>(exponent_digits))
    s.append(static_cast<std::size_t>(exponent_digits) - exponent.size(), '0');
  return s + exponent;
}

/** Zeros at the end of the digits behind the point removed; the point stays. */
inline void trim_zeros(std::string& s) {
  const std::size_t e = s.find('e');
  std::size_t end = e == std::string::npos ? s.size() : e;
  const std::size_t first = end;
  while (end > 0 && s[end - 1] == '0') --end;
  s.erase(end, first - end);
}

}  // namespace lora::inline v0::detail

#endif
