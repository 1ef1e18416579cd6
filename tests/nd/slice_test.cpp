// SPDX-License-Identifier: Apache-2.0
//
// The shared slice function, three ways: against Python's rule written out again here, for every small shape and slice of rank 1 and 2;
// against NumPy, for random layouts and items (tests/data/nd); and through the words that a caller writes.
#include "cases.hpp"

#include <lora/nd/array.hpp>

#include <doctest/doctest.h>

#include <array>
#include <cstdint>
#include <limits>
#include <optional>
#include <random>
#include <string>
#include <vector>

using lora::_;
using lora::all;
using lora::ellipsis;
using lora::index_t;
using lora::newaxis;
using lora::range;
using lora::detail::slice_item;
using lora::detail::slice_kind;

namespace {

using bound = std::optional<index_t>;

slice_item item_of(bound start, bound stop, bound step, bool clamped) {
  slice_item item;
  item.has_start = start.has_value();
  item.has_stop = stop.has_value();
  item.clamped = clamped;
  item.start = start.value_or(0);
  item.stop = stop.value_or(0);
  item.step = step.value_or(1);
  return item;
}

// The positions that Python's range(*slice(start, stop, step).indices(n)) names: the documented rule, one element at a time.
std::optional<std::vector<index_t>> positions(index_t n, bound start, bound stop, bound step, bool clamped) {
  const index_t s = step.value_or(1);
  if (s == 0) return std::nullopt;
  if (!clamped)
    for (const bound b : {start, stop})
      if (b && (*b < -n || *b > n)) return std::nullopt;
  const auto adjusted = [&](index_t b) {
    if (b < 0) b += n;
    if (s > 0) return b < 0 ? 0 : (b > n ? n : b);
    return b < -1 ? -1 : (b > n - 1 ? n - 1 : b);
  };
  const index_t first = start ? adjusted(*start) : (s > 0 ? 0 : n - 1);
  const index_t last = stop ? adjusted(*stop) : (s > 0 ? n : -1);
  std::vector<index_t> v;
  for (index_t i = first; s > 0 ? i < last : i > last; i += s) v.push_back(i);
  return v;
}

struct answer {
  bool refused = false;
  index_t offset = 0;
  std::vector<index_t> shape;
  std::vector<index_t> strides;
};

answer sliced(const std::vector<slice_item>& items, const std::vector<index_t>& shape, const std::vector<index_t>& strides) {
  std::array<index_t, 16> out_shape{};
  std::array<index_t, 16> out_strides{};
  answer a;
  try {
    const auto r = lora::detail::apply_slice(items.data(), items.size(), shape.data(), strides.data(), shape.size(), out_shape.data(),
                                             out_strides.data());
    a.offset = r.offset;
    a.shape.assign(out_shape.begin(), out_shape.begin() + static_cast<std::ptrdiff_t>(r.rank));
    a.strides.assign(out_strides.begin(), out_strides.begin() + static_cast<std::ptrdiff_t>(r.rank));
  } catch (const lora::index_error&) {
    a.refused = true;
  }
  return a;
}

// One axis of a slice answered by `positions`: equal if the addresses are.
bool axis_matches(const std::vector<index_t>& want, index_t stride, index_t extent_out, index_t stride_out) {
  if (static_cast<index_t>(want.size()) != extent_out) return false;
  for (std::size_t i = 1; i < want.size(); ++i)
    if ((want[i] - want[0]) * stride != static_cast<index_t>(i) * stride_out) return false;
  return true;
}

std::string shown(bound start, bound stop, bound step) {
  const auto s = [](bound b) { return b ? std::to_string(*b) : std::string(); };
  return s(start) + ":" + s(stop) + ":" + s(step);
}

std::vector<bound> window(index_t from, index_t to) {
  std::vector<bound> v{std::nullopt};
  for (index_t i = from; i <= to; ++i) v.emplace_back(i);
  return v;
}

std::string message(const lora::ndview<float, 2>& v, const range& r) {
  try {
    (void)v(0, r);
  } catch (const lora::index_error& e) {
    return e.what();
  }
  return "accepted";
}

}  // namespace

