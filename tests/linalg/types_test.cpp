// SPDX-License-Identifier: Apache-2.0
//
// forward and merged with elements of float, bfloat16 and float16 in every combination, precision::pairs and native, and batch_invariant: against
// float64 of the very elements that are stored, so that only the product's own roundings count.
#include <lora/linalg/merge.hpp>

#include "support/oracle.hpp"
#include "support/tiers.hpp"
#include "support/typed.hpp"

#include <doctest/doctest.h>

#include <limits>
#include <string>
#include <utility>

using lora::bfloat16;
using lora::float16;
using lora::index_t;
using lora::low_rank_term;
using lora::simd::tier;
using test::layout;
using test::typed;

namespace {

bool same_bits(const lora::ndview<const float, 2>& a, const lora::ndview<const float, 2>& b) {
  for (index_t i = 0; i < a.extent(0); ++i)
    for (index_t j = 0; j < a.extent(1); ++j)
      if (test::bits(test::at(a, i, j)) != test::bits(test::at(b, i, j))) return false;
  return true;
}

/** All that depends on the types: both factors of both terms, the bias. */
struct terms_of_all_types {
  typed<float> a1;
  typed<bfloat16> b1;
  typed<float16> a2;
  typed<float> b2;
  typed<bfloat16> a3;
  typed<float16> b3;
  std::vector<low_rank_term> terms;
  terms_of_all_types(index_t in, index_t out, std::uint64_t seed)
      : a1(5, in, layout::padded, seed),
        b1(out, 5, layout::padded, seed + 1),
        a2(17, in, static_cast<layout>(seed % test::layouts), seed + 2),
        b2(out, 17, layout::transposed, seed + 3),
        a3(1, in, layout::plain, seed + 4),
        b3(out, 1, layout::spread, seed + 5),
        terms{{std::as_const(a1).view(), std::as_const(b1).view(), 0.5f},
              {std::as_const(a2).view(), std::as_const(b2).view(), -1.5f},
              {std::as_const(a3).view(), std::as_const(b3).view(), 1.0f}} {}
};

template <class Y, class X, class W>
struct types {
  using y = Y;
  using x = X;
  using w = W;
};

}  // namespace

TEST_CASE_TEMPLATE("linalg/forward: types in combination stay inside the bound, for every tier, size class, tail and layout", C,
                   types<float, float, bfloat16>, types<float, float, float16>, types<bfloat16, bfloat16, bfloat16>,
                   types<float16, float16, float16>, types<bfloat16, float, float>, types<float, bfloat16, float>,
                   types<float, bfloat16, float16>, types<float16, bfloat16, bfloat16>) {
  using Y = typename C::y;
  lora::workspace scratch;
  double worst = 0;
  std::uint64_t problem = 0;
  for (const index_t out : {1, 7, 48, 49, 97})
    for (const index_t in : {0, 1, 2, 3, 15, 16, 17, 31, 33, 63, 64, 65, 100, 257}) {
      ++problem;
      test::random chance(problem);
      const auto any = [&] { return static_cast<layout>(chance.next() % test::layouts); };
      const typed<typename C::x> x(test::most_tokens, in, any(), 7 * problem);
      // The layout that is used in place gets half of the problems.
      const typed<typename C::w> w(out, in, problem % 2 == 0 ? layout::padded : any(), 7 * problem + 1);
      const terms_of_all_types low(in, out, 7 * problem + 2);
      const typed<bfloat16> bias_column(out, 1, layout::spread, 7 * problem + 3);
      const lora::float_view<1> bias =
          lora::ndview(std::as_const(bias_column).view().data(), lora::extents{out}, lora::strides{bias_column.view().stride(0)});
      const test::expected want(x.view(), w.view(), low.terms, bias, lora::dtype_of<Y>);
      test::for_each_tier([&](tier t) {
        for (const index_t n : test::batch_sizes) {
          if ((static_cast<std::uint64_t>(n) + problem) % 3 != 0) continue;
          typed<Y> y(n, out, any(), 1);
          lora::forward(y.view(), x.first(n), w.view(), low.terms, bias, scratch, {.tier = t});
          const double ratio = want.worst(std::as_const(y).view());
          worst = std::max(worst, ratio);
          CAPTURE(n);
          CAPTURE(out);
          CAPTURE(in);
          CAPTURE(std::string(lora::simd::name_of(t)));
          REQUIRE(ratio <= 1.0);
        }
      });
    }
  MESSAGE("largest error " << worst << " of the bound");
}

