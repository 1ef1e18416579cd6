// SPDX-License-Identifier: Apache-2.0
#include "cases.hpp"

#include <lora/nd/array.hpp>
#include <lora/nd/reshape.hpp>

#include <doctest/doctest.h>

#include <array>
#include <cstdint>
#include <string>
#include <vector>

using lora::index_t;

namespace {

struct layout {
  std::vector<index_t> shape;
  std::vector<index_t> strides;
};

index_t address(const layout& l, index_t flat) {
  index_t at = 0;
  for (std::size_t i = l.shape.size(); i-- > 0;) {
    at += flat % l.shape[i] * l.strides[i];
    flat /= l.shape[i];
  }
  return at;
}

}  // namespace

TEST_CASE("nd/reshape: NumPy's answers to random reshapes without a copy") {
  int checked = 0;
  int refused = 0;
  for (const auto& c : test::numpy_cases('R')) {
    auto shape = test::numbers(c.argument);
    std::vector<index_t> strides(shape.size());
    bool done = false;
    try {
      lora::detail::resolve_shape(c.shape.data(), c.shape.size(), shape.data(), shape.size());
      done = lora::detail::reshape_strides(c.shape.data(), c.strides.data(), c.shape.size(), shape.data(), shape.size(), strides.data());
    } catch (const lora::shape_error&) {
    }
    ++checked;
    refused += done ? 0 : 1;
    const bool empty = lora::detail::product(c.shape.data(), c.shape.size()) == 0;
    if (done == c.refused || (done && !empty && !test::same_strides(shape, test::numbers(c.answer.at(0)), strides.data())))
      FAIL_CHECK(c.line);
  }
  CHECK(checked == 600);
  CHECK(refused > 100);
}

TEST_CASE("nd/reshape: whatever is accepted keeps the logical order, and nothing that fits is refused") {
  // Every stride from a window for shape [2, 3, 2], against every shape of 12 elements of rank <= 3 and an exhaustive search for strides.
  const std::vector<std::vector<index_t>> shapes{{12}, {2, 6}, {6, 2}, {3, 4}, {4, 3}, {12, 1}, {2, 2, 3}, {2, 3, 2}, {3, 2, 2}, {6, 1, 2}};
  int accepted = 0;
  int wrong = 0;
  for (index_t s0 = -7; s0 <= 7; ++s0)
    for (index_t s1 = -4; s1 <= 4; ++s1)
      for (index_t s2 = -2; s2 <= 2; ++s2) {
        const layout from{{2, 3, 2}, {s0, s1, s2}};
        for (const auto& shape : shapes) {
          layout to{shape, std::vector<index_t>(shape.size())};
          const bool done =
              lora::detail::reshape_strides(from.shape.data(), from.strides.data(), 3, shape.data(), shape.size(), to.strides.data());
          if (done) {
            ++accepted;
            for (index_t i = 0; i < 12; ++i) wrong += address(from, i) != address(to, i) ? 1 : 0;
          } else {
            // The stride of an axis is forced by its second element: if those strides give every address, the refusal was wrong.
            index_t inner = 1;
            for (std::size_t i = shape.size(); i-- > 0;) {
              to.strides[i] = shape[i] > 1 ? address(from, inner) : 0;
              inner *= shape[i];
            }
            bool fits = true;
            for (index_t i = 0; i < 12; ++i) fits = fits && address(from, i) == address(to, i);
            wrong += fits ? 1 : 0;
          }
        }
      }
  CHECK(wrong == 0);
  CHECK(accepted > 500);
}

