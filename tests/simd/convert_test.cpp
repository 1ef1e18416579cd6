// SPDX-License-Identifier: Apache-2.0
//
// Every pair of types, in every tier this CPU has, against detail::convert element by element (ops/cast_test.cpp proves that one against
// wider arithmetic). Values: all 2^16 patterns of the 16-bit types, and for the wider ones the neighbourhoods of everything a conversion
// decides on, with random bits between. Lengths and starts straddle every vector and tail.
#include <lora/core/dtype.hpp>
#include <lora/ops/cast.hpp>

#include "support/guarded.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

using lora::bfloat16;
using lora::float16;
using lora::simd::tier;

namespace {

template <class T>
T from_bits(std::uint64_t bits) {
  T value{};
  if constexpr (std::is_same_v<T, bool>)
    value = (bits & 1u) != 0;
  else
    std::memcpy(&value, &bits, sizeof value);
  return value;
}

template <class T>
std::vector<T> interesting() {
  std::vector<T> v;
  const auto add = [&](std::uint64_t bits) {
    for (std::int64_t beside = -2; beside <= 2; ++beside) v.push_back(from_bits<T>(bits + static_cast<std::uint64_t>(beside)));
  };
  if constexpr (sizeof(T) <= 2) {
    for (std::uint64_t bits = 0; bits < (1ull << (8 * sizeof(T))); ++bits) v.push_back(from_bits<T>(bits));
  } else {
    std::mt19937_64 engine(11);
    for (int i = 0; i < 4000; ++i) v.push_back(from_bits<T>(engine()));
    for (unsigned shift = 0; shift < 8 * sizeof(T); ++shift)
      for (const std::uint64_t top : {1ull, 3ull, 0x101ull, 0xfffull}) add(top << shift);
    if constexpr (std::is_floating_point_v<T>) {
      using word = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
      // Both sides of every tie, limit and power of two, with either sign.
      for (int exponent = -160; exponent < 135; ++exponent)
        for (const double significand : {1.0, 1.5, 1.00390625, 1.01171875, 1.00048828125, 1.00146484375, 1.9990234375, 1.998046875}) {
          add(std::bit_cast<word>(static_cast<T>(std::ldexp(significand, exponent))));
          add(std::bit_cast<word>(static_cast<T>(-std::ldexp(significand, exponent))));
        }
      const T infinite = std::numeric_limits<T>::infinity();
      add(std::bit_cast<word>(infinite));  // with signalling NaNs beside it
      add(std::bit_cast<word>(-infinite));
      add(std::bit_cast<word>(std::numeric_limits<T>::quiet_NaN()));
      add(0);
    }
  }
  return v;
}

template <class To, class From>
int wrong_values(tier t) {
  const std::vector<From> in = interesting<From>();
  std::vector<unsigned char> raw(in.size() * sizeof(To));  // std::vector<bool> has no array
  To* const out = reinterpret_cast<To*>(raw.data());
  lora::simd::converter<To, From>(t)(in.data(), 0, out, 0, 1, static_cast<lora::index_t>(in.size()));
  int wrong = 0;
  for (std::size_t i = 0; i < in.size(); ++i) {
    const To want = lora::detail::convert<To>(static_cast<From>(in[i]));
    wrong += std::memcmp(&want, out + i, sizeof want) == 0 ? 0 : 1;
  }
  return wrong;
}

// Between two pages that may not be touched, at either end; every length up to four registers of the widest kind.
template <class To, class From>
int wrong_lengths(tier t) {
  constexpr std::size_t most = 70;
  const std::vector<From> values = interesting<From>();
  const test::guarded from_memory(most * 2);
  const test::guarded to_memory(most * 2);
  int wrong = 0;
  for (std::size_t n = 0; n <= most; ++n) {
    for (const auto where : {test::where::at_the_start, test::where::at_the_end}) {
      const auto floats = [&](std::size_t size) { return (n * size + 3) / 4; };
      // The end is exact only for whole floats; shorter rows end up to three bytes before it.
      From* const in = reinterpret_cast<From*>(from_memory.place(floats(sizeof(From)), where));
      To* const out = reinterpret_cast<To*>(to_memory.place(floats(sizeof(To)), where));
      for (std::size_t i = 0; i < n; ++i) in[i] = values[(i * 37 + n) % values.size()];
      std::memset(static_cast<void*>(out), 0xa5, n * sizeof(To));
      lora::simd::converter<To, From>(t)(in, 0, out, 0, 1, static_cast<lora::index_t>(n));
      for (std::size_t i = 0; i < n; ++i) {
        const To want = lora::detail::convert<To>(in[i]);
        wrong += std::memcmp(&want, out + i, sizeof want) == 0 ? 0 : 1;
      }
    }
  }
  return wrong;
}

template <class To, class From>
void check_pair(tier t) {
  if constexpr (lora::simd::has_converter<To, From>) {
    CAPTURE(lora::name_of(lora::dtype_of<From>));
    CAPTURE(lora::name_of(lora::dtype_of<To>));
    CAPTURE(lora::simd::name_of(t));
    if constexpr (!std::is_same_v<From, bool>) CHECK(wrong_values<To, From>(t) == 0);  // std::vector<bool> has no array
    CHECK(wrong_lengths<To, From>(t) == 0);
  }
}

template <class To, class... From>
void check_to(tier t) {
  (check_pair<To, From>(t), ...);
}

template <class... To>
void check_all() {
  for (unsigned i = 0; i < lora::simd::tier_count; ++i) {
    const auto t = static_cast<tier>(i);
    if (lora::simd::active_tier() < t) {
      MESSAGE("skipped, not on this CPU: tier " << lora::simd::name_of(t));
      continue;
    }
    (check_to<To, float, double, float16, bfloat16, std::uint8_t, std::int8_t, std::int16_t, std::int32_t, std::int64_t, bool>(t), ...);
  }
}

}  // namespace

TEST_CASE("simd/convert: to floating point, bit for bit as one element is converted") { check_all<float, double>(); }
TEST_CASE("simd/convert: to the 16-bit formats, bit for bit as one element is converted") { check_all<float16, bfloat16>(); }
TEST_CASE("simd/convert: to integers and bool, bit for bit as one element is converted") {
  check_all<std::uint8_t, std::int8_t, std::int16_t, std::int32_t, std::int64_t, bool>();
}

TEST_CASE("simd/convert: many rows, steps between them, nothing written between") {
  for (unsigned i = 0; i < lora::simd::tier_count; ++i) {
    const auto t = static_cast<tier>(i);
    if (lora::simd::active_tier() < t) continue;
    for (const lora::index_t n : {1, 3, 7, 8, 16, 17, 33}) {
      std::vector<float> in(5 * 40);
      for (std::size_t k = 0; k < in.size(); ++k) in[k] = static_cast<float>(k) / 8;
      std::vector<std::uint16_t> out(5 * 50, 0xdead);
      lora::simd::converter<float16, float>(t)(in.data() + 1, 40, reinterpret_cast<float16*>(out.data()) + 1, 50, 4, n);
      int wrong = 0;
      for (lora::index_t r = 0; r < 5; ++r)
        for (lora::index_t c = 0; c < 50; ++c) {
          const bool written = r < 4 && c >= 1 && c < 1 + n;
          const std::uint16_t want = written ? float16(in[static_cast<std::size_t>(r * 40 + c)]).bits : std::uint16_t{0xdead};
          wrong += out[static_cast<std::size_t>(r * 50 + c)] == want ? 0 : 1;
        }
      CHECK(wrong == 0);
    }
  }
}
