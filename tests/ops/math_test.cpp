// SPDX-License-Identifier: Apache-2.0
//
// activation.hpp, softmax.hpp and normalize.hpp against NumPy in float64 (tests/data/ops/make.py), for every element type, in every layout, and
// in place, within the bounds the headers state.
#include <lora/nd/broadcast.hpp>
#include <lora/ops/activation.hpp>
#include <lora/ops/copy.hpp>
#include <lora/ops/normalize.hpp>
#include <lora/ops/softmax.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

using lora::extents;
using lora::index_t;
using lora::ndview;
using lora::strides;

namespace {

const char* const lines[] = {
#include "../data/ops/math.inc"
};

constexpr double eps = 0x1p-10;
constexpr double u = 0x1p-24;

struct math_case {
  std::string op;
  std::vector<index_t> shape;
  index_t axis = 0;
  std::vector<double> x, weight, bias, y;
};

std::vector<std::string> split(const std::string& s, char at) {
  std::vector<std::string> parts(1);
  for (const char c : s) {
    if (c == at)
      parts.emplace_back();
    else
      parts.back() += c;
  }
  return parts;
}

std::vector<double> numbers(const std::string& field, double unit) {
  std::vector<double> v;
  if (field == "-") return v;
  for (const std::string& s : split(field, ','))
    v.push_back(s == "n" ? std::nan("") : s == "i" ? -std::numeric_limits<double>::infinity() : std::strtod(s.c_str(), nullptr) * unit);
  return v;
}

std::vector<math_case> cases() {
  std::vector<math_case> all;
  for (std::string line : lines) {
    line.pop_back();
    const auto f = split(line, ' ');
    math_case c;
    c.op = f.at(0);
    for (const double d : numbers(f.at(1), 1)) c.shape.push_back(static_cast<index_t>(d));
    c.axis = std::strtol(f.at(2).c_str(), nullptr, 10);
    c.x = numbers(f.at(3), 0.125);
    c.weight = numbers(f.at(4), 0.125);
    c.bias = numbers(f.at(5), 0.125);
    c.y = numbers(f.at(7), 1);
    all.push_back(c);
  }
  return all;
}

/** Memory and a view into it: C order, F order, every axis reversed, gaps with a misaligned start. Untouched elements are checked. */
template <class T, std::size_t R>
struct layout {
  std::vector<T> memory;
  ndview<T, R> view;

  layout(const std::vector<index_t>& shape_in, int kind) {
    std::array<index_t, R> shape{}, stride{};
    index_t step = kind == 3 ? 2 : 1;
    index_t first = kind == 3 ? 1 : 0;
    for (std::size_t i = 0; i < R; ++i) shape[i] = shape_in[i];
    for (std::size_t i = 0; i < R; ++i) {
      const std::size_t axis = kind == 1 ? i : R - 1 - i;
      stride[axis] = step;
      step *= std::max<index_t>(shape[axis], 1) + (kind == 3 ? 1 : 0);
    }
    memory.assign(static_cast<std::size_t>(step + 2), T(77.0f));
    for (std::size_t i = 0; i < R && kind == 2; ++i) {
      first += std::max<index_t>(shape[i] - 1, 0) * stride[i];
      stride[i] = -stride[i];
    }
    view = ndview<T, R>(memory.data() + first, extents<R>(shape), strides<R>(stride));
  }

