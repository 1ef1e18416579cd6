// SPDX-License-Identifier: Apache-2.0
#include <lora/nd/any_view.hpp>
#include <lora/nd/array.hpp>
#include <lora/nd/broadcast.hpp>
#include <lora/nd/reshape.hpp>

#include <doctest/doctest.h>

#include <string>
#include <type_traits>
#include <vector>

using lora::any_view;
using lora::dtype;
using lora::extents;
using lora::index_t;
using lora::ndview;

TEST_CASE("nd/any_view: a typed view goes in and comes out as it was") {
  std::vector<float> memory(24);
  const ndview<float, 2> v(memory.data() + 23, {4, 3}, {-6, -2});
  const any_view a = v;
  CHECK(a.type() == dtype::f32);
  CHECK(a.rank() == 2);
  CHECK_FALSE(a.read_only());
  CHECK(a.size() == 12);
  CHECK(a.size_bytes() == 48);
  CHECK_FALSE(a.is_contiguous());
  const auto w = a.as<float, 2>();
  CHECK(w.data() == v.data());
  CHECK(w.shape() == v.shape());
  CHECK(w.stride() == v.stride());
  CHECK((a.is<float, 2>() && a.is<const float, 2>()));
  CHECK_FALSE((a.is<double, 2>() || a.is<float, 1>()));
}

TEST_CASE("nd/any_view: const elements stay const") {
  const std::vector<float> memory(6);
  const any_view a = ndview<const float, 2>(memory, {2, 3});
  CHECK(a.read_only());
  CHECK(a.as<const float, 2>().data() == memory.data());
  CHECK_FALSE(a.is<float, 2>());
  CHECK_THROWS_WITH((void)(a.as<float, 2>()), "a mutable view was asked of a read-only array; use as<const T, R>()");
}

TEST_CASE("nd/any_view: from parts known at run time") {
  std::vector<double> memory(24);
  const index_t shape[] = {2, 3, 4};
  const any_view c(memory.data(), dtype::f64, shape, 3);
  CHECK(c.read_only());
  CHECK(c.stride(0) == 12);
  CHECK(c.is_contiguous());
  const any_view f(memory.data(), dtype::f64, shape, 3, false, lora::order::F);
  CHECK(f.stride(2) == 6);
  CHECK_NOTHROW((void)(f.as<double, 3>()));
  const index_t nine[9] = {1, 1, 1, 1, 1, 1, 1, 1, 1};
  CHECK_NOTHROW(any_view(memory.data(), dtype::f64, nine, 8));
  CHECK_THROWS_WITH(any_view(memory.data(), dtype::f64, nine, 9), "an array of rank 9: the highest supported rank is 8");
  const index_t negative[] = {2, -3};
  CHECK_THROWS_WITH(any_view(memory.data(), dtype::f64, negative, 2), "shape [2, -3] has a negative extent");
  const index_t large[] = {0, index_t{1} << 40, index_t{1} << 40};
  CHECK_THROWS_AS(any_view(memory.data(), dtype::f64, large, 3), lora::shape_error);
}

TEST_CASE("nd/any_view: refusals name what is there and what was asked for") {
  std::vector<float> memory(6);
  const any_view a = ndview<float, 2>(memory, {2, 3});
  CHECK_THROWS_WITH((void)(a.as<const double, 2>()), "dtype f32 is not supported here; supported: f64");
  CHECK_THROWS_WITH((void)(a.as<const float, 3>()), "a view of rank 3 was asked of an array of rank 2, shape [2, 3]");
  CHECK_THROWS_AS((void)(a.as<const double, 2>()), lora::dtype_error);
  CHECK_THROWS_AS((void)(a.as<const float, 3>()), lora::shape_error);
}

TEST_CASE("nd/any_view: an address that is not aligned is refused, unless there is nothing at it") {
  alignas(8) unsigned char raw[16] = {};
  const index_t one[] = {1};
  const index_t none[] = {0};
  const any_view a(raw + 1, dtype::f32, one, 1);
  CHECK_FALSE(a.is_aligned());
  CHECK_FALSE(a.is<const float, 1>());
  CHECK_THROWS_WITH((void)(a.as<const float, 1>()), "the array is not aligned for f32; copy it first");
  CHECK(any_view(raw + 2, dtype::f16, one, 1).is_aligned());
  CHECK(any_view(raw + 1, dtype::f4, one, 1).is_aligned());
  CHECK(any_view(raw + 1, dtype::f32, none, 1).as<const float, 1>().empty());
}

