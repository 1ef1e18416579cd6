// SPDX-License-Identifier: Apache-2.0
#include <lora/nd/view.hpp>

#include <doctest/doctest.h>

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <type_traits>
#include <vector>

using lora::_;
using lora::all;
using lora::extents;
using lora::index_t;
using lora::ndview;
using lora::order;
using lora::range;
using lora::strides;

// What the type promises.
static_assert(std::is_trivially_copyable_v<ndview<float, 3>>);
static_assert(sizeof(ndview<float, 3>) == sizeof(void*) + 6 * sizeof(index_t));
static_assert(std::semiregular<ndview<float, 2>>);
static_assert(std::is_convertible_v<ndview<float, 2>, ndview<const float, 2>>);
static_assert(!std::is_constructible_v<ndview<float, 2>, ndview<const float, 2>>);
static_assert(!std::is_constructible_v<ndview<double, 2>, ndview<float, 2>>);
static_assert(!std::is_constructible_v<ndview<const double, 2>, ndview<float, 2>>);
static_assert(!std::is_constructible_v<ndview<const float, 1>, ndview<float, 2>>);
static_assert(std::is_assignable_v<ndview<float, 2>&, ndview<float, 2>>);
static_assert(!std::is_assignable_v<ndview<float, 2>, ndview<float, 2>>);
static_assert(!std::is_assignable_v<ndview<float, 2>, float>);

// Spans, and containers that own their elements.
template <class Source, class T = const float>
inline constexpr bool gives_view = std::is_constructible_v<ndview<T, 1>, Source, extents<1>>;
static_assert(gives_view<std::vector<float>&> && gives_view<std::vector<float>&, float>);
static_assert(gives_view<const std::vector<float>&> && !gives_view<const std::vector<float>&, float>);
static_assert(!gives_view<std::vector<float>> && !gives_view<const std::vector<float>>);
static_assert(gives_view<std::array<float, 3>&> && !gives_view<std::array<float, 3>>);
static_assert(!gives_view<std::array<const float, 3>>);
static_assert(gives_view<std::span<float>> && gives_view<std::span<const float>> && gives_view<const std::span<float, 3>&>);
static_assert(gives_view<std::span<float>, float> && !gives_view<std::span<const float>, float>);
static_assert(!gives_view<std::vector<double>&>);
static_assert(!gives_view<ndview<float, 2>&>);  // data() and size() of a strided view are not a span

// Words of a call.
template <class V, class... Words>
inline constexpr bool callable = std::is_invocable_v<V, Words...>;
static_assert(callable<ndview<float, 2>, int, int> && callable<ndview<float, 2>, int> && callable<ndview<float, 2>>);
static_assert(!callable<ndview<float, 2>, int, int, int> && !callable<ndview<float, 2>, float, int> &&
              !callable<ndview<float, 2>, bool, int>);
static_assert(callable<ndview<float, 2>, lora::ellipsis_t, int> && !callable<ndview<float, 2>, lora::ellipsis_t, lora::ellipsis_t>);
static_assert(std::is_same_v<std::invoke_result_t<ndview<float, 2>, int, unsigned>, float&>);
static_assert(std::is_same_v<std::invoke_result_t<ndview<const float, 2>, int, unsigned>, const float&>);
static_assert(std::is_same_v<std::invoke_result_t<ndview<float, 2>, int, range>, ndview<float, 1>>);
static_assert(std::is_same_v<std::invoke_result_t<ndview<float, 0>>, float&>);

namespace {

std::vector<float> counted(std::size_t n) {
  std::vector<float> v(n);
  for (std::size_t i = 0; i < n; ++i) v[i] = static_cast<float>(i);
  return v;
}

}  // namespace