TEST_CASE("nd/slice: every range of rank 1 in a window follows Python's rule, clamped and strict") {
  int checked = 0;
  std::string wrong;
  for (index_t n = 0; n <= 5; ++n)
    for (const bound start : window(-8, 8))
      for (const bound stop : window(-8, 8))
        for (const bound step : window(-4, 4))
          for (const bool clamped : {false, true})
            for (const index_t stride : {index_t{3}, index_t{-2}, index_t{0}}) {
              const auto want = positions(n, start, stop, step, clamped);
              const auto have = sliced({item_of(start, stop, step, clamped)}, {n}, {stride});
              ++checked;
              bool right = have.refused == !want.has_value();
              if (want && right)
                right = have.shape.size() == 1 && axis_matches(*want, stride, have.shape[0], have.strides[0]) &&
                        have.offset == (want->empty() ? 0 : want->front() * stride);
              if (!right && wrong.empty()) wrong = "n=" + std::to_string(n) + " " + shown(start, stop, step) + (clamped ? " clamped" : "");
            }
  CHECK(wrong == "");
  CHECK(checked == 6 * 18 * 18 * 10 * 2 * 3);
}

TEST_CASE("nd/slice: every pair of ranges of rank 2 in a window") {
  const auto bounds = window(-3, 3);
  const std::vector<bound> steps{std::nullopt, 2, -1, -2};
  struct one {
    slice_item item;
    std::optional<std::vector<index_t>> want;
    std::string text;
  };
  int checked = 0;
  std::string wrong;
  for (const index_t rows : {0, 1, 3}) {
    for (const index_t columns : {0, 2, 3}) {
      const auto every = [&](index_t n) {
        std::vector<one> v;
        for (const bound start : bounds)
          for (const bound stop : bounds)
            for (const bound step : steps)
              v.push_back({item_of(start, stop, step, false), positions(n, start, stop, step, false), shown(start, stop, step)});
        return v;
      };
      const auto first = every(rows);
      const auto second = every(columns);
      for (const one& a : first)
        for (const one& b : second) {
          const auto have = sliced({a.item, b.item}, {rows, columns}, {7, -2});
          ++checked;
          bool right = have.refused == !(a.want && b.want);
          if (right && !have.refused) {
            const bool empty = a.want->empty() || b.want->empty();
            right = axis_matches(*a.want, 7, have.shape[0], have.strides[0]) && axis_matches(*b.want, -2, have.shape[1], have.strides[1]) &&
                    have.offset == (empty ? 0 : a.want->front() * 7 - b.want->front() * 2);
          }
          if (!right && wrong.empty()) wrong = a.text + ", " + b.text;
        }
    }
  }
  CHECK(wrong == "");
  CHECK(checked == 9 * 256 * 256);
}

TEST_CASE("nd/slice: every index in a window, beside a range") {
  std::string wrong;
  for (index_t n = 0; n <= 4; ++n)
    for (index_t i = -7; i <= 7; ++i) {
      slice_item index;
      index.kind = slice_kind::index;
      index.start = i;
      const auto have = sliced({index, item_of(1, std::nullopt, 2, false)}, {n, 6}, {-10, 1});
      const bool inside = i >= -n && i < n;
      bool right = have.refused == !inside;
      if (inside)
        right = right && have.shape == std::vector<index_t>{3} && have.strides == std::vector<index_t>{2} &&
                have.offset == (i < 0 ? i + n : i) * -10 + 1;
      if (!right && wrong.empty()) wrong = std::to_string(n) + "[" + std::to_string(i) + "]";
    }
  CHECK(wrong == "");
}

