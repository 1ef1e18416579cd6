// SPDX-License-Identifier: Apache-2.0
#include <lora/core/half.hpp>
#include <lora/ops/fill.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <random>
#include <type_traits>
#include <vector>

using lora::_;
using lora::all;
using lora::index_t;
using lora::ndview;
using lora::range;

TEST_CASE("ops/fill: exactly the elements of the view, for every length and many layouts") {
  int wrong = 0;
  for (index_t columns = 0; columns <= 40; ++columns)
    for (index_t step = -3; step <= 3; ++step) {
      if (step == 0) continue;
      std::vector<int> memory(520, -1);
      const ndview<int, 2> v(memory.data() + 150, {3, columns}, {step < 0 ? -columns * step : columns * step, step});
      lora::fill(v, 7);
      int sevens = 0;
      for (const int x : memory) sevens += x == 7 ? 1 : 0;
      wrong += sevens == 3 * columns ? 0 : 1;
      for (index_t i = 0; i < 3; ++i)
        for (index_t j = 0; j < columns; ++j) wrong += v(i, j) == 7 ? 0 : 1;
    }
  CHECK(wrong == 0);
}

TEST_CASE("ops/fill: slices of arrays, arrays, 16-bit elements, one element") {
  auto a = lora::zeros<float>(3, 4, 5);
  lora::fill(a(1, all, range(_, _, -2)), 2);
  float sum = 0;
  for (index_t i = 0; i < 60; ++i) sum += a.data()[i];
  CHECK(sum == 24);
  CHECK(a(1, 3, 2) == 2);
  CHECK(a(1, 3, 1) == 0);
  lora::fill(a, 1.5);
  CHECK(a(2, 3, 4) == 1.5f);
  auto h = lora::zeros<lora::float16>(9);
  lora::fill(h, lora::float16(1.0f));
  CHECK(h[8].bits == 0x3c00);
  double x = 0;
  lora::fill(ndview<double, 0>(&x, {}), 3);
  CHECK(x == 3);
  auto none = lora::zeros<int>(0, 3);
  lora::fill(none, 1);
}

TEST_CASE("ops/fill: elements that share an address are no obstacle") {
  float x = 0;
  lora::fill(ndview<float, 2>(&x, {3, 4}, {0, 0}), 5);
  CHECK(x == 5);
}
