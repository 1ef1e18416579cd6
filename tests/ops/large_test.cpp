// SPDX-License-Identifier: Apache-2.0
//
// What copy, fill and apply do only to large or only to transposed operands: results written past the caches, tiles, blocks; against plain
// loops. Small layouts of every kind are in copy_test, fill_test and apply_test.
#include <lora/nd/broadcast.hpp>
#include <lora/ops/apply.hpp>
#include <lora/ops/copy.hpp>
#include <lora/ops/fill.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <random>
#include <vector>

using lora::extents;
using lora::index_t;
using lora::ndview;
using lora::strides;

namespace {

/** Elements of a transposed or permuted copy that differ from the source, or gaps that were written. */
template <class T>
int wrong_after_random_permutations(int cases) {
  std::mt19937 engine(5);
  const auto between = [&](index_t low, index_t high) {
    return low + static_cast<index_t>(engine() % static_cast<std::uint32_t>(high - low + 1));
  };
  int wrong = 0;
  for (int i = 0; i < cases; ++i) {
    std::array<index_t, 3> n{between(1, 5), between(1, 70), between(1, 40)};
    std::swap(n[static_cast<std::size_t>(between(0, 2))], n[static_cast<std::size_t>(between(0, 2))]);
    const extents<3> shape(n);
    struct place {
      std::vector<T> memory;
      T* origin;
      strides<3> stride;
    };
    const auto make = [&] {  // axes in any order and direction, with gaps, from a start that is not aligned
      std::array<std::size_t, 3> order{0, 1, 2};
      std::shuffle(order.begin(), order.end(), engine);
      std::array<index_t, 3> s{};
      index_t step = 1, first = between(0, 3);
      for (const std::size_t axis : order) {
        s[axis] = step;
        step *= n[axis] + between(0, 1);
        if (between(0, 4) != 0) continue;
        first += (n[axis] - 1) * s[axis];
        s[axis] = -s[axis];
      }
      place p{std::vector<T>(static_cast<std::size_t>(step + 8), T(77)), nullptr, strides<3>(s)};
      p.origin = p.memory.data() + first;
      return p;
    };
    place from = make();
    place to = make();
    for (std::size_t k = 0; k < from.memory.size(); ++k) from.memory[k] = static_cast<T>(k * 7 + k / 251);
    std::vector<T> want = to.memory;
    const auto at = [&](const place& p, index_t x, index_t y, index_t z) {
      return (p.origin - p.memory.data()) + x * p.stride[0] + y * p.stride[1] + z * p.stride[2];
    };
    for (index_t x = 0; x < n[0]; ++x)
      for (index_t y = 0; y < n[1]; ++y)
        for (index_t z = 0; z < n[2]; ++z)
          want[static_cast<std::size_t>(at(to, x, y, z))] = from.memory[static_cast<std::size_t>(at(from, x, y, z))];
    lora::copy(ndview<const T, 3>(from.origin, shape, from.stride), ndview<T, 3>(to.origin, shape, to.stride));
    wrong += to.memory == want ? 0 : 1;
  }
  return wrong;
}

}  // namespace

TEST_CASE("ops/copy: permuted copies of three axes, of every element size, in every direction") {
  CHECK(wrong_after_random_permutations<std::uint8_t>(1500) == 0);
  CHECK(wrong_after_random_permutations<std::uint16_t>(1500) == 0);
  CHECK(wrong_after_random_permutations<std::uint32_t>(1500) == 0);
  CHECK(wrong_after_random_permutations<std::uint64_t>(1500) == 0);
}

TEST_CASE("ops/copy: a matrix onto its own transpose, and one that is written past the cache") {
  for (const index_t n : {5, 33, 100, 1536}) {
    CAPTURE(n);
    std::vector<std::int32_t> a(static_cast<std::size_t>(n * n));
    for (std::size_t i = 0; i < a.size(); ++i) a[i] = static_cast<std::int32_t>(i);
    const ndview<std::int32_t, 2> v(a, {n, n});
    lora::copy(v.transpose(), v);
    int wrong = 0;
    for (index_t i = 0; i < n; ++i)
      for (index_t j = 0; j < n; ++j) wrong += v(i, j) == static_cast<std::int32_t>(j * n + i) ? 0 : 1;
    CHECK(wrong == 0);
  }
}

TEST_CASE("ops: one long row around the size from which results are streamed, from every alignment") {
  const auto most = static_cast<index_t>(lora::simd::stream_from / sizeof(float)) + 3000;
  std::vector<float> a(static_cast<std::size_t>(most) + 40);
  std::vector<float> b(a.size());
  for (std::size_t i = 0; i < a.size(); ++i) a[i] = static_cast<float>(i % 4001);
  for (const index_t n : {most - 3001, most - 3000, most - 2999, most}) {
    for (const index_t shift : {0, 1, 4, 15, 16, 17}) {
      CAPTURE(n);
      CAPTURE(shift);
      std::fill(b.begin(), b.end(), -1.0f);
      const ndview<const float, 1> from(a.data() + 3, extents{n});
      const ndview<float, 1> to(b.data() + shift, extents{n});
      const auto count_wrong = [&](auto want) {
        int wrong = 0;
        for (index_t i = 0; i < static_cast<index_t>(b.size()); ++i) {
          const bool inside = i >= shift && i < shift + n;
          wrong += b[static_cast<std::size_t>(i)] == (inside ? want(i - shift) : -1.0f) ? 0 : 1;
        }
        return wrong;
      };
      lora::apply(
          to, [](float x) { return 2 * x; }, from);
      CHECK(count_wrong([&](index_t i) { return 2 * from[i]; }) == 0);
      lora::apply(
          to, [](float x) { return x - 1; }, to);
      CHECK(count_wrong([&](index_t i) { return 2 * from[i] - 1; }) == 0);
      lora::fill(to, 3.0f);
      CHECK(count_wrong([](index_t) { return 3.0f; }) == 0);
    }
  }
}

TEST_CASE("ops/copy: rows of 1 to 140 bytes, apart and shifted by a byte") {
  for (index_t n = 1; n <= 140; ++n) {
    CAPTURE(n);
    std::vector<std::uint8_t> a(9 * 150);
    for (std::size_t i = 0; i < a.size(); ++i) a[i] = static_cast<std::uint8_t>(i * 5 + i / 256);
    for (const index_t shift : {-1, 1}) {
      auto want = a;
      auto got = a;
      for (index_t r = 0; r < 9; ++r)
        for (index_t i = 0; i < n; ++i)
          want[static_cast<std::size_t>(r * 150 + 4 + shift + i)] = a[static_cast<std::size_t>(r * 150 + 4 + i)];
      lora::copy(ndview<const std::uint8_t, 2>(got.data() + 4, {9, n}, strides{150, 1}),
                 ndview<std::uint8_t, 2>(got.data() + 4 + shift, {9, n}, strides{150, 1}));
      CHECK(got == want);
    }
    std::vector<std::uint8_t> b(a.size(), 7);
    auto want = b;
    for (index_t r = 0; r < 9; ++r)
      for (index_t i = 0; i < n; ++i) want[static_cast<std::size_t>(r * 149 + 1 + i)] = a[static_cast<std::size_t>(r * 150 + i)];
    lora::copy(ndview<const std::uint8_t, 2>(a.data(), {9, n}, strides{150, 1}),
               ndview<std::uint8_t, 2>(b.data() + 1, {9, n}, strides{149, 1}));
    CHECK(b == want);
  }
}
