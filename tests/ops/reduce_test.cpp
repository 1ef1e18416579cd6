// SPDX-License-Identifier: Apache-2.0
//
// Reductions against brute force in long double, in every tier this CPU has: lengths that straddle each vector, block and threshold of the
// kernels, rows and columns, strides of either sign; the bounds that ops/reduce.hpp states; what is refused. NumPy's answers for views of
// any rank are in reduce_numpy_test.cpp.
#include "support/tiers.hpp"

#include <lora/nd/broadcast.hpp>
#include <lora/ops/argmax.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

using lora::bfloat16;
using lora::extents;
using lora::float16;
using lora::index_t;
using lora::ndview;
using lora::strides;
using lora::simd::tier;

namespace {

template <class T>
long double wide(T v) {
  if constexpr (lora::detail::is_half<T>)
    return static_cast<long double>(static_cast<float>(v));
  else
    return static_cast<long double>(v);
}

// 24 random bits over several magnitudes: sums round at every step.
template <class T>
std::vector<T> numbers(std::size_t n, unsigned seed) {
  std::mt19937_64 engine(seed);
  std::vector<T> v(n);
  for (T& x : v) {
    const auto bits = engine();
    const double f = (static_cast<double>(bits >> 40) / (1 << 24) - 0.4) * static_cast<double>(1 << (bits & 7));
    if constexpr (std::is_integral_v<T>)
      x = static_cast<T>(bits >> 11);
    else
      x = lora::detail::convert<T>(f);
  }
  return v;
}

// Rounding errors of n additions of numbers whose magnitudes add up to `magnitude`; 2^-63 for what long double itself loses.
template <class T>
long double sum_bound(index_t n, long double magnitude, long double exact) {
  const long double u = std::is_same_v<T, double> ? 0x1p-53L : 0x1p-24L;
  const long double depth = 48 + std::log2(static_cast<long double>(n < 1 ? 1 : n));
  const long double last = std::is_same_v<T, float16> ? 0x1p-11L : std::is_same_v<T, bfloat16> ? 0x1p-8L : 0;
  const long double additions = depth * u / (1 - depth * u) * magnitude;
  return additions + last * (std::fabs(exact) + additions) + static_cast<long double>(n) * 0x1p-63L * magnitude;
}

// Around each vector (4 .. 64 lanes), 8 vectors, 512 gathered elements, 1024 and 2048 of a search, 128 vectors, and several blocks.
constexpr index_t lengths[] = {1,   2,   3,   5,   7,   8,   9,   15,   16,   17,   30,   31,   32,   33,   63,   64,   65,   127,   128,
                               129, 136, 255, 257, 511, 512, 513, 1023, 1024, 1025, 1031, 2047, 2048, 2049, 2065, 4095, 4097, 16385, 40001};

template <class T>
void check_rows(tier t) {
  for (const index_t step : {1, 2, -1, -3}) {
    for (const index_t n : lengths) {
      const index_t reach = (n - 1) * (step < 0 ? -step : step);
      const auto memory = numbers<T>(static_cast<std::size_t>(reach) + 2, static_cast<unsigned>(n));
      const T* const first = memory.data() + 1 + (step < 0 ? reach : 0);
      const ndview<const T, 1> v(first, {n}, strides<1>(step));
      long double exact = 0;
      long double magnitude = 0;
      long double squares = 0;
      std::uint64_t wrapped = 0;
      index_t best = 0;
      index_t nonzero = 0;
      for (index_t i = 0; i < n; ++i) {
        const long double x = wide(v(i));
        exact += x;
        magnitude += std::fabs(x);
        squares += x * x;
        nonzero += x != 0 ? 1 : 0;
        if constexpr (std::is_integral_v<T>) wrapped += static_cast<std::uint64_t>(static_cast<std::int64_t>(v(i)));
        if (x > wide(v(best))) best = i;
      }
      CAPTURE(n);
      CAPTURE(step);
      const auto s = lora::sum(v, t);
      if constexpr (std::is_integral_v<T>) {
        REQUIRE(s == static_cast<std::int64_t>(wrapped));
      } else {
        REQUIRE(std::fabs(wide(s) - exact) <= sum_bound<T>(n, magnitude, exact));
        const long double u = std::is_same_v<T, double> ? 0x1p-53L : std::is_same_v<T, float> ? 0x1p-24L : wide(T{}) + 0x1p-8L;
        const long double second = static_cast<long double>(n) * 0x1p-53L;
        REQUIRE(std::fabs(wide(lora::sum_compensated(v, t)) - exact) <=
                2 * u * std::fabs(exact) + (second * second + static_cast<long double>(n) * 0x1p-64L) * magnitude +
                    (std::is_same_v<T, double> ? 0 : second * magnitude));
      }
      REQUIRE(wide(lora::max(v, t)) == wide(v(best)));
      REQUIRE(lora::argmax(v, t) == best);
      REQUIRE(lora::count_nonzero(v, t) == nonzero);
      const long double l2 = std::sqrt(squares);
      const long double unit = std::is_same_v<T, double> || std::is_integral_v<T> ? 0x1p-53L : 0x1p-24L;
      REQUIRE(std::fabs(static_cast<long double>(lora::norm_l2(v, t)) - l2) <= (unit + 40 * 0x1p-53L) * l2);
    }
  }
}

// Columns: rows around the groups of 8, the pieces of 128 and the levels above them.
template <class T>
void check_columns(tier t) {
  for (const index_t rows : {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 127, 128, 129, 135, 257, 700}) {
    for (const index_t columns : {1, 3, 8, 15, 17, 33, 70}) {
      for (const index_t step : {1, 2, -1}) {
        const index_t ld = columns * 2 + 3;
        const auto memory = numbers<T>(static_cast<std::size_t>(rows * ld), static_cast<unsigned>(rows));
        const ndview<const T, 2> v(memory.data() + (step < 0 ? columns - 1 : 1), {rows, columns}, strides<2>(ld, step));
        const auto s = lora::sum(v, lora::axes{0}, t);
        const auto m = lora::max(v, lora::axes{0}, t);
        const auto a = lora::argmax(v, lora::axes{0}, t);
        int wrong = 0;
        for (index_t c = 0; c < columns; ++c) {
          long double exact = 0;
          long double magnitude = 0;
          index_t best = 0;
          for (index_t r = 0; r < rows; ++r) {
            exact += wide(v(r, c));
            magnitude += std::fabs(wide(v(r, c)));
            if (wide(v(r, c)) > wide(v(best, c))) best = r;
          }
          if constexpr (std::is_integral_v<T>)
            wrong += static_cast<long double>(s(c)) == exact ? 0 : 1;
          else
            wrong += std::fabs(wide(s(c)) - exact) <= sum_bound<T>(rows, magnitude, exact) ? 0 : 1;
          wrong += wide(m(c)) == wide(v(best, c)) && a(c) == best ? 0 : 1;
        }
        CAPTURE(rows);
        CAPTURE(columns);
        CAPTURE(step);
        REQUIRE(wrong == 0);
      }
    }
  }
}

}  // namespace

