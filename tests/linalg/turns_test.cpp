// SPDX-License-Identifier: Apache-2.0
//
// Batches of more tokens than one turn takes, and rows longer than a cache holds tokens for: how they are cut, and that no cut shows in the
// result.
#include "support/oracle.hpp"
#include "support/tiers.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

using lora::index_t;
using lora::detail::bands;
using lora::detail::bands_of;
using lora::detail::panels;
using lora::detail_forward::turn_begin;
using lora::detail_forward::turn_size;
using lora::detail_forward::turns_of;
using lora::detail_forward::turns_of_tasks;
using test::layout;
using test::matrix;

TEST_CASE("linalg/turns: turns cover the batch, differ by at most a register, begin on registers and fit what was laid out") {
  for (index_t n = 1; n < 1000; ++n) {
    index_t at = 0;
    index_t largest = 0;
    index_t smallest = n;
    for (index_t i = 0; i < turns_of(n); ++i) {
      CAPTURE(n);
      REQUIRE(turn_begin(n, i) == at);
      REQUIRE(at % 16 == 0);
      const index_t end = turn_begin(n, i + 1);
      REQUIRE(end > at);
      largest = std::max(largest, end - at);
      smallest = std::min(smallest, end - at);
      at = end;
    }
    REQUIRE(at == n);
    REQUIRE(largest <= turn_size(n));
    REQUIRE(largest <= 64);
    REQUIRE(largest - smallest < 32);  // a register, and the padding of the last one
  }
}

TEST_CASE("linalg/turns: turns are given to tasks whole where that leaves none with more tokens than another") {
  for (index_t n = 1; n < 2000; ++n)
    for (index_t tasks = 1; tasks < 9; ++tasks) {
      const index_t apart = turns_of_tasks(n, tasks);
      CAPTURE(n);
      CAPTURE(tasks);
      REQUIRE(apart >= 0);
      REQUIRE(apart <= turns_of(n));
      REQUIRE(apart % tasks == 0);
      if (tasks == 1 || turns_of(n) < tasks) REQUIRE(apart == 0);
      if (apart == 0) continue;
      REQUIRE(turns_of(n) - apart < tasks);
      index_t most = 0;
      for (index_t i = 0; i < apart; ++i) most = std::max(most, turn_begin(n, i + 1) - turn_begin(n, i));
      REQUIRE(most * apart * 31 <= turn_begin(n, apart) * 32);
    }
  CHECK(turns_of_tasks(512, 2) == 8);
  CHECK(turns_of_tasks(512, 3) == 6);
  CHECK(turns_of_tasks(500, 2) == 8);
  CHECK(turns_of_tasks(320, 2) == 4);          // and one by both
  CHECK(turns_of_tasks(65, 2) == 0);           // 32 and 33 of them
  CHECK(turns_of_tasks(300, 2) == 0);          // 48 and 64
  CHECK(turns_of_tasks(PTRDIFF_MAX, 2) == 0);  // nothing overflows
  CHECK(turns_of_tasks((index_t{1} << 38) + 17, 2) == 0);
}

TEST_CASE("linalg/turns: bands of long rows cover them, begin where strips do, and their tokens and waiting sums fit the caches") {
  test::for_each_tier([](lora::simd::tier tier) {
    const auto& k = lora::simd::kernels(tier);
    for (const bool invariant : {false, true})
      for (index_t n = 1; n <= 64; ++n) {
        const lora::simd::form& f = invariant ? *k.row_form_for(n) : *k.form_for(n);
        const panels batch(k, f, n);
        for (const index_t depth : {0, 1, 100, 4096, 4097, 6144, 11008, 14336, 53248, 1000003})
          for (const int unit : {1, 2, 3}) {  // the last: W of 16 bits, one k a unit
            const bool floats = unit == 1;
            const lora::dtype type = floats ? lora::dtype::f32 : lora::dtype::bf16;
            const int k_a_unit = unit == 2 ? 2 : 1;
            const bands b = bands_of(batch, type, n % 2 == 0 ? lora::simd::fetch::walk : lora::simd::fetch::ahead, depth, k_a_unit);
            CAPTURE(n);
            CAPTURE(depth);
            if (b.number == 1) {
              REQUIRE(batch.packed_size(depth, k_a_unit) * 4 <= lora::detail::band_bytes);
              REQUIRE((!floats || n % 2 == 0 || !batch.shares_rows() || depth <= lora::detail::row_form_band));
              REQUIRE(b.partials == 0);
              continue;
            }
            if (floats && n % 2 != 0 && batch.shares_rows()) REQUIRE(b.depth <= lora::detail::row_form_band);
            REQUIRE(b.depth % 64 == 0);
            REQUIRE(b.depth * b.number >= depth);
            REQUIRE(b.depth * (b.number - 1) < depth);
            // 64 k more where a band is rounded up to whole strips.
            REQUIRE(batch.packed_size(b.depth - 64 * k_a_unit, k_a_unit) * 4 <= lora::detail::band_bytes);
            const index_t tile = lora::detail::tile_rows(f);
            REQUIRE(b.rows % tile == 0);
            REQUIRE((b.rows == tile || (b.partials - tile * b.partials / b.rows) * 4 <= lora::detail::partial_bytes));
          }
      }
  });
}