TEST_CASE("nd/slice: every slice of rank 3 in a window: ranges, indices and their refusals on each axis") {
  struct one {
    slice_item item;
    std::vector<index_t> want;
    bool refused;
  };
  const std::array<index_t, 3> shape{2, 1, 3};
  const std::array<index_t, 3> strides{-11, 5, 2};
  std::array<std::vector<one>, 3> every;
  for (std::size_t axis = 0; axis < 3; ++axis) {
    const index_t n = shape[axis];
    for (const bound start : window(-n, n))
      for (const bound stop : window(-n, n))
        for (const bound step : {bound{}, bound{2}, bound{-1}, bound{-2}})
          every[axis].push_back({item_of(start, stop, step, false), *positions(n, start, stop, step, false), false});
    for (index_t i = -n - 1; i <= n; ++i) {
      slice_item index;
      index.kind = slice_kind::index;
      index.start = i;
      every[axis].push_back({index, {i < 0 ? i + n : i}, i < -n || i >= n});
    }
  }
  long checked = 0;
  long wrong = 0;
  std::array<index_t, 3> out_shape{};
  std::array<index_t, 3> out_strides{};
  for (const one& a : every[0])
    for (const one& b : every[1])
      for (const one& c : every[2]) {
        const std::array<const one*, 3> axes{&a, &b, &c};
        const std::array<slice_item, 3> items{a.item, b.item, c.item};
        ++checked;
        try {
          const auto r = lora::detail::apply_slice(items.data(), 3, shape.data(), strides.data(), 3, out_shape.data(), out_strides.data());
          bool right = !a.refused && !b.refused && !c.refused;
          index_t offset = 0;
          bool empty = false;
          std::size_t kept = 0;
          for (std::size_t axis = 0; axis < 3 && right; ++axis) {
            const one& x = *axes[axis];
            empty = empty || x.want.empty();
            if (!x.want.empty()) offset += x.want.front() * strides[axis];
            if (x.item.kind == slice_kind::range) {
              right = kept < r.rank && axis_matches(x.want, strides[axis], out_shape[kept], out_strides[kept]);
              ++kept;
            }
          }
          right = right && kept == r.rank && r.offset == (empty ? 0 : offset);
          wrong += right ? 0 : 1;
        } catch (const lora::index_error&) {
          wrong += a.refused || b.refused || c.refused ? 0 : 1;
        }
      }
  CHECK(wrong == 0);
  CHECK(checked == (36 * 4 + 6) * (16 * 4 + 4) * (64 * 4 + 8));
}

TEST_CASE("nd/slice: huge extents and strides: no offset overflows, and no result reaches outside the view") {
  __extension__ using wide = __int128;
  struct span {
    wide low = 0;
    wide high = 0;
  };
  const auto span_of = [](const index_t* shape, const index_t* strides, std::size_t rank, wide offset) {
    span s{offset, offset};
    for (std::size_t i = 0; i < rank; ++i) {
      const wide reach = (wide{shape[i]} - 1) * strides[i];
      (reach < 0 ? s.low : s.high) += reach;
    }
    return s;
  };
  int checked = 0;
  for (const unsigned seed : {1u, 2u, 3u}) {
    CAPTURE(seed);
    std::mt19937_64 draw(seed);
    const auto below = [&](std::uint64_t n) { return static_cast<index_t>(draw() % n); };
    for (int repeat = 0; repeat < 20000; ++repeat) {
      const std::size_t rank = static_cast<std::size_t>(1 + below(4));
      std::array<index_t, 4> shape{};
      std::array<index_t, 4> strides{};
      std::vector<slice_item> items;
      for (std::size_t i = 0; i < rank; ++i) {
        shape[i] = 1 + (below(std::uint64_t{1} << below(58)) >> (i * 8));
        // The largest stride for which four axes stay inside the address space.
        const index_t largest = (index_t{1} << 60) / shape[i];
        strides[i] = below(static_cast<std::uint64_t>(2 * largest + 1)) - largest;
        const index_t n = shape[i];
        slice_item item;
        if (below(3) == 0) {
          item.kind = slice_kind::index;
          item.start = below(static_cast<std::uint64_t>(2 * n)) - n;
        } else {
          // Clamped, with bounds and steps of every size.
          const auto any = [&] { return static_cast<index_t>(draw() >> below(64)) * (below(2) == 0 ? 1 : -1); };
          item = item_of(below(2) == 0 ? bound{} : bound{any()}, below(2) == 0 ? bound{} : bound{any()}, bound{any() | 1}, true);
        }
        items.push_back(item);
      }
      std::array<index_t, 4> out_shape{};
      std::array<index_t, 4> out_strides{};
      const auto r =
          lora::detail::apply_slice(items.data(), items.size(), shape.data(), strides.data(), rank, out_shape.data(), out_strides.data());
      const span whole = span_of(shape.data(), strides.data(), rank, 0);
      bool empty = false;
      for (std::size_t i = 0; i < r.rank; ++i) empty = empty || out_shape[i] == 0;
      const span part = span_of(out_shape.data(), out_strides.data(), r.rank, r.offset);
      ++checked;
      if (empty ? r.offset != 0 : part.low < whole.low || part.high > whole.high) FAIL_CHECK("repeat " << repeat);
    }
  }
  CHECK(checked == 60000);
}

