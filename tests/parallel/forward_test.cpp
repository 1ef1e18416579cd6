// SPDX-License-Identifier: Apache-2.0
//
// forward on threads: the same bits as on one, and no race.
#include "support/oracle.hpp"

#include <lora/parallel/thread_pool.hpp>

#include <doctest/doctest.h>

#include <thread>
#include <vector>

using lora::index_t;
using test::layout;
using test::matrix;

TEST_CASE("parallel/thread_pool: forward gives the same bits for every number of threads") {
  constexpr index_t in = 260;
  constexpr index_t out = 530;
  const matrix x(test::most_tokens, in, layout::plain, 1);
  const matrix w(out, in, layout::padded, 2);
  const matrix a(6, in, layout::padded, 3);
  const matrix b(out, 6, layout::transposed, 4);  // gathered: each task into its own scratch
  const matrix bias_column(out, 1, layout::spread, 5);
  const lora::ndview<const float, 1> bias(bias_column.view().data(), {out}, {bias_column.view().stride(0)});
  const lora::low_rank_term term{a.view(), b.view(), 0.5f};
  lora::workspace scratch;
  for (std::size_t threads = 1; threads <= 5; ++threads) {
    lora::thread_pool pool(threads);
    for (unsigned t = 0; t < lora::simd::tier_count; ++t)
      for (const index_t n : {1, 2, 7, 16, 64, 130}) {
        const lora::forward_options options{static_cast<lora::simd::tier>(t)};
        const lora::ndview<const float, 2> rows(x.view().data(), {n, in}, x.view().stride());
        matrix y(n, out, layout::plain);
        matrix z(n, out, layout::plain);
        lora::forward(y.view(), rows, w.view(), {&term, 1}, bias, scratch, options);
        lora::forward(z.view(), rows, w.view(), {&term, 1}, bias, scratch, pool, options);
        CAPTURE(threads);
        CAPTURE(n);
        for (index_t i = 0; i < n; ++i) REQUIRE(std::memcmp(&y(i, 0), &z(i, 0), sizeof(float) * out) == 0);
      }
  }
}

// Large enough for tasks to share the packing of x, the rows of A, and, of several turns, the turns.
TEST_CASE_TEMPLATE("parallel/thread_pool: what comes before the product with W is shared as well, and whole turns are, to the same bits", W,
                   float, lora::bfloat16) {
  constexpr index_t in = 1030;  // eight units of packing and a rest
  constexpr index_t out = 301;
  constexpr index_t most = 385;
  std::vector<W> x_memory(most * in);
  std::vector<W> w_memory(out * in);
  test::random numbers(1);
  for (W& e : x_memory) e = W(numbers.number());
  for (W& e : w_memory) e = W(numbers.number());
  const lora::ndview<const W, 2> w(w_memory.data(), {out, in});
  const lora::ndview<const W, 2> w_transposed(w_memory.data(), {out, in}, {1, out});
  const matrix a(33, in, layout::padded, 3);  // 64 tokens: above 2 million operations
  const matrix b(out, 33, layout::transposed, 4);
  const matrix small(2, in, layout::padded, 5);
  const matrix small_b(out, 2, layout::plain, 6);
  const lora::low_rank_term terms[] = {{a.view(), b.view(), 0.5f}, {small.view(), small_b.view(), -1.0f}};
  for (const auto precision : {lora::precision::exact, lora::precision::pairs})
    for (const bool transposed : {false, true})
      for (const index_t n : {7, 64, 70, 128, 257, 320, 385}) {  // 320 on two threads: four turns apart and one together
        const lora::forward_options options{.precision = precision};
        const auto& weight = transposed ? w_transposed : w;
        const lora::ndview<const W, 2> x(x_memory.data(), {n, in});
        matrix y(n, out, layout::plain);
        lora::workspace one;
        lora::forward(y.view(), x, weight, terms, {}, one, options);
        for (const std::size_t threads : {2u, 3u}) {
          lora::thread_pool pool(threads);
          lora::workspace scratch(lora::forward_workspace_bytes(n, weight, terms, threads, options));
          const void* const memory = scratch.data();
          for (int again = 0; again < 2; ++again) {
            matrix z(n, out, layout::plain);
            lora::forward(z.view(), x, weight, terms, {}, scratch, pool, options);
            CAPTURE(threads);
            CAPTURE(n);
            CAPTURE(transposed);
            for (index_t i = 0; i < n; ++i) REQUIRE(std::memcmp(&y(i, 0), &z(i, 0), sizeof(float) * out) == 0);
          }
          REQUIRE(scratch.data() == memory);
        }
      }
}

TEST_CASE("parallel/thread_pool: two requests at once on one pool, one set of weights") {
  constexpr index_t in = 300;
  constexpr index_t out = 500;
  const matrix x(8, in, layout::plain, 1);
  const matrix w(out, in, layout::plain, 2);
  lora::thread_pool pool(3);
  matrix want(8, out, layout::plain);
  lora::workspace scratch;
  lora::forward(want.view(), x.view(), w.view(), {}, {}, scratch);
  const auto request = [&](bool& equal) {
    lora::workspace own;
    matrix y(8, out, layout::plain);
    for (int i = 0; i < 100; ++i) {
      lora::forward(y.view(), x.view(), w.view(), {}, {}, own, pool);
      equal = equal && std::memcmp(&y(0, 0), &want(0, 0), sizeof(float) * 8 * out) == 0;
    }
  };
  bool first = true;
  bool second = true;
  std::thread other([&] { request(second); });
  request(first);
  other.join();
  CHECK(first);
  CHECK(second);
}