TEST_CASE("nd/reshape: views of the same elements") {
  auto a = lora::zeros<int>(4, 5, 6);
  for (int i = 0; i < 120; ++i) a.data()[i] = i;
  const auto f = lora::reshape(a, 20, 6);
  static_assert(decltype(f)::rank() == 2);
  CHECK(f(19, 5) == 119);
  CHECK(f(7, 2) == 44);
  f(7, 2) = -1;
  CHECK(a(1, 2, 2) == -1);
  CHECK(lora::reshape(a, -1).shape() == lora::extents{120});
  CHECK(lora::reshape(a, 2, -1, 10).shape() == lora::extents{2, 6, 10});
  CHECK(lora::reshape(a.view(), lora::extents{8, 15}).stride() == lora::strides{15, 1});
  CHECK(lora::reshape(a(lora::all, lora::range(0, 3)), 4, 18).stride() == lora::strides{30, 1});
  CHECK(lora::reshape(a(1, 1, lora::range(0, 1)), lora::extents<0>()).data() == a.data() + 36);
  CHECK(lora::reshape(lora::ndview<int, 0>(a.data(), {}), 1, 1).shape() == lora::extents{1, 1});
  CHECK(lora::reshape(a(lora::range(0, 0)), 7, 0, 3).shape() == lora::extents{7, 0, 3});
  const auto& ca = a;
  static_assert(std::is_same_v<decltype(lora::reshape(ca, 120)), lora::ndview<const int, 1>>);
}

TEST_CASE("nd/reshape: try_reshape gives nothing where only a copy would do, and throws on a mistake") {
  auto a = lora::zeros<int>(4, 5);
  CHECK_FALSE(lora::try_reshape(a.view().transpose(), 20).has_value());
  CHECK_FALSE(lora::try_reshape(a(lora::all, lora::range(0, 4)), lora::extents{16}).has_value());
  CHECK(lora::try_reshape(a, lora::extents{10, 2}).has_value());
  CHECK(lora::try_reshape(a(lora::range(lora::_, lora::_, -1), 0), 2, 2)->stride() == lora::strides{-10, -5});
  CHECK_THROWS_AS((void)lora::try_reshape(a, 21), lora::shape_error);
}

TEST_CASE("nd/reshape: extremes do not overflow") {
  float one = 0;
  const lora::ndview<const float, 2> wide(&one, {index_t{1} << 60, 1}, {0, 0});
  CHECK(lora::reshape(wide, index_t{1} << 30, index_t{1} << 30).stride() == lora::strides{0, 0});
  CHECK_THROWS_AS((void)lora::reshape(wide, index_t{1} << 40, index_t{1} << 40), lora::shape_error);
  // An extent of 0 does not excuse the others; the sizes would agree.
  CHECK_THROWS_WITH((void)lora::reshape(wide(lora::range(0, 0)), 0, index_t{1} << 40, index_t{1} << 40),
                    "reshape: shape [0, 1] does not become [0, 1099511627776, 1099511627776]: the product of the extents overflows");
  std::array<index_t, 2> stride{};
  const index_t shape[] = {2, 2};
  const index_t far[] = {1, PTRDIFF_MAX};
  CHECK(lora::detail::reshape_strides(shape, far, 2, shape, 2, stride.data()));
  CHECK(stride == std::array<index_t, 2>{1, PTRDIFF_MAX});
}

TEST_CASE("nd/reshape: error texts") {
  auto a = lora::zeros<int>(4, 5);
  CHECK_THROWS_WITH((void)lora::reshape(a, 3, 7), "reshape: shape [4, 5] does not become [3, 7]: the sizes differ");
  CHECK_THROWS_WITH((void)lora::reshape(a, 3, -1), "reshape: shape [4, 5] does not become [3, -1]: the sizes differ");
  CHECK_THROWS_WITH((void)lora::reshape(a, -1, -1), "reshape: shape [4, 5] does not become [-1, -1]: only one extent can be -1");
  CHECK_THROWS_WITH((void)lora::reshape(a, -2), "reshape: shape [4, 5] does not become [-2]: an extent is negative");
  CHECK_THROWS_WITH((void)lora::reshape(a(lora::range(0, 0)), 0, -1),
                    "reshape: shape [0, 5] does not become [0, -1]: -1 cannot be inferred beside an extent of 0");
  CHECK_THROWS_WITH((void)lora::reshape(a.view().transpose(), 20),
                    "reshape: shape [5, 4] does not become [20]: its memory order would need a copy (contiguous() makes one)");
}
