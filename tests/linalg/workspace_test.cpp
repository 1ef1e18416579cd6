// SPDX-License-Identifier: Apache-2.0
//
// What forward does with memory: how much workspace it takes, that it allocates nothing in steady state, and that it touches not one
// element outside its arguments. This file replaces operator new of the whole test program, to count.
#include "support/guarded.hpp"
#include "support/oracle.hpp"
#include "support/tiers.hpp"

#include <lora/linalg/embedding.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

using lora::index_t;
using lora::low_rank_term;
using lora::simd::tier;
using test::layout;
using test::matrix;

namespace {

std::size_t allocations = 0;

void* counted(std::size_t size, std::size_t alignment) {
  ++allocations;
  void* p = std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment + (size == 0 ? alignment : 0));
  if (p == nullptr) std::abort();  // a throw would need exceptions
  return p;
}

}  // namespace

void* operator new(std::size_t size) { return counted(size, alignof(std::max_align_t)); }
void* operator new[](std::size_t size) { return counted(size, alignof(std::max_align_t)); }
void* operator new(std::size_t size, std::align_val_t a) { return counted(size, static_cast<std::size_t>(a)); }
void* operator new[](std::size_t size, std::align_val_t a) { return counted(size, static_cast<std::size_t>(a)); }
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }

namespace {}  // namespace

TEST_CASE("linalg/workspace: grows when asked for more, and never shrinks") {
  lora::workspace scratch;
  CHECK(scratch.size_bytes() == 0);
  CHECK(scratch.data() == nullptr);
  scratch.reserve(100);
  CHECK(scratch.size_bytes() == 100);
  CHECK(reinterpret_cast<std::uintptr_t>(scratch.data()) % 64 == 0);
  const void* before = scratch.data();
  scratch.reserve(50);
  CHECK(scratch.data() == before);
  CHECK(scratch.size_bytes() == 100);
  const lora::workspace sized(4096);
  CHECK(sized.size_bytes() == 4096);
}

TEST_CASE("linalg/workspace: the parts of a layout start on cache lines, and a sum that does not fit is refused") {
  lora::detail::layout l;
  CHECK(l.add(3, 4) == 0);
  CHECK(l.add(0, 4) == 64);
  CHECK(l.add(17, 4) == 64);
  CHECK(l.add(1, 1) == 192);
  CHECK(l.total("here") == 256);
#if LORA_HAS_EXCEPTIONS
  for (const std::size_t most : {static_cast<std::size_t>(-1), static_cast<std::size_t>(-1) / 4, static_cast<std::size_t>(-1) / 4 - 10}) {
    lora::detail::layout wide = l;
    (void)wide.add(most, 4);
    CHECK_THROWS_WITH_AS((void)wide.total("here"), "here: the workspace for these extents does not fit the address space",
                         lora::shape_error);
  }
#endif
}

namespace {

// The strided matrices are gathered by tiles, whose size depends on the form: a smaller batch may need more than a larger one.
struct shape {
  index_t out, in, rank;
  layout w, a, b;
};
constexpr shape shapes[] = {{97, 33, 5, layout::plain, layout::padded, layout::plain},
                            {97, 33, 17, layout::transposed, layout::transposed, layout::transposed},
                            {50, 100, 3, layout::columns_reversed, layout::plain, layout::spread},
                            {201, 100, 60, layout::padded, layout::transposed, layout::plain}};

}  // namespace

TEST_CASE("linalg/forward: writes nothing behind the bytes it names") {
  constexpr std::size_t behind = 1 << 16;
  for (const shape& s : shapes) {
    const matrix x(130, s.in, layout::plain, 1);
    const matrix w(s.out, s.in, s.w, 2);
    const matrix a(s.rank, s.in, s.a, 3);
    const matrix b(s.out, s.rank, s.b, 4);
    const matrix bias_column(s.out, 1, layout::spread, 5);
    const lora::ndview<const float, 1> bias(bias_column.view().data(), {s.out}, {bias_column.view().stride(0)});
    const low_rank_term terms[] = {{a.view(), b.view(), 0.5f}, {a.view(), b.view(), -1.0f}};
    test::for_each_tier([&](tier t) {
      for (const std::size_t threads : {1u, 2u, 3u})
        for (const index_t n : {1, 2, 4, 16, 64, 128, 130}) {  // 128: two turns, each on a task
          // Only the largest of the sizes up to n is named, so each n is also tried alone, by what its own plan says.
          const auto kernels = lora::detail_forward::choose<float, float, float>(w.view(), {.tier = t});
          const std::size_t own = lora::detail_forward::plan(kernels, n, n, w.view(), terms, threads).bytes;
          REQUIRE(own <= lora::forward_workspace_bytes(n, w.view(), terms, threads, {.tier = t}));
          lora::workspace scratch(own + behind);
          auto* bytes = static_cast<unsigned char*>(scratch.data());
          std::memset(bytes + own, 0xa5, behind);
          test::backward_executor ex{threads};
          matrix y(n, s.out, layout::plain);
          lora::forward(y.view(), lora::ndview(x.view().data(), lora::extents{n, s.in}, x.view().stride()), w.view(), terms, bias, scratch,
                        ex, {.tier = t});
          CAPTURE(s.in);
          CAPTURE(n);
          REQUIRE(std::count(bytes + own, bytes + own + behind, 0xa5) == static_cast<std::ptrdiff_t>(behind));
        }
    });
  }
}

