// SPDX-License-Identifier: Apache-2.0
//
// Conversions against oracles in wider arithmetic: rounding by nearbyint on a scaled long double, integers by comparison in 128 bits.
#include <lora/core/checked.hpp>
#include <lora/core/half.hpp>
#include <lora/nd/broadcast.hpp>
#include <lora/ops/cast.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

using lora::bfloat16;
using lora::extents;
using lora::float16;
using lora::detail::convert;

namespace {

constexpr double inf = std::numeric_limits<double>::infinity();

template <class Half>
double value_of(std::uint32_t bits) {
  return static_cast<double>(static_cast<float>(Half::from_bits(static_cast<std::uint16_t>(bits))));  // exact: core/half_test.cpp
}

template <class Half>
inline constexpr int stored_bits = std::is_same_v<Half, float16> ? 10 : 7;
template <class Half>
inline constexpr int lowest_exponent = std::is_same_v<Half, float16> ? -14 : -126;
template <class Half>
inline constexpr std::uint32_t infinity_bits = std::is_same_v<Half, float16> ? 0x7c00 : 0x7f80;

// One rounding of an exact value, in long double (64 significant bits: every double and every std::int64_t is exact).
template <class Half>
bool rounds_once(long double v, Half have) {
  if (v == 0) return (have.bits & 0x7fffu) == 0;
  int exponent = 0;
  (void)std::frexp(v, &exponent);
  exponent = std::max(exponent - 1, lowest_exponent<Half>);
  const long double unit = std::ldexp(1.0L, exponent - stored_bits<Half>);
  const long double want = std::isinf(v) ? v : std::nearbyint(v / unit) * unit;
  const bool too_large = std::fabs(want) > static_cast<long double>(value_of<Half>(infinity_bits<Half> - 1u));
  if (too_large) return have.bits == (infinity_bits<Half> | (v < 0 ? 0x8000u : 0u));
  return static_cast<long double>(value_of<Half>(have.bits)) == want && (have.bits & 0x7fffu) < infinity_bits<Half> &&
         ((have.bits & 0x8000u) != 0) == (v < 0);
}

template <class Half>
int wrong_from_double() {
  int wrong = 0;
  const auto check = [&](double v) { wrong += rounds_once<Half>(static_cast<long double>(v), convert<Half>(v)) ? 0 : 1; };
  for (std::uint32_t bits = 0; bits < infinity_bits<Half>; ++bits) {
    const double v = value_of<Half>(bits);
    const double next = bits + 1u == infinity_bits<Half> ? v + (v - value_of<Half>(bits - 1u)) : value_of<Half>(bits + 1u);
    const double tie = (v + next) / 2;
    // Beside the tie by one unit of double: a detour through float would land on the tie and go wrong.
    for (const double x : {v, tie}) {
      check(x);
      check(-x);
      check(std::nextafter(x, inf));
      check(std::nextafter(x, -inf));
      check(-std::nextafter(x, inf));
      // And beside the halfway point of two floats near it.
      check(x + std::ldexp(v, -25));
      check(x - std::ldexp(v, -25));
    }
  }
  std::mt19937_64 engine(5);
  for (int i = 0; i < 200000; ++i) {
    const auto v = std::bit_cast<double>(engine());
    if (!std::isnan(v)) check(v);
  }
  for (const double v : {inf, -inf, std::numeric_limits<double>::max(), std::numeric_limits<double>::denorm_min(), 1e-320, -1e-46})
    check(v);
  wrong += std::isnan(static_cast<float>(convert<Half>(std::nan("")))) ? 0 : 1;
  return wrong;
}

template <class Half>
int wrong_from_integers() {
  int wrong = 0;
  const auto check = [&](std::int64_t v) { wrong += rounds_once<Half>(static_cast<long double>(v), convert<Half>(v)) ? 0 : 1; };
  for (int shift = 0; shift < 63; ++shift)
    for (std::int64_t top = 0; top < 1024; ++top)
      for (std::int64_t beside = -1; beside <= 1; ++beside) {
        std::int64_t v = 0;
        if (!lora::checked_mul(top, std::int64_t{1} << shift, v) || !lora::checked_add(v, beside, v)) continue;
        check(v);
        check(-v);
      }
  check(INT64_MIN);
  check(INT64_MAX);
  return wrong;
}

template <class To, class From>
bool integer_right(From v, To have) {
  const long double x = static_cast<long double>(v);
  if (std::isnan(x)) return have == 0;
  const long double low = static_cast<long double>(std::numeric_limits<To>::min());
  const long double high = static_cast<long double>(std::numeric_limits<To>::max());
  const long double want = x < low ? low : (x > high ? high : std::trunc(x));
  return static_cast<long double>(have) == want;
}

template <class To, class From>
int wrong_to_integer() {
  int wrong = 0;
  const auto check = [&](From v) { wrong += integer_right<To, From>(v, convert<To>(v)) ? 0 : 1; };
  constexpr From infinite = std::numeric_limits<From>::infinity();
  for (const long double limit :
       {static_cast<long double>(std::numeric_limits<To>::min()), static_cast<long double>(std::numeric_limits<To>::max()), 0.0L})
    for (const long double beside : {-2.0L, -1.5L, -1.0L, -0.5L, 0.0L, 0.5L, 1.0L, 1.5L, 2.0L}) {
      const From v = static_cast<From>(limit + beside);
      check(v);
      check(std::nextafter(v, infinite));
      check(std::nextafter(v, -infinite));
    }
  check(infinite);
  check(-infinite);
  check(std::numeric_limits<From>::quiet_NaN());
  check(std::numeric_limits<From>::max());
  check(std::numeric_limits<From>::lowest());
  std::mt19937_64 engine(6);
  for (int i = 0; i < 20000; ++i) {
    if constexpr (sizeof(From) == 4)
      check(std::bit_cast<From>(static_cast<std::uint32_t>(engine())));
    else
      check(std::bit_cast<From>(engine()));
  }
  return wrong;
}

template <class To, class From>
int wrong_between_integers() {
  int wrong = 0;
  const auto check = [&](std::int64_t v) {
    const From x = static_cast<From>(v);
    const auto wide = static_cast<std::int64_t>(x);
    const std::int64_t low = static_cast<std::int64_t>(std::numeric_limits<To>::min());
    const std::int64_t high = static_cast<std::int64_t>(std::numeric_limits<To>::max());
    wrong += static_cast<std::int64_t>(convert<To>(x)) == (wide < low ? low : (wide > high ? high : wide)) ? 0 : 1;
  };
  for (std::int64_t v = -70000; v <= 70000; ++v) check(v);
  for (const std::int64_t limit :
       {static_cast<std::int64_t>(INT32_MIN), static_cast<std::int64_t>(INT32_MAX), INT64_MIN + 2, INT64_MAX - 2})
    for (std::int64_t beside = -2; beside <= 2; ++beside) check(limit + beside);
  return wrong;
}

template <class To>
int wrong_to() {
  return wrong_to_integer<To, float>() + wrong_to_integer<To, double>() + wrong_between_integers<To, std::uint8_t>() +
         wrong_between_integers<To, std::int8_t>() + wrong_between_integers<To, std::int16_t>() +
         wrong_between_integers<To, std::int32_t>() + wrong_between_integers<To, std::int64_t>();
}

}  // namespace