TEST_CASE("nd/any_view: bytes, packed types and large sizes included") {
  const index_t shape[] = {3, 3};
  CHECK(any_view(nullptr, dtype::f4, shape, 2).size_bytes() == 5);       // 36 bits
  CHECK(any_view(nullptr, dtype::f6_e2m3, shape, 2).size_bytes() == 7);  // 54 bits
  CHECK(any_view(nullptr, dtype::c64, shape, 2).size_bytes() == 72);
  const index_t large[] = {index_t{1} << 59};
  CHECK(any_view(nullptr, dtype::f64, large, 1).size_bytes() == std::size_t{1} << 62);
  const index_t packed[] = {PTRDIFF_MAX};
  CHECK(any_view(nullptr, dtype::f6_e3m2, packed, 1).size_bytes() == (std::size_t{1} << 60) * 6);
}

TEST_CASE("nd/any_view: a default one has no elements") {
  const any_view none;
  CHECK(none.size() == 0);
  CHECK(none.size_bytes() == 0);
  CHECK(none.data() == nullptr);
  CHECK(none.read_only());
}

TEST_CASE("nd/any_view: rank 0") {
  double x = 2;
  const any_view a = ndview<double, 0>(&x, {});
  CHECK(a.size() == 1);
  CHECK(a.as<double, 0>()() == 2);
  CHECK(any_view(&x, dtype::f64, nullptr, 0).as<const double, 0>()() == 2);
}

TEST_CASE("nd/any_view: dispatch finds the type, read-only, and names what is supported") {
  std::vector<float> f(6, 1.0f);
  std::vector<lora::bfloat16> b(6);
  const any_view af = ndview<float, 2>(f, {2, 3});
  const any_view ab = ndview<lora::bfloat16, 2>(b, {2, 3});
  const auto bytes = [](auto v) {
    static_assert(std::is_const_v<typename decltype(v)::element_type>);
    return v.size() * static_cast<index_t>(sizeof(typename decltype(v)::element_type));
  };
  CHECK(lora::dispatch<2, float, lora::bfloat16>(af, bytes) == 24);
  CHECK(lora::dispatch<2, float, lora::bfloat16>(ab, bytes) == 12);
  CHECK_THROWS_WITH((void)(lora::dispatch<2, double, lora::float16>(ab, bytes)), "dtype bf16 is not supported here; supported: f64 f16");
  CHECK_THROWS_AS((void)(lora::dispatch<1, float>(af, bytes)), lora::shape_error);
  int calls = 0;
  lora::dispatch<2, lora::bfloat16, float>(af, [&calls](auto) { ++calls; });
  CHECK(calls == 1);
}

TEST_CASE("nd/any_view: explicit strides, and their refusals") {
  std::vector<float> memory(24);
  const index_t shape[] = {4, 3};
  const index_t reversed[] = {-6, -2};
  const any_view v(memory.data() + 23, dtype::f32, shape, 2, reversed, false);
  CHECK(v.as<float, 2>().data() == memory.data() + 23);
  CHECK(v.as<float, 2>().stride() == lora::strides{-6, -2});
  CHECK(any_view(memory.data(), dtype::f32, shape, 2, reversed).read_only());
  const index_t repeated[] = {0, 1};
  CHECK(any_view(memory.data(), dtype::f32, shape, 2, repeated).stride(0) == 0);
  const index_t far[] = {index_t{1} << 60, 1};
  CHECK_THROWS_WITH(any_view(memory.data(), dtype::f64, shape, 2, far),
                    "shape [4, 3] with strides [1152921504606846976, 1] of elements of 8 bytes does not fit the address space");
  const index_t lowest[] = {PTRDIFF_MIN, 1};
  CHECK_THROWS_AS(any_view(memory.data(), dtype::u8, shape, 2, lowest), lora::shape_error);
  const index_t negative[] = {-1, 3};
  CHECK_THROWS_WITH(any_view(memory.data(), dtype::u8, negative, 2, reversed), "shape [-1, 3] has a negative extent");
}

