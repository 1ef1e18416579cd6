// SPDX-License-Identifier: Apache-2.0
//
// A product with a packed W against the same product with W in place, bit for bit, and against float64 where W lies transposed.
#include "support/oracle.hpp"
#include "support/tiers.hpp"

#include <lora/adapter/linear.hpp>
#include <lora/linalg/pack.hpp>
#include <lora/parallel/thread_pool.hpp>
#include <lora/snapshot/payload.hpp>

#include <doctest/doctest.h>

#include <cstring>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

using lora::bfloat16;
using lora::float16;
using lora::index_t;
using lora::low_rank_term;
using lora::packed_weight;
using lora::simd::tier;
using test::layout;

namespace {

template <class T>
constexpr index_t line = static_cast<index_t>(64 / sizeof(T));

/** The elements of a float matrix as T, in memory of the same layout (one element behind a line), or in C order. */
template <class T>
class typed {
 public:
  typed(const test::matrix& from, bool keep_layout) {
    const auto v = from.view();
    const index_t row = keep_layout ? v.stride(0) : v.extent(1);
    const index_t column = keep_layout ? v.stride(1) : 1;
    index_t low = 0;
    index_t high = 0;
    for (const auto& [extent, step] : {std::pair{v.extent(0), row}, std::pair{v.extent(1), column}})
      if (extent > 1) (step < 0 ? low : high) += (extent - 1) * step;
    memory_.assign(static_cast<std::size_t>(high - low + 1 + 64), T(test::poison()));
    T* p = memory_.data();
    while (reinterpret_cast<std::uintptr_t>(p) % 64 != sizeof(T)) ++p;
    view_ = {p - low, v.shape(), lora::strides<2>(row, column)};
    for (index_t i = 0; i < v.extent(0); ++i)
      for (index_t j = 0; j < v.extent(1); ++j) p[i * row + j * column - low] = T(from(i, j));
  }
  [[nodiscard]] const lora::ndview<const T, 2>& view() const { return view_; }

 private:
  std::vector<T> memory_;
  lora::ndview<const T, 2> view_;
};

template <class T>
bool same_bits(const lora::ndview<const T, 2>& a, const lora::ndview<const T, 2>& b) {
  if (a.shape() != b.shape()) return false;
  for (index_t i = 0; i < a.extent(0); ++i)
    for (index_t j = 0; j < a.extent(1); ++j) {
      const T left = a(i, j);
      const T right = b(i, j);
      if (std::memcmp(&left, &right, sizeof(T)) != 0) return false;
    }
  return true;
}

template <class T>
bool is_packed(const packed_weight<T>& p, const lora::ndview<const T, 2>& from) {
  const auto v = p.view();
  if (!same_bits<T>(v, from) || p.out() != from.extent(0) || p.in() != from.extent(1) || v.stride(1) != 1) return false;
  if (from.size() == 0) return p.size_bytes() == 0;
  if (v.stride(0) % line<T> != 0 || v.stride(0) / line<T> % 2 != 1) return false;
  if (v.stride(0) < v.extent(1) || v.stride(0) >= v.extent(1) + 2 * line<T>) return false;
  if (reinterpret_cast<std::uintptr_t>(v.data()) % 64 != 0) return false;
  for (index_t i = 0; i < v.extent(0); ++i)  // the ends of the rows
    for (index_t j = v.extent(1); j < v.stride(0); ++j)
      if (static_cast<float>(v.data()[i * v.stride(0) + j]) != 0.0f) return false;
  return p.size_bytes() == static_cast<std::size_t>(v.extent(0) * v.stride(0)) * sizeof(T);
}

}  // namespace

TEST_CASE_TEMPLATE("linalg/pack: every element of every layout is where it belongs", T, float, bfloat16, float16) {
  std::uint64_t seed = 0;
  for (const index_t out : {0, 1, 5, 63, 64, 65, 130})
    for (const index_t in : {0, 1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 129, 200})
      for (int l = 0; l < test::layouts; ++l) {
        const test::matrix m(out, in, static_cast<layout>(l), ++seed);
        const typed<T> w(m, true);
        CAPTURE(out);
        CAPTURE(in);
        CAPTURE(l);
        REQUIRE(is_packed(lora::pack(w.view()), w.view()));
        for (const std::size_t tasks : {2u, 3u, 7u, 200u}) {
          test::backward_executor ex{tasks};
          REQUIRE(is_packed(lora::pack(w.view(), ex, lora::pages::system), w.view()));
        }
      }
}

