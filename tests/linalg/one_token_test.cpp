// SPDX-License-Identifier: Apache-2.0
//
// One token and a small W, or a few and a smaller one, take a short way through forward: the bits of the long way, which a y with gaps between its elements takes, for
// every tier, tail and number of terms, and the float64 bound; which calls take it, on both sides of each limit.
#include "support/oracle.hpp"
#include "support/tiers.hpp"

#include <doctest/doctest.h>

#include <memory>
#include <vector>

using lora::bfloat16;
using lora::index_t;
using lora::low_rank_term;
using lora::simd::tier;
using test::layout;
using test::matrix;

namespace {

struct two_threads {
  [[nodiscard]] static std::size_t concurrency() noexcept { return 2; }
  std::size_t runs = 0;
  template <class F>
  void run(std::size_t n, F&& f) {
    ++runs;
    for (std::size_t i = 0; i < n; ++i) f(i);
  }
};

bool same_bits(const matrix& a, const matrix& b) {
  for (index_t i = 0; i < a.view().extent(0); ++i)
    for (index_t j = 0; j < a.view().extent(1); ++j)
      if (test::bits(a(i, j)) != test::bits(b(i, j))) return false;
  return true;
}

/** Whether a call of these shapes takes the short way: it then needs no workspace, x being dense and of whole registers. */
bool is_short(const matrix& x, const matrix& w, std::span<const low_rank_term> terms, lora::float_view<1> bias = {}) {
  lora::workspace scratch;
  matrix y(x.view().extent(0), w.view().extent(0), layout::plain);
  lora::forward(y.view(), x.view(), w.view(), terms, bias, scratch);
  return scratch.size_bytes() == 0;
}

}  // namespace

TEST_CASE("linalg/one_token: the short way gives the bits of the long way, inside the bound, and writes y only") {
  std::uint64_t seed = 1;
  for (const index_t in : {1, 3, 4, 5, 8, 15, 16, 17, 32, 63, 64, 65, 79, 80, 130})
    for (const index_t out : {1, 2, 7, 8, 9, 15, 16, 17, 50}) {
      const auto rank = static_cast<index_t>(seed % 19);
      const layout x_layout = seed % 3 == 0 ? layout::spread : layout::plain;
      const index_t n = seed % 7 + 1;
      const matrix x(n, in, x_layout, ++seed);
      const matrix w(out, in, layout::padded, ++seed);
      const matrix a(rank, in, layout::padded, ++seed);
      const matrix b(out, rank, layout::padded, ++seed);
      const matrix a2(9, in, layout::plain, ++seed);
      const matrix b2(out, 9, layout::plain, ++seed);
      const matrix bias_row(1, out, layout::plain, ++seed);
      const low_rank_term terms[] = {{a.view(), b.view(), 0.7f}, {a2.view(), b2.view(), 0.0f}, {a2.view(), b2.view(), -1.3f}};
      for (const std::size_t used : {0u, 1u, 3u})
        for (const bool biased : {false, true}) {
          const std::span<const low_rank_term> list(terms, used);
          const lora::ndview<const float, 1> bias_view(bias_row.view().data(), {out});
          const lora::float_view<1> bias = biased ? lora::float_view<1>(bias_view) : lora::float_view<1>();
          const test::expected want(x.view(), w.view(), list, bias);
          test::for_each_tier([&](tier t) {
            lora::workspace scratch;
            matrix y(n, out, layout::padded);
            matrix z(n, out, layout::spread);
            lora::forward(y.view(), x.view(), w.view(), list, bias, scratch, {.tier = t});
            lora::forward(z.view(), x.view(), w.view(), list, bias, scratch, {.tier = t});
            CAPTURE(n);
            CAPTURE(in);
            CAPTURE(out);
            CAPTURE(rank);
            CAPTURE(used);
            CAPTURE(lora::simd::name_of(t));
            REQUIRE(same_bits(y, z));
            REQUIRE(y.surroundings_untouched());
            REQUIRE(want.worst(y.view()) <= 1);
          });
        }
    }
}

TEST_CASE("linalg/one_token: 16-bit weights beside floats, the bits of the long way") {
  for (const index_t in : {16, 37, 64})
    for (const index_t out : {3, 8, 21}) {
      const auto narrow = [](const matrix& m) {
        std::vector<bfloat16> v;
        for (index_t i = 0; i < m.view().extent(0); ++i)
          for (index_t j = 0; j < m.view().extent(1); ++j) v.push_back(bfloat16(m(i, j)));
        return v;
      };
      const index_t n = out == 21 ? 4 : out == 8 ? 2 : 1;
      const matrix x(n, in, layout::padded, 1);
      const auto w = narrow(matrix(out, in, layout::plain, 2));
      const auto a = narrow(matrix(5, in, layout::plain, 3));
      const matrix b(out, 5, layout::padded, 4);
      const lora::ndview<const bfloat16, 2> w_view(w.data(), {out, in});
      const low_rank_term term{lora::float_view<2>(a.data(), {5, in}), b.view(), 0.3f};
      test::for_each_tier([&](tier t) {
        lora::workspace scratch;
        matrix y(n, out, layout::plain);
        matrix z(n, out, layout::spread);
        lora::forward(y.view(), x.view(), w_view, {&term, 1}, {}, scratch, {.tier = t});
        lora::forward(z.view(), x.view(), w_view, {&term, 1}, {}, scratch, {.tier = t});
        CAPTURE(in);
        CAPTURE(out);
        REQUIRE(same_bits(y, z));
      });
    }
}

