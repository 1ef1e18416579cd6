// SPDX-License-Identifier: Apache-2.0
#include <lora/adapter/init.hpp>

#include <doctest/doctest.h>

#include <cstring>
#include <vector>

using lora::index_t;
using lora::init_rule;

namespace {

struct moments {
  double mean = 0;
  double variance = 0;
  double kurtosis = 0;  // fourth moment over the square of the second
  double largest = 0;
  double neighbours = 0;  // correlation with the next element
};

moments moments_of(const lora::ndarray<float, 2>& a) {
  const index_t n = a.size();
  const double count = static_cast<double>(n);
  moments m;
  for (index_t i = 0; i < n; ++i) m.mean += static_cast<double>(a.data()[i]) / count;
  double fourth = 0;
  double last = 0;
  for (index_t i = 0; i < n; ++i) {
    const double d = static_cast<double>(a.data()[i]) - m.mean;
    m.variance += d * d / count;
    fourth += d * d * d * d / count;
    m.neighbours += d * last / count;
    last = d;
    m.largest = std::max(m.largest, std::abs(static_cast<double>(a.data()[i])));
  }
  m.kurtosis = fourth / (m.variance * m.variance);
  m.neighbours /= m.variance;
  return m;
}

}  // namespace

TEST_CASE("adapter/init: moments of the three rules") {
  constexpr index_t rank = 16;
  constexpr index_t in = 4096;
  const double n = static_cast<double>(rank * in);
  struct rule {
    init_rule which;
    double deviation, kurtosis, kurtosis_error;
  };
  // Five standard errors each, for n samples: mean s / sqrt(n); variance s^2 sqrt((k - 1) / n) with kurtosis k; kurtosis sqrt(24 / n) for
  // the normal distribution, and less for the uniform one; neighbours 1 / sqrt(n).
  const rule rules[] = {{init_rule::normal, 0.02, 3.0, std::sqrt(24 / n)},
                        {init_rule::gaussian, 1.0 / 16, 3.0, std::sqrt(24 / n)},
                        {init_rule::kaiming_uniform, 1.0 / std::sqrt(3.0 * 4096), 1.8, std::sqrt(24 / n)}};
  for (const rule& r : rules)
    for (const std::uint64_t seed : {1u, 2u, 3u}) {
      const auto fresh = lora::fresh_adapter(64, in, rank, r.which, seed);
      const moments m = moments_of(fresh.a);
      CAPTURE(static_cast<int>(r.which));
      CAPTURE(seed);
      CHECK(std::abs(m.mean) <= 5 * r.deviation / std::sqrt(n));
      CHECK(std::abs(m.variance / (r.deviation * r.deviation) - 1) <= 5 * std::sqrt((r.kurtosis - 1) / n));
      CHECK(std::abs(m.kurtosis - r.kurtosis) <= 5 * r.kurtosis_error);
      CHECK(std::abs(m.neighbours) <= 5 / std::sqrt(n));
      if (r.which == init_rule::kaiming_uniform) {
        CHECK(m.largest <= 1.0 / 64);
        CHECK(m.largest > 0.999 / 64);
      } else {
        CHECK(m.largest > 3.5 * r.deviation);  // there are tails
        CHECK(m.largest < 6.5 * r.deviation);
      }
    }
}

TEST_CASE("adapter/init: the numbers are those of the seed, everywhere") {
  const auto first_of = [](init_rule rule, std::uint64_t seed) {
    const auto fresh = lora::fresh_adapter(2, 3, 2, rule, seed);
    return std::vector<float>(fresh.a.data(), fresh.a.data() + 6);
  };
  // Golden values. They were checked against SplitMix64 and Box-Muller computed elsewhere (docs/numerics.md says how far they are exact).
  CHECK(first_of(init_rule::kaiming_uniform, 0) ==
        std::vector<float>{0x1.c53b58p-2f, -0x1.43d94ep-4f, -0x1.17f9bcp-1f, 0x1.16637ap-1f, -0x1.d176p-2f, -0x1.98583ap-3f});
  CHECK(first_of(init_rule::kaiming_uniform, 42) ==
        std::vector<float>{0x1.1da12ap-2f, -0x1.922062p-2f, -0x1.05c8f4p-2f, -0x1.707642p-3f, -0x1.111ea2p-1f, 0x1.b365d6p-2f});
  CHECK(first_of(init_rule::normal, 7) ==
        std::vector<float>{0x1.bf47dap-6f, -0x1.03ddbp-7f, 0x1.795d1ep-14f, -0x1.7c82b4p-7f, -0x1.18a3c6p-5f, 0x1.51e236p-5f});
  CHECK(first_of(init_rule::gaussian, 7) ==
        std::vector<float>{0x1.5d7022p-1f, -0x1.960a62p-3f, 0x1.26d0bep-9f, -0x1.29461ep-2f, -0x1.b67fe4p-1f, 0x1.07f8bap+0f});
  CHECK(first_of(init_rule::normal, 8) != first_of(init_rule::normal, 7));
}

TEST_CASE("adapter/init: elements follow the logical order, whatever the strides") {
  std::vector<float> memory(200, -9.0f);
  const lora::ndview<float, 2> strided(memory.data() + 5, {4, 7}, lora::strides{2, 11});
  lora::init_a(strided, init_rule::normal, 5);
  const auto plain = lora::fresh_adapter(1, 7, 4, init_rule::normal, 5);
  for (index_t i = 0; i < 4; ++i)
    for (index_t j = 0; j < 7; ++j) CHECK(strided(i, j) == plain.a(i, j));
  int untouched = 0;
  for (const float f : memory) untouched += f == -9.0f;
  CHECK(untouched == 200 - 28);
}

TEST_CASE("adapter/init: B is zero, shapes are those of the module, empty sides are allowed") {
  const auto fresh = lora::fresh_adapter(5, 7, 3);
  CHECK(fresh.a.extent(0) == 3);
  CHECK(fresh.a.extent(1) == 7);
  CHECK(fresh.b.extent(0) == 5);
  CHECK(fresh.b.extent(1) == 3);
  for (index_t i = 0; i < fresh.b.size(); ++i) {
    std::uint32_t bits = 1;
    std::memcpy(&bits, fresh.b.data() + i, 4);
    CHECK(bits == 0);
  }
  CHECK(lora::fresh_adapter(0, 0, 1).a.size() == 0);
}

#if LORA_HAS_EXCEPTIONS

TEST_CASE("adapter/init: what is refused") {
  CHECK_THROWS_WITH_AS((void)lora::fresh_adapter(5, 7, 0), "fresh_adapter: rank must be at least 1", lora::value_error);
  CHECK_THROWS_AS((void)lora::fresh_adapter(5, 7, -1), lora::shape_error);
  CHECK_THROWS_AS((void)lora::fresh_adapter(-5, 7, 1), lora::shape_error);
}

#endif
