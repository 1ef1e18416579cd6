// SPDX-License-Identifier: Apache-2.0
//
// forward against float64, for every tier: sizes that straddle every edge, all layouts, terms, special values.
#include "support/oracle.hpp"
#include "support/tiers.hpp"

#include <doctest/doctest.h>

#include <limits>
#include <memory>
#include <string>
#include <utility>

using lora::index_t;
using lora::low_rank_term;
using lora::simd::tier;
using test::layout;
using test::matrix;

namespace {

constexpr float inf = std::numeric_limits<float>::infinity();
constexpr float quiet_nan = std::numeric_limits<float>::quiet_NaN();

/** A bias with stride 3. */
struct bias_of {
  matrix column;
  bias_of(index_t n, std::uint64_t seed) : column(n, 1, layout::spread, seed) {}
  [[nodiscard]] lora::ndview<const float, 1> strided() const {
    return {column.view().data(), {column.view().extent(0)}, {column.view().stride(0)}};
  }
};

lora::ndview<const float, 2> first_rows(const matrix& m, index_t n) {
  return {m.view().data(), {n, m.view().extent(1)}, m.view().stride()};
}

bool same_bits(lora::ndview<const float, 2> a, lora::ndview<const float, 2> b) {
  for (index_t i = 0; i < a.extent(0); ++i)
    for (index_t j = 0; j < a.extent(1); ++j)
      if (test::bits(test::at(a, i, j)) != test::bits(test::at(b, i, j))) return false;
  return true;
}

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(undefined_behavior_sanitizer)
#define LORA_TEST_SANITIZED
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define LORA_TEST_SANITIZED
#endif
#if !defined(__OPTIMIZE__)
constexpr bool quick = true;  // unoptimised kernels are a hundred times slower
constexpr std::uint64_t every = 7;
#elif defined(LORA_TEST_SANITIZED) || defined(LORA_TEST_EMULATED)
constexpr bool quick = false;
constexpr std::uint64_t every = 3;  // prime to the 8 ranks and 8 depths, so that each of them still comes
#else
constexpr bool quick = false;
constexpr std::uint64_t every = 1;
#endif

}  // namespace

TEST_CASE("linalg/forward: stays inside the rounding bound for every tier, size class, tail and layout") {
  double worst[lora::simd::tier_count] = {};
  double worst_long[lora::simd::tier_count] = {};
  lora::workspace scratch;
  std::uint64_t problem = 0;
  for (const index_t out : {0, 1, 5, 7, 8, 47, 48, 49, 97})
    for (const index_t in : {0, 1, 3, 15, 16, 17, 33, 100})
      for (const index_t rank : {0, 1, 3, 15, 16, 17, 33, 129}) {
        ++problem;
        if (problem % every != 0) continue;
        // Layouts by chance, the same in each run: all pairs meet over the 576 problems.
        test::random chance(problem);
        const auto any = [&] { return static_cast<layout>(chance.next() % test::layouts); };
        const matrix x(test::most_tokens, in, any(), 7 * problem);
        const matrix w(out, in, any(), 7 * problem + 1);
        const matrix a(rank, in, any(), 7 * problem + 2);
        const matrix b(out, rank, any(), 7 * problem + 3);
        const bias_of bias(out, 7 * problem + 4);
        const bool with_bias = chance.next() % 2 == 0;
        const lora::ndview<const float, 1> bias_view = with_bias ? bias.strided() : lora::ndview<const float, 1>();
        const low_rank_term term{a.view(), b.view(), chance.next() % 2 == 0 ? -1.7f : 0.6f};
        const std::span<const low_rank_term> terms(&term, 1);
        const test::expected want(x.view(), w.view(), terms, bias_view);
        test::for_each_tier([&](tier t) {
          for (const index_t n : test::batch_sizes) {
            if (quick && n > 1 && (static_cast<std::uint64_t>(n) + problem) % 3 != 0) continue;
            matrix y(n, out, any());
            lora::forward(y.view(), first_rows(x, n), w.view(), terms, bias_view, scratch, {.tier = t});
            const double ratio = want.worst(y.view());
            auto& most = worst[static_cast<unsigned>(t)];
            most = std::max(most, ratio);
            CAPTURE(n);
            CAPTURE(out);
            CAPTURE(in);
            CAPTURE(rank);
            CAPTURE(problem);
            CAPTURE(lora::simd::name_of(t));
            REQUIRE(ratio <= 1.0);
            REQUIRE(y.surroundings_untouched());
            // Errors of random data mostly cancel. A single rounding to 16 bits on the way would not pass this.
            if (want.roundings() >= 48) {
              auto& longest = worst_long[static_cast<unsigned>(t)];
              longest = std::max(longest, ratio);
              REQUIRE(ratio <= 0.1);
            }
          }
        });
      }
  test::for_each_tier([&](tier t) {
    MESSAGE(std::string(lora::simd::name_of(t)) << ": largest error " << worst[static_cast<unsigned>(t)] << " of the bound, "
                                                << worst_long[static_cast<unsigned>(t)] << " where in + rank >= 48");
  });
}