TEST_CASE("linalg/one_token: who takes the short way, on both sides of each limit, with the same bits") {
  const matrix x(1, 64, layout::plain, 1);
  const matrix w(20, 64, layout::padded, 2);
  const matrix a(513, 64, layout::plain, 3);
  const matrix b(20, 513, layout::plain, 4);
  const auto of_rank = [&](index_t r) {
    return low_rank_term{lora::ndview<const float, 2>(a.view().data(), {r, 64}),
                         lora::ndview<const float, 2>(b.view().data(), {20, r}, b.view().stride()), 0.01f};
  };
  const auto same_either_way = [&](std::span<const low_rank_term> terms) {
    lora::workspace scratch;
    matrix y(1, 20, layout::plain);
    matrix z(1, 20, layout::spread);
    lora::forward(y.view(), x.view(), w.view(), terms, {}, scratch);
    lora::forward(z.view(), x.view(), w.view(), terms, {}, scratch);
    return same_bits(y, z);
  };
  CHECK(is_short(x, w, {}));
  for (const index_t r : {512, 513}) {
    const low_rank_term one = of_rank(r);
    CHECK(is_short(x, w, {&one, 1}) == (r == 512));
    CHECK(same_either_way({&one, 1}));
  }
  const low_rank_term halves[] = {of_rank(500), of_rank(12)};  // more than 512, whatever a register holds
  CHECK_FALSE(is_short(x, w, halves));
  CHECK(same_either_way(halves));
  const std::vector<low_rank_term> many(9, of_rank(3));
  CHECK(is_short(x, w, {many.data(), 8}));
  CHECK_FALSE(is_short(x, w, many));
  CHECK(same_either_way({many.data(), 8}));
  CHECK(same_either_way(many));

  const matrix gaps(64, 20, layout::spread, 5);  // a bias with a stride, a W whose rows are not contiguous
  CHECK_FALSE(is_short(x, w, {}, lora::float_view<1>(lora::ndview<const float, 1>(gaps.view().data(), {20}, {3}))));
  const matrix spread(20, 64, layout::spread, 6);
  CHECK_FALSE(is_short(x, spread, {}));
  const matrix transposed(20, 64, layout::transposed, 7);
  CHECK_FALSE(is_short(x, transposed, {}));

  // 512 KiB of W are shared among threads where there are any; 8 MiB come from memory and are fetched.
  const auto large = std::make_unique<float[]>(std::size_t{1} << 21);
  lora::workspace scratch;
  matrix long_x(1, 1024, layout::plain, 8);
  matrix y(1, 2048, layout::plain);
  for (const index_t out : {index_t{127}, index_t{128}, index_t{2047}, index_t{2048}}) {
    const lora::ndview<const float, 2> rows(large.get(), {out, 1024});
    const lora::ndview<float, 2> to(y.view().data(), {1, out});
    two_threads ex;
    lora::forward(to, long_x.view(), rows, {}, {}, scratch, ex);
    CHECK(ex.runs == (out >= 128 ? 1 : 0));
    lora::workspace none;
    lora::forward(to, long_x.view(), rows, {}, {}, none);
    CHECK((none.size_bytes() == 0) == (out < 2048));
  }

  // Two tokens, while W has no more than 128 KiB; three and four of up to 64 elements, while it has no more than 64 KiB.
  const matrix tokens(5, 1024, layout::padded, 9);
  const auto first_columns = [&](index_t n, index_t in) {
    return lora::ndview<const float, 2>(tokens.view().data(), {n, in}, {tokens.view().stride(0), 1});
  };
  const auto takes_short_way = [&](index_t n, index_t out, index_t in) {
    const lora::ndview<const float, 2> rows(large.get(), {out, in});
    lora::workspace none;
    auto to = lora::uninit<float>(n, out);
    lora::forward(to, first_columns(n, in), rows, {}, {}, none);
    return none.size_bytes() == 0;
  };
  for (const index_t out : {32, 33}) CHECK(takes_short_way(2, out, 1024) == (out == 32));
  for (index_t n = 3; n <= 5; ++n) {
    CAPTURE(n);
    CHECK(takes_short_way(n, 256, 64) == (n <= 4));
    CHECK_FALSE(takes_short_way(n, 257, 64));
    CHECK_FALSE(takes_short_way(n, 100, 80));
  }
  matrix one(1, 20, layout::plain);  // tokens of y at one address are refused, on the long way
  const lora::ndview<float, 2> same(one.view().data(), {2, 20}, {0, 1});
  CHECK_THROWS_AS(lora::forward(same, first_columns(2, 64), w.view(), {}, {}, scratch), lora::shape_error);
}

