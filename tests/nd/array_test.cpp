// SPDX-License-Identifier: Apache-2.0
#include <lora/core/half.hpp>
#include <lora/nd/any_view.hpp>
#include <lora/nd/array.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <type_traits>
#include <utility>

using lora::extents;
using lora::index_t;
using lora::ndarray;
using lora::ndview;
using lora::order;
using lora::strides;

static_assert(!std::is_copy_constructible_v<ndarray<float, 2>> && !std::is_copy_assignable_v<ndarray<float, 2>>);
static_assert(std::is_nothrow_move_constructible_v<ndarray<float, 2>> && std::is_nothrow_move_assignable_v<ndarray<float, 2>>);

// Nothing that points into a temporary array.
template <class A>
concept gives_view_member = requires { std::declval<A>().view(); };
template <class A>
concept gives_data = requires { std::declval<A>().data(); };
template <class A>
concept gives_slice = requires { std::declval<A>()(0, lora::all); };
template <class A>
concept gives_element = requires { std::declval<A>()(0, 0); };
static_assert(gives_view_member<ndarray<float, 2>&> && !gives_view_member<ndarray<float, 2>> &&
              !gives_view_member<const ndarray<float, 2>>);
static_assert(gives_data<ndarray<float, 2>&> && !gives_data<ndarray<float, 2>> && !gives_data<const ndarray<float, 2>>);
static_assert(gives_slice<ndarray<float, 2>&> && !gives_slice<ndarray<float, 2>> && !gives_slice<const ndarray<float, 2>>);
static_assert(gives_element<const ndarray<float, 2>&> && !gives_element<ndarray<float, 2>>);
static_assert(!std::is_convertible_v<ndarray<float, 2>, ndview<float, 2>> &&
              !std::is_convertible_v<ndarray<float, 2>, ndview<const float, 2>>);
static_assert(!std::is_convertible_v<const ndarray<float, 2>, ndview<const float, 2>>);
static_assert(!std::is_constructible_v<ndview<const float, 2>, ndarray<float, 2>>);
static_assert(std::is_convertible_v<ndarray<float, 2>&, ndview<float, 2>> &&
              std::is_convertible_v<ndarray<float, 2>&, ndview<const float, 2>>);
static_assert(std::is_convertible_v<const ndarray<float, 2>&, ndview<const float, 2>>);
static_assert(!std::is_convertible_v<const ndarray<float, 2>&, ndview<float, 2>>);
static_assert(!std::is_assignable_v<ndview<const float, 2>&, ndarray<float, 2>>);

// const reaches the elements, because the array owns them.
static_assert(std::is_same_v<decltype(std::declval<const ndarray<float, 2>&>()(0, 0)), const float&>);
static_assert(std::is_same_v<decltype(std::declval<const ndarray<float, 2>&>()(0)), ndview<const float, 1>>);
static_assert(std::is_same_v<decltype(std::declval<const ndarray<float, 2>&>().view()), ndview<const float, 2>>);
static_assert(std::is_same_v<decltype(std::declval<ndarray<float, 2>&>()(0)), ndview<float, 1>>);

TEST_CASE("nd/array: factories") {
  auto z = lora::zeros<float>(3, std::size_t{4});
  CHECK(z.shape() == extents{3, 4});
  CHECK(z.stride() == strides{4, 1});
  bool zero = true;
  for (index_t i = 0; i < 12; ++i) zero = zero && z.data()[i] == 0;
  CHECK(zero);
  auto f = lora::full(extents{2, 3}, 1.5f, order::F);
  CHECK(f.stride() == strides{1, 2});
  CHECK(f(1, 2) == 1.5f);
  auto u = lora::uninit<double>(extents{5});
  CHECK(u.size() == 5);
  CHECK(lora::uninit<int>(2, 2).extent(1) == 2);
  const auto h = lora::zeros<lora::bfloat16>(2);
  CHECK(h[1].bits == 0);
}