TEST_CASE("linalg/forward: 16-bit weights give the bits of the same weights as floats") {
  lora::workspace scratch;
  // 64 elements of a row are widened at a time, the rest in registers.
  for (const index_t in : {5, 63, 64, 65, 100, 128, 191, 193}) {
    const typed<bfloat16> w(53, in, layout::padded, 1);
    const typed<float16> v(53, in, layout::padded, 2);
    lora::ndarray<float, 2> w_floats = lora::uninit<float>(index_t{53}, in);
    lora::ndarray<float, 2> v_floats = lora::uninit<float>(index_t{53}, in);
    for (index_t i = 0; i < 53; ++i)
      for (index_t j = 0; j < in; ++j) {
        w_floats(i, j) = static_cast<float>(w.view()(i, j));
        v_floats(i, j) = static_cast<float>(v.view()(i, j));
      }
    const typed<float> x(test::most_tokens, in, layout::padded, 3);
    const terms_of_all_types low(in, 53, 4);
    test::for_each_tier([&](tier t) {
      for (const index_t n : test::batch_sizes) {
        auto a = lora::uninit<float>(n, 53);
        auto b = lora::uninit<float>(n, 53);
        lora::forward(a, x.first(n), w.view(), low.terms, {}, scratch, {.tier = t});
        lora::forward(b, x.first(n), w_floats, low.terms, {}, scratch, {.tier = t});
        CAPTURE(n);
        REQUIRE(same_bits(a.view(), b.view()));
        lora::forward(a, x.first(n), v.view(), low.terms, {}, scratch, {.tier = t});
        lora::forward(b, x.first(n), v_floats, low.terms, {}, scratch, {.tier = t});
        REQUIRE(same_bits(a.view(), b.view()));
      }
    });
  }
}

TEST_CASE_TEMPLATE("linalg/forward: 16-bit weights give the same bits for any number of tasks", W, bfloat16, float16) {
  lora::workspace scratch;
  constexpr index_t out = 1030;
  constexpr index_t in = 261;  // 0.5 MiB of W: enough to be split
  const typed<W> w(out, in, layout::padded, 1);
  const typed<float> x(test::most_tokens, in, layout::padded, 2);
  const terms_of_all_types low(in, out, 3);
  std::size_t most_tasks = 0;
  for (const index_t n : {1, 2, 4, 7, 12, 16, 24, 40, 64, 130}) {
    auto serial = lora::uninit<float>(n, out);
    auto split = lora::uninit<float>(n, out);
    lora::forward(serial, x.first(n), w.view(), low.terms, {}, scratch);
    for (const std::size_t threads : {2u, 3u, 7u}) {
      test::backward_executor ex{threads};
      lora::forward(split, x.first(n), w.view(), low.terms, {}, scratch, ex);
      most_tasks = std::max(most_tasks, ex.most_seen);
      CAPTURE(n);
      CAPTURE(threads);
      REQUIRE(same_bits(serial.view(), split.view()));
    }
  }
  CHECK(most_tasks == 7);
}

TEST_CASE("linalg/forward: rows of 16 bits that are fetched ahead, from a W too large for a cache, have the same bits") {
  lora::workspace scratch;
  // Over the threshold of prefetching, which looks past the end of each row and of W.
  constexpr index_t out = 1025;
  constexpr index_t in = 4133;
  const typed<bfloat16> w(out, in, layout::plain, 1);
  const typed<float> x(64, in, layout::plain, 2);
  const lora::ndview<const bfloat16, 2> some(w.view().data(), {40, in}, w.view().stride());
  for (const index_t n : {1, 3, 8, 16, 64}) {
    auto all = lora::uninit<float>(n, out);
    auto few = lora::uninit<float>(n, 40);
    lora::forward(all, x.first(n), w.view(), {}, {}, scratch);
    lora::forward(few, x.first(n), some, {}, {}, scratch);
    CAPTURE(n);
    REQUIRE(same_bits(std::as_const(all)(lora::all, lora::range(0, 40)), few.view()));
  }
}

