// SPDX-License-Identifier: Apache-2.0
//
// embed and merged_table against float64, for every tier, type and layout; rows and columns that an update replaces, in embed, forward and
// merged; and what is refused.
#include "support/oracle.hpp"
#include "support/tiers.hpp"
#include "support/typed.hpp"

#include <lora/linalg/embedding.hpp>

#include <doctest/doctest.h>

#include <array>
#include <limits>
#include <string>

using lora::index_t;
using lora::low_rank_term;
using lora::low_rank_update;
using lora::replaced_rows;
using lora::simd::tier;
using test::layout;
using test::matrix;

namespace {

std::vector<float> numbers(index_t n, std::uint64_t seed) {
  test::random r(seed);
  std::vector<float> v(static_cast<std::size_t>(n));
  for (float& f : v) f = r.number();
  return v;
}

template <class Id>
std::vector<Id> indices(index_t n, index_t tokens, std::uint64_t seed) {
  test::random r(seed);
  std::vector<Id> v;
  for (index_t i = 0; i < n; ++i) v.push_back(static_cast<Id>(r.next() % static_cast<std::uint64_t>(tokens)));
  if (n > 1) v[0] = v[1] = static_cast<Id>(tokens - 1);  // the last, twice
  return v;
}

/** embed_scale * factor * (table + sum) of one element and its bound; `own` stands in for the table's. */
void exact(const lora::float_view<2>& table, const low_rank_update& u, double scale, index_t id, index_t j, const float* own, lora::dtype y,
           double& value, double& bound) {
  value = own != nullptr ? static_cast<double>(*own) : static_cast<double>(test::at(table, id, j));
  double base = std::abs(value);
  double low = 0;
  double ranks = 0;
  for (const low_rank_term& t : u.terms) {
    if (t.scale == 0.0f) continue;
    ranks += static_cast<double>(t.a.extent(0));
    for (index_t r = 0; r < t.a.extent(0); ++r) {
      const double p = static_cast<double>(t.scale) * static_cast<double>(test::at(t.a, r, id)) * static_cast<double>(test::at(t.b, j, r));
      value += p;
      low += std::abs(p);
    }
  }
  const double times = scale * (u.row_factor.empty() ? 1.0 : static_cast<double>(u.row_factor[static_cast<std::size_t>(j)]));
  value *= times;
  const int more = (scale != 1) + !u.row_factor.empty();
  bound = std::abs(times) * (test::gamma(ranks + more) * base + test::gamma(ranks + 2 + more) * low) + 2 * test::tiny * (2 * ranks + 2);
  if (y != lora::dtype::f32) bound += test::roundoff(y) * (std::abs(value) + bound) + test::smallest(y);
}

/** Runs one combination of types and checks each element; gives the largest error by its bound. */
template <class Y, class Table, class Factor, class Id>
double run(index_t tokens, index_t width, index_t rank, index_t n, layout l) {
  const test::typed<Table> table(tokens, width, l, 1);
  const test::typed<Factor> a1(rank, tokens, l, 2);
  const test::typed<Factor> b1(width, rank, layout::padded, 3);
  const matrix a2(3, tokens, layout::plain, 4);
  const matrix b2(width, 3, l, 5);
  const std::vector<low_rank_term> terms{{a1.view(), b1.view(), 0.75f}, {a2.view(), b2.view(), 0.0f}, {a2.view(), b2.view(), -1.5f}};
  const std::vector<float> factor = numbers(width, 6);
  const std::vector<float> own = numbers(2 * width, 7);
  const replaced_rows part{tokens / 2, {own.data(), {tokens > 1 ? 2 : 1, width}}};
  const std::vector<Id> memory = indices<Id>(2 * n, tokens, 8);
  const lora::ndview<const Id, 1> ids(memory.data() + (n > 0 ? 2 * n - 2 : 0), {n}, {-2});
  double worst = 0;
  lora::workspace scratch;
  for (int kind = 0; kind < 8; ++kind) {
    low_rank_update update(terms);
    if (kind & 1) update.row_factor = factor;
    if (kind & 2 && tokens / 2 + 2 <= tokens) update.columns = {&part, 1};
    const float scale = kind & 4 ? 3.5f : 1.0f;
    test::for_each_tier([&](tier t) {
      test::typed<Y> y(n, width, l, 9);
      lora::embed<2>(y.view(), ids, table.view(), update, scratch, {.embed_scale = scale, .tier = t});
      CHECK(scratch.size_bytes() <= lora::embed_workspace_bytes(table.view(), update) + 63);
      lora::ndarray<Table, 2> merged;
      if (scale == 1) merged = lora::merged_table(table.view(), update, t);
      for (index_t i = 0; i < n; ++i)
        for (index_t j = 0; j < width; ++j) {
          const auto id = static_cast<index_t>(ids(i));
          const bool replaced = !update.columns.empty() && id >= part.first && id < part.first + part.rows.extent(0);
          double value = 0;
          double bound = 0;
          exact(table.view(), update, static_cast<double>(scale), id, j, replaced ? &part.rows(id - part.first, j) : nullptr,
                lora::dtype_of<Y>, value, bound);
          const double got = static_cast<double>(static_cast<float>(y.view()(i, j)));
          const double error = std::abs(got - value);
          if (!(error <= bound)) {
            CAPTURE(tokens);
            CAPTURE(width);
            CAPTURE(rank);
            CAPTURE(kind);
            CAPTURE(i);
            CAPTURE(j);
            CAPTURE(id);
            REQUIRE(error <= bound);
          }
          if (error > 0) worst = std::max(worst, error / bound);
          // The same bits as the row of the merged table.
          if constexpr (std::is_same_v<Y, Table>)
            if (scale == 1) REQUIRE(test::bits(static_cast<float>(merged(id, j))) == test::bits(static_cast<float>(y.view()(i, j))));
        }
    });
  }
  return worst;
}

}  // namespace