TEST_CASE("nd/array: memory is aligned to 64 bytes, and none is taken for no elements") {
  auto a = lora::uninit<std::uint8_t>(3, 5);
  CHECK(reinterpret_cast<std::uintptr_t>(a.data()) % 64 == 0);
  auto none = lora::zeros<float>(4, 0, 6);
  CHECK(none.data() == nullptr);
  CHECK(none.size() == 0);
  CHECK(none.view().is_contiguous());
  ndarray<float, 0> scalar = lora::full(extents<0>(), 2.0f);
  CHECK(scalar() == 2);
  CHECK(scalar.size() == 1);
}

TEST_CASE("nd/array: a shape that does not fit is refused before anything is allocated") {
  constexpr index_t big = index_t{1} << 40;
  CHECK_THROWS_AS((void)lora::zeros<float>(big, big), lora::shape_error);
  CHECK_THROWS_AS((void)lora::zeros<float>(0, big, big), lora::shape_error);
  CHECK_THROWS_AS((void)lora::zeros<double>(PTRDIFF_MAX), lora::shape_error);
  CHECK_THROWS_AS((void)lora::zeros<float>(-1), lora::shape_error);
}

TEST_CASE("nd/array: moving keeps the elements where they are and empties the source") {
  auto a = lora::zeros<float>(2, 3);
  a(1, 2) = 5;
  const float* const p = a.data();
  auto b = std::move(a);
  CHECK(b.data() == p);
  CHECK(b(1, 2) == 5);
  CHECK(a.data() == nullptr);
  CHECK(a.size() == 0);
  auto c = lora::zeros<float>(1, 1);
  c = std::move(b);
  CHECK(c.data() == p);
  CHECK(c.shape() == extents{2, 3});
  CHECK(b.shape() == extents{0, 0});
  auto& same = c;
  c = std::move(same);
  CHECK(c.data() == p);
}

TEST_CASE("nd/array: clone copies elements and memory order") {
  auto a = lora::full(extents{2, 3}, 1, order::F);
  a(1, 2) = 7;
  auto b = a.clone();
  CHECK(b.data() != a.data());
  CHECK(b.stride() == a.stride());
  CHECK(b(1, 2) == 7);
  b(0, 0) = 9;
  CHECK(a(0, 0) == 1);
  CHECK(lora::zeros<float>(0, 3).clone().shape() == extents{0, 3});
}

TEST_CASE("nd/array: views and elements") {
  auto a = lora::zeros<int>(2, 3);
  const auto& ca = a;
  ndview<int, 2> v = a;
  ndview<const int, 2> r = ca;
  v(1, 1) = 4;
  CHECK(r(1, 1) == 4);
  CHECK(ca(1, -2) == 4);
  CHECK(a.view().data() == r.data());
  auto row = lora::zeros<int>(3);
  row[-1] = 6;
  CHECK(std::as_const(row)[2] == 6);
}

TEST_CASE("nd/array: axes count from the end where they are negative, in views, arrays, shapes and erased views alike") {
  auto a = lora::zeros<float>(2, 3, 4);
  const auto v = a.view();
  const lora::any_view erased = a;
  for (int axis = 0; axis < 3; ++axis) {
    CHECK(v.extent(axis) == a.extent(axis - 3));
    CHECK(v.stride(axis) == a.stride(axis - 3));
    CHECK(v.extent(axis) == v.shape()[axis - 3]);
    CHECK(erased.extent(axis - 3) == v.extent(axis));
    CHECK(erased.stride(axis - 3) == v.stride(axis));
  }
  CHECK(v.extent(-1) == 4);
  CHECK(v.stride(-3) == 12);
  CHECK(v.extent(std::size_t{2}) == 4);
}

TEST_CASE("nd/array: what a view can be asked, an array can") {
  auto a = lora::zeros<float>(2, 3);
  a(1, 2) = 5;
  CHECK(a.transpose().extent(0) == 3);
  CHECK(a.transpose()(2, 1) == 5);
  CHECK(std::as_const(a).transpose()(2, 1) == 5);
  CHECK(a.at(-1, -1) == 5);
  CHECK_THROWS_AS((void)a.at(2, 0), lora::index_error);
  CHECK(a.is_contiguous());
  CHECK(!a.is_contiguous(lora::order::F));
  CHECK(!a.empty());
  CHECK(lora::zeros<float>(0, 3).empty());
  const lora::any_view fixed = std::as_const(a);
  CHECK(fixed.read_only());
  CHECK(!lora::any_view(a).read_only());
}
