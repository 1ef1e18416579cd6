// SPDX-License-Identifier: Apache-2.0
//
// The 16-bit conversions against an oracle that shares nothing with them: values by ldexp, rounding by nearbyint on a scaled double. All
// 2^16 halves are widened; narrowing is tried on every half, on every tie between neighbours, and one float to either side of both.
// All 2^32 floats are in slow/half_exhaustive_test.cpp.
#include <lora/core/half.hpp>

#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <limits>

namespace {

struct format {
  int significand;  // bits stored
  int lowest;       // exponent of the smallest normal number
  std::uint32_t infinity;
};
constexpr format f16{10, -14, 0x7c00};
constexpr format bf16{7, -126, 0x7f80};

double value_of(format f, std::uint32_t bits) {
  const std::uint32_t magnitude = bits & 0x7fffu;
  const int exponent = static_cast<int>(magnitude >> f.significand);
  const double fraction = static_cast<double>(magnitude & ((1u << f.significand) - 1u));
  const double v = exponent == 0 ? std::ldexp(fraction, f.lowest - f.significand)
                                 : std::ldexp(fraction + std::ldexp(1.0, f.significand), f.lowest - 1 + exponent - f.significand);
  return (bits & 0x8000u) != 0 ? -v : v;
}

// The nearest number of the format as a double, infinity included; ties to even by nearbyint in the default mode.
double rounded(format f, double v) {
  if (v == 0 || std::isinf(v)) return v;
  int exponent = 0;
  (void)std::frexp(v, &exponent);
  --exponent;
  if (exponent < f.lowest) exponent = f.lowest;
  const double unit = std::ldexp(1.0, exponent - f.significand);
  const double r = std::nearbyint(v / unit) * unit;
  const double largest = value_of(f, f.infinity - 1u);
  return std::fabs(r) > largest ? std::copysign(std::numeric_limits<double>::infinity(), v) : r;
}

template <class Half>
bool narrows_right(format f, float v) {
  const auto half = Half(v);
  if (std::isnan(v)) return (half.bits & 0x7fffu) > f.infinity && ((half.bits & 0x8000u) != 0) == std::signbit(v);
  const double want = rounded(f, static_cast<double>(v));
  const double have = (half.bits & 0x7fffu) == f.infinity
                          ? std::copysign(std::numeric_limits<double>::infinity(), std::signbit(v) ? -1.0 : 1.0)
                          : value_of(f, half.bits);
  return (half.bits & 0x7fffu) <= f.infinity && have == want && ((half.bits & 0x8000u) != 0) == std::signbit(v);
}

template <class Half>
void check_widening(format f) {
  int wrong = 0;
  std::uint32_t first = 0;
  for (std::uint32_t bits = 0; bits < 0x10000u; ++bits) {
    const auto h = Half::from_bits(static_cast<std::uint16_t>(bits));
    const auto v = static_cast<float>(h);
    const std::uint32_t magnitude = bits & 0x7fffu;
    bool right = std::signbit(v) == ((bits & 0x8000u) != 0);
    if (magnitude > f.infinity)
      right = right && std::isnan(v);
    else if (magnitude == f.infinity)
      right = right && std::isinf(v);
    else
      right = right && static_cast<double>(v) == value_of(f, bits);
    if (!right && wrong++ == 0) first = bits;
  }
  INFO("first wrong: ", first);
  CHECK(wrong == 0);
}

template <class Half>
void check_narrowing(format f) {
  int wrong = 0;
  float first = 0;
  const auto check = [&](float v) {
    if (!narrows_right<Half>(f, v) && wrong++ == 0) first = v;
  };
  constexpr float inf = std::numeric_limits<float>::infinity();
  for (std::uint32_t bits = 0; bits < 0x10000u; ++bits) {
    const auto v = static_cast<float>(Half::from_bits(static_cast<std::uint16_t>(bits)));
    const float tie = static_cast<float>((value_of(f, bits) + value_of(f, bits + 1u)) / 2);  // exact: one bit more
    for (const float x : {v, tie}) {
      check(x);
      check(std::nextafter(x, inf));
      check(std::nextafter(x, -inf));
    }
  }
  INFO("first wrong: ", first);
  CHECK(wrong == 0);
}

}  // namespace

TEST_CASE("core/half: all 2^16 float16 widen to their value") { check_widening<lora::float16>(f16); }

TEST_CASE("core/half: all 2^16 bfloat16 widen to their value") { check_widening<lora::bfloat16>(bf16); }

TEST_CASE("core/half: float to float16 is right at every value, every tie and beside both") { check_narrowing<lora::float16>(f16); }

TEST_CASE("core/half: float to bfloat16 is right at every value, every tie and beside both") { check_narrowing<lora::bfloat16>(bf16); }