TEST_CASE(
    "linalg/one_token: up to four short tokens have the bits of each alone, on threads, beside a y with gaps and among however many rows "
    "of W too") {
  for (const index_t out : {7, 64, 257, 2100}) {  // the last on threads
    const matrix x(4, 64, layout::padded, 1);
    const matrix w(out, 64, layout::padded, 2);
    const matrix a(5, 64, layout::plain, 3);
    const matrix b(out, 5, layout::plain, 4);
    const low_rank_term term{a.view(), b.view(), 0.7f};
    test::for_each_tier([&](tier t) {
      for (index_t n = 1; n <= 4; ++n) {
        const lora::ndview<const float, 2> rows(x.view().data(), {n, 64}, {x.view().stride(0), 1});
        lora::workspace scratch;
        two_threads ex;
        matrix together(n, out, layout::plain);
        matrix gaps(n, out, layout::spread);
        matrix shared(n, out, layout::plain);
        lora::forward(together.view(), rows, w.view(), {&term, 1}, {}, scratch, {.tier = t});
        lora::forward(gaps.view(), rows, w.view(), {&term, 1}, {}, scratch, {.tier = t});
        lora::forward(shared.view(), rows, w.view(), {&term, 1}, {}, scratch, ex, {.tier = t});
        CAPTURE(out);
        CAPTURE(n);
        REQUIRE(same_bits(together, gaps));
        REQUIRE(same_bits(together, shared));
        for (index_t i = 0; i < n; ++i) {
          matrix alone(1, out, layout::plain);
          const lora::ndview<const float, 2> row(&rows(i, 0), {1, 64});
          lora::forward(alone.view(), row, w.view(), {&term, 1}, {}, scratch, {.tier = t});
          for (index_t j = 0; j < out; ++j) REQUIRE(test::bits(alone(0, j)) == test::bits(together(i, j)));
        }
      }
    });
  }
}

TEST_CASE("linalg/one_token: every rank up to two registers, whose A x ends in the middle of one, the bits of the long way") {
  std::uint64_t seed = 77;
  for (const index_t in : {4, 8, 64})
    for (index_t rank = 1; rank <= 33; ++rank) {
      const matrix x(1, in, layout::plain, ++seed);
      const matrix w(9, in, layout::padded, ++seed);
      const matrix a(rank, in, layout::padded, ++seed);
      const matrix b(9, rank, layout::padded, ++seed);
      const low_rank_term terms[] = {{a.view(), b.view(), -0.7f}, {a.view(), b.view(), 1.3f}};
      const test::expected want(x.view(), w.view(), terms, {});
      test::for_each_tier([&](tier t) {
        lora::workspace scratch;
        matrix y(1, 9, layout::plain);
        matrix z(1, 9, layout::spread);
        lora::forward(y.view(), x.view(), w.view(), terms, {}, scratch, {.tier = t});
        lora::forward(z.view(), x.view(), w.view(), terms, {}, scratch, {.tier = t});
        CAPTURE(in);
        CAPTURE(rank);
        CAPTURE(lora::simd::name_of(t));
        REQUIRE(same_bits(y, z));
        REQUIRE(want.worst(y.view()) <= 1);
      });
    }
}

TEST_CASE("linalg/one_token: shapes that disagree are refused by name before anything is written") {
  const matrix x(1, 16, layout::plain, 1);
  const matrix w(5, 16, layout::plain, 2);
  const matrix a(3, 16, layout::plain, 3);
  const matrix b(5, 3, layout::plain, 4);
  const matrix shorter(5, 15, layout::plain, 5);
  const matrix other(4, 3, layout::plain, 6);
  const matrix b_wide(5, 4, layout::plain, 7);
  const matrix a_short(3, 15, layout::plain, 8);
  const matrix bias_row(1, 6, layout::plain, 9);
  matrix y(1, 5, layout::plain);
  matrix y_wide(1, 6, layout::plain);
  matrix two(2, 5, layout::plain);
  lora::workspace scratch;
  const low_rank_term good{a.view(), b.view(), 0.5f};
  const auto refused = [&](matrix& to, const matrix& from, const matrix& rows, const low_rank_term& term, lora::float_view<1> bias) {
    const float before = to(0, 0);
    CHECK_THROWS_AS(lora::forward(to.view(), from.view(), rows.view(), {&term, 1}, bias, scratch), lora::shape_error);
    CHECK(test::bits(to(0, 0)) == test::bits(before));
  };
  refused(y, x, shorter, good, {});
  refused(y_wide, x, w, good, {});
  refused(two, x, w, good, {});
  for (const float scale : {0.5f, 0.0f}) {  // a term that is switched off is checked too
    refused(y, x, w, {a_short.view(), b.view(), scale}, {});
    refused(y, x, w, {a.view(), other.view(), scale}, {});
    refused(y, x, w, {a.view(), b_wide.view(), scale}, {});
  }
  refused(y, x, w, good, lora::ndview<const float, 1>(bias_row.view().data(), {6}));
}