TEST_CASE("linalg/forward: no tokens, no rows") {
  lora::workspace scratch;
  const matrix w(5, 3, layout::plain, 1);
  const matrix x(0, 3, layout::plain, 2);
  matrix y(0, 5, layout::plain);
  lora::forward(y.view(), x.view(), w.view(), {}, {}, scratch);
  CHECK(scratch.size_bytes() == 0);
  CHECK(lora::forward_workspace_bytes(0, w.view(), {}) == 0);
  // Default-constructed views, and owning arrays without elements: null pointers.
  lora::forward(lora::ndview<float, 2>(), lora::ndview<const float, 2>(), lora::ndview<const float, 2>(), {}, {}, scratch);
}

TEST_CASE("linalg/forward: in = 0 gives the bias, also where the pointers are null") {
  lora::workspace scratch;
  const bias_of bias(97, 3);
  const float* nothing = nullptr;
  test::for_each_tier([&](tier t) {
    for (const index_t n : {1, 2, 7, 16, 65, 130}) {
      matrix y(n, 97, layout::padded);
      matrix z(n, 97, layout::transposed);
      const lora::ndview<const float, 2> x(nothing, {n, 0});
      const lora::ndview<const float, 2> w(nothing, {97, 0});
      const matrix b(97, 3, layout::plain, 4);
      const low_rank_term terms[] = {{{nothing, {3, 0}}, b.view(), 2.0f}, {{nothing, {0, 0}}, {nothing, {97, 0}}, 2.0f}};
      lora::forward(y.view(), x, w, terms, bias.strided(), scratch, {.tier = t});
      lora::forward(z.view(), x, w, terms, {}, scratch, {.tier = t});
      for (index_t i = 0; i < n; ++i)
        for (index_t j = 0; j < 97; ++j) {
          REQUIRE(y(i, j) == bias.column(j, 0));
          REQUIRE(z(i, j) == 0.0f);
        }
    }
  });
}

TEST_CASE("linalg/forward: several terms of different ranks, each with its own scale, in list order") {
  lora::workspace scratch;
  constexpr index_t in = 41;
  constexpr index_t out = 53;
  const matrix x(test::most_tokens, in, layout::padded, 1);
  const matrix w(out, in, layout::padded, 2);
  const index_t ranks[] = {3, 17, 0, 1, 8, 16};
  const float scales[] = {-0.5f, 2.0f, 1.0f, 0.0f, 0.25f, -1.0f};
  std::vector<std::unique_ptr<matrix>> kept;
  std::vector<low_rank_term> terms;
  for (std::size_t i = 0; i < 6; ++i) {
    kept.push_back(std::make_unique<matrix>(ranks[i], in, static_cast<layout>(i), 10 + i));
    const auto a = std::as_const(*kept.back()).view();
    kept.push_back(std::make_unique<matrix>(out, ranks[i], static_cast<layout>(5 - i), 20 + i));
    terms.push_back({a, std::as_const(*kept.back()).view(), scales[i]});
  }
  test::for_each_tier([&](tier t) {
    for (std::size_t used = 0; used <= terms.size(); ++used) {
      const std::span<const low_rank_term> some(terms.data(), used);
      const test::expected want(x.view(), w.view(), some, {});
      for (const index_t n : test::batch_sizes) {
        matrix y(n, out, layout::plain);
        lora::forward(y.view(), first_rows(x, n), w.view(), some, {}, scratch, {.tier = t});
        CAPTURE(n);
        CAPTURE(used);
        REQUIRE(want.worst(y.view()) <= 1.0);
      }
    }
  });
}

