// SPDX-License-Identifier: Apache-2.0
#include <lora/nd/any_view.hpp>

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
