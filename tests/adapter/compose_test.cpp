// SPDX-License-Identifier: Apache-2.0
#include <lora/adapter/compose.hpp>
#include <lora/linalg/low_rank_norm.hpp>
#include <lora/linalg/merge.hpp>
#include <lora/linalg/merge_report.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <vector>

namespace {

using lora::index_t;

float draw(unsigned& state) {
  state = state * 1664525u + 1013904223u;
  return static_cast<float>(static_cast<int>(state >> 9) - (1 << 22)) / static_cast<float>(1 << 22);
}

template <class T>
struct factors {
  std::vector<T> a, b;
  index_t rank, in, out;

  factors(index_t r, index_t inside, index_t outside, unsigned seed) : rank(r), in(inside), out(outside) {
    for (index_t i = 0; i < r * inside; ++i) a.push_back(static_cast<T>(draw(seed)));
    for (index_t i = 0; i < r * outside; ++i) b.push_back(static_cast<T>(draw(seed)));
  }
  [[nodiscard]] lora::low_rank pair(float scale) const {
    const index_t sa[] = {rank, in};
    const index_t sb[] = {out, rank};
    return {lora::any_view(a.data(), lora::dtype_of<T>, sa, 2), lora::any_view(b.data(), lora::dtype_of<T>, sb, 2), scale};
  }
  [[nodiscard]] lora::low_rank_term term(float scale) const {
    return {lora::ndview<const T, 2>(a.data(), {rank, in}), lora::ndview<const T, 2>(b.data(), {out, rank}), scale};
  }
};

double value(const lora::any_view& v, index_t i, index_t j) {
  return lora::dispatch<2, float, lora::float16, lora::bfloat16>(v,
                                                                 [&](auto m) { return static_cast<double>(static_cast<float>(m(i, j))); });
}
double product(const lora::low_rank& w, index_t o, index_t k, double* magnitude = nullptr) {
  double sum = 0;
  for (index_t r = 0; r < w.a.extent(0); ++r) {
    const double p = static_cast<double>(w.scale) * value(w.b, o, r) * value(w.a, r, k);
    sum += p;
    if (magnitude != nullptr) *magnitude += std::abs(p);
  }
  return sum;
}
double norm_of(const std::vector<lora::low_rank>& all) {
  double squares = 0;
  for (index_t o = 0; o < all[0].b.extent(0); ++o)
    for (index_t k = 0; k < all[0].a.extent(1); ++k) {
      double sum = 0;
      for (const auto& w : all) sum += product(w, o, k);
      squares += sum * sum;
    }
  return std::sqrt(squares);
}

}  // namespace

TEST_CASE("adapter/compose: the sum of the parts, each element of B rounded once at most") {
  const factors<float> f(3, 7, 5, 1);
  const factors<lora::bfloat16> g(2, 7, 5, 2);
  const factors<lora::float16> h(4, 6, 9, 3);
  lora::adapter one;
  one.modules = {{"m", f.pair(0.3f)}, {"only", h.pair(2.0f)}};
  lora::adapter two;
  two.modules = {{"m", g.pair(-1.7f)}};
  const lora::composed_part parts[] = {{&one, 0.7f}, {&two, 1.0f}};
  const lora::adapter sum = lora::composed(parts);
  REQUIRE(sum.modules.size() == 2);
  const lora::low_rank& m = sum.modules[0].weights;
  CHECK(m.a.extent(0) == 5);
  CHECK(m.scale == -1.7f);
  CHECK(m.b.type() == lora::dtype::f32);
  for (index_t o = 0; o < 5; ++o)
    for (index_t k = 0; k < 7; ++k) {
      double magnitude = 0;
      lora::low_rank first = f.pair(0.3f * 0.7f);
      const double want = product(first, o, k, &magnitude) + product(g.pair(-1.7f), o, k, &magnitude);
      // One rounding of each element of B: 2^-24; the sums here are in double.
      CHECK(std::abs(product(m, o, k) - want) <= 0x1.0001p-24 * magnitude);
    }
  // B of the part with the largest factor is taken over bit by bit, and so is a module of one part.
  for (index_t o = 0; o < 5; ++o)
    for (index_t r = 0; r < 2; ++r) CHECK(value(m.b, o, 3 + r) == value(g.pair(1).b, o, r));
  CHECK(sum.modules[1].weights.a.data() == h.a.data());
  CHECK(sum.modules[1].weights.scale == 1.4f);
  CHECK(sum.modules[1].weights.b.type() == lora::dtype::f16);
}

