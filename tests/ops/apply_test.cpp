// SPDX-License-Identifier: Apache-2.0
//
// apply on random layouts against element access, for no to three inputs; and which operands it takes: the same elements or apart.
#include <lora/core/half.hpp>
#include <lora/nd/broadcast.hpp>
#include <lora/ops/apply.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <set>
#include <string>
#include <vector>

using lora::_;
using lora::all;
using lora::extents;
using lora::index_t;
using lora::ndview;
using lora::range;
using lora::strides;

namespace {

struct source_of_views {
  std::mt19937 engine{7};
  std::vector<float> memory = std::vector<float>(4000);

  source_of_views() {
    for (std::size_t i = 0; i < memory.size(); ++i) memory[i] = static_cast<float>(i);
  }
  index_t between(index_t low, index_t high) { return low + static_cast<index_t>(engine() % static_cast<std::uint32_t>(high - low + 1)); }

  // An input: C order, a slice, transposed, reversed, or with strides of 0.
  ndview<const float, 2> input(const extents<2>& shape) {
    const float* const p = memory.data() + 2000;
    switch (between(0, 5)) {
      case 0:
        return {p, shape};
      case 1:
        return {p, shape, lora::order::F};
      case 2:
        return {p, shape, strides{shape[1] + 3, index_t{1}}};
      case 3:
        return {p, shape, strides{0, 1}};
      case 4:
        return {p, shape, strides{1, 0}};
      default:
        return {p, shape, strides{between(-40, 40), between(-3, 3)}};
    }
  }
};

const extents<2> shapes[] = {{1, 1}, {3, 7}, {2, 8}, {5, 9}, {1, 33}, {4, 16}, {7, 1}, {0, 5}, {12, 3}, {3, 31}};

}  // namespace