TEST_CASE("linalg/forward: a scale of 0 switches a term off, whatever it holds, bit for bit") {
  lora::workspace scratch;
  const matrix x(33, 20, layout::plain, 1);
  const matrix w(30, 20, layout::plain, 2);
  matrix a(4, 20, layout::plain, 3);
  matrix b(30, 4, layout::plain, 4);
  const low_rank_term used{a.view(), b.view(), 1.5f};
  matrix bad_a(4, 20, layout::plain);
  matrix bad_b(30, 4, layout::plain);
  bad_a.for_each([](float& f, index_t i, index_t) { f = i % 2 == 0 ? inf : quiet_nan; });
  bad_b.for_each([](float& f, index_t, index_t) { f = inf; });
  test::for_each_tier([&](tier t) {
    for (const float off : {0.0f, -0.0f})
      for (const index_t n : {1, 2, 5, 16, 33}) {
        const low_rank_term with[] = {{bad_a.view(), bad_b.view(), off}, used, {bad_a.view(), bad_b.view(), off}};
        matrix y(n, 30, layout::plain);
        matrix z(n, 30, layout::plain);
        lora::forward(y.view(), first_rows(x, n), w.view(), {&used, 1}, {}, scratch, {.tier = t});
        lora::forward(z.view(), first_rows(x, n), w.view(), with, {}, scratch, {.tier = t});
        CHECK(same_bits(y.view(), z.view()));
      }
  });
}

TEST_CASE("linalg/forward: bits do not depend on the executor, its concurrency or the order of its tasks") {
  lora::workspace scratch;
  constexpr index_t in = 301;
  constexpr index_t out = 499;  // 10 tiles and a short one
  const matrix x(test::most_tokens, in, layout::plain, 1);
  const matrix w(out, in, layout::padded, 2);
  const matrix a(5, in, layout::padded, 3);
  const matrix b(out, 5, layout::plain, 4);
  const bias_of bias(out, 5);
  const low_rank_term term{a.view(), b.view(), 0.5f};
  std::size_t most_tasks = 0;
  test::for_each_tier([&](tier t) {
    for (const index_t n : {1, 3, 8, 17, 64, 65, 130}) {
      if (quick && n > 17) continue;
      matrix y(n, out, layout::plain);
      lora::forward(y.view(), first_rows(x, n), w.view(), {&term, 1}, bias.strided(), scratch, {.tier = t});
      for (const std::size_t threads : {1u, 2u, 3u, 7u, 64u}) {
        test::backward_executor ex{threads};
        matrix z(n, out, layout::plain);
        lora::forward(z.view(), first_rows(x, n), w.view(), {&term, 1}, bias.strided(), scratch, ex, {.tier = t});
        most_tasks = std::max(most_tasks, ex.most_seen);
        CAPTURE(n);
        CAPTURE(threads);
        REQUIRE(same_bits(y.view(), z.view()));
      }
    }
  });
  CHECK(most_tasks > 7);  // otherwise nothing was split
}

