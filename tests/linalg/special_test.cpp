// SPDX-License-Identifier: Apache-2.0
//
// What docs/numerics.md promises beside the bound, for every type, tier, precision and both layouts of W that are used in place: where NaN
// and infinities go, subnormal numbers, nothing of something (no tokens, outputs, inputs or ranks), every rank, invariance to the batch.
// A value is compared with one call's bits, not with a tolerance, wherever the promise is one of bits.
#include <lora/ops/copy.hpp>

#include "support/oracle.hpp"
#include "support/tiers.hpp"
#include "support/typed.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#if LORA_X86 && defined(__SSE__)
#include <xmmintrin.h>
#endif

using lora::bfloat16;
using lora::float16;
using lora::index_t;
using lora::low_rank_term;
using lora::simd::tier;
using test::layout;
using test::typed;

namespace {

constexpr float inf = std::numeric_limits<float>::infinity();
constexpr float quiet_nan = std::numeric_limits<float>::quiet_NaN();
constexpr layout in_place[] = {layout::padded, layout::transposed};  // of W: by rows, and as GPT-2's Conv1D lies

// Every size class of every table of forms, with a batch that fills its lanes and one that does not; two turns.
constexpr index_t batches[] = {1, 2, 3, 5, 8, 11, 16, 19, 23, 32, 33, 64, 65, 130};

/** Calls f(options) for every way of computing the product of elements of T that this CPU has. */
template <class T, class F>
void for_each_way(F f) {
  test::for_each_tier([&](tier t) {
    for (const bool invariant : {false, true}) {
      CAPTURE(std::string(lora::simd::name_of(t)));
      CAPTURE(invariant);
      f(lora::forward_options{.tier = t, .batch_invariant = invariant});
    }
  });
  if constexpr (std::is_same_v<T, bfloat16>) {
    if (!lora::simd::has_pairs(lora::simd::any_tier)) {
      MESSAGE("skipped, not on this CPU: tier avx512_bf16");
      return;
    }
    for (const bool invariant : {false, true}) {
      CAPTURE(invariant);
      INFO("precision::pairs");
      f(lora::forward_options{.precision = lora::precision::pairs, .batch_invariant = invariant});
    }
  }
}

template <class T>
void set(typed<T>& m, index_t i, index_t j, float value) {
  m.view()(i, j) = T(value);
}

/** All elements positive: sums to which an infinity is added are infinite, never NaN. */
template <class T>
void make_positive(typed<T>& m) {
  const auto v = m.view();
  for (index_t i = 0; i < v.extent(0); ++i)
    for (index_t j = 0; j < v.extent(1); ++j) v(i, j) = T(std::abs(static_cast<float>(v(i, j))) + 0.25f);
}

/** y in one call, with a workspace that still holds the NaN of the calls before: nothing may come from there either. */
class caller {
 public:
  template <class T>
  lora::ndarray<float, 2> operator()(const lora::ndview<const T, 2>& x, const typed<T>& w, std::span<const low_rank_term> terms,
                                     const lora::float_view<1>& bias, const lora::forward_options& options) {
    auto y = lora::uninit<float>(x.extent(0), w.view().extent(0));
    std::fill_n(static_cast<float*>(scratch_.data()), scratch_.size_bytes() / sizeof(float), test::poison());
    lora::forward(y, x, w.view(), terms, bias, scratch_, options);
    return y;
  }

 private:
  lora::workspace scratch_;
};

enum class where { nowhere, row, column, everywhere };

/** Whether y differs from `clean` only in the row or column `at`, and is nowhere finite there. */
bool spread_only(const lora::ndarray<float, 2>& y, const lora::ndarray<float, 2>& clean, where spread, index_t at) {
  for (index_t i = 0; i < y.extent(0); ++i)
    for (index_t j = 0; j < y.extent(1); ++j) {
      const bool hit = spread == where::everywhere || (spread == where::row && i == at) || (spread == where::column && j == at);
      if (hit ? std::isfinite(y(i, j)) : test::bits(y(i, j)) != test::bits(clean(i, j))) return false;
    }
  return true;
}

lora::float_view<1> first_column(const typed<float>& m) {
  return lora::ndview<const float, 1>(m.view().data(), {m.view().extent(0)}, lora::strides{m.view().stride(0)});
}

}  // namespace

