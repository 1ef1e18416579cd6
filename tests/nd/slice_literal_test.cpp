// SPDX-License-Identifier: Apache-2.0
//
// Slices written as literals, against NumPy: tests/data/nd/literals.inc is a sample of the texts of slice_text_test.cpp.
#include <lora/nd/array.hpp>
#include <lora/nd/slice_text.hpp>

#include <doctest/doctest.h>

#include <array>
#include <type_traits>
#include <vector>

using lora::index_t;
using namespace lora::literals;

namespace {

struct expected {
  std::vector<index_t> shape;
  std::vector<index_t> strides;
  index_t offset;
};

int count = 0;
float memory[20000];

template <std::size_t R>
lora::ndview<float, R> base(const std::array<index_t, R>& shape, const std::array<index_t, R>& strides) {
  return {memory + 10000, lora::extents<R>(shape), lora::strides<R>(strides)};
}

template <std::size_t R, class Slice>
[[gnu::noinline]] void sliced(std::array<index_t, R> shape, std::array<index_t, R> strides, const Slice& slice, const expected& want) {
  ++count;
  const auto v = base<R>(shape, strides);
  CAPTURE(count);
  if constexpr (std::is_same_v<decltype(v(slice)), float&>) {
    CHECK(want.shape.empty());
    CHECK(&v(slice) - v.data() == want.offset);
  } else {
    const auto s = v(slice);
    REQUIRE(want.shape.size() == s.rank());
    bool same = s.data() - v.data() == want.offset;
    for (std::size_t i = 0; i < s.rank(); ++i)
      same = same && s.extent(i) == want.shape[i] && (want.shape[i] <= 1 || s.stride(i) == want.strides[i]);
    CHECK(same);
  }
}

template <std::size_t R, class Slice>
[[gnu::noinline]] void refused(std::array<index_t, R> shape, std::array<index_t, R> strides, const Slice& slice) {
  ++count;
  CAPTURE(count);
  CHECK_THROWS_AS((void)base<R>(shape, strides)(slice), lora::index_error);
}

}  // namespace

TEST_CASE("nd/slice_text: NumPy's answers to literals") {
  count = 0;
#include "../data/nd/literals.inc"
  CHECK(count >= 300);
}

TEST_CASE("nd/slice_text: the rank of a literal's result is known at compile time") {
  auto a = lora::zeros<float>(4, 5, 6);
  static_assert(std::is_same_v<decltype(a("1:, :, 2"_s)), lora::ndview<float, 2>>);
  static_assert(std::is_same_v<decltype(std::as_const(a)("..., None"_s)), lora::ndview<const float, 4>>);
  static_assert(std::is_same_v<decltype(a("0, 1, 2, ..."_s)), lora::ndview<float, 0>>);
  static_assert(std::is_same_v<decltype(a("0, 1, 2"_s)), float&>);
  static_assert(std::is_same_v<decltype(std::as_const(a)("0, 1, 2"_s)), const float&>);
  static_assert(std::is_same_v<decltype("1:"_s), decltype("-3:7"_s)>);  // the same form, the same code
  a("-1, 4, -6"_s) = 7;
  CHECK(a(3, 4, 0) == 7);
  CHECK_THROWS_WITH((void)a("0, 5, 0"_s), "index 5 is out of bounds for axis 1 of shape [4, 5, 6]");  // checked at every LORA_CHECKS
  double x = 3;
  CHECK(lora::ndview<double, 0>(&x, {})("()"_s) == 3);
}

TEST_CASE("nd/slice_text: literals in constant expressions") {
  constexpr auto shape_of = [] {
    lora::ndview<const float, 3> v(nullptr, {4, 5, 6});
    return v("0:0, ::-2, 1"_s).shape();
  };
  static_assert(shape_of() == lora::extents{0, 3});
}

TEST_CASE("nd/slice_text: clamp() cuts bounds and leaves indices strict") {
  auto a = lora::zeros<float>(4, 5);
  CHECK(a("2:99, -99:2"_s.clamp()).shape() == lora::extents{2, 2});
  CHECK(a("99:, ::-1"_s.clamp()).shape() == lora::extents{0, 5});
  CHECK(a("99::-1"_s.clamp()).shape() == lora::extents{4, 5});
  CHECK_THROWS_WITH((void)a("2:99"_s), "slice bound 99 is out of bounds for axis 0 of shape [4, 5] (clamp() cuts bounds to the axis)");
  CHECK_THROWS_AS((void)a("4, 2:99"_s.clamp()), lora::index_error);
}