TEST_CASE("nd/any_view: a product of extents that overflows is refused wherever a shape enters") {
  constexpr index_t half = index_t{1} << 32;
  unsigned char byte = 0;
  const index_t shape[] = {half, half};
  const index_t behind_zero[] = {0, half, half};
  const index_t repeated[] = {0, 0, 0};
  CHECK_THROWS_AS(any_view(&byte, dtype::u8, shape, 2), lora::shape_error);
  CHECK_THROWS_AS(any_view(&byte, dtype::f4, behind_zero, 3), lora::shape_error);
  CHECK_THROWS_AS(any_view(&byte, dtype::u8, shape, 2, repeated), lora::shape_error);  // size() could not say how many
  CHECK_THROWS_AS(any_view(&byte, dtype::u8, behind_zero, 3, repeated), lora::shape_error);
  CHECK_THROWS_AS((ndview<unsigned char, 2>(&byte, {half, half})), lora::shape_error);
  CHECK_THROWS_AS((ndview<unsigned char, 2>(&byte, {half, half}, lora::strides{0, 0})), lora::shape_error);
  CHECK_THROWS_AS((ndview<unsigned char, 3>(&byte, {0, half, half})), lora::shape_error);
  std::vector<unsigned char> few(4);
  CHECK_THROWS_AS((ndview<unsigned char, 2>(few, {half, half})), lora::shape_error);
  CHECK_THROWS_AS((ndview<unsigned char, 2>(few, {half, half}, lora::strides{0, 0})), lora::shape_error);
  CHECK_THROWS_AS((void)lora::zeros<unsigned char>(half, half), lora::shape_error);
  CHECK_THROWS_AS((void)lora::uninit<double>(index_t{1} << 60, 1), lora::shape_error);
  CHECK_THROWS_AS((void)lora::full(extents{0, half, half}, 1.0f), lora::shape_error);
  CHECK_THROWS_AS((void)lora::strides_for(extents{half, half}), lora::shape_error);
  const ndview<unsigned char, 1> one(&byte, {1});
  CHECK_THROWS_AS((void)lora::broadcast_to(one, extents{half, half}), lora::shape_error);
  CHECK_THROWS_AS((void)lora::reshape(one, half, half), lora::shape_error);
  CHECK_THROWS_AS((void)lora::reshape(one, half, half, -1), lora::shape_error);
}

TEST_CASE("nd/any_view: transpose and permute") {
  auto a = lora::zeros<float>(2, 3, 4);
  const any_view v = a.view();
  const any_view t = v.transpose();
  CHECK((t.extent(0) == 4 && t.extent(2) == 2 && t.stride(0) == 1 && t.stride(2) == 12 && !t.read_only()));
  const any_view p = v.permute({2, 0, 1});
  CHECK((p.as<float, 3>().shape() == a.view().permute<2, 0, 1>().shape() &&
         p.as<float, 3>().stride() == a.view().permute<2, 0, 1>().stride()));
  CHECK_THROWS_WITH((void)v.permute({0, 1, 1}), "permute: [0, 1, 1] is not an order of the axes 0..2");
  CHECK_THROWS_WITH((void)v.permute({0, 1, 3}), "permute: [0, 1, 3] is not an order of the axes 0..2");
  CHECK_THROWS_WITH((void)v.permute({0, -1, 1}), "permute: [0, -1, 1] is not an order of the axes 0..2");
  CHECK_THROWS_WITH((void)v.permute({1, 0}), "permute: [1, 0] does not name each axis of shape [2, 3, 4]");
  double x = 0;
  CHECK(any_view(&x, dtype::f64, nullptr, 0).permute({}).rank() == 0);
  CHECK(any_view(&x, dtype::f64, nullptr, 0).transpose().rank() == 0);
}

TEST_CASE("nd/any_view: dispatch over ranks, and views that write") {
  auto a = lora::zeros<float>(2, 3, 4);
  const any_view v = a.view();
  const auto rank_of = [](auto w) {
    static_assert(std::is_const_v<typename decltype(w)::element_type>);
    return w.rank();
  };
  CHECK(lora::dispatch_up_to<lora::max_rank, float>(v, rank_of) == 3);
  CHECK(lora::dispatch_up_to<3, double, float>(lora::slice(v, "0, 0, 0"), rank_of) == 0);
  CHECK_THROWS_WITH((void)(lora::dispatch_up_to<2, float>(v, rank_of)),
                    "an array of rank 3, shape [2, 3, 4], is not supported here; supported: ranks 0 to 2");
  CHECK_THROWS_AS((void)(lora::dispatch_up_to<2, float>(v, rank_of)), lora::shape_error);
  CHECK_THROWS_WITH((void)(lora::dispatch_up_to<3, double, lora::bfloat16>(v, rank_of)),
                    "dtype f32 is not supported here; supported: f64 bf16");
  lora::dispatch_mutable<1, float, int>(lora::slice(v, "1, :, -1"), [](auto w) { w(2) = 5; });
  CHECK(a(1, 2, 3) == 5);
  lora::dispatch_up_to_mutable<1, float>(lora::slice(v, "1, 2, 3"), [](auto w) {
    if constexpr (w.rank() == 0) w() = 6;
  });
  CHECK(a(1, 2, 3) == 6);
  const any_view fixed = ndview<const float, 3>(a.view());
  const auto nothing = [](auto) {};
  CHECK_THROWS_WITH((lora::dispatch_mutable<3, float>(fixed, nothing)),
                    "a mutable view was asked of a read-only array; use as<const T, R>()");
  CHECK_THROWS_AS((lora::dispatch_up_to_mutable<3, float>(fixed, nothing)), lora::dtype_error);
  lora::dispatch<3, float>(fixed, nothing);
}