TEST_CASE_TEMPLATE("linalg/special: NaN and Inf reach the row or column they belong to, and no bit elsewhere", T, float, bfloat16,
                   float16) {
  constexpr index_t in = 21;   // a tail in every tier
  constexpr index_t out = 53;  // a full tile, and a block that is not full
  constexpr index_t rank = 5;
  caller call;
  for (const layout l : in_place) {
    CAPTURE(static_cast<int>(l));
    typed<T> w(out, in, l, 1);
    typed<T> a(rank, in, layout::padded, 2);
    typed<float> b(out, rank, layout::padded, 3);
    typed<float> bias(out, 1, layout::spread, 4);
    const typed<T> other_a(3, in, layout::padded, 5);
    const typed<T> other_b(out, 3, layout::padded, 6);
    for (const index_t n : batches) {
      CAPTURE(n);
      typed<T> x(n, in, layout::padded, static_cast<std::uint64_t>(10 + n));
      const low_rank_term other{other_a.view(), other_b.view(), -0.5f};
      const low_rank_term two[] = {other, {std::as_const(a).view(), std::as_const(b).view(), 0.75f}};
      const low_rank_term off[] = {other, {std::as_const(a).view(), std::as_const(b).view(), -0.0f}};
      for_each_way<T>([&](const lora::forward_options& options) {
        const auto run = [&](std::span<const low_rank_term> terms) {
          return call(std::as_const(x).view(), w, terms, first_column(bias), options);
        };
        const auto clean = run(two);
        const auto without = run({&other, 1});
        int turn = 0;
        for (const float special : {quiet_nan, inf, -inf}) {
          const index_t k = turn == 0 ? 0 : turn == 1 ? in - 1 : 9;
          const index_t row = turn == 0 ? n - 1 : turn == 1 ? n / 2 : 0;
          const index_t column = turn == 0 ? out - 1 : turn == 1 ? 47 : 3;
          ++turn;
          CAPTURE(special);
          const auto planted = [&](auto& m, index_t i, index_t j, std::span<const low_rank_term> terms) {
            const auto kept = m.view()(i, j);
            set(m, i, j, special);
            auto y = run(terms);
            m.view()(i, j) = kept;
            return y;
          };
          REQUIRE(spread_only(planted(x, row, k, two), clean, where::row, row));
          REQUIRE(spread_only(planted(w, column, k, two), clean, where::column, column));
          REQUIRE(spread_only(planted(b, column, k % rank, two), clean, where::column, column));
          REQUIRE(spread_only(planted(bias, column, 0, two), clean, where::column, column));
          REQUIRE(spread_only(planted(a, k % rank, k, two), clean, where::everywhere, 0));
          // A request that does not use the adapter does not notice what it holds.
          REQUIRE(spread_only(planted(a, k % rank, k, off), without, where::nowhere, 0));
          REQUIRE(spread_only(planted(b, column, k % rank, off), without, where::nowhere, 0));
        }
      });
    }
  }
}

TEST_CASE_TEMPLATE("linalg/special: padding never meets an infinity: positive sums are +Inf, not NaN, in every tail", T, float, bfloat16,
                   float16) {
  // Lanes beyond the end of a row hold zeros on one side or both, and 0 * Inf would be NaN; behind each row lies a NaN in memory.
  constexpr index_t out = 11;
  caller call;
  const auto all_infinite = [](const lora::ndarray<float, 2>& y, index_t first, index_t last, index_t left, index_t right) {
    for (index_t i = first; i < last; ++i)
      for (index_t j = left; j < right; ++j)
        if (!(y(i, j) == inf)) return false;
    return true;
  };
  for (const layout l : in_place)
    for (index_t in = 1; in <= 40; ++in) {
      const index_t rank = (in * 7) % 36 + 1;  // prime to 36: every rank to 36
      CAPTURE(static_cast<int>(l));
      CAPTURE(in);
      CAPTURE(rank);
      typed<T> w(out, in, l, 1);
      typed<T> a(rank, in, layout::padded, 2);
      typed<T> b(out, rank, layout::padded, 3);
      typed<T> x(33, in, layout::padded, 4);
      make_positive(w);
      make_positive(a);
      make_positive(b);
      make_positive(x);
      const low_rank_term term{std::as_const(a).view(), std::as_const(b).view(), 0.5f};
      for_each_way<T>([&](const lora::forward_options& options) {
        for (const index_t n : {1, 2, 4, 7, 16, 18, 33}) {
          // The others of these sizes come with the next `in`.
          if ((n + in) % 3 != 0) continue;
          CAPTURE(n);
          const index_t place = (in * 5) % n;
          const index_t column = in % out;
          const auto planted = [&](typed<T>& m, index_t i, index_t j) {
            const T kept = m.view()(i, j);
            set(m, i, j, inf);
            auto y = call(x.first(n), w, {&term, 1}, {}, options);
            m.view()(i, j) = kept;
            return y;
          };
          for (const index_t k : {index_t{0}, in / 2, in - 1}) {
            const auto of_x = planted(x, place, k);
            REQUIRE(all_infinite(of_x, place, place + 1, 0, out));
            REQUIRE((std::isfinite(of_x(n - 1, 0)) || place == n - 1));
            REQUIRE(all_infinite(planted(w, column, k), 0, n, column, column + 1));
          }
          for (const index_t r : {index_t{0}, rank - 1}) {
            REQUIRE(all_infinite(planted(a, r, in - 1), 0, n, 0, out));
            REQUIRE(all_infinite(planted(b, column, r), 0, n, column, column + 1));
          }
        }
      });
    }
}