TEST_CASE("linalg/forward: a row's bits do not depend on its place in the batch or on the other rows, NaN and Inf included") {
  lora::workspace scratch;
  constexpr index_t in = 37;
  constexpr index_t out = 50;
  const matrix row(1, in, layout::plain, 1);
  const matrix w(out, in, layout::plain, 2);
  const matrix a(5, in, layout::plain, 3);
  const matrix b(out, 5, layout::plain, 4);
  const low_rank_term term{a.view(), b.view(), 0.5f};
  test::for_each_tier([&](tier t) {
    for (const index_t n : test::batch_sizes) {
      matrix want(1, out, layout::plain);
      for (index_t place = 0; place<n; place += n> 40 ? 9 : 1) {
        matrix x(n, in, layout::padded, static_cast<std::uint64_t>(100 * n + place));
        x.for_each([&](float& f, index_t i, index_t k) {
          if (i == place)
            f = row(0, k);
          else if (place % 3 == 1)
            f = (i + k) % 2 == 0 ? quiet_nan : inf;
        });
        matrix y(n, out, layout::plain);
        lora::forward(y.view(), x.view(), w.view(), {&term, 1}, {}, scratch, {.tier = t});
        if (place == 0) want.for_each([&](float& f, index_t, index_t j) { f = y(0, j); });
        CAPTURE(n);
        CAPTURE(place);
        REQUIRE(std::isfinite(y(place, 0)));
        for (index_t j = 0; j < out; ++j) REQUIRE(test::bits(y(place, j)) == test::bits(want(0, j)));
      }
    }
  });
}

TEST_CASE("linalg/forward: an output's bits do not depend on its place among the rows of W, or on the other rows") {
  lora::workspace scratch;
  constexpr index_t in = 37;
  const matrix row(1, in, layout::plain, 1);
  const matrix low(1, 5, layout::plain, 5);
  const matrix a(5, in, layout::plain, 3);
  test::for_each_tier([&](tier t) {
    for (const index_t n : {1, 2, 4, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64, 130}) {
      const matrix x(n, in, layout::plain, 2);
      std::vector<float> want;
      for (const index_t out : {1, 3, 6, 7, 8, 9, 47, 48, 49, 50, 55, 97, 101}) {
        if (quick && n * out > 1000) continue;
        for (index_t place = 0; place<out; place += out> 20 ? 11 : 1) {
          matrix w(out, in, layout::padded);
          matrix b(out, 5, layout::padded);
          w.for_each([&](float& f, index_t i, index_t k) { f = i == place ? row(0, k) : quiet_nan; });
          b.for_each([&](float& f, index_t i, index_t k) { f = i == place ? low(0, k) : inf; });
          const low_rank_term term{a.view(), b.view(), 0.5f};
          matrix y(n, out, layout::plain);
          lora::forward(y.view(), x.view(), w.view(), {&term, 1}, {}, scratch, {.tier = t});
          if (want.empty())
            for (index_t i = 0; i < n; ++i) want.push_back(y(i, place));
          CAPTURE(n);
          CAPTURE(out);
          CAPTURE(place);
          for (index_t i = 0; i < n; ++i) REQUIRE(test::bits(y(i, place)) == test::bits(want[static_cast<std::size_t>(i)]));
        }
      }
    }
  });
}

TEST_CASE("linalg/forward: Inf and NaN go where IEEE arithmetic sends them, and nowhere else") {
  lora::workspace scratch;
  constexpr index_t in = 19;
  constexpr index_t out = 21;
  const matrix w(out, in, layout::plain, 2);
  const matrix a(3, in, layout::plain, 3);
  const matrix b(out, 3, layout::plain, 4);
  const low_rank_term term{a.view(), b.view(), 0.5f};
  test::for_each_tier([&](tier t) {
    for (const index_t n : {1, 2, 4, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64, 65}) {
      const matrix clean(n, in, layout::plain, 1);
      matrix want(n, out, layout::plain);
      lora::forward(want.view(), clean.view(), w.view(), {&term, 1}, {}, scratch, {.tier = t});
      for (const index_t k : {0, 7, 18})
        for (const float special : {quiet_nan, inf, -inf}) {
          const index_t place = n / 2;
          matrix x(n, in, layout::plain);
          x.copy_from(clean);
          x(place, k) = special;
          matrix y(n, out, layout::plain);
          lora::forward(y.view(), x.view(), w.view(), {&term, 1}, {}, scratch, {.tier = t});
          for (index_t i = 0; i < n; ++i)
            for (index_t j = 0; j < out; ++j)
              if (i == place)
                REQUIRE(!std::isfinite(y(i, j)));
              else
                REQUIRE(test::bits(y(i, j)) == test::bits(want(i, j)));

          matrix wide(out, in, layout::plain);
          wide.copy_from(w);
          wide(9, k) = special;
          lora::forward(y.view(), clean.view(), wide.view(), {&term, 1}, {}, scratch, {.tier = t});
          for (index_t i = 0; i < n; ++i)
            for (index_t j = 0; j < out; ++j)
              if (j == 9)
                REQUIRE(!std::isfinite(y(i, j)));
              else
                REQUIRE(test::bits(y(i, j)) == test::bits(want(i, j)));
        }
    }
  });
}

