// SPDX-License-Identifier: Apache-2.0
#include "view_cases.hpp"

#include <lora/nd/array.hpp>
#include <lora/nd/axes.hpp>

using lora::index_t;
using test::numbers;

TEST_CASE("nd/axes: NumPy's answers to random swaps, moves, flips, diagonals, squeezes and new axes") {
  test::replay<1, 4>('W', 150, 5, [](auto v, const std::string& text, auto& answers) {
    const auto n = numbers(text);
    answers.add(lora::swap_axes(v, n.at(0), n.at(1)));
  });
  test::replay<1, 4>('M', 200, 5, [](auto v, const std::string& text, auto& answers) {
    const auto n = numbers(text);
    answers.add(lora::move_axis(v, n.at(0), n.at(1)));
  });
  test::replay<1, 4>('F', 250, 20, [](auto v, const std::string& text, auto& answers) {
    const auto n = text == "*" ? std::vector<index_t>{} : numbers(text);
    if (n.empty()) return answers.add(lora::flip(v));
    if (n.size() == 1) return answers.add(lora::flip(v, n[0]));
    if (n.size() == 2) return answers.add(lora::flip(v, n[0], n[1]));
    answers.add(lora::flip(v, n.at(0), n.at(1), n.at(2)));
  });
  test::replay<2, 4>('D', 400, 50, [](auto v, const std::string& text, auto& answers) {
    const auto n = numbers(text);
    answers.add(lora::diagonal(v, n.at(0), n.at(1), n.at(2)));
  });
  test::replay<1, 4>('Q', 200, 50, [](auto v, const std::string& text, auto& answers) { answers.add(lora::squeeze(v, numbers(text)[0])); });
  test::replay<0, 4>('E', 200, 3,
                     [](auto v, const std::string& text, auto& answers) { answers.add(lora::expand_dims(v, numbers(text)[0])); });
}

TEST_CASE("nd/axes: a flip reads backwards, element by element, and twice is nothing") {
  auto a = lora::zeros<int>(3, 4, 2);
  for (int i = 0; i < 24; ++i) a.data()[i] = i;
  for (const auto& v : {a.view(), lora::swap_axes(a, 0, 2).transpose()}) {
    for (unsigned mask = 0; mask < 8; ++mask) {
      auto f = v;
      for (index_t axis = 0; axis < 3; ++axis)
        if ((mask >> axis & 1u) != 0) f = lora::flip(f, mask % 2 == 0 ? axis : axis - 3);
      int wrong = 0;
      for (index_t i = 0; i < 3; ++i)
        for (index_t j = 0; j < v.extent(1); ++j)
          for (index_t k = 0; k < v.extent(2); ++k)
            wrong += f(i, j, k) !=
                     v((mask & 1) ? v.extent(0) - 1 - i : i, (mask & 2) ? v.extent(1) - 1 - j : j, (mask & 4) ? v.extent(2) - 1 - k : k);
      CHECK(wrong == 0);
    }
    CHECK(lora::flip(lora::flip(v)).data() == v.data());
    CHECK(lora::flip(lora::flip(v)).stride() == v.stride());
    CHECK_FALSE(lora::flip(v, 1).is_contiguous());
  }
  // Axes that are never walked along keep their stride, however strange; axes of a view without elements move nothing.
  const lora::ndview<int, 2> strange(a.data(), {1, 3}, {PTRDIFF_MIN, 1});
  CHECK(lora::flip(strange).stride() == lora::strides{PTRDIFF_MIN, -1});
  CHECK(lora::flip(a(lora::range(0, 0))).data() == a.data());
}

TEST_CASE("nd/axes: every diagonal of every small matrix, against the definition") {
  auto memory = lora::zeros<int>(6, 6);
  for (int i = 0; i < 36; ++i) memory.data()[i] = i;
  for (index_t n = 0; n <= 4; ++n)
    for (index_t m = 0; m <= 4; ++m)
      for (index_t offset = -6; offset <= 6; ++offset) {
        const auto v = memory(lora::range(0, n), lora::range(m, 0, -1).clamp());
        const auto d = lora::diagonal(v, offset);
        std::vector<int> want;
        for (index_t i = 0; i < v.extent(0); ++i)
          if (i + offset >= 0 && i + offset < v.extent(1)) want.push_back(v(i, i + offset));
        std::vector<int> got;
        for (index_t i = 0; i < d.extent(0); ++i) got.push_back(d(i));
        CHECK(got == want);
      }
  // Offsets that no array has.
  CHECK(lora::diagonal(memory, PTRDIFF_MAX).extent(0) == 0);
  CHECK(lora::diagonal(memory, PTRDIFF_MIN).extent(0) == 0);
  lora::diagonal(memory, 0)(2) = -1;
  CHECK(memory(2, 2) == -1);
  const auto& read_only = memory;
  static_assert(std::is_same_v<decltype(lora::diagonal(read_only)), lora::ndview<const int, 1>>);
}

TEST_CASE("nd/axes: squeeze by axes known to the compiler, at compile time too") {
  auto a = lora::zeros<int>(1, 3, 1, 2);
  CHECK(lora::squeeze<0, -2>(a).shape() == lora::extents{3, 2});
  CHECK(lora::squeeze<2>(a.view()).shape() == lora::extents{1, 3, 2});
  CHECK(lora::squeeze<0>(a(lora::newaxis, 0, 0, 0, 0)).data() == a.data());
  CHECK_THROWS_AS((void)lora::squeeze<1>(a), lora::shape_error);
  static constexpr int cells[6] = {0, 1, 2, 3, 4, 5};
  constexpr lora::ndview<const int, 2> c(cells, {2, 3});
  static_assert(lora::flip(c, -1)(0, 0) == 2 && lora::diagonal(c, 1)(1) == 5 && lora::swap_axes(c, 0, 1)(2, 1) == 5);
  static_assert(lora::squeeze<1>(lora::expand_dims(c, 1)).stride() == c.stride() && lora::move_axis(c, 0, -1)(1, 0) == 1);
}

TEST_CASE("nd/axes: error texts") {
  auto a = lora::zeros<int>(4, 5);
  CHECK_THROWS_WITH_AS((void)lora::swap_axes(a, 0, 2), "swap_axes: axis 2 is out of bounds for shape [4, 5] of rank 2", lora::index_error);
  CHECK_THROWS_WITH((void)lora::move_axis(a, -3, 0), "move_axis: axis -3 is out of bounds for shape [4, 5] of rank 2");
  CHECK_THROWS_WITH((void)lora::flip(a, 1, -1), "flip: axis -1 of shape [4, 5] is named twice");
  CHECK_THROWS_WITH((void)lora::flip(a, ~std::size_t{0}), "axis 18446744073709551615 does not fit a signed 64-bit index");
  CHECK_THROWS_WITH((void)lora::diagonal(a, 0, 1, 1), "diagonal: axis 1 of shape [4, 5] is named twice");
  CHECK_THROWS_WITH((void)lora::squeeze(a, -1), "squeeze: axis 1 of shape [4, 5] has length 5, and only 1 can go");
  CHECK_THROWS_WITH((void)lora::expand_dims(a, 3), "expand_dims: axis 3 is out of bounds for shape [4, 5] of rank 2");
}