  template <class F>
  void each(F f) const {
    std::size_t k = 0;
    std::array<index_t, R> at{};
    for (index_t n = view.size(); n > 0; --n) {
      index_t offset = 0;
      for (std::size_t i = 0; i < R; ++i) offset += at[i] * view.stride(i);
      f(view.data()[offset], k++);
      for (std::size_t i = R; i-- > 0;) {
        if (++at[i] < view.extent(i)) break;
        at[i] = 0;
      }
    }
  }
  void set(const std::vector<double>& values) {
    each([&](T& e, std::size_t k) { e = T(static_cast<lora::detail::computed_in<T>>(values[k])); });
  }
  [[nodiscard]] index_t untouched() const { return static_cast<index_t>(std::count(memory.begin(), memory.end(), T(77.0f))); }
};

template <class X, class W, class Y>
void run(const math_case& c, const X& x, const W& w, const W& b, const Y& y) {
  if (c.op == "gelu") return lora::gelu(x, y);
  if (c.op == "gelu_tanh") return lora::gelu_tanh(x, y);
  if (c.op == "silu") return lora::silu(x, y);
  if (c.op == "softmax") return lora::softmax(x, y, c.axis);
  if (c.op == "log_softmax") return lora::log_softmax(x, y, c.axis);
  if (c.op == "layer_norm") return lora::layer_norm(x, w, b, eps, y);
  if (c.op == "rms_norm") return lora::rms_norm(x, w, eps, y);
  FAIL("unknown operation " << c.op);
}

/** The stated bound of each element, for computation in float. */
std::vector<double> bounds(const math_case& c) {
  std::vector<double> bound(c.y.size());
  const auto rank = static_cast<index_t>(c.shape.size());
  const auto axis = static_cast<std::size_t>(c.axis < 0 ? c.axis + rank : c.axis);
  std::size_t inner = 1;
  for (std::size_t i = axis + 1; i < c.shape.size(); ++i) inner *= static_cast<std::size_t>(c.shape[i]);
  const auto n = static_cast<std::size_t>(c.shape[axis]);
  const auto h = static_cast<double>(n);  // no more roundings than elements
  for (std::size_t k = 0; k < bound.size(); ++k) {
    const double y = std::fabs(c.y[k]);
    const std::size_t first = k / (n * inner) * (n * inner) + k % inner;
    const std::size_t column = k / inner % n;
    double most = -std::numeric_limits<double>::infinity(), magnitude = 0, sum = 0, squares = 0;
    for (std::size_t i = 0; i < n; ++i) {
      const double v = c.x[first + i * inner];
      most = std::max(most, v);
      magnitude += std::fabs(v) / h;
      sum += v;
    }
    for (std::size_t i = 0; i < n; ++i) squares += std::pow(c.x[first + i * inner] - (c.op == "layer_norm" ? sum / h : 0), 2);
    const double s = std::sqrt(squares / h + eps);
    if (c.op == "softmax") {
      bound[k] = y == 0 ? 0 : (h + 10 + (most - c.x[k])) * u * y + 0x1p-149;
    } else if (c.op == "log_softmax") {
      bound[k] = std::isinf(y) ? 0 : (h + 12 + 3 * y) * u;
    } else if (c.op == "layer_norm") {
      const double w = std::fabs(c.weight[column]);
      bound[k] = (h + 8) * u * (y + std::fabs(c.bias[column])) + h * u * w * magnitude / s + u * std::fabs(c.bias[column]);
    } else if (c.op == "rms_norm") {
      bound[k] = (h + 8) * u * y;
    } else {
      bound[k] = 5.75 * 2 * u * y + 5.75 * 0x1p-149;
    }
  }
  return bound;
}

/** One more rounding, to T. */
template <class T>
double rounding(double y) {
  if (std::is_same_v<T, lora::bfloat16>) return std::fabs(y) * 0x1p-8 + 0x1p-130;
  if (std::is_same_v<T, lora::float16>) return std::fabs(y) * 0x1p-10 + 0x1p-24;
  return 0;
}

template <class F, class T, std::size_t R>
int wrong(const math_case& c, int from_kind, int to_kind, const std::vector<double>& bound) {
  layout<F, R> x(c.shape, from_kind);
  layout<T, R> y(c.shape, to_kind);
  const std::vector<index_t> d{static_cast<index_t>(c.weight.size())};
  layout<F, 1> w(d, from_kind);
  layout<F, 1> b(d, from_kind);
  x.set(c.x);
  w.set(c.weight);
  b.set(c.bias);
  const index_t kept = y.untouched() - y.view.size();
  run(c, x.view, w.view, b.view, y.view);
  int count = 0;
  y.each([&](const T& e, std::size_t k) {
    const auto got = static_cast<double>(static_cast<lora::detail::computed_in<T>>(e));
    const double want = c.y[k];
    const bool right =
        std::isnan(want) || std::isinf(want)
            ? (std::isnan(want) ? std::isnan(got) : got == want)
            : std::fabs(got - want) <= (std::is_same_v<T, double> ? 1e-12 * (1 + std::fabs(want)) : bound[k] + rounding<T>(want) * 1.0001);
    count += right ? 0 : 1;
    if (!right && count == 1) MESSAGE("element " << k << ": " << got << " for " << want);
  });
  count += y.untouched() == kept ? 0 : 1;
  if constexpr (std::is_same_v<F, T>) {
    if (from_kind == to_kind) {  // in place gives the same bits
      run(c, x.view, w.view, b.view, x.view);
      count += y.view.size() == 0 || std::memcmp(x.memory.data(), y.memory.data(), sizeof(T) * x.memory.size()) == 0 ? 0 : 1;
    }
  }
  return count;
}

template <class F, class T, std::size_t R>
int all_layouts(const math_case& c) {
  const auto bound = bounds(c);
  int count = 0;
  for (int from = 0; from < 4; ++from)
    for (const int to : {from, (from + 1) % 4, (from + 2) % 4}) count += wrong<F, T, R>(c, from, to, bound);
  return count;
}

}  // namespace