TEST_CASE("adapter/compose: equal factors keep the type; a weight of 0 leaves a part out, whatever it holds") {
  const factors<lora::float16> f(2, 3, 4, 1);
  factors<lora::float16> g(3, 3, 4, 2);
  lora::adapter one, two;
  one.modules = {{"m", f.pair(0.5f)}};
  two.modules = {{"m", g.pair(0.5f)}};
  const lora::composed_part both[] = {{&one, 2.0f}, {&two, 2.0f}};
  const lora::adapter sum = lora::composed(both);
  CHECK(sum.modules[0].weights.a.type() == lora::dtype::f16);
  CHECK(sum.modules[0].weights.b.type() == lora::dtype::f16);
  for (index_t o = 0; o < 4; ++o)
    for (index_t r = 0; r < 5; ++r)
      CHECK(value(sum.modules[0].weights.b, o, r) == (r < 2 ? value(f.pair(1).b, o, r) : value(g.pair(1).b, o, r - 2)));
  g.a[0] = static_cast<lora::float16>(INFINITY);
  const lora::composed_part off[] = {{&one, 1.0f}, {&two, 0.0f}};
  CHECK(lora::composed(off).modules[0].weights.a.extent(0) == 2);
  const lora::composed_part none[] = {{&two, 0.0f}};
  CHECK_THROWS_AS((void)lora::composed(none), lora::value_error);
}

TEST_CASE("adapter/compose: what does not fit is refused") {
  const factors<float> f(2, 3, 4, 1);
  const factors<float> g(2, 5, 4, 1);
  lora::adapter one, two, twice;
  one.modules = {{"m", f.pair(1)}};
  two.modules = {{"m", g.pair(1)}};
  twice.modules = {{"m", f.pair(1)}, {"m", f.pair(1)}};
  const lora::composed_part shapes[] = {{&one}, {&two}};
  CHECK_THROWS_AS((void)lora::composed(shapes), lora::shape_error);
  const lora::composed_part null[] = {{nullptr}};
  CHECK_THROWS_AS((void)lora::composed(null), lora::value_error);
  const lora::composed_part same[] = {{&twice}};
  CHECK_THROWS_AS((void)lora::composed(same), lora::value_error);
  const lora::composed_part huge[] = {{&one, INFINITY}};
  CHECK_THROWS_AS((void)lora::composed(huge), lora::value_error);
}

TEST_CASE("linalg/low_rank_norm: the norm of the product, also where terms cancel and the rank exceeds both sides") {
  for (const index_t rank : {1, 2, 5, 13})
    for (const index_t in : {1, 3, 4, 9, 17})
      for (const index_t out : {1, 2, 5, 8}) {
        CAPTURE(rank);
        CAPTURE(in);
        CAPTURE(out);
        const factors<float> f(rank, in, out, 1);
        const factors<lora::bfloat16> g(2, in, out, 2);
        const lora::low_rank_term terms[] = {f.term(0.5f), g.term(-3.0f)};
        const double size = norm_of({f.pair(0.5f)}) + norm_of({g.pair(-3.0f)}) + 1;
        CHECK(lora::low_rank_norm(terms) == doctest::Approx(norm_of({f.pair(0.5f), g.pair(-3.0f)})).epsilon(1e-12));
        // The same product twice, once with one element moved by 2^-20: the distance is that of this element's row.
        factors<float> moved = f;
        moved.b[0] += 0x1p-20f;
        const lora::low_rank_term near[] = {f.term(1), moved.term(-1)};
        CHECK(std::abs(lora::low_rank_norm(near) - norm_of({f.pair(1), moved.pair(-1)})) <=
              1e-13 * size * static_cast<double>(rank * (in + out)));
        const lora::low_rank_term same[] = {f.term(1), f.term(-1)};
        CHECK(lora::low_rank_norm(same) <= 1e-14 * size * static_cast<double>(rank * (in + out)));
      }
  CHECK(lora::low_rank_norm({}) == 0);
  const factors<float> f(2, 3, 4, 1);
  const factors<float> g(2, 5, 4, 1);
  const lora::low_rank_term wrong[] = {f.term(1), g.term(1)};
  CHECK_THROWS_AS((void)lora::low_rank_norm(wrong), lora::shape_error);
}

TEST_CASE("linalg/merge_report: errors and swallowed elements, counted against the sum in double") {
  for (const index_t in : {1, 255, 256, 257, 600}) {
    CAPTURE(in);
    const index_t out = 5;
    const factors<float> f(3, in, out, 4);
    const lora::low_rank_term term = f.term(1e-3f);
    const factors<lora::bfloat16> base(1, in, out, 9);
    std::vector<lora::bfloat16> w;
    for (index_t i = 0; i < in * out; ++i) w.push_back(base.a[static_cast<std::size_t>(i % in)]);
    const lora::ndview<const lora::bfloat16, 2> before(w.data(), {out, in});
    const auto after = lora::merged(before, {&term, 1});
    const lora::merge_report r = lora::merge_report_of(before, {&term, 1}, after);
    lora::merge_report want;
    for (index_t o = 0; o < out; ++o)
      for (index_t k = 0; k < in; ++k) {
        const double delta = product(f.pair(1e-3f), o, k);
        const double old = static_cast<double>(static_cast<float>(before(o, k)));
        const double now = static_cast<double>(static_cast<float>(after(o, k)));
        want.meant += delta != 0;
        want.swallowed += delta != 0 && now == old;
        want.max_delta = std::max(want.max_delta, std::abs(delta));
        want.max_error = std::max(want.max_error, std::abs(now - (old + delta)));
      }
    CHECK(r.elements == in * out);
    CHECK(r.meant == want.meant);
    CHECK(r.swallowed == want.swallowed);
    if (in > 200) CHECK(r.swallowed > 0);
    CHECK(r.not_finite == 0);
    CHECK(r.max_delta == doctest::Approx(want.max_delta).epsilon(1e-14));
    CHECK(r.max_error == doctest::Approx(want.max_error).epsilon(1e-12));
    if (in != out) CHECK_THROWS_AS((void)lora::merge_report_of(before, {&term, 1}, before.transpose()), lora::shape_error);
  }
}

