// SPDX-License-Identifier: Apache-2.0
//
// copy against a model that reads everything before it writes anything, on random views of one small block of memory, so that every kind of
// overlap occurs: none, a shift forwards and backwards, a reversal, a transposition.
#include <lora/core/half.hpp>
#include <lora/nd/broadcast.hpp>
#include <lora/ops/copy.hpp>

#include <doctest/doctest.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

using lora::_;
using lora::all;
using lora::extents;
using lora::index_t;
using lora::ndview;
using lora::range;
using lora::strides;

namespace {

// Elements from base to base + size - 1, on the heap and exactly as long: ASan sees a step outside.
constexpr index_t size = 96;

struct layout {
  index_t offset;
  strides<3> stride;
};

struct counts {
  int wrong = 0;
  int apart = 0;
  int shifted = 0;
  int tangled = 0;
  int refused = 0;
};

template <class T>
counts compare_with_model(int cases) {
  std::mt19937 engine(99);
  const auto between = [&](index_t low, index_t high) {
    return low + static_cast<index_t>(engine() % static_cast<std::uint32_t>(high - low + 1));
  };
  const std::unique_ptr<T[]> memory(new T[static_cast<std::size_t>(size)]);
  std::vector<T> model(static_cast<std::size_t>(size));
  counts c;
  for (int i = 0; i < cases; ++i) {
    const extents<3> shape{between(0, 20) == 0 ? 0 : between(1, 3), between(1, 4), between(1, 5)};
    const auto place = [&](bool nested) {
      for (;;) {
        std::array<index_t, 3> s{};
        if (nested) {  // a slice of an array, axes in any order and direction
          std::array<std::size_t, 3> order{0, 1, 2};
          if (between(0, 2) == 0) std::swap(order[static_cast<std::size_t>(between(0, 2))], order[static_cast<std::size_t>(between(0, 2))]);
          index_t step = between(1, 2);
          for (std::size_t k = 3; k-- > 0;) {
            s[order[k]] = between(0, 3) == 0 ? -step : step;
            step *= shape[order[k]] + between(0, 1);
          }
        } else {
          for (index_t& x : s) x = between(-8, 8);
        }
        const auto span = lora::detail::span_of(shape.array().data(), s.data(), 3);
        if (span.size > size) continue;
        return layout{span.below + between(0, size - (span.size == 0 ? 1 : span.size)), strides<3>(s)};
      }
    };
    const layout from = place(between(0, 2) != 0);
    layout to = place(between(0, 9) != 0);
    if (between(0, 2) == 0) {  // the source moved a little, as in a shift within one array
      const auto span = lora::detail::span_of(shape.array().data(), from.stride.array().data(), 3);
      to.stride = from.stride;
      const index_t moved = from.offset + between(-3, 3);
      if (moved - span.below < 0 || moved - span.below + span.size > size) continue;
      to.offset = moved;
    }
    for (std::size_t k = 0; k < model.size(); ++k) {
      const auto bits = static_cast<std::uint16_t>(k * 257 + 1);
      std::memset(&memory[k], 0, sizeof(T));
      std::memcpy(&memory[k], &bits, sizeof(T) < 2 ? 1 : 2);
      model[k] = memory[k];
    }
    const ndview<const T, 3> source(memory.get() + from.offset, shape, from.stride);
    const ndview<T, 3> target(memory.get() + to.offset, shape, to.stride);
    if (lora::may_overlap_itself(target)) {
      ++c.refused;
      bool threw = false;
      try {
        lora::copy(source, target);
      } catch (const lora::shape_error&) {
        threw = true;
      }
      c.wrong += threw && std::memcmp(memory.get(), model.data(), sizeof(T) * model.size()) == 0 ? 0 : 1;
      continue;
    }
    const bool overlap = lora::may_overlap(source, target);
    const bool same_steps = source.stride() == target.stride();
    (overlap ? (same_steps ? c.shifted : c.tangled) : c.apart) += 1;
    std::vector<T> read;
    const auto each = [&](const layout& l, auto f) {
      for (index_t x = 0; x < shape[0]; ++x)
        for (index_t y = 0; y < shape[1]; ++y)
          for (index_t z = 0; z < shape[2]; ++z)
            f(static_cast<std::size_t>(l.offset + x * l.stride[0] + y * l.stride[1] + z * l.stride[2]));
    };
    each(from, [&](std::size_t at) { read.push_back(model[at]); });
    std::size_t next = 0;
    each(to, [&](std::size_t at) { model[at] = read[next++]; });
    lora::copy(source, target);
    c.wrong += std::memcmp(memory.get(), model.data(), sizeof(T) * model.size()) == 0 ? 0 : 1;
  }
  return c;
}

}  // namespace

TEST_CASE("ops/copy: random views under every kind of overlap") {
  const counts c = compare_with_model<std::int32_t>(30000);
  CHECK(c.wrong == 0);
  CHECK(c.apart > 1000);
  CHECK(c.shifted > 1000);
  CHECK(c.tangled > 1000);
  CHECK(c.refused > 500);
}

TEST_CASE("ops/copy: elements of 1, 2 and 8 bytes") {
  CHECK(compare_with_model<std::uint8_t>(5000).wrong == 0);
  CHECK(compare_with_model<lora::bfloat16>(5000).wrong == 0);
  CHECK(compare_with_model<double>(5000).wrong == 0);
}

