// SPDX-License-Identifier: Apache-2.0
//
// merged against float64 and against the product that is not merged; Eigen as a second oracle for both.
#include "support/oracle.hpp"
#include "support/tiers.hpp"

#include <lora/linalg/merge.hpp>

#include <doctest/doctest.h>
#include <Eigen/Core>

#include <string>
#include <utility>

using lora::index_t;
using lora::low_rank_term;
using lora::simd::tier;
using test::layout;
using test::matrix;

namespace {

/** |merged - exact| / bound, at its largest. */
double worst_of(lora::ndview<const float, 2> got, lora::ndview<const float, 2> w, std::span<const low_rank_term> terms) {
  double ranks = 0;
  for (const auto& t : terms) ranks += t.scale != 0.0f ? static_cast<double>(t.a.extent(0)) : 0.0;
  double worst = 0;
  for (index_t i = 0; i < w.extent(0); ++i)
    for (index_t k = 0; k < w.extent(1); ++k) {
      double value = static_cast<double>(test::at(w, i, k));
      double bound = test::gamma(ranks) * std::abs(value);
      for (const auto& t : terms)
        for (index_t j = 0; j < t.a.extent(0) && t.scale != 0.0f; ++j) {
          const double p =
              static_cast<double>(t.scale) * static_cast<double>(test::at(t.b, i, j)) * static_cast<double>(test::at(t.a, j, k));
          value += p;
          bound += test::gamma(ranks + 2) * std::abs(p);
        }
      const double error = std::abs(static_cast<double>(test::at(got, i, k)) - value);
      if (error != 0 && !(error / bound <= worst)) worst = std::isnan(error / bound) ? HUGE_VAL : error / bound;
    }
  return worst;
}

using eigen_matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic>;

eigen_matrix to_eigen(lora::ndview<const float, 2> v) {
  using strided = Eigen::Map<const Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>, 0,
                             Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>>;
  return strided(v.data(), v.extent(0), v.extent(1), {v.stride(0), v.stride(1)}).cast<double>();
}

}  // namespace

TEST_CASE("linalg/merge: stays inside the rounding bound for every tier, tail and layout") {
  double worst = 0;
  std::uint64_t problem = 0;
  for (const index_t out : {0, 1, 7, 20})
    for (const index_t in : {0, 1, 3, 15, 16, 17, 63, 64, 65, 130, 260})
      for (const index_t rank : {0, 1, 3, 8, 17}) {
        ++problem;
        test::random chance(problem);
        const auto any = [&] { return static_cast<layout>(chance.next() % test::layouts); };
        const matrix w(out, in, any(), 5 * problem);
        const matrix a(rank, in, any(), 5 * problem + 1);
        const matrix b(out, rank, any(), 5 * problem + 2);
        const matrix a2(2, in, any(), 5 * problem + 3);
        const matrix b2(out, 2, any(), 5 * problem + 4);
        const low_rank_term terms[] = {{a.view(), b.view(), -0.7f}, {a2.view(), b2.view(), 0.0f}, {a2.view(), b2.view(), 1.9f}};
        test::for_each_tier([&](tier t) {
          for (std::size_t used = 0; used <= 3; ++used) {
            const auto got = lora::merged(w.view(), {terms, used}, {.tier = t});
            const double ratio = worst_of(got, w.view(), {terms, used});
            worst = std::max(worst, ratio);
            CAPTURE(out);
            CAPTURE(in);
            CAPTURE(rank);
            CAPTURE(used);
            REQUIRE(got.extent(0) == out);
            REQUIRE(got.extent(1) == in);
            REQUIRE(ratio <= 1.0);
          }
        });
      }
  MESSAGE("largest error " << worst << " of the bound");
}

TEST_CASE("linalg/merge: an element's bits do not depend on its column") {
  const matrix a(5, 1, layout::plain, 1);
  const matrix b(3, 5, layout::plain, 2);
  test::for_each_tier([&](tier t) {
    for (const index_t in : {1, 15, 64, 97}) {
      matrix w(3, in, layout::plain, 3);
      w.for_each([](float& f, index_t i, index_t) { f = 0.3f * static_cast<float>(i + 1); });
      const lora::ndview<const float, 2> same(a.view().data(), {5, in}, lora::strides{1, 0});
      matrix wide(5, in, layout::plain);
      wide.for_each([&](float& f, index_t j, index_t) { f = a(j, 0); });
      for (const auto& seen : {same, std::as_const(wide).view()}) {
        const low_rank_term term{seen, b.view(), 0.9f};
        const auto got = lora::merged(w.view(), {&term, 1}, {.tier = t});
        for (index_t i = 0; i < 3; ++i)
          for (index_t k = 0; k < in; ++k) REQUIRE(test::bits(got(i, k)) == test::bits(got(i, 0)));
      }
    }
  });
}

TEST_CASE("linalg/merge: W is never written; 1000 times merged and dropped leaves its bits, and merges to the same bits") {
  const matrix w(31, 45, layout::padded, 1);
  matrix before(31, 45, layout::plain);
  before.copy_from(w);
  const matrix a(6, 45, layout::plain, 2);
  const matrix b(31, 6, layout::plain, 3);
  const low_rank_term term{a.view(), b.view(), 1.3f};
  const auto first = lora::merged(w.view(), {&term, 1});
  for (int i = 0; i < 1000; ++i) {
    const auto again = lora::merged(w.view(), {&term, 1});
    REQUIRE(std::memcmp(again.data(), first.data(), sizeof(float) * 31 * 45) == 0);
  }
  before.for_each([&](float& f, index_t i, index_t j) { REQUIRE(test::bits(f) == test::bits(w(i, j))); });
  // With nothing to add the copy is exact.
  const low_rank_term off{a.view(), b.view(), 0.0f};
  const auto copy = lora::merged(w.view(), {&off, 1});
  before.for_each([&](float& f, index_t i, index_t j) { REQUIRE(test::bits(f) == test::bits(copy(i, j))); });
}