TEST_CASE("ops/math: NumPy's answers in float, rank 1 to 4, every layout, and in place") {
  int replayed = 0;
  for (const math_case& c : cases()) {
    CAPTURE(c.op);
    CAPTURE(c.shape.size());
    CAPTURE(c.axis);
    ++replayed;
    if (c.shape.size() == 1) CHECK(all_layouts<float, float, 1>(c) == 0);
    if (c.shape.size() == 2) CHECK(all_layouts<float, float, 2>(c) == 0);
    if (c.shape.size() == 3) CHECK(all_layouts<float, float, 3>(c) == 0);
    if (c.shape.size() == 4) CHECK(all_layouts<float, float, 4>(c) == 0);
  }
  CHECK(replayed > 90);
}

TEST_CASE("ops/math: NumPy's answers in double, float16 and bfloat16") {
  for (const math_case& c : cases()) {
    if (c.shape.size() != 2) continue;
    CAPTURE(c.op);
    CAPTURE(c.axis);
    CHECK(all_layouts<double, double, 2>(c) == 0);
    CHECK(all_layouts<lora::bfloat16, lora::bfloat16, 2>(c) == 0);
    CHECK(all_layouts<lora::float16, float, 2>(c) == 0);
  }
}

TEST_CASE("ops/math: long lines go through several blocks") {
  for (const index_t n : {1023, 1024, 1025, 5000}) {
    CAPTURE(n);
    const extents<2> shape{n, 5};  // 5: enough for lines side by side to be taken together
    auto x = lora::uninit<float>(shape);
    for (index_t i = 0; i < x.size(); ++i) x.data()[i] = static_cast<float>(i * 37 % 101) * 0.11f - 4.0f;
    auto along = lora::uninit<float>(5, n);  // the same lines, contiguous
    lora::copy(x.view().transpose(), along);
    auto down = lora::zeros<float>(shape);
    auto y = lora::zeros<float>(5, n);
    lora::softmax(x, down, 0);
    lora::softmax(along, y, -1);
    double sum = 0;
    for (index_t i = 0; i < n; ++i) sum += std::exp(static_cast<double>(along(1, i)) - 7.0);
    int off = 0;
    for (index_t i = 0; i < n; ++i) {
      const double want = std::exp(static_cast<double>(along(1, i)) - 7.0) / sum;
      off += std::fabs(static_cast<double>(y(1, i)) - want) <= 290 * u * want ? 0 : 1;
      off += std::fabs(static_cast<double>(down(i, 1)) - want) <= 290 * u * want ? 0 : 1;
    }
    CHECK(off == 0);
    auto strided = lora::zeros<float>(5, n);  // a line gives the same bits wherever its elements lie
    lora::softmax(x.view().transpose(), strided, 1);
    CHECK(std::memcmp(strided.data(), y.data(), sizeof(float) * static_cast<std::size_t>(5 * n)) == 0);
    auto w = lora::full(extents{n}, 1.0f);
    auto b = lora::zeros<float>(extents{n});
    lora::layer_norm(along, w, b, 0.0, y);
    double mean = 0, squares = 0;
    for (index_t i = 0; i < n; ++i) mean += static_cast<double>(y(0, i)) / static_cast<double>(n);
    for (index_t i = 0; i < n; ++i) squares += static_cast<double>(y(0, i)) * static_cast<double>(y(0, i)) / static_cast<double>(n);
    CHECK(std::fabs(mean) < 300 * u);
    CHECK(std::fabs(squares - 1) < 600 * u);
  }
}

