// SPDX-License-Identifier: Apache-2.0
//
// What an update holds beside its terms: the bias and the row factor, in forward, merged and merged_bias; and row_norms, which the factor of
// DoRA is made from.
#include "support/oracle.hpp"
#include "support/tiers.hpp"

#include <lora/linalg/merge.hpp>
#include <lora/linalg/row_norms.hpp>
#include <lora/parallel/thread_pool.hpp>

#include <doctest/doctest.h>

#include <string>

using lora::index_t;
using lora::low_rank_term;
using lora::low_rank_update;
using lora::simd::tier;
using test::layout;
using test::matrix;

namespace {

std::vector<float> numbers(index_t n, std::uint64_t seed, float offset = 0) {
  test::random r(seed);
  std::vector<float> v(static_cast<std::size_t>(n));
  for (float& f : v) f = r.number() + offset;
  return v;
}

/** W, two terms of different rank, and vectors for the outputs. */
struct problem {
  problem(index_t out, index_t in, layout l)
      : w(out, in, l, 1), a1(5, in, layout::plain, 2), b1(out, 5, layout::padded, 3), a2(17, in, l, 4), b2(out, 17, layout::plain, 5) {
    terms = {{a1.view(), b1.view(), 0.75f}, {a2.view(), b2.view(), -1.5f}};
    factor = numbers(out, 6);
    more = numbers(out, 7);
    base = numbers(out, 8);
  }
  /** kind: 1 a bias of the update, 2 a factor, 4 in place of the base's bias. */
  [[nodiscard]] low_rank_update update(int kind) const {
    low_rank_update u(terms);
    if (kind & 1) u.bias = more;
    if (kind & 2) u.row_factor = factor;
    u.replaces_bias = (kind & 4) != 0;
    return u;
  }
  [[nodiscard]] lora::float_view<1> base_bias() const { return lora::ndview<const float, 1>(base.data(), {base.size()}); }

  matrix w, a1, b1, a2, b2;
  std::vector<low_rank_term> terms;
  std::vector<float> factor, more, base;
};

}  // namespace

TEST_CASE("linalg/update: factor and biases stay inside the bound, for every tier, batch size, layout and way") {
  double worst = 0;
  double worst_long = 0;
  for (const auto& [out, in] : {std::pair<index_t, index_t>{1, 3}, {50, 7}, {97, 64}, {130, 33}})
    for (const layout l : {layout::plain, layout::transposed, layout::spread}) {
      const problem p(out, in, l);
      for (const index_t n : {1, 2, 7, 8, 17, 33, 65}) {
        const matrix x(n, in, layout::padded, 9);
        for (int kind = 0; kind < 8; ++kind)
          for (const bool has_base : {false, true}) {
            const lora::float_view<1> base = has_base ? p.base_bias() : lora::float_view<1>{};
            const low_rank_update update = p.update(kind);
            const test::expected want(x.view(), p.w.view(), update, base);
            test::for_each_tier([&](tier t) {
              CAPTURE(out);
              CAPTURE(in);
              CAPTURE(n);
              CAPTURE(kind);
              CAPTURE(has_base);
              lora::workspace scratch;
              matrix y(n, out, kind % 2 == 0 ? layout::plain : layout::padded);
              lora::forward(y.view(), x.view(), p.w.view(), update, base, scratch, {.tier = t});
              const double ratio = want.worst(y.view());
              REQUIRE(ratio <= 1);
              REQUIRE(y.surroundings_untouched());
              worst = std::max(worst, ratio);
              if (want.roundings() >= 48) worst_long = std::max(worst_long, ratio);
            });
          }
      }
    }
  CHECK(worst_long < 0.5);  // the product with the factor and the sum of biases are single roundings, which can reach their bound
  MESSAGE("largest error " << worst << " of the bound, " << worst_long << " where in + ranks >= 48");
}

TEST_CASE("linalg/update: the bits are those of the same sums, multiplied, rounded, and the biases added") {
  const problem p(97, 64, layout::plain);
  test::for_each_tier([&](tier t) {
    for (const layout l : {layout::plain, layout::transposed})
      for (const index_t n : {1, 5, 16, 33}) {
        const problem q(97, 64, l);
        const matrix x(n, 64, layout::plain, 9);
        lora::workspace scratch;
        matrix plain(n, 97, layout::plain);
        matrix y(n, 97, layout::plain);
        lora::forward(plain.view(), x.view(), q.w.view(), q.terms, {}, scratch, {.tier = t});
        lora::forward(y.view(), x.view(), q.w.view(), q.update(3), q.base_bias(), scratch, {.tier = t});
        matrix threads(n, 97, layout::plain);
        lora::thread_pool pool(2);
        lora::forward(threads.view(), x.view(), q.w.view(), q.update(3), q.base_bias(), scratch, pool, {.tier = t});
        for (index_t m = 0; m < n; ++m)
          for (index_t o = 0; o < 97; ++o) {
            const auto i = static_cast<std::size_t>(o);
            volatile float product = plain(m, o) * q.factor[i];
            volatile float bias = q.base[i] + q.more[i];
            volatile float sum = product + bias;
            REQUIRE(test::bits(y(m, o)) == test::bits(sum));
            REQUIRE(test::bits(threads(m, o)) == test::bits(sum));
          }
      }
  });
}

