// SPDX-License-Identifier: Apache-2.0
#include "view_cases.hpp"

#include <lora/nd/array.hpp>
#include <lora/nd/like.hpp>
#include <lora/nd/windows.hpp>

using lora::index_t;
using test::numbers;

TEST_CASE("nd/windows: NumPy's answers to random windows") {
  test::replay<1, 3>('G', 300, 10, [](auto v, const std::string& text, auto& answers) {
    const auto fields = test::split(text, '/');
    const auto n = numbers(fields.at(0));
    const auto axes = numbers(fields.at(1));
    if (n.size() == 1) return answers.add(lora::sliding_window(v, n[0], axes[0]));
    answers.add(lora::sliding_window(v, lora::extents{n.at(0), n.at(1)}, {axes.at(0), axes.at(1)}));
  });
}

TEST_CASE("nd/windows: window j of position i is element i + j, along every axis") {
  auto a = lora::zeros<int>(5, 4);
  for (int i = 0; i < 20; ++i) a.data()[i] = i;
  for (const auto v : {a.view(), a(lora::range(lora::_, lora::_, -1))}) {
    for (index_t h = 1; h <= 5; ++h)
      for (index_t w = 1; w <= 4; ++w) {
        const auto all = lora::sliding_window(v, lora::extents{h, w});
        REQUIRE(all.shape() == lora::extents{6 - h, 5 - w, h, w});
        int wrong = 0;
        for (index_t i = 0; i < 6 - h; ++i)
          for (index_t j = 0; j < 5 - w; ++j)
            for (index_t k = 0; k < h; ++k)
              for (index_t l = 0; l < w; ++l) wrong += all(i, j, k, l) != v(i + k, j + l);
        CHECK(wrong == 0);
      }
  }
  static_assert(std::is_same_v<decltype(lora::sliding_window(a, 2)), lora::ndview<const int, 3>>);
  CHECK(lora::sliding_window(a, 2).shape() == lora::extents{5, 3, 2});
}

TEST_CASE("nd/windows: error texts, and shapes that do not fit the address space") {
  auto a = lora::zeros<int>(4, 5);
  CHECK_THROWS_WITH(
      (void)lora::sliding_window(a, 6),
      "sliding_window: a window of 6 along axis 1 of shape [4, 5]: a window has at least one position and at most those of its axis");
  CHECK_THROWS_AS((void)lora::sliding_window(a, 0), lora::shape_error);
  CHECK_THROWS_AS((void)lora::sliding_window(a, -1), lora::shape_error);
  CHECK_THROWS_WITH((void)lora::sliding_window(a, 2, 2), "sliding_window: axis 2 is out of bounds for shape [4, 5] of rank 2");
  const lora::ndview<int, 1> wide(a.data(), {index_t{1} << 40}, {0});
  CHECK_THROWS_AS((void)lora::sliding_window(wide, index_t{1} << 39), lora::shape_error);
}

TEST_CASE("nd/broadcast: NumPy's answers to random shapes broadcast together") {
  int checked = 0;
  int refused = 0;
  for (const auto& c : test::view_cases('C')) {
    std::vector<std::vector<index_t>> shapes;
    std::size_t rank = 0;
    for (const auto& text : test::split(c.at(1), '/')) {
      shapes.push_back(numbers(text));
      rank = std::max(rank, shapes.back().size());
    }
    std::vector<index_t> out(rank, 1);
    bool done = true;
    try {
      std::size_t known = 0;
      for (std::size_t i = 0; i < shapes.size(); ++i) {
        lora::detail::broadcast_shape(i, shapes[i].data(), shapes[i].size(), out.data(), rank, known);
        known = std::max(known, shapes[i].size());
      }
    } catch (const lora::shape_error&) {
      done = false;
    }
    ++checked;
    refused += done ? 0 : 1;
    if (done == (c.at(4) == "X") || (done && out != numbers(c.at(4)))) FAIL_CHECK(c.back());
  }
  CHECK(checked == 250);
  CHECK(refused >= 3);
  static_assert(lora::broadcast_shapes(lora::extents{4, 1}, lora::extents{3}, lora::extents<0>()) == lora::extents{4, 3});
  CHECK(lora::broadcast_shapes(lora::extents{0, 1}, lora::extents{1, 5}) == lora::extents{0, 5});
  CHECK_THROWS_WITH(
      (void)lora::broadcast_shapes(lora::extents{4, 3}, lora::extents{1}, lora::extents{2}),
      "broadcast_shapes: shape 2, [2], does not broadcast with [4, 3], the shape of those before it (aligned at the last axis, "
      "extents must be equal or 1)");
}

TEST_CASE("nd/like: the memory order that NumPy's empty_like(order='K') keeps") {
  int checked = 0;
  for (const auto& c : test::view_cases('K')) {
    const auto shape = numbers(c.at(1));
    const auto stride = numbers(c.at(2));
    std::vector<index_t> axes(shape.size());
    lora::detail::memory_order(shape.data(), stride.data(), shape.size(), axes.data());
    std::vector<index_t> got(shape.size());
    index_t step = 1;
    for (std::size_t i = shape.size(); i-- > 0;) {
      got[static_cast<std::size_t>(axes[i])] = step;
      step *= shape[static_cast<std::size_t>(axes[i])];
    }
    ++checked;
    if (step != 0 && !test::same_strides(shape, numbers(c.at(4)), got.data())) FAIL_CHECK(c.back());
  }
  CHECK(checked == 300);
}

TEST_CASE("nd/like: arrays of any memory order") {
  auto a = lora::zeros<int>(2, 3, 4);
  const auto like = lora::uninit_like(a.view().permute<1, 2, 0>());
  CHECK(like.shape() == lora::extents{3, 4, 2});
  CHECK(like.stride() == lora::strides{4, 1, 12});
  const auto other = lora::zeros_like<double>(a(lora::range(lora::_, lora::_, -1), lora::all, lora::range(0, 2)));
  static_assert(std::is_same_v<decltype(other), const lora::ndarray<double, 3>>);
  CHECK(other.stride() == lora::strides{6, 2, 1});
  CHECK(other(1, 2, 1) == 0);
  CHECK(lora::ndarray<float, 2>({2, 3}, lora::memory_order(1, 0)).stride() == lora::strides{1, 2});
  CHECK(lora::ndarray<float, 2>({0, 3}, lora::memory_order(0, 1)).size() == 0);
  CHECK(lora::uninit_like(lora::ndview<int, 0>(a.data(), {})).size() == 1);
  CHECK_THROWS_WITH((lora::ndarray<float, 2>({2, 3}, lora::memory_order(1, 1))), "permute: [1, 1] is not an order of the axes 0..1");
}
