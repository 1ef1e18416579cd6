// SPDX-License-Identifier: Apache-2.0
//
// W transposed in place, [in, out] in memory: each sum is one chain of multiply-adds in rising k, so that its bits are known exactly. The
// oracle is that chain, one element after the other, with the C library's fma.
#include "support/oracle.hpp"
#include "support/tiers.hpp"

#include <doctest/doctest.h>

#include <string>
#include <type_traits>
#include <utility>
#include <vector>

using lora::bfloat16;
using lora::float16;
using lora::index_t;
using lora::low_rank_term;
using lora::simd::tier;
using test::layout;
using test::matrix;

namespace {

/** Whether a tier's multiply-add rounds once. */
bool fused(tier t) {
#if defined(__FMA__) || defined(__aarch64__)
  (void)t;
  return true;
#else
  return t != tier::generic;
#endif
}

float step(float w, float x, float sum, bool once) {
  if (once) return std::fma(w, x, sum);
  const volatile float product = w * x;  // volatile: not to be contracted
  return sum + product;
}

/** W [out, in] with unit stride along out, `gap` elements between the rows of one k, starting one element off every alignment. */
template <class T>
class lying {
 public:
  lying(index_t out, index_t in, index_t gap, std::uint64_t seed) : memory_(static_cast<std::size_t>(in * (out + gap) + 1)) {
    test::random numbers(seed);
    for (T& e : memory_) e = T(numbers.number());
    view_ = {memory_.data() + 1, {out, in}, {1, out + gap}};
  }
  [[nodiscard]] const lora::ndview<const T, 2>& view() const { return view_; }

 private:
  std::vector<T> memory_;
  lora::ndview<const T, 2> view_;
};

template <class T>
std::vector<float> chains(const lora::ndview<const float, 2>& x, const lora::ndview<const T, 2>& w, bool once) {
  const index_t in = w.extent(1);
  const index_t out = w.extent(0);
  std::vector<float> y(static_cast<std::size_t>(x.extent(0) * out), 0.0f);
  for (index_t m = 0; m < x.extent(0); ++m)
    for (index_t k = 0; k < in; ++k)
      for (index_t n = 0; n < out; ++n) {
        float& sum = y[static_cast<std::size_t>(m * out + n)];
        sum = step(static_cast<float>(w(n, k)), x(m, k), sum, once);
      }
  return y;
}

bool same(const lora::ndarray<float, 2>& y, const std::vector<float>& want) {
  for (index_t i = 0; i < y.size(); ++i)
    if (test::bits(y.data()[i]) != test::bits(want[static_cast<std::size_t>(i)])) return false;
  return true;
}

lora::ndview<const float, 2> first_rows(const matrix& m, index_t n) {
  return {m.view().data(), {n, m.view().extent(1)}, m.view().stride()};
}

// Groups of 6, of 5, of 4, of 3; one turn and several.
constexpr index_t sizes[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 16, 18, 19, 31, 63, 64, 65, 100};

}  // namespace

TEST_CASE_TEMPLATE("linalg/columns: each sum is one chain in rising k, bit for bit, for every tier, batch and tail", T, float, bfloat16,
                   float16) {
  lora::workspace scratch;
  for (const index_t out : {2, 5, 16, 31, 63, 64, 65, 129, 200})
    for (const index_t in : {2, 3, 63, 64, 65, 130}) {
      const auto seed = static_cast<std::uint64_t>(out * 1000 + in);
      const matrix x(100, in, static_cast<layout>(seed % test::layouts), seed);
      const lying<T> w(out, in, in % 2 == 0 ? 0 : 3, seed + 1);
      const std::vector<float> once = chains<T>(x.view(), w.view(), true);
      const std::vector<float> twice = chains<T>(x.view(), w.view(), false);
      test::for_each_tier([&](tier t) {
        for (const index_t n : sizes) {
          if (n > 19 && (n + out + in) % 3 != 0) continue;
          auto y = lora::uninit<float>(n, out);
          lora::forward(y, first_rows(x, n), w.view(), {}, {}, scratch, {.tier = t});
          CAPTURE(n);
          CAPTURE(out);
          CAPTURE(in);
          CAPTURE(std::string(lora::simd::name_of(t)));
          REQUIRE(same(y, fused(t) ? once : twice));
        }
      });
    }
}