TEST_CASE("ops/apply: random layouts give what element access gives") {
  source_of_views r;
  int wrong = 0;
  for (int i = 0; i < 600; ++i) {
    for (const extents<2>& shape : shapes) {
      std::vector<float> out(400, -1);
      ndview<float, 2> y(out, shape);
      if (i % 3 == 1) y = ndview<float, 2>(out, shape, lora::order::F);
      if (i % 3 == 2) y = ndview<float, 2>(out.data() + 399, shape, strides{-shape[1] * 2, index_t{-2}});
      const auto a = r.input(shape);
      const auto b = r.input(shape);
      const auto c = r.input(shape);
      const auto check = [&](auto want) {
        index_t written = 0;
        for (index_t x = 0; x < shape[0]; ++x)
          for (index_t z = 0; z < shape[1]; ++z) wrong += y(x, z) == want(x, z) ? 0 : 1;
        for (const float v : out) written += v != -1 ? 1 : 0;
        wrong += written == y.size() ? 0 : 1;
        std::fill(out.begin(), out.end(), -1.0f);
      };
      lora::apply(
          y, [](float p) { return 2 * p; }, a);
      check([&](index_t x, index_t z) { return 2 * a(x, z); });
      lora::apply(
          y, [](float p, float q) { return p - 2 * q + 0.5f; }, a, b);
      check([&](index_t x, index_t z) { return a(x, z) - 2 * b(x, z) + 0.5f; });
      lora::apply(
          y, [](float p, float q, float s) { return p * 4 - q * 2 + s + 0.5f; }, a, b, c);
      check([&](index_t x, index_t z) { return a(x, z) * 4 - b(x, z) * 2 + c(x, z) + 0.5f; });
      lora::apply(y, [] { return 3.0f; });
      check([](index_t, index_t) { return 3.0f; });
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("ops/apply: f sees each position once, with its partners") {
  auto a = lora::zeros<int>(5, 7);
  for (int i = 0; i < 35; ++i) a.data()[i] = i;
  auto b = lora::zeros<int>(7, 5);
  for (int i = 0; i < 35; ++i) b.data()[i] = 100 * i;
  auto y = lora::zeros<int>(5, 7);
  std::multiset<int> seen;
  lora::apply(
      y(range(_, _, -1)),
      [&seen](int p, int q) {
        seen.insert(p);
        return p + q;
      },
      a, b.view().transpose());
  CHECK(seen.size() == 35);
  CHECK(std::set<int>(seen.begin(), seen.end()).size() == 35);
  CHECK(y(4, 0) == 0);
  CHECK(y(0, 6) == 34 + 100 * 34);
  CHECK(y(3, 2) == 7 + 2 + 100 * (2 * 5 + 1));
}

TEST_CASE("ops/apply: in place, halves of one matrix, interleaved columns") {
  auto a = lora::full(extents{6, 8}, 3.0f);
  lora::apply(
      a, [](float x) { return x + 1; }, a);
  CHECK(a(5, 7) == 4);
  lora::apply(
      a(all, range(0, 4)), [](float x, float y) { return x * y; }, a(all, range(0, 4)), a(all, range(4, 8)));
  CHECK(a(5, 3) == 16);
  CHECK(a(5, 4) == 4);
  lora::apply(
      a(all, range(_, _, 2)), [](float x) { return -x; }, a(all, range(1, _, 2)));
  CHECK(a(0, 0) == -16);
  CHECK(a(0, 1) == 16);
  CHECK(a(0, 6) == -4);
  const auto t = a.view().transpose();
  lora::apply(
      t, [](float x) { return x / 2; }, t);
  CHECK(a(0, 0) == -8);
}

TEST_CASE("ops/apply: element types may differ, and the result is converted to the output's") {
  auto h = lora::full(extents{2, 10}, lora::bfloat16(1.5f));
  auto i = lora::full(extents{2, 10}, std::int8_t{3});
  auto y = lora::zeros<float>(2, 10);
  lora::apply(
      y, [](lora::bfloat16 x, std::int8_t n) { return static_cast<float>(x) * static_cast<float>(n); }, h, i);
  CHECK(y(1, 9) == 4.5f);
  lora::apply(
      h, [](float x) { return x + 1; }, y);  // float to bfloat16: one rounding
  CHECK(static_cast<float>(h(0, 0)) == 5.5f);
  lora::apply(
      y, [](float x) { return static_cast<double>(x) / 3; }, y);
  CHECK(y(0, 0) == 1.5f);
}

TEST_CASE("ops/apply: a broadcast input, an array and a temporary one, a function with state") {
  auto bias = lora::uninit<float>(3);
  for (int i = 0; i < 3; ++i) bias[i] = static_cast<float>(i);
  auto y = lora::zeros<float>(4, 3);
  lora::apply(
      y, [](float a, float b) { return a + b; }, lora::full(extents{4, 3}, 10.0f), lora::broadcast_to(bias, y.shape()));
  CHECK(y(3, 2) == 12);
  lora::apply(
      y, [](float a, float b) { return a * b; }, y, lora::broadcast_to(bias(range(1, 2)), y.shape()));
  CHECK(y(0, 0) == 10);
  double sum = 0;
  auto add = [&sum](float x) mutable {
    sum += static_cast<double>(x);
    return x;
  };
  lora::apply(y, add, y);
  CHECK(sum == 4 * (10 + 11 + 12));
  auto none = lora::zeros<float>(0, 3);
  lora::apply(
      none, [](float) { return 1.0f; }, lora::zeros<float>(0, 3));
  float x = 2;
  lora::apply(
      ndview<float, 0>(&x, {}), [](float v) { return v * v; }, ndview<float, 0>(&x, {}));
  CHECK(x == 4);
}

TEST_CASE("ops/apply: what f throws passes through") {
  auto y = lora::zeros<float>(4);
  CHECK_THROWS_AS(lora::apply(
                      y, [](float) -> float { throw std::string("f"); }, y),
                  std::string);
}

TEST_CASE("ops/apply: error texts, and nothing is written") {
  auto a = lora::full(extents{4, 6}, 1.0f);
  auto b = lora::full(extents{5, 6}, 1.0f);
  const auto f1 = [](float) { return 9.0f; };
  const auto f2 = [](float, float) { return 9.0f; };
  CHECK_THROWS_WITH(lora::apply(b, f1, a), "apply: input 0 is [4, 6] but the output is [5, 6]");
  CHECK_THROWS_WITH(lora::apply(b, f2, b, a), "apply: input 1 is [4, 6] but the output is [5, 6]");
  CHECK_THROWS_AS(lora::apply(b, f1, b(range(0, 1))), lora::shape_error);  // nothing broadcasts by itself
  CHECK_THROWS_WITH(lora::apply(b(range(0, 4)), f1, b(range(1, 5))),
                    "apply: input 0, shape [4, 6] and strides [6, 1], overlaps the output, strides [6, 1], without being the same view; "
                    "clone() it first");
  CHECK_THROWS_AS(lora::apply(b, f1, b(range(_, _, -1))), lora::shape_error);
  CHECK_THROWS_AS(lora::apply(b(range(0, 4)), f2, a, lora::broadcast_to(b(0), a.shape())), lora::shape_error);
  const ndview<float, 2> folded(a.data(), {4, 6}, {0, 1});
  CHECK_THROWS_WITH(lora::apply(folded, f1, b(range(0, 4))), "apply: elements of the output share addresses: shape [4, 6], strides [0, 1]");
  const ndview<float, 1> same_bytes(b.data(), {30});
  auto* const bits = reinterpret_cast<std::uint32_t*>(b.data());
  CHECK_THROWS_AS(lora::apply(
                      same_bytes, [](std::uint32_t) { return 1.0f; }, ndview<std::uint32_t, 1>(bits, {30})),
                  lora::shape_error);
  bool untouched = true;
  for (index_t i = 0; i < 30; ++i) untouched = untouched && b.data()[i] == 1;
  CHECK(untouched);
}