TEST_CASE("nd/slice: NumPy's answers to random slices of random layouts") {
  int checked = 0;
  int refused = 0;
  for (const auto& c : test::numpy_cases('S')) {
    std::vector<slice_item> items;
    if (c.argument != "-")
      for (const std::string& word : test::split(c.argument, ',')) {
        slice_item item;
        if (word[0] == 'i') {
          item.kind = slice_kind::index;
          item.start = std::strtol(word.c_str() + 1, nullptr, 10);
        } else if (word[0] == 'n') {
          item.kind = slice_kind::newaxis;
        } else if (word[0] == 'e') {
          item.kind = slice_kind::ellipsis;
        } else if (word[0] != 'a') {
          bound b[3];
          const auto parts = test::split(word.substr(1), ':');
          for (std::size_t i = 0; i < 3; ++i)
            if (parts.at(i) != "_") b[i] = std::strtol(parts.at(i).c_str(), nullptr, 10);
          item = item_of(b[0], b[1], b[2], word[0] == 'c');
        }
        items.push_back(item);
      }
    const auto have = sliced(items, c.shape, c.strides);
    ++checked;
    refused += have.refused ? 1 : 0;
    bool right = have.refused == c.refused;
    if (right && !c.refused)
      right = have.shape == test::numbers(c.answer.at(0)) &&
              test::same_strides(have.shape, test::numbers(c.answer.at(1)), have.strides.data()) &&
              have.offset == std::strtol(c.answer.at(2).c_str(), nullptr, 10);
    if (!right) FAIL_CHECK(c.line);
  }
  CHECK(checked == 2000);
  CHECK(refused > 50);
}

TEST_CASE("nd/slice: a(range(1, _), all, 2) of a [4, 5, 6] array") {
  auto a = lora::zeros<float>(4, 5, 6);
  for (index_t i = 0; i < 120; ++i) a.data()[i] = static_cast<float>(i);
  const lora::ndview<float, 2> s = a(range(1, _), all, 2);
  CHECK(s.shape() == lora::extents{3, 5});
  CHECK(s.stride() == lora::strides{30, 6});
  CHECK(s.data() == a.data() + 32);
  s(0, 0) = -1;
  s(-1, -1) = -2;
  const auto t = s.transpose();
  CHECK(a(1, 0, 2) == -1);
  CHECK(a(3, 4, 2) == -2);
  CHECK(t(0, 0) == -1);
  CHECK(t(4, 2) == -2);
  t(1, 0) = -3;
  CHECK(a(1, 1, 2) == -3);
  CHECK(s(0, 1) == -3);
}

TEST_CASE("nd/slice: words of every kind") {
  auto a = lora::zeros<int>(4, 5, 6);
  CHECK(a(1).shape() == lora::extents{5, 6});
  CHECK(a(1).data() == a.data() + 30);
  CHECK(a().shape() == lora::extents{4, 5, 6});
  CHECK(a(ellipsis, -1).shape() == lora::extents{4, 5});
  CHECK(a(ellipsis, -1).data() == a.data() + 5);
  CHECK(a(0, ellipsis, 0).stride() == lora::strides{6});
  CHECK(a(0, 1, 2, ellipsis).shape() == lora::extents<0>());
  CHECK(a(0, 1, 2, ellipsis).data() == a.data() + 8);
  CHECK(a(all, newaxis, 0).shape() == lora::extents{4, 1, 6});
  CHECK(a(newaxis, ellipsis, newaxis).shape() == lora::extents{1, 4, 5, 6, 1});
  CHECK(a(range(_, _, -1), all, range(1, -1, 2)).stride() == lora::strides{-30, 6, 2});
  CHECK(a(range(_, _, -1), all, range(1, -1, 2)).shape() == lora::extents{4, 5, 2});
  CHECK(a(range(_, _, -1), all, range(1, -1, 2)).data() == a.data() + 91);
  CHECK(a(range(2, 9).clamp()).shape() == lora::extents{2, 5, 6});
  CHECK(a(range(std::size_t{1}, std::int8_t{3}, 1u)).shape() == lora::extents{2, 5, 6});
  CHECK(a(std::size_t{3}, std::uint8_t{4}, short{-1}) == 0);
}

