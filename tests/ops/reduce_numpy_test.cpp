// SPDX-License-Identifier: Apache-2.0
//
// Replays tests/data/ops/reduce.inc: NumPy's answers for reductions of views of any strides, over all axes and over some. The format and
// the values of the elements are described in make_reduce.py beside it.
#include <lora/core/dtype.hpp>
#include <lora/ops/argmax.hpp>

#include "nd/cases.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <string>
#include <vector>

using lora::float16;
using lora::index_t;

namespace {

const char* const reduce_text[] = {
#include "../data/ops/reduce.inc"
};

constexpr index_t memory_size = 400;

template <class T>
T reduce_value(index_t i, index_t seed) {
  const auto mixed = static_cast<std::uint32_t>(static_cast<std::uint64_t>(i) * 2654435761u + static_cast<std::uint64_t>(seed) * 40503u);
  const auto v = static_cast<std::int64_t>(mixed >> 16);
  if constexpr (std::is_same_v<T, bool>) {
    return v % 3 != 0;
  } else if constexpr (std::is_same_v<T, std::uint8_t>) {
    return static_cast<T>(v % 256);
  } else if constexpr (std::is_same_v<T, std::int8_t>) {
    return static_cast<T>(v % 256 - 128);
  } else if constexpr (std::is_integral_v<T>) {
    return static_cast<T>((v - 32768) * (sizeof(T) == 2 ? 1 : sizeof(T) == 4 ? 60000 : std::int64_t{1} << 40));
  } else {
    double x = std::is_same_v<T, float16> ? static_cast<double>(v % 2048 - 1024) / 64 : static_cast<double>(v - 32768) / 1024;
    if (seed % 3 == 0) x = static_cast<double>(v % 7 - 3);
    if (seed % 5 == 0 && i % 53 == 11) x = std::numeric_limits<double>::quiet_NaN();
    return lora::detail::convert<T>(x);
  }
}

struct line {
  std::string text;
  std::string op;
  std::string type;
  index_t seed;
  lora::extents<4> shape;
  lora::strides<4> strides;
  index_t offset;
  bool every_axis;
  std::vector<index_t> axes;
  std::vector<std::string> answer;
  bool refused;
};

std::vector<line> lines() {
  std::vector<line> all;
  for (const char* const raw : reduce_text) {
    std::string text(raw);
    text.pop_back();
    const auto f = test::split(text, ' ');
    line l;
    l.text = text;
    l.op = f.at(0);
    l.type = f.at(1);
    l.seed = std::strtol(f.at(2).c_str(), nullptr, 10);
    const auto shape = test::numbers(f.at(3));
    const auto strides = test::numbers(f.at(4));
    l.shape = lora::extents<4>(shape.at(0), shape.at(1), shape.at(2), shape.at(3));
    l.strides = lora::strides<4>(strides.at(0), strides.at(1), strides.at(2), strides.at(3));
    l.offset = std::strtol(f.at(5).c_str(), nullptr, 10);
    l.every_axis = f.at(6) == "-";
    l.axes = test::numbers(f.at(6));
    l.refused = f.at(7) == "X";
    if (!l.refused && f.at(7) != "-") l.answer.assign(f.begin() + 7, f.end());
    all.push_back(l);
  }
  return all;
}

double as_double(float16 v) { return static_cast<double>(static_cast<float>(v)); }
double as_double(double v) { return v; }

// The sum of magnitudes is at most this, and no sum here has more than 200 elements: the deepest tree is 48 + 8 additions.
template <class T>
bool matches(const std::string& want, T have, bool rounded, double magnitude) {
  if constexpr (std::is_same_v<T, bool> || std::is_integral_v<T>) {
    return std::to_string(static_cast<long long>(have)) == want;
  } else {
    if (want == "nan") return std::isnan(as_double(have));
    const double exact = std::strtod(want.c_str(), nullptr);
    if (!rounded) return as_double(have) == exact;
    // unit roundoff of the additions; float16 is added in float and rounded once
    const double unit = std::is_same_v<T, double> ? 0x1p-53 : 0x1p-24;
    const double last = std::is_same_v<T, float16> ? 0x1p-11 : unit;
    return std::fabs(as_double(have) - exact) <= 57 * unit * magnitude + last * std::fabs(exact) + 0x1p-25 * (last == unit ? 0 : 1);
  }
}

struct outcome {
  bool refused = false;
  bool right = false;
};

template <class Result>
outcome compare(const line& l, const Result& result, bool rounded, double magnitude) {
  outcome o;
  o.right = static_cast<std::size_t>(result.size()) == l.answer.size();
  for (index_t i = 0; o.right && i < result.size(); ++i)
    o.right = matches(l.answer[static_cast<std::size_t>(i)], result.data()[i], rounded, magnitude);
  return o;
}

template <class F>
outcome attempt(const line& l, bool rounded, double magnitude, F f) {
  try {
    if (l.every_axis) {
      auto answer = f();
      outcome o;
      o.right = l.answer.size() == 1 && matches(l.answer[0], answer, rounded, magnitude);
      return o;
    }
    switch (l.axes.size()) {
      case 1:
        return compare(l, f(lora::axes{l.axes[0]}), rounded, magnitude);
      case 2:
        return compare(l, f(lora::axes{l.axes[0], l.axes[1]}), rounded, magnitude);
      default:
        return compare(l, f(lora::axes{l.axes[0], l.axes[1], l.axes[2]}), rounded, magnitude);
    }
  } catch (const lora::shape_error&) {
    return {true, false};
  }
}

template <class F>
outcome attempt_arg(const line& l, F f) {
  try {
    if (!l.every_axis) return compare(l, f(lora::axes{l.axes.at(0)}), false, 0);
    outcome o;
    o.right = matches(l.answer.empty() ? "" : l.answer[0], f(), false, 0);
    return o;
  } catch (const lora::shape_error&) {
    return {true, false};
  }
}

template <class T>
outcome run(const line& l) {
  std::vector<unsigned char> raw(static_cast<std::size_t>(memory_size) * sizeof(T));
  T* const memory = reinterpret_cast<T*>(raw.data());
  for (index_t i = 0; i < memory_size; ++i) memory[i] = reduce_value<T>(i, l.seed);
  const lora::ndview<const T, 4> v(memory + l.offset, l.shape, l.strides);
  constexpr bool rounded = !std::is_integral_v<T>;
  // Elements are at most 32 and results of at most 200 of them.
  const double magnitude = 32.0 * 200;
  if (l.op == "sum") return attempt(l, rounded, magnitude, [&](auto... where) { return lora::sum(v, where...); });
  if (l.op == "mean") return attempt(l, rounded, 32, [&](auto... where) { return lora::mean(v, where...); });
  if (l.op == "max") return attempt(l, false, 0, [&](auto... where) { return lora::max(v, where...); });
  if (l.op == "min") return attempt(l, false, 0, [&](auto... where) { return lora::min(v, where...); });
  if (l.op == "any_true") return attempt(l, false, 0, [&](auto... where) { return lora::any_true(v, where...); });
  if (l.op == "all_true") return attempt(l, false, 0, [&](auto... where) { return lora::all_true(v, where...); });
  if (l.op == "count_nonzero") return attempt(l, false, 0, [&](auto... where) { return lora::count_nonzero(v, where...); });
  if (l.op == "argmax") return attempt_arg(l, [&](auto... where) { return lora::argmax(v, where...); });
  return attempt_arg(l, [&](auto... where) { return lora::argmin(v, where...); });
}

template <class T>
void replay(const char* type) {
  int cases = 0;
  for (const line& l : lines()) {
    if (l.type != type) continue;
    ++cases;
    const outcome o = run<T>(l);
    CAPTURE(l.text);
    CHECK(o.refused == l.refused);
    if (!l.refused) CHECK(o.right);
  }
  CHECK(cases > 150);
}

}  // namespace

TEST_CASE("ops/reduce: NumPy's answers, double") { replay<double>("f64"); }
TEST_CASE("ops/reduce: NumPy's answers, float") { replay<float>("f32"); }
TEST_CASE("ops/reduce: NumPy's answers, float16") { replay<float16>("f16"); }
TEST_CASE("ops/reduce: NumPy's answers, int8") { replay<std::int8_t>("i8"); }
TEST_CASE("ops/reduce: NumPy's answers, int16") { replay<std::int16_t>("i16"); }
TEST_CASE("ops/reduce: NumPy's answers, int32") { replay<std::int32_t>("i32"); }
TEST_CASE("ops/reduce: NumPy's answers, int64") { replay<std::int64_t>("i64"); }
TEST_CASE("ops/reduce: NumPy's answers, uint8") { replay<std::uint8_t>("u8"); }
TEST_CASE("ops/reduce: NumPy's answers, bool") { replay<bool>("bool"); }