TEST_CASE("ops/math: the largest element of a line may stand in any block") {
  auto x = lora::zeros<float>(2, 3000);
  x(0, 0) = 300;
  x(1, 2999) = 300;
  auto y = lora::zeros<float>(2, 3000);
  lora::softmax(x, y, 1);
  CHECK(y(0, 0) == 1.0f);
  CHECK(y(1, 2999) == 1.0f);
  CHECK(y(1, 0) == 0.0f);
}

TEST_CASE("ops/math: layer_norm keeps its bound where the mean is far from zero") {
  auto x = lora::uninit<float>(1, 256);
  for (index_t i = 0; i < 256; ++i) x(0, i) = 4096.0f + static_cast<float>(i % 2);  // exact in float; the mean, 4096.5, too
  auto w = lora::full(extents{256}, 1.0f);
  auto b = lora::zeros<float>(extents{256});
  auto y = lora::zeros<float>(1, 256);
  lora::layer_norm(x, w, b, 0.0, y);
  CHECK(y(0, 0) == doctest::Approx(-1.0).epsilon(1e-6));
  CHECK(y(0, 1) == doctest::Approx(1.0).epsilon(1e-6));
}

TEST_CASE("ops/math: what does not fit is refused with both shapes, and nothing is written") {
  auto x = lora::zeros<float>(3, 4);
  auto y = lora::full(extents{3, 5}, 7.0f);
  const auto message = [&](auto f) {
    try {
      f();
    } catch (const lora::shape_error& e) {
      return std::string(e.what());
    }
    return std::string("nothing thrown");
  };
  CHECK(message([&] { lora::gelu(x, y); }) == "gelu: input 0 is [3, 4] but the output is [3, 5]");
  CHECK(message([&] { lora::softmax(x, y, 0); }) == "softmax: input 0 is [3, 4] but the output is [3, 5]");
  CHECK(message([&] { lora::softmax(y, y, 2); }) == "softmax: axis 2 is out of bounds for shape [3, 5]");
  CHECK(message([&] { lora::log_softmax(y, y, -3); }) == "log_softmax: axis -3 is out of bounds for shape [3, 5]");
  auto w = lora::zeros<float>(extents{4});
  auto b = lora::zeros<float>(extents{5});
  CHECK(message([&] { lora::layer_norm(y, w, b, eps, y); }) == "layer_norm: weight is [4] but the last axis of x, [3, 5], is 5");
  CHECK(message([&] { lora::rms_norm(x, b, eps, x); }) == "rms_norm: weight is [5] but the last axis of x, [3, 4], is 4");
  CHECK(message([&] { lora::rms_norm(y, y(0), eps, y); }) == "rms_norm: the output overlaps weight; clone() one of them first");
  const auto shifted = message([&] { lora::silu(y(lora::range(0, 2)), y(lora::range(1, 3))); });
  CHECK(shifted.find("silu: input 0, shape [2, 5] and strides [5, 1], overlaps the output") == 0);
  const ndview<float, 2> folded(y.data(), extents{3, 5}, strides{0, 1});
  CHECK(message([&] { lora::softmax(y, folded, 0); }).find("softmax: elements of the output share addresses") == 0);
  bool kept = true;
  for (index_t i = 0; i < y.size(); ++i) kept = kept && y.data()[i] == 7.0f;
  CHECK(kept);
}