TEST_CASE("linalg/columns: a W that is fetched from memory by hand, cut between 1 to 5 tasks, gives the same bits") {
  constexpr index_t in = 1031;
  constexpr index_t out = 2113;  // 8.7 MB, two tiles of columns, 33 panels and one column
  lora::workspace scratch;
  const matrix x(7, in, layout::plain, 1);
  const lying<float> w(out, in, 0, 2);
  const std::vector<float> once = chains<float>(x.view(), w.view(), true);
  const std::vector<float> twice = chains<float>(x.view(), w.view(), false);
  test::for_each_tier([&](tier t) {
    for (const std::size_t tasks : {1u, 2u, 3u, 4u, 5u}) {
      test::backward_executor ex{tasks};
      auto y = lora::uninit<float>(index_t{7}, out);
      lora::forward(y, x.view(), w.view(), {}, {}, scratch, ex, {.tier = t});
      CAPTURE(tasks);
      CHECK(ex.most_seen == (tasks == 1 ? 0 : tasks));  // of one task, here
      REQUIRE(same(y, fused(t) ? once : twice));
    }
  });
}

TEST_CASE("linalg/columns: batch_invariant, with terms: a row has the same bits alone and anywhere in any batch") {
  constexpr index_t in = 133;
  constexpr index_t out = 150;
  lora::workspace scratch;
  const matrix x(100, in, layout::plain, 1);
  const lying<float> w(out, in, 5, 2);
  const matrix a(9, in, layout::plain, 3);
  const matrix b(out, 9, layout::plain, 4);
  const low_rank_term term{a.view(), b.view(), 0.7f};
  test::for_each_tier([&](tier t) {
    const lora::forward_options options{.tier = t, .batch_invariant = true};
    auto alone = lora::uninit<float>(index_t{100}, out);
    for (index_t m = 0; m < 100; ++m)
      lora::forward(alone(lora::range(m, m + 1)), x.view()(lora::range(m, m + 1)), w.view(), {&term, 1}, {}, scratch, options);
    for (const index_t n : sizes) {
      const index_t from = (100 - n) / 2;
      auto y = lora::uninit<float>(n, out);
      lora::forward(y, x.view()(lora::range(from, from + n)), w.view(), {&term, 1}, {}, scratch, options);
      CAPTURE(n);
      bool all = true;
      for (index_t m = 0; m < n; ++m)
        for (index_t o = 0; o < out; ++o) all = all && test::bits(y(m, o)) == test::bits(alone(from + m, o));
      REQUIRE(all);
    }
  });
}

TEST_CASE("linalg/columns: Inf and NaN of one row of x stay in that row") {
  constexpr index_t in = 70;
  constexpr index_t out = 100;
  lora::workspace scratch;
  const lying<float> w(out, in, 0, 2);
  test::for_each_tier([&](tier t) {
    for (const index_t n : {2, 7, 13, 64}) {
      const matrix clean(n, in, layout::plain, 1);
      auto x = lora::uninit<float>(n, in);
      for (index_t m = 0; m < n; ++m)
        for (index_t k = 0; k < in; ++k) x(m, k) = clean(m, k);
      auto want = lora::uninit<float>(n, out);
      lora::forward(want, x, w.view(), {}, {}, scratch, {.tier = t});
      for (const float value : {HUGE_VALF, std::nanf("")}) {
        x(n / 2, in - 1) = value;
        auto y = lora::uninit<float>(n, out);
        lora::forward(y, x, w.view(), {}, {}, scratch, {.tier = t});
        bool others = true;
        bool own = true;
        for (index_t m = 0; m < n; ++m)
          for (index_t o = 0; o < out; ++o) {
            if (m != n / 2) others = others && test::bits(y(m, o)) == test::bits(want(m, o));
            if (m == n / 2) own = own && !std::isfinite(y(m, o));
          }
        CAPTURE(n);
        REQUIRE(others);
        REQUIRE(own);
      }
    }
  });
}

TEST_CASE("linalg/columns: rows of y that are not contiguous, with a bias, keep the order: terms, W, bias") {
  constexpr index_t in = 65;
  constexpr index_t out = 71;
  lora::workspace scratch;
  const lying<float> w(out, in, 1, 2);
  const matrix bias_column(out, 1, layout::plain, 5);
  const lora::ndview<const float, 1> bias(bias_column.view().data(), {out}, {bias_column.view().stride(0)});
  test::for_each_tier([&](tier t) {
    for (const index_t n : {1, 3, 8, 20}) {
      const matrix x(n, in, layout::plain, 1);
      const std::vector<float> sums = chains<float>(x.view(), w.view(), fused(t));
      for (const layout l : {layout::plain, layout::spread, layout::transposed, layout::columns_reversed}) {
        matrix y(n, out, l);
        lora::forward(y.view(), x.view(), w.view(), {}, bias, scratch, {.tier = t});
        bool all = true;
        for (index_t m = 0; m < n; ++m)
          for (index_t o = 0; o < out; ++o)
            all = all && test::bits(y(m, o)) == test::bits(sums[static_cast<std::size_t>(m * out + o)] + bias(o));
        CAPTURE(n);
        REQUIRE(all);
        REQUIRE(y.surroundings_untouched());
      }
    }
  });
}