TEST_CASE("linalg/merge_report: what was not meant to move is not swallowed; what is not finite is counted apart") {
  factors<float> f(1, 4, 3, 1);
  f.b = {0, 1, 1};
  f.a = {0x1p-30f, 0x1p-30f, 0.5f, 0};
  std::vector<float> w(12, 1.0f);
  const lora::ndview<const float, 2> before(w.data(), {3, 4});
  lora::low_rank_term term = f.term(1);
  auto after = lora::merged(before, {&term, 1});
  lora::merge_report r = lora::merge_report_of(before, {&term, 1}, after);
  CHECK(r.meant == 6);  // not the row of 0, nor the column
  CHECK(r.swallowed == 4);
  CHECK(r.max_delta == 0.5);
  CHECK(r.max_error == 0x1p-30);
  after(1, 1) = INFINITY;
  w[0] = NAN;
  r = lora::merge_report_of(before, {&term, 1}, after);
  CHECK(r.not_finite == 2);
  CHECK(r.swallowed == 3);
  term.scale = 0;
  CHECK(lora::merge_report_of(before, {&term, 1}, before).meant == 0);
}

TEST_CASE("linalg/merge_report: a row factor is part of what was meant") {
  for (const index_t in : {1, 256, 300}) {
    CAPTURE(in);
    const index_t out = 7;
    const factors<float> f(4, in, out, 11);
    const factors<float> base(1, in * out, 1, 12);
    const lora::ndview<const float, 2> before(base.a.data(), {out, in});
    const lora::low_rank_term term = f.term(0.75f);
    const std::vector<float> row_factor = {0.5f, 1, 1.25f, -2, 0, 3, 0.875f};
    lora::low_rank_update update(&term, 1);
    update.row_factor = row_factor;
    const auto after = lora::merged(before, update);
    const lora::merge_report r = lora::merge_report_of(before, update, after);
    double largest_delta = 0;
    double largest_error = 0;
    for (index_t o = 0; o < out; ++o)
      for (index_t k = 0; k < in; ++k) {
        const double old = static_cast<double>(before(o, k));
        const double want = static_cast<double>(row_factor[static_cast<std::size_t>(o)]) * (old + product(f.pair(0.75f), o, k));
        largest_delta = std::max(largest_delta, std::abs(want - old));
        largest_error = std::max(largest_error, std::abs(static_cast<double>(after(o, k)) - want));
      }
    CHECK(r.max_delta == doctest::Approx(largest_delta).epsilon(1e-13));
    CHECK(r.max_error == doctest::Approx(largest_error).epsilon(1e-7));  // a difference of numbers 10^7 times as large
    CHECK(r.max_error < 1e-5);
    CHECK(r.meant == in * out);
    const std::vector<float> wrong(6, 1.0f);
    update.row_factor = wrong;
    CHECK_THROWS_AS((void)lora::merge_report_of(before, update, after), lora::shape_error);
  }
}

TEST_CASE("linalg/merge: after a thousand merges and ways back the bits are those of the first") {
  const index_t out = 20;
  const index_t in = 33;
  const factors<lora::bfloat16> f(4, in, out, 21);
  const factors<lora::bfloat16> base(1, in * out, 1, 22);
  const std::vector<lora::bfloat16> kept = base.a;
  const lora::ndview<const lora::bfloat16, 2> w(base.a.data(), {out, in});
  const lora::low_rank_term term = f.term(0.75f);
  std::vector<float> row_factor;
  for (index_t i = 0; i < out; ++i) row_factor.push_back(0.5f + 0.125f * static_cast<float>(i));
  lora::low_rank_update update(&term, 1);
  const auto same = [](const void* a, const void* b, std::size_t bytes) { return std::memcmp(a, b, bytes) == 0; };
  for (const bool dora : {false, true}) {
    if (dora) update.row_factor = row_factor;
    const auto first = lora::merged(w, update);
    REQUIRE(!same(first.data(), w.data(), kept.size() * sizeof(lora::bfloat16)));
    for (int cycle = 0; cycle < 1000; ++cycle) {
      const auto again = lora::merged(w, update);  // going back is dropping it
      REQUIRE(same(again.data(), first.data(), kept.size() * sizeof(lora::bfloat16)));
      REQUIRE(same(base.a.data(), kept.data(), kept.size() * sizeof(lora::bfloat16)));
    }
  }
}
