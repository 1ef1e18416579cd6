// SPDX-License-Identifier: Apache-2.0
//
// For the tests of products: matrices in every memory layout, surrounded by NaN and misaligned on purpose; the product in float64 with
// the bound that docs/numerics.md derives.
//
//   const test::matrix w(rows, columns, test::layout::transposed, seed);
//   const test::expected want(x.view(), w.view(), terms, bias);     // want.value(m, n), want.bound(m, n)
#ifndef LORA_TESTS_SUPPORT_ORACLE_HPP
#define LORA_TESTS_SUPPORT_ORACLE_HPP

#include <lora/linalg/forward.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

namespace test {

using lora::index_t;

inline constexpr double u = 0x1p-24;      // unit roundoff of float, to nearest
inline constexpr double tiny = 0x1p-150;  // half the smallest subnormal: the error of a result that underflows

/** Relative error of n roundings (Higham, Accuracy and Stability, 3.1). */
[[nodiscard]] inline double gamma(double n) { return n * u / (1 - n * u); }

[[nodiscard]] inline std::uint32_t bits(float f) {
  std::uint32_t b = 0;
  std::memcpy(&b, &f, sizeof b);
  return b;
}

/** Numbers in [-1, 1) with 24 random bits, so that a product of two needs rounding. */
class random {
 public:
  explicit random(std::uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15u + 1) {}
  std::uint64_t next() {
    state_ += 0x9e3779b97f4a7c15u;
    std::uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  float number() { return static_cast<float>(static_cast<std::int64_t>(next() >> 39) - (std::int64_t{1} << 24)) * 0x1p-24f; }

 private:
  std::uint64_t state_;
};

enum class layout { plain, padded, transposed, rows_reversed, columns_reversed, spread };
inline constexpr int layouts = 6;

/** What lies between and around the elements: a NaN with a payload of its own, to be found again. */
inline constexpr std::uint32_t poison_bits = 0x7fc5a5a5u;
[[nodiscard]] inline float poison() {
  float f = 0;
  std::memcpy(&f, &poison_bits, sizeof f);
  return f;
}

/** A matrix with its memory. The first element lies one float behind a 64-byte boundary; row strides are odd where there is a choice. */
class matrix {
 public:
  matrix(index_t rows, index_t columns, layout l) : matrix(rows, columns, l, 0) {
    for_each([](float& f, index_t, index_t) { f = poison(); });
  }
  matrix(index_t rows, index_t columns, layout l, std::uint64_t seed) {
    index_t row = 1;
    index_t column = 1;
    index_t first = 0;
    const auto odd = [](index_t n) { return n | 1; };
    switch (l) {
      case layout::plain:
        row = columns;
        break;
      case layout::padded:
        row = odd(columns + 4);
        break;
      case layout::transposed:
        column = odd(rows + 2);
        break;
      case layout::rows_reversed:
        row = -odd(columns + 2);
        first = -row * (rows > 0 ? rows - 1 : 0);
        break;
      case layout::columns_reversed:
        row = odd(columns + 2);
        column = -1;
        first = columns > 0 ? columns - 1 : 0;
        break;
      case layout::spread:
        column = 3;
        row = odd(3 * columns + 2);
        break;
    }
    const index_t step_row = row < 0 ? -row : row;
    const index_t step_column = column < 0 ? -column : column;
    memory_.assign(static_cast<std::size_t>(step_row * rows + step_column * columns + 64), poison());
    auto* p = memory_.data();
    while (reinterpret_cast<std::uintptr_t>(p) % 64 != 4) ++p;
    view_ = {p + first, {rows, columns}, {row, column}};
    random numbers(seed);
    for_each([&](float& f, index_t, index_t) { f = numbers.number(); });
  }
  matrix(const matrix&) = delete;
  matrix& operator=(const matrix&) = delete;