TEST_CASE("linalg/embedding: embed and merged_table stay inside the bound, for every tier, layout, rank and size") {
  double worst = 0;
  for (const layout l :
       {layout::plain, layout::padded, layout::transposed, layout::rows_reversed, layout::columns_reversed, layout::spread})
    for (const auto& [tokens, width, rank, n] :
         {std::array<index_t, 4>{1, 1, 1, 1}, {7, 5, 0, 3}, {19, 16, 4, 1}, {40, 33, 17, 65}, {130, 7, 8, 130}, {9, 300, 40, 64}})
      worst = std::max({worst, run<float, float, float, std::int32_t>(tokens, width, rank, n, l),
                        run<float, float, float, std::int64_t>(tokens, width, rank, n, l)});
  CHECK(worst < 0.95);
  MESSAGE("largest error " << worst << " of the bound");
}

TEST_CASE("linalg/embedding: y, table and factors of any type, one rounding at the end") {
  using lora::bfloat16;
  using lora::float16;
  for (const layout l : {layout::plain, layout::transposed}) {
    (void)run<bfloat16, bfloat16, float, std::int64_t>(19, 33, 5, 70, l);
    (void)run<float16, float16, float16, std::int64_t>(19, 33, 5, 70, l);
    (void)run<float, bfloat16, bfloat16, std::int32_t>(19, 33, 5, 70, l);
    (void)run<bfloat16, float, float16, std::int32_t>(19, 33, 5, 70, l);
  }
  // Exact where nothing is added.
  const test::typed<float16> table(5, 20, layout::padded, 1);
  test::typed<float16> y(5, 20, layout::plain, 2);
  const std::int32_t ids[] = {4, 3, 2, 1, 0};
  lora::workspace scratch;
  lora::embed(y.view(), lora::ndview<const std::int32_t, 1>(ids, {5}), table.view(), {}, scratch);
  for (index_t i = 0; i < 5; ++i)
    for (index_t j = 0; j < 20; ++j) CHECK(y.view()(i, j).bits == table.view()(4 - i, j).bits);
}

TEST_CASE("linalg/embedding: wide tables and ranks beyond one panel of columns") {
  CHECK(run<float, float, float, std::int64_t>(6, 9000, 2, 3, layout::plain) < 0.95);
  CHECK(run<float, float, float, std::int64_t>(3, 700, 120, 70, layout::padded) < 0.95);
}