TEST_CASE("linalg/forward: subnormal numbers are computed with, not flushed") {
  lora::workspace scratch;
  test::for_each_tier([&](tier t) {
    for (const index_t n : {1, 2, 4, 8, 16, 17, 64, 70}) {
      matrix x(n, 40, layout::plain, 1);
      matrix w(30, 40, layout::plain, 2);
      x.for_each([](float& f, index_t, index_t) { f *= 0x1p-70f; });
      w.for_each([](float& f, index_t, index_t) { f *= 0x1p-68f; });
      const matrix a(3, 40, layout::plain, 3);
      matrix b(30, 3, layout::plain, 4);
      b.for_each([](float& f, index_t, index_t) { f *= 0x1p-70f; });
      const low_rank_term term{a.view(), b.view(), 0.5f};
      const test::expected want(x.view(), w.view(), {&term, 1}, {});
      matrix y(n, 30, layout::plain);
      lora::forward(y.view(), x.view(), w.view(), {&term, 1}, {}, scratch, {.tier = t});
      CHECK(want.worst(y.view()) <= 1.0);
      int subnormal = 0;
      y.for_each([&](float& f, index_t, index_t) { subnormal += std::fpclassify(f) == FP_SUBNORMAL; });
      CHECK(subnormal > 0);
    }
  });
}

TEST_CASE("linalg/forward: a broadcast W, x or bias is read as it looks") {
  lora::workspace scratch;
  const matrix one(1, 12, layout::plain, 1);
  const matrix x(9, 12, layout::plain, 2);
  const lora::ndview<const float, 2> w(one.view().data(), {50, 12}, lora::strides{0, 1});
  const lora::ndview<const float, 1> bias(one.view().data(), {50}, lora::strides{0});
  const test::expected want(x.view(), w, {}, bias);
  test::for_each_tier([&](tier t) {
    matrix y(9, 50, layout::plain);
    lora::forward(y.view(), x.view(), w, {}, bias, scratch, {.tier = t});
    CHECK(want.worst(y.view()) <= 1.0);
    const lora::ndview<const float, 2> same(one.view().data(), {9, 12}, lora::strides{0, 1});
    lora::forward(y.view(), same, w, {}, bias, scratch, {.tier = t});
    CHECK(test::expected(same, w, {}, bias).worst(y.view()) <= 1.0);
  });
}

#if LORA_HAS_EXCEPTIONS

namespace {

template <class F>
std::string message_of(F f) {
  try {
    f();
  } catch (const lora::shape_error& e) {
    return e.what();
  }
  return "nothing was thrown";
}

}  // namespace