TEST_CASE("linalg/merge: the product with the merged matrix agrees with the unmerged one, and both with Eigen in float64") {
  lora::workspace scratch;
  constexpr index_t in = 75;
  constexpr index_t out = 53;
  const matrix x(33, in, layout::padded, 1);
  const matrix w(out, in, layout::transposed, 2);
  const matrix a(9, in, layout::spread, 3);
  const matrix b(out, 9, layout::padded, 4);
  const matrix a2(2, in, layout::plain, 5);
  const matrix b2(out, 2, layout::plain, 6);
  const low_rank_term terms[] = {{a.view(), b.view(), -1.1f}, {a2.view(), b2.view(), 0.4f}};
  const eigen_matrix first = static_cast<double>(-1.1f) * to_eigen(b.view()) * to_eigen(a.view());
  const eigen_matrix second_term = static_cast<double>(0.4f) * to_eigen(b2.view()) * to_eigen(a2.view());
  const eigen_matrix exact = to_eigen(x.view()) * (to_eigen(w.view()) + first + second_term).transpose();
  const test::expected want(x.view(), w.view(), terms, {});
  test::for_each_tier([&](tier t) {
    matrix y(33, out, layout::plain);
    lora::forward(y.view(), x.view(), w.view(), terms, {}, scratch, {.tier = t});
    CHECK(want.worst(y.view()) <= 1.0);
    const auto w2 = lora::merged(w.view(), terms, {.tier = t});
    matrix z(33, out, layout::plain);
    lora::forward(z.view(), x.view(), w2, {}, {}, scratch, {.tier = t});
    const test::expected second(x.view(), w2, {}, {});
    for (index_t m = 0; m < 33; ++m)
      for (index_t n = 0; n < out; ++n) {
        const double reference = exact(m, n);
        REQUIRE(std::abs(static_cast<double>(y(m, n)) - reference) <= 1.001 * want.bound(m, n));
        // The merged weights err by gamma(R) |W| + gamma(R + 2) |s||B||A|, which the unmerged bound covers, and the product by its own.
        REQUIRE(std::abs(static_cast<double>(z(m, n)) - reference) <= 1.001 * (want.bound(m, n) + second.bound(m, n)));
      }
  });
}

#if LORA_HAS_EXCEPTIONS

TEST_CASE("linalg/merge: a W that lies transposed, gathered 64 rows at a time, merges to the bits of the same W in rows") {
  for (const index_t out : {2, 63, 64, 65, 150})
    for (const index_t in : {2, 15, 16, 17, 100}) {
      const matrix w(out, in, layout::transposed, 1);
      const matrix a(5, in, layout::plain, 2);
      const matrix b(out, 5, layout::plain, 3);
      const low_rank_term term{a.view(), b.view(), 0.6f};
      auto rows = lora::uninit<float>(out, in);
      auto halves = lora::uninit<lora::bfloat16>(out, in);
      auto lying = lora::uninit<lora::bfloat16>(in, out);
      for (index_t i = 0; i < out; ++i)
        for (index_t k = 0; k < in; ++k) {
          rows(i, k) = w(i, k);
          halves(i, k) = lying(k, i) = lora::bfloat16(w(i, k));
        }
      const auto from_lying = lora::merged(w.view(), {&term, 1});
      const auto from_rows = lora::merged(rows, {&term, 1});
      const lora::ndview<const lora::bfloat16, 2> turned(lying.data(), {out, in}, {1, out});
      const auto halves_lying = lora::merged(turned, {&term, 1});
      const auto halves_rows = lora::merged(halves, {&term, 1});
      CAPTURE(out);
      CAPTURE(in);
      bool all = true;
      for (index_t i = 0; i < out; ++i)
        for (index_t k = 0; k < in; ++k)
          all = all && test::bits(from_lying(i, k)) == test::bits(from_rows(i, k)) && halves_lying(i, k).bits == halves_rows(i, k).bits;
      REQUIRE(all);
    }
}

TEST_CASE("linalg/merge: a term that does not fit is refused with all shapes") {
  const matrix w(7, 12, layout::plain, 1);
  const matrix a(3, 12, layout::plain, 2);
  const matrix b(7, 3, layout::plain, 3);
  const matrix other(7, 4, layout::plain, 4);
  const auto refused = [&](low_rank_term second, const std::string& message) {
    const low_rank_term terms[] = {{a.view(), b.view(), 1.0f}, second};
    CHECK_THROWS_WITH_AS((void)lora::merged(w.view(), terms), message.c_str(), lora::shape_error);
  };
  refused({other.view(), b.view(), 1.0f}, "merged: a is [7, 4] and b is [7, 3] but w is [7, 12] (term 1)");
  refused({a.view(), other.view(), 1.0f}, "merged: a is [3, 12] and b is [7, 4] but w is [7, 12] (term 1)");
  refused({a.view(), a.view(), 0.0f}, "merged: a is [3, 12] and b is [3, 12] but w is [7, 12] (term 1)");
}

#endif