TEST_CASE("core/half: every finite half survives the way to float and back, bit by bit") {
  int wrong = 0;
  for (std::uint32_t bits = 0; bits < 0x10000u; ++bits) {
    const auto b = static_cast<std::uint16_t>(bits);
    if ((bits & 0x7fffu) <= f16.infinity && lora::float16(static_cast<float>(lora::float16::from_bits(b))).bits != b) ++wrong;
    if ((bits & 0x7fffu) <= bf16.infinity && lora::bfloat16(static_cast<float>(lora::bfloat16::from_bits(b))).bits != b) ++wrong;
  }
  CHECK(wrong == 0);
}

TEST_CASE("core/half: a NaN keeps sign and upper payload and becomes quiet when narrowed") {
  const auto narrow16 = [](std::uint32_t u) { return lora::float16(std::bit_cast<float>(u)).bits; };
  const auto narrowb = [](std::uint32_t u) { return lora::bfloat16(std::bit_cast<float>(u)).bits; };
  CHECK(narrow16(0x7fc00000u) == 0x7e00u);
  CHECK(narrow16(0xff800001u) == 0xfe00u);  // signalling, payload lost below: still a NaN
  CHECK(narrow16(0x7f802000u) == 0x7e01u);  // lowest payload bit that fits
  CHECK(narrowb(0x7f800001u) == 0x7fc0u);
  CHECK(narrowb(0xffffffffu) == 0xffffu);
  // Widening: float16 as the hardware (quiet bit set), bfloat16 bit by bit.
  CHECK(std::bit_cast<std::uint32_t>(static_cast<float>(lora::float16::from_bits(0x7c01))) == 0x7fc02000u);
  CHECK(std::bit_cast<std::uint32_t>(static_cast<float>(lora::bfloat16::from_bits(0x7f81))) == 0x7f810000u);
}

TEST_CASE("core/half: known values, at compile time too") {
  static_assert(lora::float16(1.0f).bits == 0x3c00);
  static_assert(lora::float16(65504.0f).bits == 0x7bff);
  static_assert(lora::float16(65519.996f).bits == 0x7bff);
  static_assert(lora::float16(65520.0f).bits == 0x7c00);
  static_assert(lora::float16(0x1p-24f).bits == 0x0001);
  static_assert(lora::float16(0x1p-25f).bits == 0x0000);         // tie to even
  static_assert(lora::float16(0x1.000002p-25f).bits == 0x0001);  // just above it
  static_assert(lora::bfloat16(1.0f).bits == 0x3f80);
  static_assert(lora::bfloat16(0x1.01p0f).bits == 0x3f80);  // tie to even, down
  static_assert(lora::bfloat16(0x1.03p0f).bits == 0x3f82);  // tie to even, up
  static_assert(static_cast<float>(lora::float16::from_bits(0x3555)) == 0.333251953125f);
  CHECK(lora::float16(-0.0f).bits == 0x8000u);
  CHECK(lora::bfloat16(-0.0f).bits == 0x8000u);
  CHECK(lora::bfloat16(std::numeric_limits<float>::max()).bits == 0x7f80u);
}

TEST_CASE("core/half: == compares bits") {
  CHECK(lora::float16(0.0f) != lora::float16(-0.0f));
  CHECK(lora::bfloat16::from_bits(0x7fc0) == lora::bfloat16::from_bits(0x7fc0));
}

#ifdef __FLT16_MANT_DIG__  // the compiler has binary16 here: a second oracle, its own conversion (on AArch64 the CPU's)
TEST_CASE("core/half: agrees with the compiler's binary16") {
#if defined(__aarch64__)
  using half = __fp16;  // g++ 12 does not know _Float16 in C++ there
#else
  using half = _Float16;
#endif
  int wrong = 0;
  for (std::uint32_t bits = 0; bits < 0x10000u; ++bits) {
    const auto native = std::bit_cast<half>(static_cast<std::uint16_t>(bits));
    const auto ours = static_cast<float>(lora::float16::from_bits(static_cast<std::uint16_t>(bits)));
    if (std::bit_cast<std::uint32_t>(static_cast<float>(native)) != std::bit_cast<std::uint32_t>(ours)) ++wrong;
  }
  CHECK(wrong == 0);
  std::uint32_t u = 12345;
  for (int i = 0; i < 1000000; ++i) {
    u = u * 1664525u + 1013904223u;
    const auto v = std::bit_cast<float>(u);
    if (std::isnan(v)) continue;
    if (std::bit_cast<std::uint16_t>(static_cast<half>(v)) != lora::float16(v).bits) ++wrong;
  }
  CHECK(wrong == 0);
}
#endif