TEST_CASE("linalg/forward: a wrong shape is refused with both shapes, and y is untouched") {
  lora::workspace scratch;
  const matrix x(4, 12, layout::plain, 1);
  const matrix w(7, 12, layout::plain, 2);
  const matrix a(3, 12, layout::plain, 3);
  const matrix b(7, 3, layout::plain, 4);
  const matrix other(5, 6, layout::plain, 5);
  const matrix wide(4, 13, layout::plain, 6);
  matrix y(4, 7, layout::plain, 7);
  matrix before(4, 7, layout::plain);
  before.copy_from(y);
  const low_rank_term good{a.view(), b.view(), 1.0f};
  const auto call = [&](lora::ndview<float, 2> to, lora::ndview<const float, 2> from, lora::ndview<const float, 2> weight,
                        low_rank_term second, lora::ndview<const float, 1> bias) {
    const low_rank_term terms[] = {good, second};
    return message_of([&] { lora::forward(to, from, weight, terms, bias, scratch); });
  };
  const auto bias_of_6 = lora::ndview<const float, 1>(w.view().data(), {6});
  CHECK(call(y.view(), x.view(), other.view(), good, {}) == "forward: w is [5, 6] but x is [4, 12]");
  CHECK(call(y.view(), wide.view(), w.view(), good, {}) == "forward: w is [7, 12] but x is [4, 13]");
  CHECK(call(y.view()(lora::range(0, 3), lora::all), x.view(), w.view(), good, {}) == "forward: y is [3, 7] but x is [4, 12]");
  CHECK(call(y.view()(lora::all, lora::range(0, 6)), x.view(), w.view(), good, {}) == "forward: y is [4, 6] but w is [7, 12]");
  CHECK(call(y.view(), x.view(), w.view(), good, bias_of_6) == "forward: bias is [6] but w is [7, 12]");
  CHECK(call(y.view(), x.view(), w.view(), {wide.view(), b.view(), 1.0f}, {}) == "forward: a is [4, 13] but x is [4, 12] (term 1)");
  CHECK(call(y.view(), x.view(), w.view(), {a.view(), other.view(), 1.0f}, {}) == "forward: b is [5, 6] but w is [7, 12] (term 1)");
  CHECK(call(y.view(), x.view(), w.view(), {a.view(), w.view(), 1.0f}, {}) == "forward: b is [7, 12] but a is [3, 12] (term 1)");
  // A term that is switched off must fit too: it may be switched on by the next request.
  CHECK(call(y.view(), x.view(), w.view(), {a.view(), w.view(), 0.0f}, {}) == "forward: b is [7, 12] but a is [3, 12] (term 1)");
  const lora::ndview<float, 2> narrow(y.view().data(), {4, 7}, lora::strides{0, 1});
  CHECK(call(narrow, x.view(), w.view(), good, {}) ==
        "forward: y of shape [4, 7] has stride 0: several results would be written to one element");
  CHECK(same_bits(y.view(), before.view()));
  CHECK(scratch.size_bytes() == 0);

  // With no tokens, shapes are still checked.
  CHECK(message_of([&] {
          lora::forward(y.view()(lora::range(0, 0), lora::all), x.view()(lora::range(0, 0), lora::all), other.view(), {}, {}, scratch);
        }) == "forward: w is [5, 6] but x is [0, 12]");
}

TEST_CASE("linalg/forward: extents whose workspace does not fit the address space are refused, not overflowed") {
  lora::workspace scratch;
  const matrix y(4, 7, layout::plain, 7);
  const float one = 1;
  constexpr index_t huge = index_t{1} << 58;
  const lora::ndview<const float, 2> x(&one, {1, huge}, lora::strides{0, 0});
  const lora::ndview<const float, 2> w(&one, {7, huge}, lora::strides{0, 0});
  float out[7] = {3, 3, 3, 3, 3, 3, 3};
  CHECK(message_of([&] {
          lora::forward(lora::ndview<float, 2>(out, {1, 7}), x, w, {}, {}, scratch);
        }) == "forward: the workspace for these extents does not fit the address space");
  const lora::ndview<const float, 2> thin_w(&one, {7, 3}, lora::strides{0, 0});
  const lora::ndview<const float, 2> thin_x(&one, {1, 3}, lora::strides{0, 0});
  const low_rank_term term{{&one, {huge, 3}, lora::strides{0, 0}}, {&one, {7, huge}, lora::strides{0, 0}}, 1.0f};
  const low_rank_term terms[] = {term, term, term, term, term, term, term, term, term, term, term, term, term, term, term, term, term,
                                 term, term, term, term, term, term, term, term, term, term, term, term, term, term, term, term};
  CHECK(message_of([&] {
          lora::forward(lora::ndview<float, 2>(out, {1, 7}), thin_x, thin_w, terms, {}, scratch);
        }) == "forward: the workspace for these extents does not fit the address space");
  for (const float f : out) CHECK(f == 3);
}

#endif