TEST_CASE("linalg/pack: rows are copied by as many tasks as there are threads, but rows") {
  const test::matrix m(5, 20, layout::plain, 1);
  test::backward_executor ex{8};
  (void)lora::pack(m.view(), ex);
  CHECK(ex.most_seen == 5);
  lora::thread_pool pool(2);
  CHECK(is_packed(lora::pack(m.view(), pool), lora::ndview<const float, 2>(m.view())));
}

TEST_CASE("linalg/pack: all of a large one is in whole huge pages") {
  const index_t in = 1000;
  const auto out = static_cast<index_t>(lora::huge_pages_from / sizeof(float)) / in;  // a little less without the ends of rows
  const lora::ndarray<float, 2> w = lora::full<float>(lora::extents{out, in}, 1.5f);
  const auto p = lora::pack(w);
  REQUIRE(p.size_bytes() >= lora::huge_pages_from);
  CHECK(reinterpret_cast<std::uintptr_t>(p.view().data()) % lora::huge_page_size == 0);
  CHECK(is_packed(p, w.view()));
  CHECK(is_packed(lora::pack(w, lora::pages::small), w.view()));
}

namespace {

/** forward with W in place, with a C-order copy, and packed; Y and X are what the kernels see. */
template <class Y, class X, class W>
void check_products() {
  std::uint64_t seed = 100;
  lora::workspace scratch;
  for (const index_t out : {1, 7, 48, 55})
    for (const index_t in : {1, 15, 16, 17, 33, 65, 160})
      for (int l = 0; l < test::layouts; ++l) {
        const auto lies = static_cast<layout>(l);
        const test::matrix m(out, in, lies, ++seed);
        const typed<W> w(m, true);
        const typed<W> rows(m, false);
        const packed_weight<W> packed = lora::pack(w.view());
        const test::matrix a(3, in, layout::padded, ++seed);
        const test::matrix b(out, 3, layout::plain, ++seed);
        const test::matrix bias_of(1, out, layout::plain, ++seed);
        const low_rank_term term{a.view(), b.view(), -0.7f};
        const lora::float_view<1> bias = lora::ndview<const float, 1>(bias_of.view().data(), lora::extents{out});
        for (const index_t n : {1, 2, 5, 9, 17, 33, 50, 65}) {
          const test::matrix tokens(n, in, layout::padded, ++seed);
          const typed<X> x(tokens, true);
          test::for_each_tier([&](tier t) {
            for (int option = 0; option < 3; ++option) {
              lora::forward_options options{.tier = t};
              if (option == 1) options.batch_invariant = true;
              if (option == 2) {
                options.precision = lora::precision::native;
                if (t == tier::avx512) options.tier = tier::avx512_bf16;
              }
              const lora::ndarray<Y, 2> y = lora::full<Y>(lora::extents{n, out}, Y(1.0f));
              lora::ndarray<Y, 2> in_place = y.clone();
              lora::ndarray<Y, 2> c_order = y.clone();
              lora::ndarray<Y, 2> got = y.clone();
              lora::forward(c_order, x.view(), rows.view(), {&term, 1}, bias, scratch, options);
              lora::forward(got, x.view(), packed, {&term, 1}, bias, scratch, options);
              CAPTURE(out);
              CAPTURE(in);
              CAPTURE(l);
              CAPTURE(n);
              CAPTURE(option);
              REQUIRE(same_bits<Y>(got.view(), c_order.view()));
              // precision::native takes pairs only where columns are contiguous: elsewhere W in place is summed exactly.
              if (lies == layout::transposed || (option == 2 && w.view().stride(1) != 1)) continue;
              lora::forward(in_place, x.view(), w.view(), {&term, 1}, bias, scratch, options);
              REQUIRE(same_bits<Y>(got.view(), in_place.view()));
            }
          });
        }
      }
}

}  // namespace

TEST_CASE("linalg/pack: float: the bits of W in place, whatever the layout, tier, policy and number of tokens") {
  check_products<float, float, float>();
}
TEST_CASE("linalg/pack: bfloat16: likewise, pairs included") { check_products<bfloat16, bfloat16, bfloat16>(); }
TEST_CASE("linalg/pack: float16: likewise") { check_products<float, float, float16>(); }

TEST_CASE("linalg/pack: a transposed W, packed, agrees with itself in place within the bound of forward") {
  lora::workspace scratch;
  const test::matrix w(70, 90, layout::transposed, 5);
  const test::matrix x(9, 90, layout::plain, 6);
  const packed_weight<float> packed = lora::pack(w.view());
  lora::ndarray<float, 2> y = lora::zeros<float>(9, 70);
  lora::forward(y, x.view(), packed, {}, {}, scratch);
  CHECK(test::expected(x.view(), w.view(), {}, {}).worst(y.view()) <= 1);
}

