// SPDX-License-Identifier: Apache-2.0
//
// Batches of more tokens than one turn takes: how they are cut, and that neither the cut nor the length of the rows shows in the result.
#include "support/oracle.hpp"

#include <doctest/doctest.h>

using lora::index_t;
using lora::detail_forward::turn_begin;
using lora::detail_forward::turn_size;
using lora::detail_forward::turns_of;
using test::layout;
using test::matrix;

TEST_CASE("linalg/turns: turns cover the batch, differ by at most a register, begin on registers and fit what was laid out") {
  for (const index_t in : {1, 4096, 6144, 6145, 12288, 12289, 100000}) {
    const index_t most = in <= 6144 ? 64 : in <= 12288 ? 32 : 16;
    for (index_t n = 1; n < 1000; ++n) {
      index_t at = 0;
      index_t largest = 0;
      index_t smallest = n;
      for (index_t i = 0; i < turns_of(n, in); ++i) {
        CAPTURE(n);
        CAPTURE(in);
        REQUIRE(turn_begin(n, in, i) == at);
        REQUIRE(at % 16 == 0);
        const index_t end = turn_begin(n, in, i + 1);
        REQUIRE(end > at);
        largest = std::max(largest, end - at);
        smallest = std::min(smallest, end - at);
        at = end;
      }
      REQUIRE(at == n);
      REQUIRE(largest <= turn_size(n, in));
      REQUIRE((n <= 48 || largest <= most));
      REQUIRE(largest - smallest < 32);  // a register, and the padding of the last one
    }
  }
}

TEST_CASE("linalg/turns: long rows, in smaller turns, stay inside the bound, and a row's bits do not depend on its turn") {
  constexpr index_t out = 7;
  for (const index_t in : {6144, 6145, 12289}) {
    const matrix x(112, in, layout::plain, 1);
    const matrix w(out, in, layout::padded, 2);
    const matrix a(3, in, layout::plain, 3);
    const matrix b(out, 3, layout::plain, 4);
    const lora::low_rank_term term{a.view(), b.view(), 0.5f};
    const test::expected want(x.view(), w.view(), {&term, 1}, {});
    test::for_each_tier([](const char* name) { MESSAGE("skipped, not on this CPU: tier " << std::string(name)); },
                        [&](lora::simd::tier t) {
                          matrix all(112, out, layout::plain);
                          lora::workspace scratch(lora::forward_workspace_bytes(112, w.view(), {&term, 1}, 1, {.tier = t}));
                          const void* const memory = scratch.data();
                          lora::forward(all.view(), x.view(), w.view(), {&term, 1}, {}, scratch, {.tier = t});
                          CAPTURE(in);
                          REQUIRE(want.worst(all.view()) <= 0.1);
                          for (const index_t n : {57, 65, 97}) {  // the last rows, in other places of other turns
                            matrix some(n, out, layout::plain);
                            const index_t first = 112 - n;
                            lora::forward(some.view(), lora::ndview<const float, 2>(&x.view().data()[first * in], {n, in}), w.view(),
                                          {&term, 1}, {}, scratch, {.tier = t});
                            for (index_t m = 0; m < n; ++m)
                              for (index_t j = 0; j < out; ++j) REQUIRE(test::bits(some(m, j)) == test::bits(all(first + m, j)));
                          }
                          REQUIRE(scratch.data() == memory);
                        });
  }
}