TEST_CASE("linalg/embedding: a row's bits do not depend on the batch, nor on rows that hold infinities") {
  matrix table(50, 37, layout::plain, 1);
  const matrix a(6, 50, layout::plain, 2);
  const matrix b(37, 6, layout::plain, 3);
  const low_rank_term term{a.view(), b.view(), 0.5f};
  const std::vector<std::int64_t> ids = indices<std::int64_t>(200, 50, 4);
  lora::workspace scratch;
  test::for_each_tier([&](tier t) {
    matrix all(200, 37, layout::plain);
    lora::embed(all.view(), lora::ndview<const std::int64_t, 1>(ids.data(), {200}), table.view(), {&term, 1}, scratch, {.tier = t});
    matrix one(1, 37, layout::plain);
    for (index_t i = 0; i < 200; ++i) {
      lora::embed(one.view(), lora::ndview<const std::int64_t, 1>(ids.data() + i, {1}), table.view(), {&term, 1}, scratch, {.tier = t});
      for (index_t j = 0; j < 37; ++j) REQUIRE(test::bits(one(0, j)) == test::bits(all(i, j)));
    }
  });
  // Only the looked-up row counts: 0 * Inf does not occur.
  const std::int64_t asked[] = {3};
  for (index_t j = 0; j < 37; ++j) table(4, j) = std::numeric_limits<float>::infinity();
  matrix y(1, 37, layout::plain);
  lora::embed(y.view(), lora::ndview<const std::int64_t, 1>(asked, {1}), table.view(), {&term, 1}, scratch);
  for (index_t j = 0; j < 37; ++j) CHECK(std::isfinite(y(0, j)));
  CHECK(y.surroundings_untouched());
}

TEST_CASE("linalg/forward: rows that an update replaces, for every tier, type, batch size, layout and way") {
  double worst = 0;
  lora::workspace scratch;
  const auto check = [&](auto element, index_t out, index_t in, layout l, lora::precision way) {
    using W = decltype(element);
    const test::typed<W> w(out, in, l, 1);
    test::typed<W> replaced(out, in, layout::plain, 1);  // W with the rows in it, to be asked for the answer
    const matrix own(out, in, layout::padded, 2);
    const matrix a(5, in, layout::plain, 3);
    const matrix b(out, 5, layout::plain, 4);
    const low_rank_term term{a.view(), b.view(), 0.75f};
    const std::vector<float> bias = numbers(out, 5);
    const std::vector<float> factor = numbers(out, 6);
    // The first row, two in the middle, the last.
    std::vector<replaced_rows> parts;
    for (const auto& [first, k] : {std::pair<index_t, index_t>{0, 1}, {out / 2, 2}, {out - 1, 1}})
      if (first >= (parts.empty() ? 0 : parts.back().first + parts.back().rows.extent(0)) && first + k <= out)
        parts.push_back({first, {&own.view()(first, 0), {k, in}, {own.view().stride(0), 1}}});
    matrix floats(out, in, layout::plain, 1);
    for (index_t i = 0; i < out; ++i)
      for (index_t j = 0; j < in; ++j) floats(i, j) = static_cast<float>(w.view()(i, j));
    for (const replaced_rows& p : parts)
      for (index_t i = 0; i < p.rows.extent(0); ++i)
        for (index_t j = 0; j < in; ++j) floats(p.first + i, j) = p.rows(i, j);
    for (const bool plain : {false, true}) {
      low_rank_update update;
      if (!plain) {
        update.terms = {&term, 1};
        update.bias = bias;
        update.row_factor = factor;
      }
      low_rank_update without = update;
      update.rows = parts;
      for (const index_t n : {1, 2, 9, 33, 65, 130}) {
        const test::typed<W> x(n, in, layout::padded, 7);
        const test::expected want(x.view(), floats.view(), without, {});
        test::for_each_tier([&](tier t) {
          const lora::forward_options options{t, way};
          test::matrix y(n, out, layout::padded);
          lora::workspace fresh(lora::forward_workspace_bytes<W>(n, w.view(), update, 1, options));
          const std::size_t bytes = fresh.size_bytes();
          lora::forward(y.view(), x.view(), w.view(), update, {}, fresh, options);
          CHECK(fresh.size_bytes() == bytes);
          if (way == lora::precision::exact) {
            const double ratio = want.worst(y.view());
            CAPTURE(out);
            CAPTURE(in);
            CAPTURE(n);
            CAPTURE(plain);
            REQUIRE(ratio <= 1);
            worst = std::max(worst, ratio);
          } else {  // pairs round each product
            for (const replaced_rows& p : parts)
              for (index_t i = 0; i < n; ++i)
                REQUIRE(std::abs(static_cast<double>(y(i, p.first)) - want.value(i, p.first)) <= want.bound(i, p.first));
          }
          CHECK(y.surroundings_untouched());
        });
      }
    }
  };
  for (const auto& [out, in] : {std::pair<index_t, index_t>{1, 3}, {50, 7}, {97, 64}})
    for (const layout l : {layout::plain, layout::transposed, layout::spread}) {
      check(float{}, out, in, l, lora::precision::exact);
      check(lora::bfloat16{}, out, in, l, lora::precision::exact);
    }
  check(lora::float16{}, 50, 33, layout::plain, lora::precision::exact);
  check(lora::bfloat16{}, 50, 64, layout::plain, lora::precision::pairs);
  CHECK(worst > 0.01);
  MESSAGE("largest error " << worst << " of the bound");
}