TEST_CASE("linalg/pack: a product large enough to be fetched from memory and split over threads has the same bits") {
  const index_t in = 2047;  // two lines less one element lie between the rows
  const index_t out = 1100;
  lora::ndarray<float, 2> w(lora::extents{out, in});
  test::random numbers(3);
  for (index_t i = 0; i < w.size(); ++i) w.data()[i] = numbers.number();
  REQUIRE(static_cast<std::size_t>(w.size()) * sizeof(float) > std::size_t{8} << 20);
  const packed_weight<float> packed = lora::pack(w);
  CHECK(packed.view().stride(0) == 129 * 16);
  for (const index_t n : {1, 16}) {
    const test::matrix x(n, in, layout::plain, 9);
    lora::ndarray<float, 2> want = lora::zeros<float>(n, out);
    lora::ndarray<float, 2> got = lora::zeros<float>(n, out);
    lora::workspace scratch(lora::forward_workspace_bytes(n, packed, {}, 3));
    const std::size_t reserved = scratch.size_bytes();
    test::backward_executor ex{3};
    lora::forward(want, x.view(), w, {}, {}, scratch);
    lora::forward(got, x.view(), packed, {}, {}, scratch, ex);
    CHECK(ex.most_seen == 3);
    CHECK(scratch.size_bytes() == reserved);
    CHECK(same_bits<float>(got.view(), want.view()));
  }
}

TEST_CASE("linalg/pack: stands for W in a linear module, in merged, and as the payload of a snapshot") {
  const test::matrix w(20, 30, layout::padded, 1);
  const test::matrix a(2, 30, layout::plain, 2);
  const test::matrix b(20, 2, layout::plain, 3);
  const test::matrix x(4, 30, layout::plain, 4);
  const low_rank_term term{a.view(), b.view(), 0.5f};
  lora::workspace scratch;

  const auto payload = lora::make_payload<packed_weight<float>>(lora::pack(w.view()));
  const lora::linear module(*payload);
  lora::ndarray<float, 2> y = lora::zeros<float>(4, 20);
  lora::ndarray<float, 2> want = lora::zeros<float>(4, 20);
  module.forward(y, x.view(), {&term, 1}, scratch);
  lora::forward(want, x.view(), w.view(), {&term, 1}, {}, scratch);
  CHECK(same_bits<float>(y.view(), want.view()));
  const lora::ndarray<float, 2> merged = lora::merged(*payload, {&term, 1});
  const lora::ndarray<float, 2> merged_in_place = lora::merged(w.view(), {&term, 1});
  CHECK(same_bits<float>(merged.view(), merged_in_place.view()));
}

TEST_CASE("linalg/pack: moving hands the memory over and leaves an empty matrix") {
  const test::matrix w(3, 5, layout::plain, 1);
  packed_weight<float> first = lora::pack(w.view());
  const float* const data = first.view().data();
  packed_weight<float> second(std::move(first));
  CHECK(second.view().data() == data);
  CHECK(first.view().data() == nullptr);
  CHECK(first.out() == 0);
  CHECK(first.size_bytes() == 0);
  packed_weight<float> third;
  third = std::move(second);
  CHECK(is_packed(third, lora::ndview<const float, 2>(w.view())));
  packed_weight<float>& same = third;
  third = std::move(same);
  CHECK(third.view().data() == data);
  CHECK_FALSE(std::is_copy_constructible_v<packed_weight<float>>);
  CHECK_FALSE(std::is_convertible_v<packed_weight<float>, lora::ndview<const float, 2>>);
  CHECK(std::is_convertible_v<const packed_weight<float>&, lora::ndview<const float, 2>>);
}

TEST_CASE("linalg/pack: what does not fit the address space is refused") {
  const float one = 1;
  const lora::ndview<const float, 2> narrow(&one, {index_t{1} << 59, 2}, {0, 0});  // its rows would be widened to a line
  CHECK_THROWS_WITH_AS((void)lora::pack(narrow), "pack: w of shape [576460752303423488, 2] does not fit the address space",
                       lora::shape_error);
}

TEST_CASE("linalg/pack: wrong shapes are refused with the words of forward") {
  const test::matrix w(3, 5, layout::plain, 1);
  const test::matrix x(2, 6, layout::plain, 1);
  const packed_weight<float> p = lora::pack(w.view());
  lora::ndarray<float, 2> y = lora::zeros<float>(2, 3);
  lora::workspace scratch;
  CHECK_THROWS_WITH_AS(lora::forward(y, x.view(), p, {}, {}, scratch), "forward: w is [3, 5] but x is [2, 6]", lora::shape_error);
}