TEST_CASE("linalg/forward: allocates nothing in steady state, and the bytes it names suffice for every smaller batch") {
  constexpr index_t most = 150;
  for (const shape& s : shapes) {
    const matrix x(most, s.in, layout::transposed, 1);
    const matrix w(s.out, s.in, s.w, 2);
    const matrix a(s.rank, s.in, s.a, 3);
    const matrix b(s.out, s.rank, s.b, 4);
    const matrix bias_column(s.out, 1, layout::spread, 5);
    const lora::ndview<const float, 1> bias(bias_column.view().data(), {s.out}, {bias_column.view().stride(0)});
    const low_rank_term terms[] = {{a.view(), b.view(), 0.5f}, {a.view(), b.view(), 0.0f}, {a.view(), b.view(), -1.0f}};
    test::for_each_tier([&](tier t) {
      for (const std::size_t threads : {1u, 3u})
        for (const index_t largest : {index_t{3}, index_t{65}, most}) {
          test::backward_executor ex{threads};
          lora::workspace scratch(lora::forward_workspace_bytes(largest, w.view(), terms, threads, {.tier = t}));
          const void* memory = scratch.data();
          matrix y(most, s.out, layout::padded);
          const std::size_t before = allocations;
          for (index_t n = 1; n <= largest; n += largest == most ? 7 : 1) {
#if !defined(__OPTIMIZE__)
            if (n % 16 > 2) continue;
#endif
            const lora::ndview rows_of_y(y.view().data(), lora::extents{n, s.out}, y.view().stride());
            const lora::ndview rows_of_x(x.view().data(), lora::extents{n, s.in}, x.view().stride());
            lora::forward(rows_of_y, rows_of_x, w.view(), terms, bias, scratch, ex, {.tier = t});
          }
          const std::size_t after = allocations;  // before doctest allocates for its own
          CAPTURE(s.out);
          CAPTURE(threads);
          CAPTURE(largest);
          REQUIRE(after == before);
          REQUIRE(scratch.data() == memory);
        }
    });
  }
}

TEST_CASE("linalg/forward: a workspace for many threads serves fewer, and one for many tokens fewer, without growing") {
  const matrix x(130, 300, layout::plain, 1);
  const matrix w(600, 300, layout::plain, 2);
  for (const std::size_t most : {2u, 3u, 8u}) {
    lora::workspace scratch(lora::forward_workspace_bytes(130, w.view(), {}, most));
    const void* const memory = scratch.data();
    for (std::size_t threads = 1; threads <= most; ++threads)
      for (const index_t n : {3, 64, 65, 96, 112, 128, 130}) {
        test::backward_executor ex{threads};
        matrix y(n, 600, layout::plain);
        lora::forward(y.view(), lora::ndview<const float, 2>(x.view().data(), {n, 300}), w.view(), {}, {}, scratch, ex);
        CAPTURE(most);
        CAPTURE(threads);
        CAPTURE(n);
        REQUIRE(scratch.data() == memory);
      }
  }
}

TEST_CASE("linalg/forward: a workspace that is too small grows, and is then kept") {
  const matrix x(9, 20, layout::plain, 1);
  const matrix w(30, 20, layout::plain, 2);
  matrix y(9, 30, layout::plain);
  lora::workspace scratch(1);
  std::size_t before = allocations;
  lora::forward(y.view(), x.view(), w.view(), {}, {}, scratch);
  const std::size_t first = allocations - before;
  before = allocations;
  for (int i = 0; i < 100; ++i) lora::forward(y.view(), x.view(), w.view(), {}, {}, scratch);
  const std::size_t later = allocations - before;
  CHECK(first == 1);
  CHECK(later == 0);
}