TEST_CASE("ops/reduce: rows of every length and stride, within the bounds, in every tier") {
  test::for_each_tier([](tier t) {
    check_rows<float>(t);
    check_rows<double>(t);
    check_rows<bfloat16>(t);
    check_rows<std::int8_t>(t);
    check_rows<std::int32_t>(t);
  });
}

TEST_CASE("ops/reduce: columns of every number of rows, in every tier") {
  test::for_each_tier([](tier t) {
    check_columns<float>(t);
    check_columns<double>(t);
    check_columns<float16>(t);
    check_columns<std::uint8_t>(t);
    check_columns<std::int16_t>(t);
  });
}

TEST_CASE("ops/reduce: the first NaN wins, wherever it is") {
  test::for_each_tier([](tier t) {
    for (const index_t n : {1, 3, 15, 16, 17, 40, 129, 600, 3000}) {
      std::vector<float> memory(static_cast<std::size_t>(n), -std::numeric_limits<float>::infinity());
      const ndview<const float, 1> v(memory.data(), {n});
      CHECK(lora::max(v, t) == -std::numeric_limits<float>::infinity());
      CHECK(lora::argmax(v, t) == 0);
      CHECK(lora::norm_max(v, t) == std::numeric_limits<float>::infinity());
      memory.back() = 5;
      for (index_t at = 0; at < n; at += n < 50 ? 1 : 37) {
        const float was = memory[static_cast<std::size_t>(at)];
        memory[static_cast<std::size_t>(at)] = std::numeric_limits<float>::quiet_NaN();
        CAPTURE(n);
        CAPTURE(at);
        CHECK(std::isnan(lora::max(v, t)));
        CHECK(std::isnan(lora::min(v, t)));
        CHECK(std::isnan(lora::norm_max(v, t)));
        CHECK(lora::argmax(v, t) == at);
        CHECK(lora::argmin(v, t) == at);
        // The same elements as columns of 1 and as rows of 1.
        const auto column = lora::max(ndview<const float, 2>(memory.data(), {n, 1}), lora::axes{0}, t);
        CHECK(std::isnan(column(0)));
        const auto row = lora::argmax(ndview<const float, 2>(memory.data(), {1, n}), lora::axes{1}, t);
        CHECK(row(0) == at);
        memory[static_cast<std::size_t>(at)] = was;
      }
    }
  });
}