TEST_CASE("linalg/update: a wrong length names both, and nothing is written") {
  const problem p(6, 4, layout::plain);
  const matrix x(2, 4, layout::plain, 1);
  lora::workspace scratch;
  const auto refused = [&](const low_rank_update& u) {
    matrix y(2, 6, layout::plain);
    std::string what;
    try {
      lora::forward(y.view(), x.view(), p.w.view(), u, {}, scratch);
    } catch (const lora::shape_error& e) {
      what = e.what();
    }
    CHECK(test::bits(y(0, 0)) == test::poison_bits);
    return what;
  };
  const std::vector<float> five(5, 1.0f);
  low_rank_update u(p.terms);
  u.bias = five;
  CHECK(refused(u) == "forward: the bias of the update has 5 elements but w is [6, 4]");
  u.bias = {};
  u.row_factor = five;
  CHECK(refused(u) == "forward: the row factor of the update has 5 elements but w is [6, 4]");
  CHECK_THROWS_WITH_AS((void)lora::merged(p.w.view(), u), "merged: the row factor has 5 elements but w is [6, 4]", lora::shape_error);
}

TEST_CASE("linalg/update: merged takes the row factor, merged_bias the biases") {
  const problem p(33, 70, layout::plain);
  const lora::ndarray<float, 2> plain = lora::merged(p.w.view(), p.terms);
  const lora::ndarray<float, 2> scaled = lora::merged(p.w.view(), p.update(2));
  bool equal = true;
  for (index_t i = 0; i < 33; ++i)
    for (index_t k = 0; k < 70; ++k)
      equal = equal && test::bits(scaled(i, k)) == test::bits(plain(i, k) * p.factor[static_cast<std::size_t>(i)]);
  CHECK(equal);

  CHECK(lora::merged_bias({}, p.update(2)).size() == 0);
  const lora::ndarray<float, 1> sum = lora::merged_bias(p.base_bias(), p.update(1));
  const lora::ndarray<float, 1> replaced = lora::merged_bias(p.base_bias(), p.update(5));
  const lora::ndarray<float, 1> own = lora::merged_bias(p.base_bias(), p.update(0));
  for (index_t i = 0; i < 33; ++i) {
    const auto s = static_cast<std::size_t>(i);
    CHECK(sum(i) == p.base[s] + p.more[s]);
    CHECK(replaced(i) == p.more[s]);
    CHECK(own(i) == p.base[s]);
  }
  CHECK_THROWS_WITH_AS((void)lora::merged_bias({}, p.update(1)),
                       "merged_bias: the update has a bias of 33 elements and the base has none to add it to", lora::value_error);
}

TEST_CASE("linalg/row_norms: agrees with long double in 53 bits, for every tier, layout and tail") {
  for (const auto& [out, in] : {std::pair<index_t, index_t>{1, 1}, {3, 31}, {65, 64}, {67, 255}, {5, 300}, {66, 515}})
    for (int l = 0; l < test::layouts; ++l) {
      const problem p(out, in, static_cast<layout>(l));
      test::for_each_tier([&](tier t) {
        const std::vector<double> got = lora::row_norms(p.w.view(), p.terms, {.tier = t});
        for (index_t i = 0; i < out; ++i) {
          long double squares = 0;
          for (index_t k = 0; k < in; ++k) {
            long double e = p.w(i, k);
            for (const auto& term : p.terms)
              for (index_t j = 0; j < term.a.extent(0); ++j)
                e += static_cast<long double>(term.scale) * static_cast<long double>(test::at(term.b, i, j)) *
                     static_cast<long double>(test::at(term.a, j, k));
            squares += e * e;
          }
          const long double want = sqrtl(squares);
          CAPTURE(out);
          CAPTURE(in);
          CAPTURE(l);
          // Elements of about 2 err by 22 roundings of sums below 40; far below a rounding of f32.
          REQUIRE(std::abs(static_cast<double>(got[static_cast<std::size_t>(i)] - want)) <= 1e-13 * (1 + static_cast<double>(want)));
        }
      });
    }
}

TEST_CASE("linalg/row_norms: a row that nearly vanishes keeps its digits, where the identity of the squares has none left") {
  // w = -s b a + e with e of 2^-20: |w|^2 and the other two parts are 2^40 times the result's square.
  const index_t in = 300;
  matrix a(1, in, layout::plain, 1);
  matrix b(2, 1, layout::plain, 2);
  matrix w(2, in, layout::plain, 3);
  b(0, 0) = 1.0f;
  b(1, 0) = 0.5f;
  test::random r(4);
  long double want[2] = {};
  for (index_t i = 0; i < 2; ++i)
    for (index_t k = 0; k < in; ++k) {
      w(i, k) = -b(i, 0) * 2.0f * a(0, k) + 0x1p-20f * r.number();
      const long double e =
          static_cast<long double>(w(i, k)) + 2.0L * static_cast<long double>(b(i, 0)) * static_cast<long double>(a(0, k));
      want[i] += e * e;
    }
  const low_rank_term term{a.view(), b.view(), 2.0f};
  test::for_each_tier([&](tier t) {
    const std::vector<double> got = lora::row_norms(w.view(), {&term, 1}, {.tier = t});
    for (std::size_t i = 0; i < 2; ++i) CHECK(std::abs(got[i] / static_cast<double>(sqrtl(want[i])) - 1) < 1e-14);
  });
}