TEST_CASE("linalg/turns: rows are fetched twice for few tokens and more than a cache holds, whatever their shape") {
  using lora::dtype;
  const auto twice = [](dtype type, index_t rows, index_t depth, index_t tokens) {
    return lora::detail::fetch_distance(type, rows, depth, tokens).l2 != 0;
  };
  for (const index_t depth : {index_t{1}, index_t{1000}, index_t{4096}, index_t{1} << 19}) {
    CAPTURE(depth);
    const index_t floats = ((index_t{2} << 20) / 4 - 1) / depth + 1;  // rows of together 2 MiB or just more
    const index_t halves = ((index_t{2} << 20) / 2 - 1) / depth + 1;
    CHECK(twice(dtype::f32, floats, depth, 16));
    CHECK_FALSE(twice(dtype::f32, floats - 1, depth, 16));
    CHECK_FALSE(twice(dtype::f32, floats, depth, 17));
    CHECK(twice(dtype::bf16, halves, depth, 6));
    CHECK_FALSE(twice(dtype::f16, halves - 1, depth, 6));
    CHECK_FALSE(twice(dtype::f16, halves, depth, 7));
  }
  CHECK_FALSE(twice(dtype::f32, 0, PTRDIFF_MAX, 1));
  CHECK_FALSE(twice(dtype::f32, PTRDIFF_MAX, 0, 1));
  CHECK(twice(dtype::f32, PTRDIFF_MAX, PTRDIFF_MAX, 1));  // of stride 0: nothing is multiplied out
  CHECK(lora::detail::fetch_distance(dtype::f32, 1, 1, 1).l1 != 0);
}

TEST_CASE_TEMPLATE("linalg/turns: long rows, cut into bands of k, stay inside the bound, and a row's bits do not depend on its turn", W,
                   float, lora::bfloat16) {
  constexpr index_t out = 101;  // three tiles; in smaller groups where sums wait that take more room
  constexpr index_t in = 8257;  // three bands, and a strip's tail
  constexpr index_t most = 112;
  const matrix x(most, in, layout::plain, 1);
  const matrix exact_w(out, in, layout::padded, 2);
  std::vector<W> memory(static_cast<std::size_t>(out * in));
  matrix rounded(out, in, layout::plain);
  for (index_t n = 0; n < out; ++n)
    for (index_t i = 0; i < in; ++i) {
      const W e(exact_w(n, i));
      memory[static_cast<std::size_t>(n * in + i)] = e;
      rounded(n, i) = static_cast<float>(e);
    }
  const lora::ndview<const W, 2> w(memory.data(), {out, in});
  const matrix a(3, in, layout::plain, 3);
  const matrix b(out, 3, layout::plain, 4);
  const lora::low_rank_term term{a.view(), b.view(), 0.5f};
  const test::expected want(x.view(), rounded.view(), {&term, 1}, {});
  test::for_each_tier([&](lora::simd::tier t) {
    for (const bool invariant : {false, true}) {
      const lora::forward_options options{.tier = t, .batch_invariant = invariant};
      matrix all(most, out, layout::plain);
      lora::workspace scratch(lora::forward_workspace_bytes<float>(most, w, {&term, 1}, 3, options));
      const void* const memory_was = scratch.data();
      lora::forward(all.view(), x.view(), w, {&term, 1}, {}, scratch, options);
      CAPTURE(std::string(lora::simd::name_of(t)));
      CAPTURE(invariant);
      REQUIRE(want.worst(all.view()) <= 0.1);
      const auto same_rows = [&](index_t n, index_t first, auto& executor) {
        matrix some(n, out, layout::plain);
        lora::forward(some.view(), lora::ndview<const float, 2>(&x.view().data()[first * in], {n, in}), w, {&term, 1}, {}, scratch,
                      executor, options);
        CAPTURE(n);
        for (index_t m = 0; m < n; ++m)
          for (index_t j = 0; j < out; ++j) REQUIRE(test::bits(some(m, j)) == test::bits(all(first + m, j)));
      };
      lora::inline_executor here;
      test::backward_executor three{3};
      for (const index_t n : {57, 65, 97}) same_rows(n, most - n, here);  // in other places of other turns
      same_rows(most, 0, three);
      if (invariant)
        for (const index_t n : {1, 2, 5, 20}) same_rows(n, 7, here);
      REQUIRE(scratch.data() == memory_was);
    }
  });
}

TEST_CASE("linalg/turns: rows that are gathered are cut into bands, too") {
  constexpr index_t out = 50;
  constexpr index_t in = 4200;
  const matrix x(64, in, layout::plain, 1);
  const matrix w(out, in, layout::columns_reversed, 2);
  matrix same(out, in, layout::padded);
  same.copy_from(w);
  matrix y(64, out, layout::plain);
  matrix z(64, out, layout::plain);
  lora::workspace scratch;
  lora::forward(y.view(), x.view(), w.view(), {}, {}, scratch);
  lora::forward(z.view(), x.view(), same.view(), {}, {}, scratch);
  for (index_t m = 0; m < 64; ++m)
    for (index_t j = 0; j < out; ++j) REQUIRE(test::bits(y(m, j)) == test::bits(z(m, j)));
  REQUIRE(test::expected(x.view(), same.view(), {}, {}).worst(y.view()) <= 0.1);
}