TEST_CASE_TEMPLATE("linalg/special: subnormal weights count, in every lane; pairs multiply them as zeros", T, float, bfloat16, float16) {
  constexpr index_t in = 37;
  constexpr index_t out = 9;
  const T smallest = [] {
    if constexpr (std::is_same_v<T, float>)
      return std::numeric_limits<float>::denorm_min();
    else
      return T::from_bits(1);
  }();
  caller call;
  for (const layout l : in_place) {
    CAPTURE(static_cast<int>(l));
    typed<T> w(out, in, l, 1);
    for (index_t j = 0; j < out; ++j)
      for (index_t k = 0; k < in; ++k) w.view()(j, k) = smallest;
    for (const index_t n : batches) {
      CAPTURE(n);
      typed<T> x(n, in, layout::padded, 1);
      for (index_t i = 0; i < n; ++i)
        for (index_t k = 0; k < in; ++k) set(x, i, k, static_cast<float>(1 + (i + k) % 2));
      for_each_way<T>([&](const lora::forward_options& options) {
        const auto y = call(std::as_const(x).view(), w, {}, {}, options);
        // Multiples of the smallest number, far from any rounding: only a flush, or a lane left out, can change them. The pairs of
        // the CPU are read with subnormals as zeros, whatever the thread has set; W transposed is computed exactly always.
        const bool flushed = options.precision == lora::precision::pairs && l == layout::padded;
        for (index_t i = 0; i < n; ++i) {
          float units = 0;
          for (index_t k = 0; k < in; ++k) units += static_cast<float>(1 + (i + k) % 2);
          const float want = flushed ? 0.0f : units * static_cast<float>(smallest);
          for (index_t j = 0; j < out; ++j) REQUIRE(test::bits(y(i, j)) == test::bits(want));
        }
      });
    }
  }
}

#if LORA_X86 && defined(__SSE__)
TEST_CASE("linalg/special: flush-to-zero is the caller's: it holds in the call and is not touched by it") {
  const typed<float> x(17, 5, layout::padded, 1);
  typed<float> w(9, 5, layout::padded, 2);
  for (index_t j = 0; j < 9; ++j)
    for (index_t k = 0; k < 5; ++k) w.view()(j, k) *= 0x1p-140f;
  caller call;
  const auto subnormal = [](const lora::ndarray<float, 2>& y) {
    index_t found = 0;
    for (index_t i = 0; i < y.size(); ++i) found += std::fpclassify(y.data()[i]) == FP_SUBNORMAL;
    return found;
  };
  constexpr unsigned flags = 0x3f;  // what happened; the rest is what was asked for
  for_each_way<float>([&](const lora::forward_options& options) {
    for (const index_t n : {1, 4, 17}) {
      CAPTURE(n);
      const unsigned before = _mm_getcsr();
      CHECK(subnormal(call(x.first(n), w, {}, {}, options)) == n * 9);
      CHECK((_mm_getcsr() & ~flags) == (before & ~flags));
      _mm_setcsr(before | 0x8040u);  // FTZ and DAZ
      const auto y = call(x.first(n), w, {}, {}, options);
      const unsigned after = _mm_getcsr();
      _mm_setcsr(before);
      CHECK(subnormal(y) == 0);
      CHECK((after & ~flags) == ((before | 0x8040u) & ~flags));
    }
  });
}
#endif

TEST_CASE_TEMPLATE("linalg/special: every rank from 0 to 129 stays inside the bound", T, float, bfloat16, float16) {
  constexpr index_t in = 19;
  constexpr index_t out = 51;
  caller call;
  std::vector<lora::forward_options> ways;
  for_each_way<T>([&](const lora::forward_options& options) { ways.push_back(options); });
  const typed<T> x(test::most_tokens, in, layout::padded, 1);
  const typed<T> by_rows(out, in, layout::padded, 2);
  const typed<T> by_columns(out, in, layout::transposed, 2);
  double worst = 0;
  for (index_t rank = 0; rank <= 129; ++rank) {
    CAPTURE(rank);
    // One layout and all ways for each rank, another size class for each way: every pair of rank mod 16 and size class comes up.
    const typed<T>& w = rank % 3 == 0 ? by_columns : by_rows;
    const typed<T> a(rank, in, layout::padded, static_cast<std::uint64_t>(3 + rank));
    const typed<float> b(out, rank, rank % 5 == 0 ? layout::transposed : layout::padded, static_cast<std::uint64_t>(200 + rank));
    const low_rank_term terms[] = {{a.view(), b.view(), 1.25f}};
    for (std::size_t i = 0; i < ways.size(); ++i) {
      const index_t n = batches[(static_cast<std::size_t>(rank) / 3 + 5 * i) % std::size(batches)];
      CAPTURE(n);
      CAPTURE(i);
      const auto y = call(x.first(n), w, terms, {}, ways[i]);
      const test::expected want(x.first(n), w.view(), terms, {});
      const double ratio = want.worst(y.view());
      worst = std::max(worst, ratio);
      REQUIRE(ratio <= 1.0);
    }
  }
  MESSAGE("largest error " << worst << " of the bound");
}