  [[nodiscard]] lora::ndview<float, 2> view() { return view_; }
  [[nodiscard]] lora::ndview<const float, 2> view() const { return view_; }
  [[nodiscard]] float& operator()(index_t i, index_t j) { return view_.data()[i * view_.stride(0) + j * view_.stride(1)]; }
  [[nodiscard]] float operator()(index_t i, index_t j) const { return view_.data()[i * view_.stride(0) + j * view_.stride(1)]; }

  template <class F>
  void for_each(F f) {
    for (index_t i = 0; i < view_.extent(0); ++i)
      for (index_t j = 0; j < view_.extent(1); ++j) f((*this)(i, j), i, j);
  }
  void copy_from(const matrix& other) {
    for_each([&](float& f, index_t i, index_t j) { f = other(i, j); });
  }

  /** Whether all memory that belongs to no element still holds the poison. */
  [[nodiscard]] bool surroundings_untouched() {
    std::size_t poisoned = 0;
    for (const float f : memory_) poisoned += bits(f) == poison_bits;
    std::size_t inside = 0;
    for_each([&](float& f, index_t, index_t) { inside += bits(f) == poison_bits; });
    return poisoned - inside + static_cast<std::size_t>(view_.size()) == memory_.size();
  }

 private:
  std::vector<float> memory_;
  lora::ndview<float, 2> view_;
};

[[nodiscard]] inline float at(const lora::ndview<const float, 2>& v, index_t i, index_t j) {
  return v.data()[i * v.stride(0) + j * v.stride(1)];
}

[[nodiscard]] inline float at(const lora::float_view<2>& v, index_t i, index_t j) {
  const index_t offset = i * v.stride(0) + j * v.stride(1);
  if (v.type() == lora::dtype::bf16) return static_cast<float>(static_cast<const lora::bfloat16*>(v.data())[offset]);
  if (v.type() == lora::dtype::f16) return static_cast<float>(static_cast<const lora::float16*>(v.data())[offset]);
  return static_cast<const float*>(v.data())[offset];
}

/** Half the distance between neighbours of 1 in a type, and half its smallest subnormal. */
[[nodiscard]] inline double roundoff(lora::dtype t) { return t == lora::dtype::bf16 ? 0x1p-8 : t == lora::dtype::f16 ? 0x1p-11 : u; }
[[nodiscard]] inline double smallest(lora::dtype t) { return t == lora::dtype::bf16 ? 0x1p-134 : t == lora::dtype::f16 ? 0x1p-25 : tiny; }

/**
 * x W^T + bias + sum s_i (x A_i^T) B_i^T in float64, for all rows of x, with the bound of lora::forward for each element. A product of
 * two floats is exact in float64 and the sums err by 2^-29 of the bound.
 */
class expected {
 public:
  expected(lora::float_view<2> x, lora::float_view<2> w, const lora::low_rank_update& update, lora::float_view<1> bias,
           lora::dtype y = lora::dtype::f32)
      : columns_(w.extent(0)) {
    const std::span<const lora::low_rank_term> terms = update.terms;
    const index_t in = w.extent(1);
    double ranks = 0;
    for (const auto& t : terms)
      if (t.scale != 0.0f) ranks += static_cast<double>(t.a.extent(0));
    roundings_ = static_cast<double>(in) + ranks;
    std::vector<double> h;
    std::vector<double> h_magnitude;
    for (index_t m = 0; m < x.extent(0); ++m) {
      h.clear();
      h_magnitude.clear();
      for (const auto& t : terms)
        for (index_t j = 0; j < t.a.extent(0) && t.scale != 0.0f; ++j) {
          double sum = 0;
          double magnitude = 0;
          for (index_t k = 0; k < in; ++k) {
            const double p = static_cast<double>(at(t.a, j, k)) * static_cast<double>(at(x, m, k));
            sum += p;
            magnitude += std::abs(p);
          }
          h.push_back(static_cast<double>(t.scale) * sum);
          h_magnitude.push_back(std::abs(static_cast<double>(t.scale)) * magnitude);
        }
      for (index_t n = 0; n < columns_; ++n) {
        double value = 0;
        double base = 0;
        for (index_t k = 0; k < in; ++k) {
          const double p = static_cast<double>(at(w, n, k)) * static_cast<double>(at(x, m, k));
          value += p;
          base += std::abs(p);
        }
        double low = 0;
        double underflow = roundings_;
        std::size_t i = 0;
        for (const auto& t : terms)
          for (index_t j = 0; j < t.b.extent(1) && t.scale != 0.0f; ++j, ++i) {
            const double b = static_cast<double>(at(t.b, n, j));
            value += b * h[i];
            low += std::abs(b) * h_magnitude[i];
            underflow += std::abs(b) * (std::abs(static_cast<double>(t.scale)) * static_cast<double>(in) + 1);
          }
        double bound = gamma(roundings_) * base + gamma(roundings_ + 6) * low + 2 * tiny * underflow;
        if (!update.row_factor.empty()) {
          const double factor = static_cast<double>(update.row_factor[static_cast<std::size_t>(n)]);
          value *= factor;
          bound = std::abs(factor) * bound * (1 + u) + u * std::abs(value) + tiny;
        }
        const double own = bias.data() == nullptr || update.replaces_bias ? 0 : static_cast<double>(bias(n));
        const double more = update.bias.empty() ? 0 : static_cast<double>(update.bias[static_cast<std::size_t>(n)]);
        if (bias.data() != nullptr || !update.bias.empty()) {
          if (own != 0 && more != 0) bound += u * std::abs(own + more);
          value += own + more;
          bound += u * (std::abs(value) + bound) * (1 + 2 * u);  // u |y|
        }
        if (y != lora::dtype::f32) bound += roundoff(y) * (std::abs(value) + bound) + smallest(y);
        values_.push_back(value);
        bounds_.push_back(bound);
      }
    }
  }