TEST_CASE("linalg/forward: touches no element outside its arguments (guard pages before and behind each)") {
  const test::guarded x_memory(70 * 40);
  const test::guarded w_memory(60 * 60);
  const test::guarded a_memory(40 * 60);
  const test::guarded b_memory(60 * 40);
  const test::guarded bias_memory(60);
  const test::guarded y_memory(70 * 60);
  lora::workspace scratch;
  // A matrix whose last (or first) element is the last (first) float before the guard; rows `gap` floats apart.
  const auto place = [](const test::guarded& memory, index_t rows, index_t columns, index_t gap, test::where where, std::uint64_t seed) {
    const index_t stride = columns + gap;
    const index_t size = rows == 0 || columns == 0 ? 0 : (rows - 1) * stride + columns;
    float* p = memory.place(static_cast<std::size_t>(size), where);
    test::random numbers(seed);
    for (index_t i = 0; i < size; ++i) p[i] = numbers.number();
    return lora::ndview<float, 2>(p, {rows, columns}, {stride, 1});
  };
  test::for_each_tier([&](tier t) {
    for (const auto where : {test::where::at_the_start, test::where::at_the_end})
      for (const index_t gap : {0, 3})
        for (const index_t out : {1, 5, 8, 49, 55})
          for (const index_t in : {1, 2, 7, 16, 19, 33})
            for (const index_t rank : {1, 5, 16, 17}) {
              const auto x = place(x_memory, 70, in, gap, where, 1);
              const auto w = place(w_memory, out, in, gap, where, 2);
              const auto a = place(a_memory, rank, in, gap, where, 3);
              const auto b = place(b_memory, out, rank, gap, where, 4);
              const auto bias = place(bias_memory, 1, out, 0, where, 5)(0, lora::all);
              const low_rank_term term{a, b, 0.5f};
              for (const index_t n : {1, 2, 4, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64, 70}) {
                if (n > 2 && (n + out + in + rank + gap) % 3 != 0) continue;
                // x ends with its last row here too, not only at 70.
                const index_t first = where == test::where::at_the_start ? 0 : 70 - n;
                const auto some_x = x(lora::range(first, first + n), lora::all);
                const auto y = place(y_memory, n, out, gap, where, 6);
                lora::forward(y, some_x, w, {&term, 1}, bias, scratch, {.tier = t});
                // The gaps between the rows of y are not written either.
                test::random numbers(6);
                for (index_t i = 0; i < n; ++i)
                  for (index_t j = 0; j < out + gap && (i + 1 < n || j < out); ++j) {
                    const float before = numbers.number();
                    if (j >= out) REQUIRE(test::bits(y.data()[i * y.stride(0) + j]) == test::bits(before));
                  }
              }
            }
  });
}

TEST_CASE("linalg/forward: matrices that end at a guard page when seen transposed or reversed") {
  const test::guarded memory(40 * 60);
  const test::guarded y_memory(20 * 40);
  lora::workspace scratch;
  test::for_each_tier([&](tier t) {
    for (const auto where : {test::where::at_the_start, test::where::at_the_end})
      for (const index_t n : {1, 2, 3, 8, 16, 20}) {
        constexpr index_t in = 19;
        constexpr index_t out = 37;
        const matrix x(n, in, layout::plain, 1);
        float* p = memory.place(in * out, where);
        test::random numbers(2);
        for (index_t i = 0; i < in * out; ++i) p[i] = numbers.number();
        float* q = y_memory.place(static_cast<std::size_t>(n * out), where);
        const lora::ndview<float, 2> y_seen[] = {{q, {n, out}, {1, n}}, {q + n * out - 1, {n, out}, {-out, -1}}};
        const lora::ndview<const float, 2> w_seen[] = {
            {p, {out, in}, {1, out}}, {p + (out - 1) * in, {out, in}, {-in, 1}}, {p + in - 1, {out, in}, {in, -1}}};
        for (const auto& w : w_seen)
          for (const auto& y : y_seen) {
            lora::forward(y, x.view(), w, {}, {}, scratch, {.tier = t});
            REQUIRE(test::expected(x.view(), w, {}, {}).worst(y) <= 1.0);
          }
      }
  });
}

TEST_CASE("linalg/embedding: allocates nothing once the workspace has the bytes it names") {
  const matrix table(90, 300, layout::padded, 1);
  const matrix a(40, 90, layout::plain, 2);
  const matrix b(300, 40, layout::transposed, 3);
  const low_rank_term terms[] = {{a.view(), b.view(), 0.5f}, {a.view(), b.view(), 0.0f}, {a.view(), b.view(), -1.0f}};
  std::int32_t ids[200];
  std::fill(std::begin(ids), std::end(ids), 89);
  matrix y(200, 300, layout::plain);
  lora::workspace scratch(lora::embed_workspace_bytes(table.view(), terms));
  const void* memory = scratch.data();
  const std::size_t before = allocations;
  for (const index_t n : {1, 64, 200})
    lora::embed(lora::ndview(y.view().data(), lora::extents{n, 300}), lora::ndview<const std::int32_t, 1>(ids, {n}), table.view(), terms,
                scratch);
  const std::size_t after = allocations;
  CHECK(after == before);
  CHECK(scratch.data() == memory);
}