TEST_CASE("ops/reduce: long sums, many axes, deep trees") {
  // 3 axes that cannot be joined, the reduced ones outside and inside of a kept one, long enough for a tree of many levels.
  const index_t a = 300;
  const index_t b = 5;
  const index_t c = 7;
  std::vector<float> memory = numbers<float>(static_cast<std::size_t>(a * (b + 1) * (c + 2)), 3);
  const ndview<const float, 3> v(memory.data(), {a, b, c}, strides<3>((b + 1) * (c + 2), c + 2, 1));
  test::for_each_tier([&](tier t) {
    const auto middle = lora::sum(v, lora::axes{0, 2}, t);
    const auto inner = lora::sum(v, lora::axes{0, 1}, t);
    for (index_t j = 0; j < b; ++j) {
      long double exact = 0;
      long double magnitude = 0;
      for (index_t i = 0; i < a; ++i)
        for (index_t k = 0; k < c; ++k) {
          exact += wide(v(i, j, k));
          magnitude += std::fabs(wide(v(i, j, k)));
        }
      CHECK(std::fabs(wide(middle(j)) - exact) <= sum_bound<float>(a * c, magnitude, exact));
    }
    for (index_t k = 0; k < c; ++k) {
      long double exact = 0;
      long double magnitude = 0;
      for (index_t i = 0; i < a; ++i)
        for (index_t j = 0; j < b; ++j) {
          exact += wide(v(i, j, k));
          magnitude += std::fabs(wide(v(i, j, k)));
        }
      CHECK(std::fabs(wide(inner(k)) - exact) <= sum_bound<float>(a * b, magnitude, exact));
    }
    // 2^21 tenths: a plain loop in float is off by 6 %, this by less than 1e-5.
    const auto tenth = lora::full(extents{1 << 21}, 0.1f);
    CHECK(std::fabs(static_cast<double>(lora::sum(tenth, t)) / 209715.2 - 1) < 1e-5);
    CHECK(lora::sum_compensated(tenth, t) == static_cast<float>((1 << 21) * static_cast<double>(0.1f)));
  });
}

TEST_CASE("ops/reduce: more columns than fit beside the levels of the tree") {
  const auto ones = lora::full(extents{1100, 2500}, 1.0f);
  test::for_each_tier([&](tier t) {
    const auto s = lora::sum(ones, lora::axes{0}, t);
    const auto m = lora::mean(ones, lora::axes{0}, t);
    int wrong = 0;
    for (index_t c = 0; c < 2500; ++c) wrong += s(c) == 1100 && m(c) == 1 ? 0 : 1;
    CHECK(wrong == 0);
    CHECK(lora::sum(ones, t) == 2750000.0f);
  });
}

TEST_CASE("ops/reduce: sum_compensated keeps what cancels") {
  const double big[] = {1e100, 1, -1e100, 1e-3};
  CHECK(lora::sum_compensated(ndview<const double, 1>(big, {4})) == 1.001);
  const double infinite[] = {1, std::numeric_limits<double>::infinity(), 2};
  CHECK(lora::sum_compensated(ndview<const double, 1>(infinite, {3})) == std::numeric_limits<double>::infinity());
  const auto along = lora::sum_compensated(ndview<const double, 2>(big, {2, 2}), lora::axes{1});
  CHECK(along(0) == 1e100);
  CHECK(along(1) == -1e100);
}

TEST_CASE("ops/reduce: norms neither overflow nor vanish before they must") {
  const double extremes[] = {3e300, 4e300, 3e-300, 4e-300, 3e-320, 4e-320, 0, 0};
  const ndview<const double, 2> v(extremes, {4, 2});
  const auto n = lora::norm_l2(v, lora::axes{1});
  CHECK(n(0) == doctest::Approx(5e300));
  CHECK(n(1) / 5e-300 == doctest::Approx(1));
  CHECK(n(2) / 1e-320 == doctest::Approx(5).epsilon(0.01));
  CHECK(n(3) == 0);
  CHECK(lora::norm_l2(v) == doctest::Approx(5e300));
  const float floats[] = {3e38f, -1e-45f};
  CHECK(lora::norm_l2(ndview<const float, 1>(floats, {2})) == 3e38f);
  CHECK(lora::norm_l1(ndview<const float, 1>(floats, {2})) == 3e38f);
  const float16 halves[] = {float16(300.0f), float16(-400.0f)};
  CHECK(lora::norm_l2(ndview<const float16, 1>(halves, {2})) == 500.0f);
  const std::int8_t lowest[] = {-128, -128};
  CHECK(lora::norm_l1(ndview<const std::int8_t, 1>(lowest, {2})) == 256.0);
  CHECK(lora::norm_max(ndview<const std::int8_t, 1>(lowest, {2})) == 128.0);
}