TEST_CASE("nd/view: C order, F order and explicit strides over foreign memory") {
  auto buffer = counted(24);
  const ndview<float, 2> c(buffer.data(), {4, 6});
  const ndview<float, 2> f(buffer.data(), {4, 6}, order::F);
  const ndview<float, 2> s(buffer.data(), {4, 5}, {6, 1});
  CHECK(c(2, 3) == 15);
  CHECK(f(2, 3) == 14);
  CHECK(s(3, 4) == 22);
  CHECK(c.is_contiguous());
  CHECK_FALSE(c.is_contiguous(order::F));
  CHECK(f.is_contiguous(order::F));
  CHECK_FALSE(s.is_contiguous());
  CHECK(c.size() == 24);
  CHECK(s.extent(1) == 5);
  CHECK(s.stride(0) == 6);
  c(0, 1) = 100;
  CHECK(f(1, 0) == 100);
}

TEST_CASE("nd/view: over a span, the bounds are checked") {
  auto buffer = counted(24);
  CHECK(ndview<float, 2>(buffer, {4, 6})(3, 5) == 23);
  CHECK(ndview<const float, 2>(std::span<float>(buffer), {4, 5}, {6, 1})(3, 4) == 22);
  CHECK(ndview<float, 2>(buffer, {4, 6}, order::F)(3, 5) == 23);
  CHECK(ndview<float, 2>(buffer, {0, 1000}).empty());
  CHECK(ndview<float, 2>(buffer, {6, 1000}, {4, 0})(5, 999) == 20);
  CHECK_THROWS_WITH((ndview<float, 2>(buffer, {5, 5})), "a view of shape [5, 5] and strides [5, 1] does not fit a span of 24 elements");
  CHECK_THROWS_AS((ndview<float, 2>(buffer, {4, 6}, {6, 2})), lora::shape_error);
  CHECK_THROWS_AS((ndview<float, 1>(buffer, {4}, {-1})), lora::shape_error);  // would reach below the first element
  CHECK_THROWS_AS((ndview<float, 2>(buffer, {2, 2}, {PTRDIFF_MAX, 1})), lora::shape_error);
  std::vector<float> none;
  CHECK(ndview<float, 1>(none, {0}).empty());
  CHECK_THROWS_AS((ndview<float, 0>(none, {})), lora::shape_error);  // rank 0 has one element
}

TEST_CASE("nd/view: shapes that do not fit the address space are refused in every constructor") {
  constexpr index_t big = index_t{1} << 40;
  float one = 0;
  std::vector<float> buffer(4);
  CHECK_THROWS_WITH((ndview<float, 3>(&one, {0, big, big})),
                    "shape [0, 1099511627776, 1099511627776] of elements of 4 bytes does not fit the address space");
  CHECK_THROWS_AS((ndview<float, 2>(&one, {big, big}, {0, 0})), lora::shape_error);
  CHECK_THROWS_AS((ndview<float, 2>(buffer, {big, big}, {0, 0})), lora::shape_error);
  CHECK_THROWS_AS((ndview<float, 2>(buffer, {big, big})), lora::shape_error);
}

TEST_CASE("nd/view: elements by index, negative ones from the end") {
  auto buffer = counted(24);
  const ndview<float, 2> v(buffer.data(), {4, 6});
  CHECK(v(-1, -6) == 18);
  CHECK(v(std::size_t{3}, std::uint8_t{5}) == 23);
  CHECK(v.at(-4, 5) == 5);
  CHECK_THROWS_WITH((void)v.at(4, 0), "index 4 is out of bounds for axis 0 of shape [4, 6]");
  CHECK_THROWS_WITH((void)v.at(0, -7), "index -7 is out of bounds for axis 1 of shape [4, 6]");
  CHECK_THROWS_AS((void)v.at(0, std::uint64_t{1} << 63), lora::index_error);
  const ndview<float, 1> row = v(2);
  CHECK(row[0] == 12);
  CHECK(row[-1] == 17);
  const ndview<float, 1> reversed = row(range(_, _, -1));
  CHECK(reversed[0] == 17);
  CHECK(reversed[-1] == 12);
}

