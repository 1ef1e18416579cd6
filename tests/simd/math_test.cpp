// SPDX-License-Identifier: Apache-2.0
//
// The functions and row passes of simd/math.hpp on every tier: a sample of all floats against double (the full sweep is slow/math_test.cpp),
// every length around a register between forbidden pages, and the promise that an element's bits do not depend on its place.
#include "simd/math_cases.hpp"
#include "support/guarded.hpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace {

std::vector<lora::simd::tier> tiers() {
  std::vector<lora::simd::tier> all;
  for (unsigned t = 0; t <= static_cast<unsigned>(lora::simd::best_tier()); ++t) all.push_back(lora::simd::tier(t));
  return all;
}

}  // namespace

TEST_CASE("simd/math: within the stated bound on every 4099th float, and at the edges") {
  std::vector<float> x;
  for (std::uint64_t b = 0; b < (std::uint64_t{1} << 32); b += 4099) x.push_back(test::from_bits(static_cast<std::uint32_t>(b)));
  for (const std::uint32_t b : {0u, 1u, 0x7fffffu, 0x800000u, 0x3f800000u, 0x7f7fffffu, 0x7f800000u, 0x7f800001u, 0x7fc00000u, 0x42b17217u,
                                0x42b17218u, 0x42cff1b5u, 0x3f200000u, 0x3f1fffffu, 0x3f400000u, 0x3f3fffffu, 0x41a00000u}) {
    x.push_back(test::from_bits(b));
    x.push_back(test::from_bits(b | 0x80000000u));
  }
  std::vector<float> y(x.size());
  for (const test::math_case& c : test::math_cases) {
    for (const auto t : tiers()) {
      c.run(x.data(), y.data(), static_cast<std::ptrdiff_t>(x.size()), t);
      double worst = 0;
      float at = 0;
      for (std::size_t i = 0; i < x.size(); ++i) {
        const double e = test::ulp_error(y[i], c.exact(static_cast<double>(x[i])));
        if (e > worst) {
          worst = e;
          at = x[i];
        }
      }
      CHECK_MESSAGE(worst <= c.bound, std::string(c.name) << " " << lora::simd::name_of(t) << " at " << at);
    }
  }
}

TEST_CASE("simd/math: the bits of an element depend on its value alone, and nothing outside is touched") {
  constexpr std::size_t most = 70;
  const test::guarded in(most);
  const test::guarded out(most);
  for (const test::math_case& c : test::math_cases) {
    for (const auto t : tiers()) {
      int wrong = 0;
      for (std::size_t n = 0; n <= most; ++n) {
        for (const auto w : {test::where::at_the_start, test::where::at_the_end}) {
          float* const x = in.place(n, w);
          float* const y = out.place(n, w);
          for (std::size_t i = 0; i < n; ++i) x[i] = static_cast<float>((i * 7 + n * 3) % 41) * 0.37f - 7.0f;
          c.run(x, y, static_cast<std::ptrdiff_t>(n), t);
          for (std::size_t i = 0; i < n; ++i) {
            float alone = 0;
            c.run(x + i, &alone, 1, t);
            wrong += std::memcmp(&alone, y + i, sizeof alone) == 0 ? 0 : 1;
          }
          std::vector<float> copy(x, x + n);
          c.run(x, x, static_cast<std::ptrdiff_t>(n), t);  // in place
          wrong += n == 0 || std::memcmp(x, y, n * sizeof(float)) == 0 ? 0 : 1;
        }
      }
      CHECK_MESSAGE(wrong == 0, std::string(c.name) << " " << lora::simd::name_of(t));
    }
  }
}

TEST_CASE("simd/math: the passes over rows, at every length") {
  constexpr std::size_t most = 70;
  const test::guarded in(most);
  const test::guarded out(most);
  for (const auto t : tiers()) {
    const auto& k = lora::simd::rows(t);
    int wrong = 0;
    const auto near = [&](double got, double want, double magnitude) {
      wrong += std::fabs(got - want) <= magnitude * 80 * 0x1p-24 ? 0 : 1;
    };
    for (std::size_t n = 1; n <= most; ++n) {
      float* const x = in.place(n, test::where::at_the_end);
      float* const y = out.place(n, test::where::at_the_end);
      const auto count = static_cast<std::ptrdiff_t>(n);
      double max = -test::infinity, exp_sum = 0, sum = 0, squares = 0, absolute = 0;
      for (std::size_t i = 0; i < n; ++i) {
        x[i] = static_cast<float>((i * 13 + n) % 29) * 0.5f - 9.0f;
        const auto v = static_cast<double>(x[i]);
        max = v > max ? v : max;
        exp_sum += std::exp(v - 1.5);
        sum += v - 1.25 - 0.0625;
        absolute += std::fabs(v) + 1.3125;
        squares += (v - 1.3125) * (v - 1.3125);
      }
      wrong += static_cast<double>(k.max(x, count)) == max ? 0 : 1;
      near(static_cast<double>(k.exp_sum(x, y, count, 1.5f)), exp_sum, exp_sum);
      for (std::size_t i = 0; i < n; ++i)
        near(static_cast<double>(y[i]), std::exp(static_cast<double>(x[i]) - 1.5), static_cast<double>(y[i]));
      near(static_cast<double>(k.exp_sum(x, nullptr, count, 1.5f)), exp_sum, exp_sum);
      near(static_cast<double>(k.sum(x, count, 1.25f, 0.0625f)), sum, absolute);
      near(static_cast<double>(k.squares(x, count, 1.25f, 0.0625f)), squares, squares);
      k.normalize(x, y, count, 1.25f, 0.0625f, 0.5f, x, x);
      for (std::size_t i = 0; i < n; ++i) {
        const auto v = static_cast<double>(x[i]);
        near(static_cast<double>(y[i]), (v - 1.3125) * 0.5 * v + v, v * v + std::fabs(v));
      }
      for (std::size_t i = 0; i < n; ++i) y[i] = -2.0f;
      k.columns_max(x, y, count);
      for (std::size_t i = 0; i < n; ++i) wrong += y[i] == (x[i] > -2.0f ? x[i] : -2.0f) ? 0 : 1;
      const float by = 3.0f;
      k.divide(x, y, &by, true, count);
      for (std::size_t i = 0; i < n; ++i) wrong += y[i] == x[i] / by ? 0 : 1;
      k.divide(x, y, y, false, count);
      for (std::size_t i = 0; i < n; ++i) wrong += x[i] == 0 || std::fabs(y[i] - 3.0f) < 1e-6f ? 0 : 1;
    }
    CHECK_MESSAGE(wrong == 0, lora::simd::name_of(t));
  }
}