TEST_CASE(
    "linalg/forward: precision::pairs stays inside the bound, uses its kernels where it can, is exact where it cannot; native chooses") {
  lora::workspace scratch;
  const bool pairs = lora::simd::has_pairs(lora::simd::any_tier);
  if (!pairs) MESSAGE("skipped, not on this CPU: tier avx512_bf16");
  double worst = 0;
  bool differs = false;
  for (const index_t out : {1, 48, 49, 97})
    for (const index_t in : {0, 1, 2, 3, 31, 32, 33, 63, 100, 257}) {
      const auto seed = static_cast<std::uint64_t>(out * 1000 + in);
      for (const layout l : {layout::padded, layout::transposed}) {
        const typed<bfloat16> x(test::most_tokens, in, l, seed);
        const typed<bfloat16> w(out, in, l, seed + 1);
        const terms_of_all_types low(in, out, seed + 2);
        const test::expected want(x.view(), w.view(), low.terms, {});
        for (const index_t n : test::batch_sizes) {
          auto y = lora::uninit<float>(n, out);
          auto exact = lora::uninit<float>(n, out);
          lora::forward(y, x.first(n), w.view(), low.terms, {}, scratch, {.precision = lora::precision::pairs});
          lora::forward(exact, x.first(n), w.view(), low.terms, {}, scratch);
          const double ratio = want.worst(lora::ndview<const float, 2>(y.view()));
          worst = std::max(worst, ratio);
          CAPTURE(n);
          CAPTURE(out);
          CAPTURE(in);
          REQUIRE(ratio <= 1.0);
          differs = differs || !same_bits(y.view(), exact.view());
          // Below its tier, and where x is not bfloat16: the exact product.
          auto chosen = lora::uninit<float>(n, out);
          lora::forward(chosen, x.first(n), w.view(), low.terms, {}, scratch, {.precision = lora::precision::native});
          REQUIRE(same_bits(chosen.view(), lora::simd::best_in_pairs() ? y.view() : exact.view()));
          for (const auto precision : {lora::precision::native, lora::precision::pairs}) {
            lora::forward(y, x.first(n), w.view(), low.terms, {}, scratch, {.tier = tier::avx512, .precision = precision});
            REQUIRE(same_bits(y.view(), exact.view()));
          }
        }
      }
    }
  CHECK(differs == pairs);
  MESSAGE("largest error " << worst << " of the bound");
}

TEST_CASE_TEMPLATE("linalg/forward: batch_invariant gives a row the same bits alone and anywhere in any batch", C,
                   types<float, float, float>, types<float, bfloat16, bfloat16>) {
  using X = typename C::x;
  lora::workspace scratch;
  constexpr index_t in = 133;
  constexpr index_t out = 55;
  const typed<X> x(test::most_tokens, in, layout::padded, 1);
  const typed<typename C::w> w(out, in, layout::padded, 2);
  const terms_of_all_types low(in, out, 3);
  for (const auto precision : {lora::precision::exact, lora::precision::pairs})
    test::for_each_tier([&](tier t) {
      lora::forward_options options{.tier = t, .precision = precision, .batch_invariant = true};
      if (t == tier::avx512) options.tier = lora::simd::any_tier;
      auto alone = lora::uninit<float>(test::most_tokens, out);
      for (index_t m = 0; m < test::most_tokens; ++m)
        lora::forward(alone(lora::range(m, m + 1)), x.view()(lora::range(m, m + 1)), w.view(), low.terms, {}, scratch, options);
      test::random chance(4);
      bool plain_differs = false;
      for (const index_t n : test::batch_sizes) {
        auto y = lora::uninit<float>(n, out);
        const auto from = static_cast<index_t>(chance.next() % static_cast<std::uint64_t>(test::most_tokens - n + 1));
        const auto rows = lora::range(from, from + n);
        lora::forward(y, x.view()(rows), w.view(), low.terms, {}, scratch, options);
        CAPTURE(n);
        REQUIRE(same_bits(y.view(), std::as_const(alone)(rows)));
        lora::forward(y, x.view()(rows), w.view(), low.terms, {}, scratch, {.tier = options.tier, .precision = precision});
        plain_differs = plain_differs || !same_bits(y.view(), std::as_const(alone)(rows));
      }
      CHECK(plain_differs);  // else the option would change nothing and this test could not fail
    });
}

TEST_CASE_TEMPLATE("linalg/merge: W of every type: one f32 chain, one rounding", T, float, bfloat16, float16) {
  for (const index_t in : {0, 1, 17, 130}) {
    for (const layout l : {layout::padded, layout::transposed, layout::columns_reversed}) {
      constexpr index_t out = 21;
      const typed<T> w(out, in, l, 1);
      const terms_of_all_types low(in, out, 2);
      test::for_each_tier([&](tier t) {
        const lora::ndarray<T, 2> merged = lora::merged(w.view(), low.terms, {.tier = t});
        REQUIRE(merged.shape() == w.view().shape());
        for (index_t i = 0; i < out; ++i)
          for (index_t j = 0; j < in; ++j) {
            double value = static_cast<double>(static_cast<float>(w.view()(i, j)));
            double bound = test::gamma(23) * std::abs(value);
            for (const auto& term : low.terms)
              for (index_t r = 0; r < term.a.extent(0); ++r) {
                const double p = static_cast<double>(term.scale) * static_cast<double>(term.b(i, r)) * static_cast<double>(term.a(r, j));
                value += p;
                bound += test::gamma(25) * std::abs(p);
              }
            if (!std::is_same_v<T, float>)
              bound += test::roundoff(lora::dtype_of<T>) * (std::abs(value) + bound) + test::smallest(lora::dtype_of<T>);
            REQUIRE(std::abs(static_cast<double>(static_cast<float>(merged(i, j))) - value) <= bound);
          }
      });
    }
  }
}