TEST_CASE_TEMPLATE("linalg/special: no tokens, outputs, inputs or ranks, in every combination", T, float, bfloat16, float16) {
  caller call;
  for (int empty = 0; empty < 16; ++empty)
    for (const layout l : in_place)
      for (const index_t tokens : {1, 6, 66}) {
        const index_t n = (empty & 1) != 0 ? 0 : tokens;
        const index_t out = (empty & 2) != 0 ? 0 : 50;
        const index_t in = (empty & 4) != 0 ? 0 : 18;
        const index_t rank = (empty & 8) != 0 ? 0 : 5;
        CAPTURE(n);
        CAPTURE(out);
        CAPTURE(in);
        CAPTURE(rank);
        const typed<T> x(n, in, layout::padded, 1);
        const typed<T> w(out, in, l, 2);
        const typed<T> a(rank, in, l, 3);
        const typed<T> b(out, rank, l, 4);
        const typed<float> bias(out, 1, layout::spread, 5);
        const low_rank_term terms[] = {{a.view(), b.view(), 0.5f}, {a.view(), b.view(), -2.0f}};
        const test::expected want(x.view(), w.view(), terms, first_column(bias));
        for_each_way<T>([&](const lora::forward_options& options) {
          const auto y = call(x.view(), w, terms, first_column(bias), options);
          REQUIRE(want.worst(y.view()) <= 1.0);
          if (in == 0)
            for (index_t i = 0; i < n; ++i)
              for (index_t j = 0; j < out; ++j) REQUIRE(test::bits(y(i, j)) == test::bits(std::as_const(bias).view()(j, 0)));
        });
      }
}

TEST_CASE_TEMPLATE("linalg/special: batch_invariant gives a row its own bits among any other rows, in any place", T, float, bfloat16,
                   float16) {
  constexpr index_t in = 67;
  constexpr index_t out = 50;
  constexpr index_t known = 40;
  caller call;
  const typed<T> rows(known, in, layout::padded, 1);
  const typed<T> a(7, in, layout::padded, 2);
  const typed<T> b(out, 7, layout::padded, 3);
  const low_rank_term terms[] = {{a.view(), b.view(), 0.5f}};
  for (const layout l : in_place) {
    CAPTURE(static_cast<int>(l));
    const typed<T> w(out, in, l, 4);
    for_each_way<T>([&](const lora::forward_options& options) {
      if (!options.batch_invariant) return;
      auto alone = lora::uninit<float>(known, out);
      for (index_t m = 0; m < known; ++m)
        lora::copy(call(rows.view()(lora::range(m, m + 1)), w, terms, {}, options), alone(lora::range(m, m + 1)));
      test::random chance(5);
      const auto below = [&](index_t most) { return static_cast<index_t>(chance.next() % static_cast<std::uint64_t>(most)); };
      for (int batch = 0; batch < 24; ++batch) {
        const index_t n = batch < 12 ? 1 + below(20) : 1 + below(test::most_tokens);
        typed<T> x(n, in, layout::padded, chance.next());
        std::vector<index_t> from;
        for (index_t i = 0; i < n; ++i) {
          const index_t which = below(4) == 0 ? -1 : below(known);  // a stranger, of numbers or worse
          const bool special = below(8) == 0;
          for (index_t k = 0; k < in; ++k) {
            if (which >= 0)
              x.view()(i, k) = rows.view()(which, k);
            else if (special)
              set(x, i, k, k % 2 == 0 ? inf : quiet_nan);
          }
          from.push_back(which);
        }
        const auto y = call(std::as_const(x).view(), w, terms, {}, options);
        CAPTURE(n);
        for (index_t i = 0; i < n; ++i)
          for (index_t j = 0; j < out && from[static_cast<std::size_t>(i)] >= 0; ++j)
            REQUIRE(test::bits(y(i, j)) == test::bits(alone(from[static_cast<std::size_t>(i)], j)));
      }
    });
  }
}