TEST_CASE("linalg/merge: rows and columns that an update replaces, in either order of W, f32 and 16 bits") {
  const auto check = [](auto element, layout l) {
    using W = decltype(element);
    const test::typed<W> w(70, 20, l, 1);
    const matrix own(3, 20, layout::padded, 2);
    const matrix columns(2, 70, layout::plain, 3);
    const matrix a(4, 20, layout::plain, 4);
    const matrix b(70, 4, layout::plain, 5);
    const low_rank_term term{a.view(), b.view(), 0.5f};
    const replaced_rows rows_part{66, own.view()};
    const replaced_rows columns_part{18, columns.view()};
    for (const bool by_rows : {true, false})
      test::for_each_tier([&](tier t) {
        low_rank_update update(&term, 1);
        if (by_rows)
          update.rows = {&rows_part, 1};
        else
          update.columns = {&columns_part, 1};
        const lora::ndarray<W, 2> merged = lora::merged(w.view(), update, {t});
        for (index_t i = 0; i < 70; ++i)
          for (index_t j = 0; j < 20; ++j) {
            double value = static_cast<double>(static_cast<float>(w.view()(i, j)));
            if (by_rows && i >= 66 && i < 69) value = static_cast<double>(own(i - 66, j));
            if (!by_rows && j >= 18) value = static_cast<double>(columns(j - 18, i));
            double size = std::abs(value);
            for (index_t r = 0; r < 4; ++r) {
              const double p = 0.5 * static_cast<double>(b(i, r)) * static_cast<double>(a(r, j));
              value += p;
              size += std::abs(p);
            }
            const double bound =
                test::gamma(6) * size + (sizeof(W) == 2 ? test::roundoff(lora::dtype_of<W>) * (std::abs(value) + 1e-6) : 0);
            REQUIRE(std::abs(static_cast<double>(static_cast<float>(merged(i, j))) - value) <= bound);
          }
      });
  };
  for (const layout l : {layout::plain, layout::transposed, layout::spread}) {
    check(float{}, l);
    check(lora::bfloat16{}, l);
  }
}

namespace {

template <class Error, class F>
std::string refusal(F f) {
#if LORA_HAS_EXCEPTIONS
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
#endif
  return {};
}

}  // namespace