TEST_CASE("nd/view: rank 0 is one element") {
  float x = 3;
  const ndview<float, 0> v(&x, {});
  CHECK(v.size() == 1);
  CHECK_FALSE(v.empty());
  CHECK(v.is_contiguous());
  v() = 4;
  CHECK(x == 4);
  CHECK(v.at() == 4);
  CHECK(v(lora::newaxis, lora::newaxis).shape() == extents{1, 1});
  CHECK(v(lora::ellipsis).data() == &x);
  CHECK(v.transpose().data() == &x);
  CHECK(v.permute<>().data() == &x);
}

TEST_CASE("nd/view: assignment rebinds, and const belongs to the elements") {
  auto a = counted(6);
  auto b = counted(6);
  ndview<float, 1> v(a, {6});
  const ndview<float, 1> w(b, {6});
  v = w;
  CHECK(v.data() == b.data());
  CHECK(a[5] == 5);
  w(0) = 9;  // a const view still writes
  CHECK(b[0] == 9);
  ndview<const float, 1> r = v;
  r = w;
  CHECK(r.data() == b.data());
  static_assert(std::is_same_v<decltype(r(0)), const float&>);
}

TEST_CASE("nd/view: transpose and permute") {
  auto buffer = counted(24);
  const ndview<float, 3> v(buffer.data(), {2, 3, 4});
  const auto t = v.transpose();
  CHECK(t.shape() == extents{4, 3, 2});
  CHECK(t(3, 1, 1) == v(1, 1, 3));
  const auto p = v.permute<2, 0, 1>();
  CHECK(p.shape() == extents{4, 2, 3});
  CHECK(p.stride() == strides{1, 12, 4});
  CHECK(p(3, 1, 2) == v(1, 2, 3));
  CHECK(v.permute({2, 0, 1}).stride() == p.stride());
  CHECK_THROWS_WITH((void)v.permute({0, 0, 1}), "permute: [0, 0, 1] is not an order of the axes 0..2");
  CHECK_THROWS_AS((void)v.permute({0, 1, 3}), lora::shape_error);
  CHECK_THROWS_AS((void)v.permute({0, 1, -1}), lora::shape_error);
}

TEST_CASE("nd/view: a shape outlives the slice it was asked of") {
  auto buffer = counted(24);
  const ndview<float, 2> v(buffer.data(), {4, 6});
  index_t sum = 0;
  for (const index_t n : v(range(1, 3)).shape().array()) sum += n;
  for (const index_t s : v(range(1, 3)).stride().array()) sum += 100 * s;
  CHECK(sum == 708);
  static_assert(std::is_same_v<decltype(v(0, all).shape()), extents<1>>);
  static_assert(std::is_same_v<decltype(v.shape()), const extents<2>&>);
}

TEST_CASE("nd/view: tight memory, every element through every kind of view") {
  // Exactly as long as needed, on the heap: ASan sees a step too far.
  const std::unique_ptr<float[]> exact(new float[60]());
  const ndview<float, 3> v(exact.get(), {3, 4, 5});
  const auto w = v.transpose()(range(_, _, -1), all, range(_, _, -2));
  float count = 0;
  for (index_t i = 0; i < w.extent(0); ++i)
    for (index_t j = -w.extent(1); j < 0; ++j)
      for (std::size_t k = 0; k < 2; ++k) w(i, j, k) = ++count;
  CHECK(count == 40);
  CHECK(v(2, 0, 4) == 1);
  CHECK(v(0, 3, 0) == 40);
  CHECK(v(1, 0, 0) == 0);
}

TEST_CASE("nd/view: slicing works at compile time") {
  static constexpr float data[] = {0, 1, 2, 3, 4, 5};
  constexpr ndview<const float, 2> v(data, {2, 3});
  static_assert(v(1, 2) == 5);
  static_assert(v(all, range(_, _, -1)).stride() == strides{3, -1});
  static_assert(v.transpose()(2, 0) == 2);
  static_assert(v(lora::newaxis, 1).shape() == extents{1, 3});
  CHECK(v(1)(range(1, _))[0] == 4);
}
