// SPDX-License-Identifier: Apache-2.0
#include <lora/adapter/count.hpp>

#include <doctest/doctest.h>

#include <cmath>

static_assert(lora::parameter_count(4096, 4096, 8) == 65536);
static_assert(lora::compression(4096, 4096, 8) == 256.0);

TEST_CASE("adapter/count: trained numbers, and how many times fewer than the full matrix") {
  CHECK(lora::parameter_count(20, 12, 4) == 128);
  CHECK(lora::parameter_count(20, 12, 0) == 0);
  CHECK(lora::parameter_count(0, 12, 4) == 48);
  CHECK(lora::compression(20, 12, 4) == 240.0 / 128.0);
  CHECK(lora::compression(20, 12, 24) < 1);  // a rank above both sides holds more than the matrix
}

TEST_CASE("adapter/count: the edges of compression") {
  CHECK(std::isinf(lora::compression(20, 12, 0)));
  CHECK(std::isnan(lora::compression(0, 0, 4)));
  CHECK(lora::compression(0, 12, 4) == 0);
}

#if LORA_HAS_EXCEPTIONS

TEST_CASE("adapter/count: negative extents and counts that do not fit are refused") {
  CHECK_THROWS_WITH_AS((void)lora::parameter_count(-1, 2, 3), "parameter_count: out -1, in 2, rank 3 are negative or too large",
                       lora::shape_error);
  CHECK_THROWS_AS((void)lora::parameter_count(1, -2, 3), lora::shape_error);
  CHECK_THROWS_AS((void)lora::parameter_count(1, 2, -3), lora::shape_error);
  CHECK_THROWS_AS((void)lora::parameter_count(PTRDIFF_MAX, 1, 1), lora::shape_error);
  CHECK_THROWS_AS((void)lora::parameter_count(PTRDIFF_MAX / 2, 1, 3), lora::shape_error);
  CHECK_THROWS_AS((void)lora::compression(1, 1, -1), lora::shape_error);
}

#endif
