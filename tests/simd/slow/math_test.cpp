// SPDX-License-Identifier: Apache-2.0
//
// Every 31st block of 8192 floats through every function of simd/math.hpp on every tier, against double: 33 blocks of each binade. With
// LORA_TEST_FULL=1 in the environment every float, which is where the table in math.hpp comes from: a quarter of an hour on two CPUs.
#include "simd/math_cases.hpp"

#include <doctest/doctest.h>

#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

namespace {

struct worst_of_tiers {
  double error[lora::simd::tier_count] = {0.5, 0.5, 0.5};  // what a correctly rounded result may have
  float at[lora::simd::tier_count] = {};
};

worst_of_tiers sweep(const test::math_case& c, std::uint64_t first, std::uint64_t last, std::uint64_t every) {
  constexpr std::size_t block = 1 << 13;
  std::vector<float> x(block);
  std::vector<float> y(block);
  std::vector<double> exact(block);
  worst_of_tiers worst;
  for (std::uint64_t start = first; start < last; start += every * block) {
    for (std::size_t i = 0; i < block; ++i) {
      x[i] = test::from_bits(static_cast<std::uint32_t>(start + i));
      exact[i] = c.exact(static_cast<double>(x[i]));
    }
    for (unsigned t = 0; t < lora::simd::tier_count; ++t) {
      if (lora::simd::tier(t) > lora::simd::best_tier() || lora::simd::tier(t) == lora::simd::tier::avx512_bf16) continue;  // as avx512
      c.run(x.data(), y.data(), static_cast<std::ptrdiff_t>(block), lora::simd::tier(t));
      for (std::size_t i = 0; i < block; ++i) {
        if (y[i] == static_cast<float>(exact[i]) && y[i] != 0) continue;  // correctly rounded: most are, and measuring is slow
        const double e = test::ulp_error(y[i], exact[i]);
        if (e <= worst.error[t]) continue;
        worst.error[t] = e;
        worst.at[t] = x[i];
      }
    }
  }
  return worst;
}

}  // namespace

TEST_CASE("simd/math: the stated error bounds hold, all over the floats") {
  const char* const full = std::getenv("LORA_TEST_FULL");
  const std::uint64_t every = full != nullptr && *full == '1' ? 1 : 31;
  constexpr std::uint64_t half = std::uint64_t{1} << 31;
  for (const test::math_case& c : test::math_cases) {
    worst_of_tiers negative;
    std::thread other([&] { negative = sweep(c, half, 2 * half, every); });
    const worst_of_tiers positive = sweep(c, 0, half, every);
    other.join();
    for (unsigned t = 0; t < lora::simd::tier_count; ++t) {
      const bool n = negative.error[t] > positive.error[t];
      const worst_of_tiers& w = n ? negative : positive;
      const std::string where = std::string(c.name) + " " + lora::simd::name_of(lora::simd::tier(t));
      MESSAGE(where << ": " << w.error[t] << " ulp at " << w.at[t]);
      CHECK_MESSAGE(w.error[t] <= c.bound, where);
    }
  }
}
