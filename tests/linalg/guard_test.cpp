// SPDX-License-Identifier: Apache-2.0
//
// Every operand of forward between two pages that may not be touched, for W row-major and transposed and every element type: an element
// read or written too many, before the first or behind the last, ends the program.
#include "support/guarded.hpp"
#include "support/oracle.hpp"
#include "support/tiers.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <string>

using lora::bfloat16;
using lora::float16;
using lora::index_t;
using lora::low_rank_term;
using lora::simd::tier;
using test::where;

namespace {

template <class T>
lora::ndview<T, 2> place(const test::guarded& memory, index_t rows, index_t columns, where w, std::uint64_t seed) {
  T* p = memory.place_of<T>(static_cast<std::size_t>(rows * columns), w);
  test::random numbers(seed);
  for (index_t i = 0; i < rows * columns; ++i) p[i] = T(numbers.number());
  return {p, {rows, columns}, {columns, 1}};
}

}  // namespace

TEST_CASE_TEMPLATE("linalg/guard: no byte outside x, W, A, B, bias and y is touched, W row-major and transposed", T, float, bfloat16,
                   float16) {
  constexpr index_t most = 70;
  const test::guarded x_memory(most * 70);
  const test::guarded w_memory(140 * 70);
  const test::guarded a_memory(20 * 70);
  const test::guarded b_memory(140 * 20);
  const test::guarded bias_memory(140);
  const test::guarded y_memory(most * 140);
  lora::workspace scratch;
  test::for_each_tier([&](tier t) {
    for (const where side : {where::at_the_start, where::at_the_end})
      for (const index_t out : {3, 17, 63, 65, 131})
        for (const index_t in : {3, 17, 65}) {
          const index_t rank = 1 + (out + in) % 18;
          const auto a = place<T>(a_memory, rank, in, side, 3);
          const auto b = place<T>(b_memory, out, rank, side, 4);
          const auto bias = place<T>(bias_memory, 1, out, side, 5)(0, lora::all);
          const low_rank_term term{a, b, 0.5f};
          for (const index_t n : {1, 2, 3, 5, 7, 9, 13, 24, 64, 70}) {
            if (n > 3 && (n + out + in) % 2 != 0) continue;
            const auto x = place<T>(x_memory, n, in, side, 1);
            for (const bool transposed : {false, true}) {
              const auto lies = transposed ? place<T>(w_memory, in, out, side, 2) : place<T>(w_memory, out, in, side, 2);
              const lora::ndview<const T, 2> w =
                  transposed ? lora::ndview<const T, 2>(lies.data(), {out, in}, {1, out}) : lora::ndview<const T, 2>(lies);
              const auto y = place<T>(y_memory, n, out, side, 6);
              lora::forward(y, x, w, {&term, 1}, bias, scratch, {.tier = t});
              CAPTURE(n);
              CAPTURE(out);
              CAPTURE(in);
              CAPTURE(transposed);
              CAPTURE(std::string(lora::simd::name_of(t)));
              bool finite = true;
              for (index_t i = 0; i < n * out; ++i) finite = finite && std::isfinite(static_cast<float>(y.data()[i]));
              REQUIRE(finite);
            }
          }
        }
  });
}