TEST_CASE("ops/copy: rows long enough for memmove, shifted both ways") {
  for (const index_t shift : {-1, 1, -30, 30}) {
    CAPTURE(shift);
    auto a = lora::uninit<float>(8, 100);
    for (index_t i = 0; i < 800; ++i) a.data()[i] = static_cast<float>(i);
    const index_t first = shift < 0 ? -shift : 0;
    const auto from = a(all, range(first, first + 60));
    lora::copy(from, a(all, range(first + shift, first + shift + 60)));
    bool right = true;
    for (index_t i = 0; i < 8; ++i)
      for (index_t j = 0; j < 100; ++j) {
        const bool inside = j >= first + shift && j < first + shift + 60;
        right = right && a(i, j) == static_cast<float>(i * 100 + (inside ? j - shift : j));
      }
    CHECK(right);
    lora::copy(a(range(0, 7)), a(range(1, 8)));
    CHECK(a(7, 99) == 699);
    CHECK(a(1, 99) == 99);
  }
}

TEST_CASE("ops/copy: a matrix onto its own transpose and onto its own reversal") {
  auto a = lora::uninit<int>(3, 3);
  for (int i = 0; i < 9; ++i) a.data()[i] = i;
  lora::copy(a.view().transpose(), a);
  CHECK(a(0, 1) == 3);
  CHECK(a(2, 0) == 2);
  lora::copy(a(range(_, _, -1), range(_, _, -1)), a);
  CHECK(a(0, 0) == 8);
  CHECK(a(2, 1) == 3);
  lora::copy(a, a);
  CHECK(a(0, 0) == 8);
}

TEST_CASE("ops/copy: from a broadcast, to and from arrays, ranks 0 and 4, and nothing at all") {
  auto row = lora::full(extents{3}, 2.0f);
  auto m = lora::zeros<float>(2, 3);
  lora::copy(lora::broadcast_to(row, m.shape()), m);
  CHECK(m(1, 2) == 2);
  lora::copy(lora::full(extents{2, 3}, 5.0f), m);  // a temporary source lives long enough
  CHECK(m(0, 0) == 5);
  float x = 1;
  const float y = 2;
  lora::copy(ndview<const float, 0>(&y, {}), ndview<float, 0>(&x, {}));
  CHECK(x == 2);
  auto none = lora::zeros<float>(0, 3);
  lora::copy(none, none);
  auto fewer = lora::zeros<float>(0, 2);
  lora::copy(none(all, range(_, _, 2)), fewer);
  auto p = lora::zeros<float>(2, 3, 4, 5);
  auto q = lora::full(extents{5, 4, 3, 2}, 3.0f);
  lora::copy(q.view().transpose(), p);
  CHECK(p(1, 2, 3, 4) == 3);
}

TEST_CASE("ops/copy: contiguous gives C order, clone keeps F order") {
  auto a = lora::uninit<int>(2, 3);
  for (int i = 0; i < 6; ++i) a.data()[i] = i;
  const auto t = a.view().transpose();
  const auto c = lora::contiguous(t);
  CHECK(c.shape() == extents{3, 2});
  CHECK(c.stride() == strides{2, 1});
  CHECK(c(2, 1) == 5);
  const auto f = lora::clone(t);
  CHECK(f.stride() == strides{1, 3});
  CHECK(f(2, 1) == 5);
  CHECK(lora::clone(a(all, range(_, _, -2))).stride() == strides{2, 1});
  CHECK(lora::clone(lora::broadcast_to(a(0), extents{4, 3})).shape() == extents{4, 3});
  static_assert(std::is_same_v<decltype(lora::clone(lora::broadcast_to(a(0), extents{4, 3}))), lora::ndarray<int, 2>>);
}

TEST_CASE("ops/copy: error texts") {
  auto a = lora::zeros<float>(4, 6);
  auto b = lora::zeros<float>(5, 6);
  CHECK_THROWS_WITH(lora::copy(a, b), "copy: from is [4, 6] but to is [5, 6]");
  CHECK_THROWS_AS(lora::copy(a(range(0, 1)), b), lora::shape_error);  // nothing broadcasts by itself
  const ndview<float, 2> folded(b.data(), {4, 6}, {0, 1});
  CHECK_THROWS_WITH(lora::copy(a, folded), "copy: elements of the destination share addresses: shape [4, 6], strides [0, 1]");
}

TEST_CASE("ops/copy: clone keeps the memory order of what it copies, whatever it is") {
  auto a = lora::zeros<float>(2, 3, 4);
  for (lora::index_t i = 0; i < 24; ++i) a.data()[i] = static_cast<float>(i);
  const auto v = a.view().permute<1, 0, 2>();
  const auto c = lora::clone(v);
  CHECK(c.stride() == v.stride());
  for (lora::index_t i = 0; i < 3; ++i)
    for (lora::index_t j = 0; j < 2; ++j)
      for (lora::index_t k = 0; k < 4; ++k) CHECK(c(i, j, k) == v(i, j, k));
  const auto part = lora::clone(a(lora::all, lora::range(0, 2)));  // without the gaps
  CHECK(part.stride() == lora::strides(8, 4, 1));
}