TEST_CASE("ops/reduce: of nothing, of one element, of a broadcast, of a negative zero") {
  const ndview<const float, 2> none(nullptr, {0, 3});
  CHECK(lora::sum(none) == 0);
  CHECK(lora::product(none) == 1);
  CHECK(std::isnan(lora::mean(none)));
  CHECK(!lora::any_true(none));
  CHECK(lora::all_true(none));
  CHECK(lora::norm_l2(none) == 0);
  const auto zeros = lora::sum(none, lora::axes{0});
  CHECK(zeros(2) == 0);
  CHECK(lora::sum(none, lora::axes{1}).size() == 0);
  CHECK_THROWS_WITH((void)lora::max(none), "max: there is no element to choose from in shape [0, 3]");
  CHECK_THROWS_WITH((void)lora::argmin(none, lora::axes{0}), "argmin: there is no element to choose from in shape [0, 3]");
  float one = -0.0f;
  CHECK(std::signbit(lora::sum(ndview<const float, 0>(&one, extents<0>()))));
  CHECK(lora::argmax(ndview<const float, 0>(&one, extents<0>())) == 0);
  one = 2.5f;
  const auto repeated = lora::broadcast_to(ndview<const float, 1>(&one, {1}), extents{1000, 3});
  CHECK(lora::sum(repeated) == 7500.0f);
  const auto columns = lora::sum(repeated, lora::axes{0});
  CHECK(columns(2) == 2500.0f);
  CHECK(lora::argmax(repeated) == 0);
  const std::int32_t factors[] = {3, -5, 7};
  CHECK(lora::product(ndview<const std::int32_t, 1>(factors, {3})) == -105);
  CHECK(lora::sum(lora::zeros<float>(2, 3), lora::axes<0>{}).shape() == extents{2, 3});
}

TEST_CASE("ops/reduce: into a view of any layout; what is refused, in words") {
  auto a = lora::zeros<float>(4, 5);
  for (int i = 0; i < 20; ++i) a.data()[i] = static_cast<float>(i);
  auto out = lora::full(extents{9}, -1.0f);
  lora::sum(a, lora::axes{1}, out(lora::range(7, lora::_, -2)));
  CHECK(out(7) == 10);
  CHECK(out(1) == 85);
  CHECK(out(0) == -1);
  CHECK(out(2) == -1);
  CHECK(out(8) == -1);
  auto where = lora::zeros<std::int64_t>(5);
  lora::argmax(a, lora::axes{-2}, where);
  CHECK(where(4) == 3);

  CHECK_THROWS_WITH((void)lora::sum(a, lora::axes{2}), "sum: axis 2 is out of bounds for shape [4, 5]");
  CHECK_THROWS_WITH((void)lora::argmax(a, lora::axes{-3}), "argmax: axis -3 is out of bounds for shape [4, 5]");
  CHECK_THROWS_WITH((void)lora::max(a, lora::axes{1, -1}), "max: axis 1 is named twice in [1, -1], for shape [4, 5]");
  CHECK_THROWS_WITH(lora::sum(a, lora::axes{0}, out), "sum: shape [4, 5] reduces to [5] but out is [9]");
  CHECK_THROWS_WITH(lora::sum(a, lora::axes{0}, a(0)), "sum: out, shape [5], overlaps the input or itself");
  CHECK(a(0, 1) == 1);
}

TEST_CASE("ops/reduce: sums of the extreme integers of 16 and 8 bits fit their block, in every tier") {
  for (unsigned t = 0; t < lora::simd::tier_count; ++t)
    for (const lora::index_t n : {1000, 65535, 65536, 65537, 100000, 131072, 200003})
      for (const int value : {-32768, 32767}) {
        const auto tier = static_cast<lora::simd::tier>(t);
        const auto wide = lora::full(lora::extents{n}, static_cast<std::int16_t>(value));
        const auto bytes = lora::full(lora::extents{n}, static_cast<std::uint8_t>(255));
        CAPTURE(n);
        CAPTURE(value);
        REQUIRE(lora::sum(wide, tier) == n * value);
        REQUIRE(lora::sum_compensated(wide, tier) == n * value);
        REQUIRE(lora::mean(wide, tier) == value);
        REQUIRE(lora::sum(bytes, tier) == n * 255);
      }
}
