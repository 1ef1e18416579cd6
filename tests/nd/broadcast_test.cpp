// SPDX-License-Identifier: Apache-2.0
#include "cases.hpp"

#include <lora/nd/array.hpp>
#include <lora/nd/broadcast.hpp>

#include <doctest/doctest.h>

#include <type_traits>
#include <vector>

using lora::index_t;

TEST_CASE("nd/broadcast: NumPy's answers to random broadcasts") {
  int checked = 0;
  int refused = 0;
  for (const auto& c : test::numpy_cases('B')) {
    const auto shape = test::numbers(c.argument);
    std::vector<index_t> strides(shape.size() + 1);
    bool done = true;
    try {
      lora::detail::broadcast_strides(c.shape.data(), c.strides.data(), c.shape.size(), shape.data(), shape.size(), strides.data());
    } catch (const lora::shape_error&) {
      done = false;
    }
    ++checked;
    refused += done ? 0 : 1;
    if (done == c.refused || (done && !test::same_strides(shape, test::numbers(c.answer.at(0)), strides.data()))) FAIL_CHECK(c.line);
  }
  CHECK(checked == 250);
  CHECK(refused > 5);
}

TEST_CASE("nd/broadcast: a row under every row of a matrix, read-only") {
  auto bias = lora::zeros<float>(3);
  for (int i = 0; i < 3; ++i) bias(i) = static_cast<float>(i + 1);
  const auto rows = lora::broadcast_to(bias, lora::extents{4, 3});
  static_assert(std::is_same_v<decltype(rows), const lora::ndview<const float, 2>>);
  CHECK(rows.shape() == lora::extents{4, 3});
  CHECK(rows.stride() == lora::strides{0, 1});
  CHECK(rows.data() == bias.data());
  CHECK(rows(3, 2) == 3);
  bias(2) = 7;
  CHECK(rows(0, 2) == 7);

  const auto columns = lora::broadcast_to(bias(lora::all, lora::newaxis), lora::extents{3, 5});
  CHECK(columns.stride() == lora::strides{1, 0});
  CHECK(columns(2, 4) == 7);

  const auto scalar = lora::broadcast_to(lora::ndview<float, 0>(bias.data(), {}), lora::extents{2, 2});
  CHECK(scalar(1, 1) == 1);
  CHECK(lora::broadcast_to(bias(lora::range(0, 1)), lora::extents{0}).shape() == lora::extents{0});
}

TEST_CASE("nd/broadcast: refusals") {
  auto a = lora::zeros<float>(4, 3);
  CHECK_THROWS_WITH((void)lora::broadcast_to(a, lora::extents{4, 5}),
                    "broadcast_to: shape [4, 3] does not broadcast to [4, 5] (aligned at the last axis, each extent must be equal or 1)");
  CHECK_THROWS_AS((void)lora::broadcast_to(a, lora::extents{4, 3, 1}), lora::shape_error);
  CHECK_THROWS_AS((void)lora::broadcast_to(a, lora::extents{1, 3}), lora::shape_error);
  CHECK_THROWS_WITH((void)lora::broadcast_to(a(0, 0, lora::newaxis), lora::extents{index_t{1} << 62}),
                    "shape [4611686018427387904] of elements of 4 bytes does not fit the address space");
}