  [[nodiscard]] double value(index_t m, index_t n) const { return values_[static_cast<std::size_t>(m * columns_ + n)]; }
  [[nodiscard]] double bound(index_t m, index_t n) const { return bounds_[static_cast<std::size_t>(m * columns_ + n)]; }
  /** in + ranks: from about 48 on, random data errs by less than a tenth of the bound. */
  [[nodiscard]] double roundings() const { return roundings_; }

  /** The largest |y - value| / bound; infinite where y is not finite, or differs although the bound is 0. */
  [[nodiscard]] double worst(lora::float_view<2> y) const {
    double worst = 0;
    for (index_t m = 0; m < y.extent(0); ++m)
      for (index_t n = 0; n < y.extent(1); ++n) {
        const double error = std::abs(static_cast<double>(at(y, m, n)) - value(m, n));
        if (error == 0) continue;
        const double ratio = error / bound(m, n);
        worst = ratio <= worst ? worst : std::isnan(ratio) ? HUGE_VAL : ratio;
      }
    return worst;
  }

 private:
  index_t columns_;
  double roundings_ = 0;
  std::vector<double> values_;
  std::vector<double> bounds_;
};

/** Every batch size where a table of forms changes, and its neighbours, up to several turns. */
inline constexpr index_t batch_sizes[] = {1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 15, 16, 17, 19, 20,  21,  23, 24,
                                          25, 31, 32, 33, 39, 40, 41, 47, 48, 49, 56, 57, 63, 64, 65, 80, 97, 113, 129, 130};
inline constexpr index_t most_tokens = 130;

/** An executor that claims `tasks_at_once` threads and runs the tasks here, last first. */
struct backward_executor {
  std::size_t tasks_at_once;
  std::size_t most_seen = 0;
  [[nodiscard]] std::size_t concurrency() const { return tasks_at_once; }
  template <class F>
  void run(std::size_t n, F&& f) {
    most_seen = std::max(most_seen, n);
    while (n != 0) f(--n);
  }
};

}  // namespace test

#endif