TEST_CASE("ops/cast: double to the 16-bit formats in one rounding") {
  CHECK(wrong_from_double<float16>() == 0);
  CHECK(wrong_from_double<bfloat16>() == 0);
  // The case that a detour through float gets wrong: a hair above the tie between 1 and the next bfloat16.
  CHECK(convert<bfloat16>(0x1.0100000000001p0).bits == 0x3f81);
  CHECK(bfloat16(static_cast<float>(0x1.0100000000001p0)).bits == 0x3f80);
}

TEST_CASE("ops/cast: integers to the 16-bit formats in one rounding") {
  CHECK(wrong_from_integers<float16>() == 0);
  CHECK(wrong_from_integers<bfloat16>() == 0);
  CHECK(convert<bfloat16>(std::int32_t{0x40400001}).bits == 0x4e81);  // just above a tie, which a float does not see
}

TEST_CASE("ops/cast: between the 16-bit formats, and to wider floats, by value") {
  int wrong = 0;
  for (std::uint32_t bits = 0; bits < 0x10000u; ++bits) {
    const auto h = float16::from_bits(static_cast<std::uint16_t>(bits));
    const auto b = bfloat16::from_bits(static_cast<std::uint16_t>(bits));
    if ((bits & 0x7fffu) <= 0x7c00u) {
      wrong += convert<float>(h) == static_cast<float>(h) && convert<double>(h) == value_of<float16>(bits) ? 0 : 1;
      wrong += convert<bfloat16>(h) == bfloat16(static_cast<float>(h)) ? 0 : 1;
    }
    if ((bits & 0x7fffu) <= 0x7f80u) {
      wrong += convert<double>(b) == value_of<bfloat16>(bits) ? 0 : 1;
      wrong += convert<float16>(b) == float16(static_cast<float>(b)) ? 0 : 1;
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("ops/cast: to integers: towards zero, to the nearest limit, NaN to 0") {
  CHECK(wrong_to<std::uint8_t>() == 0);
  CHECK(wrong_to<std::int8_t>() == 0);
  CHECK(wrong_to<std::int16_t>() == 0);
  CHECK(wrong_to<std::int32_t>() == 0);
  CHECK(wrong_to<std::int64_t>() == 0);
  CHECK(convert<std::int8_t>(float16(-128.9f)) == -128);
  CHECK(convert<std::uint8_t>(bfloat16(-3.0f)) == 0);
  CHECK(convert<std::int64_t>(float16(std::numeric_limits<float>::infinity())) == INT64_MAX);
}

TEST_CASE("ops/cast: to float and double: nearest even") {
  CHECK(convert<float>(std::int32_t{16777217}) == 16777216.0f);
  CHECK(convert<float>(std::int64_t{16777219}) == 16777220.0f);
  CHECK(convert<double>(INT64_MAX) == 0x1p63);
  CHECK(convert<float>(0x1.000001p0) == 1.0f);  // tie
  CHECK(convert<float>(0x1.0000011p0) == 0x1.000002p0f);
  CHECK(convert<float>(1e300) == std::numeric_limits<float>::infinity());
  CHECK(std::isnan(convert<float>(std::nan(""))));
  CHECK(convert<double>(1.5f) == 1.5);
}

TEST_CASE("ops/cast: views of any layout, and a broadcast") {
  auto a = lora::uninit<double>(4, 5);
  for (int i = 0; i < 20; ++i) a.data()[i] = i - 9.75;
  auto b = lora::uninit<std::int8_t>(5, 4);
  lora::cast(a.view().transpose(), b);
  CHECK(b(0, 0) == -9);
  CHECK(b(4, 3) == 9);
  auto h = lora::uninit<float16>(4, 5);
  lora::cast(a(lora::range(lora::_, lora::_, -1)), h);
  CHECK(static_cast<float>(h(0, 0)) == 5.25f);
  auto f = lora::uninit<float>(2, 4, 5);
  lora::cast(lora::broadcast_to(h, f.shape()), f);
  CHECK(f(1, 3, 4) == -5.75f);
  auto same = lora::uninit<double>(4, 5);
  lora::cast(a, same);
  CHECK(same(3, 4) == 9.25);
  lora::cast(a(lora::range(0, 3)), a(lora::range(1, 4)));  // one type: copy, which handles overlap
  CHECK(a(1, 0) == -9.75);
}

TEST_CASE("ops/cast: error texts") {
  auto a = lora::zeros<float>(4, 5);
  auto b = lora::zeros<double>(5, 4);
  CHECK_THROWS_WITH(lora::cast(a, b), "cast: from is [4, 5] but to is [5, 4]");
  auto* const bits = reinterpret_cast<std::int32_t*>(a.data());
  CHECK_THROWS_WITH(lora::cast(a, lora::ndview<std::int32_t, 2>(bits, {4, 5})),
                    "cast: input 0, shape [4, 5] and strides [5, 1], overlaps the output, strides [5, 1], without being the same view; "
                    "clone() it first");
}
