// SPDX-License-Identifier: Apache-2.0
#include <lora/adapter/scale.hpp>

#include <doctest/doctest.h>

#include <limits>

using lora::scale_for;
using lora::scale_rule;

TEST_CASE("adapter/scale: alpha over rank, alpha over the root of rank") {
  CHECK(scale_for(16.0, 8) == 2.0f);
  CHECK(scale_for(16.0, 8, scale_rule::alpha_over_rank) == 2.0f);
  CHECK(scale_for(12.0, 9, scale_rule::alpha_over_sqrt_rank) == 4.0f);
  CHECK(scale_for(8.0, 16) == 0.5f);
  CHECK(scale_for(0.0, 4) == 0.0f);
  CHECK(scale_for(-6.0, 4) == -1.5f);
  CHECK(scale_for(6.5, 24) == static_cast<float>(6.5 / 24));
  CHECK(scale_for(1.0, 1, scale_rule::alpha_over_sqrt_rank) == 1.0f);
}

TEST_CASE("adapter/scale: computed in double, rounded to float once") {
  // In float, 16 / 3 first and then the root, or an early rounding of alpha, give a neighbour.
  CHECK(scale_for(1.0, 3) == static_cast<float>(1.0 / 3.0));
  CHECK(scale_for(0.1, 7, scale_rule::alpha_over_sqrt_rank) == static_cast<float>(0.1 / std::sqrt(7.0)));
  int differs = 0;
  for (int alpha = 1; alpha < 200; ++alpha)
    for (int rank = 2; rank < 65; ++rank) {
      const double exact = alpha / std::sqrt(static_cast<double>(rank));
      CHECK(scale_for(alpha, rank, scale_rule::alpha_over_sqrt_rank) == static_cast<float>(exact));
      differs += static_cast<float>(exact) != static_cast<float>(alpha) / std::sqrt(static_cast<float>(rank));
    }
  CHECK(differs > 100);  // so the loop above can tell the two apart
}

#if LORA_HAS_EXCEPTIONS

TEST_CASE("adapter/scale: what is refused") {
  constexpr double inf = std::numeric_limits<double>::infinity();
  CHECK_THROWS_WITH_AS((void)scale_for(8, 0), "scale: rank 0 must be at least 1", lora::value_error);
  CHECK_THROWS_WITH_AS((void)scale_for(8, -3), "scale: rank -3 must be at least 1", lora::value_error);
  const char* not_finite = "scale: alpha / rank is not a finite float (rank 2)";
  CHECK_THROWS_WITH_AS((void)scale_for(inf, 2), not_finite, lora::value_error);
  CHECK_THROWS_WITH_AS((void)scale_for(-inf, 2), not_finite, lora::value_error);
  CHECK_THROWS_WITH_AS((void)scale_for(std::numeric_limits<double>::quiet_NaN(), 2), not_finite, lora::value_error);
  CHECK_THROWS_WITH_AS((void)scale_for(1e39, 2), not_finite, lora::value_error);  // finite in double only
  CHECK(scale_for(1e39, 1000) == static_cast<float>(1e36));
}

#endif