TEST_CASE("linalg/embedding: what is refused names position, value and both shapes, and leaves y alone") {
  const matrix table(19, 12, layout::plain, 1);
  const matrix a(3, 19, layout::plain, 2);
  const matrix b(12, 3, layout::plain, 3);
  low_rank_term term{a.view(), b.view(), 0.5f};
  matrix y(4, 12, layout::padded);
  lora::workspace scratch;
  std::int64_t ids[] = {0, 18, 5, 5};
  const auto run = [&](const low_rank_update& u, lora::embed_options options = {}) {
    lora::embed(y.view(), lora::ndview<const std::int64_t, 1>(ids, {4}), table.view(), u, scratch, options);
  };
  using lora::index_error;
  using lora::shape_error;
  using lora::value_error;
  ids[2] = 19;
  CHECK(refusal<index_error>([&] { run({}); }) == "embed: ids[2] is 19, outside the 19 tokens of table [19, 12]");
  ids[2] = -1;
  CHECK(refusal<index_error>([&] { run({}); }) == "embed: ids[2] is -1, outside the 19 tokens of table [19, 12]");
  ids[2] = std::numeric_limits<std::int64_t>::min();
  CHECK(refusal<index_error>([&] { run({}); }).find("ids[2] is -9223372036854775808") != std::string::npos);
  ids[2] = std::int64_t{1} << 32;  // not cut to 32 bits
  CHECK(refusal<index_error>([&] { run({}); }).find("ids[2] is 4294967296") != std::string::npos);
  ids[2] = 5;
  CHECK(refusal<shape_error>([&] { lora::embed(y.view(), lora::ndview<const std::int64_t, 1>(ids, {3}), table.view(), {}, scratch); }) ==
        "embed: y is [4, 12] but ids is [3]");
  const matrix narrow(19, 11, layout::plain, 1);
  CHECK(refusal<shape_error>([&] { lora::embed(y.view(), lora::ndview<const std::int64_t, 1>(ids, {4}), narrow.view(), {}, scratch); }) ==
        "embed: y is [4, 12] but table [tokens, width] is [19, 11]");
  term.a = b.view();
  CHECK(refusal<shape_error>([&] {
          run({&term, 1});
        }) == "embed: a [rank, tokens] is [12, 3] but table [tokens, width] is [19, 12] (term 0)");
  term = {a.view(), a.view(), 0.5f};
  CHECK(refusal<shape_error>([&] {
          run({&term, 1});
        }) == "embed: b [width, rank] is [3, 19] but table [tokens, width] is [19, 12] (term 0)");
  const matrix b2(12, 2, layout::plain, 3);
  term = {a.view(), b2.view(), 0.5f};
  CHECK(refusal<shape_error>([&] { run({&term, 1}); }) == "embed: b is [12, 2] but a is [3, 19] (term 0)");
  low_rank_update update;
  const std::vector<float> vector(11);
  update.row_factor = vector;
  CHECK(refusal<shape_error>([&] { run(update); }).find("the row factor of the update has 11 elements") != std::string::npos);
  update = {};
  update.bias = vector;
  CHECK(refusal<value_error>([&] { run(update); }).find("which an embedding has no place for") != std::string::npos);
  update = {};
  CHECK(refusal<value_error>([&] { run(update, {.embed_scale = HUGE_VALF}); }) == "embed: embed_scale is not finite");
  const matrix own(3, 12, layout::plain, 6);
  std::vector<replaced_rows> parts{{17, own.view()}};
  update.columns = parts;
  CHECK(refusal<shape_error>([&] { run(update); }).find("replaces 3 rows from row 17 on, of 19 rows") != std::string::npos);
  parts[0].first = -1;
  CHECK(refusal<shape_error>([&] { run(update); }).find("from row -1 on") != std::string::npos);
  parts = {{4, own.view()}, {6, own.view()}};
  update.columns = parts;
  CHECK(refusal<shape_error>([&] { run(update); }).find("replaces 3 rows from row 6 on, of 19 rows, and the rows before 7 are taken") !=
        std::string::npos);
  parts = {{4, a.view()}};
  update.columns = parts;
  CHECK(refusal<shape_error>([&] { run(update); }).find("replaces rows by [3, 19], but a row has 12 elements") != std::string::npos);
  CHECK(y.surroundings_untouched());
  y.for_each([](float& f, index_t, index_t) { CHECK(test::bits(f) == test::poison_bits); });

  // forward's own
  const matrix x(1, 12, layout::plain, 7);
  matrix z(1, 19, layout::plain);
  parts = {{18, own.view()}};
  update = {};
  update.rows = parts;
  CHECK(refusal<shape_error>([&] {
          lora::forward(z.view(), x.view(), table.view(), update, {}, scratch);
        }).find("forward: the update replaces 3 rows") != std::string::npos);
  update.rows = {};
  update.columns = parts;
  CHECK(refusal<value_error>([&] { lora::forward(z.view(), x.view(), table.view(), update, {}, scratch); }).find("pass it to embed()") !=
        std::string::npos);
  z.for_each([](float& f, index_t, index_t) { CHECK(test::bits(f) == test::poison_bits); });
}