TEST_CASE("nd/slice: no address is formed for a result without elements") {
  auto a = lora::zeros<float>(4, 5);
  CHECK(a(range(4, 4)).data() == a.data());
  CHECK(a(range(4, 4), 3).data() == a.data());
  CHECK(a(range(_, _, -1), range(0, 0)).data() == a.data());
  CHECK(a(range(0, 0))(all, 4).data() == a.data());  // the axis that is left has no elements, so the index has nothing to point at
  lora::ndview<float, 2> none(nullptr, {0, 5});
  CHECK(none(all, 3).data() == nullptr);
  CHECK(none(all, range(2, _)).shape() == lora::extents{0, 3});
  CHECK_THROWS_AS((void)none(0), lora::index_error);
  CHECK_THROWS_AS((void)none(all, 5), lora::index_error);  // checked all the same
}

TEST_CASE("nd/slice: extreme numbers") {
  constexpr index_t lowest = std::numeric_limits<index_t>::min();
  constexpr index_t highest = std::numeric_limits<index_t>::max();
  auto a = lora::zeros<float>(5);
  CHECK(a(range(_, _, highest)).shape() == lora::extents{1});
  CHECK(a(range(_, _, lowest)).shape() == lora::extents{1});
  CHECK(a(range(_, _, lowest)).data() == a.data() + 4);
  CHECK(a(range(_, _, highest)).stride() == lora::strides{1});  // a step that is never taken changes nothing
  CHECK(a(range(lowest, highest).clamp()).shape() == lora::extents{5});
  CHECK(a(range(highest, lowest, -1).clamp()).shape() == lora::extents{5});
  CHECK_THROWS_AS((void)a(range(lowest, _)), lora::index_error);
  CHECK_THROWS_AS((void)a(range(_, highest)), lora::index_error);
  CHECK_THROWS_AS((void)range(std::numeric_limits<std::uint64_t>::max(), _), lora::index_error);
  lora::ndview<float, 2> v = a(newaxis);
  CHECK_THROWS_AS((void)v(0, std::numeric_limits<std::uint64_t>::max(), newaxis), lora::index_error);
  CHECK_THROWS_AS((void)v(lowest), lora::index_error);
}

TEST_CASE("nd/slice: arrays without elements may have any strides, and empty ranges start one past the end") {
  constexpr index_t lowest = std::numeric_limits<index_t>::min();
  constexpr index_t highest = std::numeric_limits<index_t>::max();
  const lora::ndview<float, 3> none(nullptr, {0, 5, 5}, {lowest, highest, lowest});
  CHECK(none(range(_, _, -1), 4, range(_, _, 3)).data() == nullptr);
  CHECK(none(range(_, _, -2), range(3, 4), -1).shape() == lora::extents{0, 1});
  CHECK(none(all, range(5, _), range(5, _, -1)).data() == nullptr);
  float x = 0;
  const lora::ndview<float, 1> far(&x, {5}, {highest / 4});
  CHECK(far(range(5, 5)).data() == &x);
  CHECK(far(range(5, 5, 2)).data() == &x);
}

TEST_CASE("nd/slice: error texts") {
  auto a = lora::zeros<float>(4, 5);
  CHECK_THROWS_WITH((void)a(4), "index 4 is out of bounds for axis 0 of shape [4, 5]");
  CHECK_THROWS_WITH((void)a(all, -6), "index -6 is out of bounds for axis 1 of shape [4, 5]");
  CHECK_THROWS_WITH((void)a(all, newaxis, 5), "index 5 is out of bounds for axis 1 of shape [4, 5]");
  CHECK(message(a, range(9, _)) == "slice bound 9 is out of bounds for axis 1 of shape [4, 5] (clamp() cuts bounds to the axis)");
  CHECK(message(a, range(_, -6)) == "slice bound -6 is out of bounds for axis 1 of shape [4, 5] (clamp() cuts bounds to the axis)");
  CHECK(message(a, range(_, _, 0)) == "slice step 0 for axis 1: a step is positive or negative");
  CHECK(message(a, range(0, 5)) == "accepted");
  CHECK_THROWS_WITH((void)range(std::uint64_t{1} << 63, _), "slice bound 9223372036854775808 does not fit a signed 64-bit index");
  CHECK_THROWS_WITH((void)a(std::uint64_t{1} << 63, all), "index 9223372036854775808 does not fit a signed 64-bit index");
}
