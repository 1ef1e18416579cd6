// SPDX-License-Identifier: Apache-2.0
#include <lora/nd/shape.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <limits>
#include <type_traits>

using lora::extents;
using lora::index_t;
using lora::order;
using lora::strides;

TEST_CASE("nd/shape: extents take any integers and refuse what they cannot hold") {
  CHECK(extents{std::size_t{3}, std::int8_t{4}, 5u}.array() == std::array<index_t, 3>{3, 4, 5});
  static_assert(std::is_same_v<decltype(extents{1, 2u}), extents<2>>);
  static_assert(std::is_same_v<decltype(extents{std::array<index_t, 3>{}}), extents<3>>);
  static_assert(!std::is_constructible_v<extents<2>, double, int>);
  static_assert(!std::is_constructible_v<extents<2>, bool, int>);
  static_assert(!std::is_constructible_v<extents<2>, int>);
  static_assert(!std::is_convertible_v<std::array<index_t, 2>, extents<2>>);
  static_assert(!std::is_constructible_v<strides<2>, float, float>);
  static_assert(extents{2, 3}[1] == 3);
  CHECK_THROWS_WITH((extents{2, -3}), "extent -3 is negative");
  CHECK_THROWS_WITH((extents{std::numeric_limits<std::int64_t>::min(), 1}), "extent -9223372036854775808 is negative");
  CHECK_THROWS_WITH((extents{std::uint64_t{1} << 63, 1}), "extent 9223372036854775808 does not fit a signed 64-bit index");
  CHECK_THROWS_AS((extents<1>(std::array<index_t, 1>{-1})), lora::shape_error);
  CHECK(strides{-3, 0}.array() == std::array<index_t, 2>{-3, 0});
  CHECK_THROWS_WITH((strides{std::uint64_t{1} << 63}), "stride 9223372036854775808 does not fit a signed 64-bit index");
}

TEST_CASE("nd/shape: strides of new arrays") {
  static_assert(lora::strides_for(extents{4, 5, 6}) == strides{30, 6, 1});
  static_assert(lora::strides_for(extents{4, 5, 6}, order::F) == strides{1, 4, 20});
  static_assert(lora::strides_for(extents{4, 0, 6}) == strides{6, 6, 1});  // not 0: that would read as a broadcast
  static_assert(lora::strides_for(extents<0>()) == strides<0>());
  constexpr index_t big = index_t{1} << 40;
  CHECK_THROWS_AS((void)lora::strides_for(extents{big, big, 2}), lora::shape_error);
}

TEST_CASE("nd/shape: arrays of extents survive the temporary they came from") {
  const auto make = [] { return extents{7, 8}; };
  index_t sum = 0;
  for (const index_t n : make().array()) sum += n;
  CHECK(sum == 15);
  static_assert(std::is_same_v<decltype(make().array()), std::array<index_t, 2>>);
}

TEST_CASE("nd/shape: contiguity, against the definition") {
  // Contiguous means: element k in the order asked for lies k elements behind the first. Every shape and stride of a window, rank 2.
  int wrong = 0;
  for (index_t n0 = 0; n0 <= 3; ++n0)
    for (index_t n1 = 0; n1 <= 3; ++n1)
      for (index_t s0 = -4; s0 <= 4; ++s0)
        for (index_t s1 = -4; s1 <= 4; ++s1) {
          const index_t shape[] = {n0, n1};
          const index_t stride[] = {s0, s1};
          bool c = true;
          bool f = true;
          for (index_t i = 0; i < n0; ++i)
            for (index_t j = 0; j < n1; ++j) {
              c = c && i * s0 + j * s1 == i * n1 + j;
              f = f && i * s0 + j * s1 == i + j * n0;
            }
          wrong += lora::detail::contiguous_in(shape, stride, 2, order::C) != c ? 1 : 0;
          wrong += lora::detail::contiguous_in(shape, stride, 2, order::F) != f ? 1 : 0;
        }
  CHECK(wrong == 0);
}

TEST_CASE("nd/shape: the span of a view, against its addresses") {
  int wrong = 0;
  for (index_t n0 = 0; n0 <= 3; ++n0)
    for (index_t n1 = 1; n1 <= 3; ++n1)
      for (index_t s0 = -4; s0 <= 4; ++s0)
        for (index_t s1 = -4; s1 <= 4; ++s1) {
          index_t low = 0;
          index_t high = 0;
          for (index_t i = 0; i < n0; ++i)
            for (index_t j = 0; j < n1; ++j) {
              low = i * s0 + j * s1 < low ? i * s0 + j * s1 : low;
              high = i * s0 + j * s1 > high ? i * s0 + j * s1 : high;
            }
          const index_t shape[] = {n0, n1};
          const index_t stride[] = {s0, s1};
          const auto span = lora::detail::span_of(shape, stride, 2);
          wrong += !span.fits || span.below != -low || span.size != (n0 == 0 ? 0 : high - low + 1) ? 1 : 0;
        }
  CHECK(wrong == 0);
  constexpr index_t most = PTRDIFF_MAX;
  const index_t two[] = {2, 2};
  const index_t far[] = {most, 1};
  const index_t apart[] = {most, -most};
  CHECK_FALSE(lora::detail::span_of(two, far, 2).fits);
  CHECK_FALSE(lora::detail::span_of(two, apart, 2).fits);
  const index_t down[] = {PTRDIFF_MIN, 0};
  CHECK_FALSE(lora::detail::span_of(two, down, 2).fits);
}
