// SPDX-License-Identifier: Apache-2.0
//
// Convolutions against the definition, in float64: patches made element by element, and the product of these with the bound of forward().
#include "support/oracle.hpp"
#include "support/tiers.hpp"

#include <lora/linalg/conv2d.hpp>
#include <lora/linalg/merge.hpp>
#include <lora/nd/windows.hpp>

#include <doctest/doctest.h>

#include <string>
#include <vector>

using lora::conv2d_geometry;
using lora::extents;
using lora::index_t;

namespace {

/** How [n, c, h, w] lies in memory. */
enum class images { plain, channels_last, gaps, reversed, image_apart };
constexpr images all_images[] = {images::plain, images::channels_last, images::gaps, images::reversed, images::image_apart};

/** Four axes of numbers in one of these orders; what lies between them is NaN. */
template <class T = float>
class batch {
 public:
  batch(extents<4> shape, images order, std::uint64_t seed) {
    const index_t n = shape[0], c = shape[1], h = shape[2], w = shape[3];
    lora::strides<4> s{c * h * w, h * w, w, 1};
    index_t first = 0;
    if (order == images::channels_last) s = {h * w * c, 1, w * c, c};
    if (order == images::gaps) s = {c * (h * (w + 2) + 1) + 5, h * (w + 2) + 1, w + 2, 1};
    if (order == images::reversed) {
      s = {c * h * w, h * w, -w, -1};
      first = h * w - 1;
    }
    if (order == images::image_apart) s = {1, n * h * w, n * w, n};  // the images interleaved
    memory_.assign(static_cast<std::size_t>(n * (c * (h * (w + 2) + 1) + 5) + 8), T(test::poison()));
    view_ = {memory_.data() + first, shape, s};
    test::random numbers(seed);
    for_each([&](T& e) { e = T(numbers.number()); });
  }
  template <class F>
  void for_each(F f) {
    const auto& s = view_.shape();
    for (index_t i = 0; i < s[0]; ++i)
      for (index_t c = 0; c < s[1]; ++c)
        for (index_t j = 0; j < s[2]; ++j)
          for (index_t k = 0; k < s[3]; ++k) f(view_(i, c, j, k));
  }
  [[nodiscard]] lora::ndview<T, 4> view() { return view_; }

 private:
  std::vector<T> memory_;
  lora::ndview<T, 4> view_;
};

index_t positions(index_t size, index_t kernel, int axis, const conv2d_geometry& g) {
  index_t count = 0;  // by trying them
  for (index_t at = -g.padding[axis]; at + (kernel - 1) * g.dilation[axis] < size + g.padding[axis]; at += g.stride[axis]) ++count;
  return count;
}

/** The patches from the definition. */
template <class T>
lora::ndarray<T, 2> slow_patches(lora::ndview<T, 4> x, extents<2> kernel, const conv2d_geometry& g) {
  const index_t oh = positions(x.extent(2), kernel[0], 0, g);
  const index_t ow = positions(x.extent(3), kernel[1], 1, g);
  lora::ndarray<T, 2> p(extents{x.extent(0) * oh * ow, x.extent(1) * kernel[0] * kernel[1]});
  for (index_t i = 0; i < p.extent(0); ++i)
    for (index_t k = 0; k < p.extent(1); ++k) {
      const index_t row = i / ow % oh * g.stride[0] - g.padding[0] + k / kernel[1] % kernel[0] * g.dilation[0];
      const index_t column = i % ow * g.stride[1] - g.padding[1] + k % kernel[1] * g.dilation[1];
      const bool inside = row >= 0 && row < x.extent(2) && column >= 0 && column < x.extent(3);
      p(i, k) = inside ? x(i / (oh * ow), k / (kernel[0] * kernel[1]), row, column) : T(0.0f);
    }
  return p;
}

struct problem {
  extents<4> x;
  index_t out;
  extents<2> kernel;
  conv2d_geometry g;
};
const problem problems[] = {
    {{2, 5, 7, 6}, 9, {3, 3}, {.padding = {1, 1}}},
    {{1, 3, 12, 11}, 7, {3, 3}, {}},  // 90 tokens: two blocks
    {{2, 4, 6, 5}, 6, {2, 3}, {.stride = {2, 1}, .padding = {0, 2}}},
    {{3, 2, 9, 8}, 5, {3, 2}, {.stride = {1, 3}, .padding = {2, 0}, .dilation = {2, 3}, .dilated_terms = true}},
    {{1, 2, 1, 1}, 3, {5, 7}, {.padding = {2, 3}}},  // hardly anything but padding
    {{1, 2, 2, 3}, 4, {1, 1}, {.padding = {3, 4}}},  // 1x1 with positions that see nothing
    {{2, 6, 5, 4}, 7, {1, 1}, {}},
    {{2, 6, 5, 7}, 7, {1, 1}, {.stride = {2, 3}}},
    {{2, 6, 5, 6}, 7, {1, 1}, {.stride = {1, 2}}},    // evenly spaced positions: in place with a stride
    {{1, 3, 2, 141}, 4, {1, 1}, {.stride = {1, 2}}},  // each row in place
    {{2, 1, 4, 4}, 1, {4, 4}, {}},                    // one position
};

/** Three tasks at most, the last one first. */
struct backwards {
  std::size_t concurrency() const noexcept { return 3; }
  template <class F>
  void run(std::size_t tasks, F&& f) {
    most = tasks > most ? tasks : most;
    for (std::size_t i = tasks; i-- > 0;) f(i);
  }
  std::size_t most = 0;
};

template <class... Arguments>
std::string refusal(lora::ndarray<float, 4>& y, const Arguments&... arguments) {
  lora::conv2d_workspace scratch;
  try {
    lora::conv2d(y, arguments..., lora::float_view<1>{}, scratch);
  } catch (const lora::error& e) {
    return e.what();
  }
  return "";
}

}  // namespace

TEST_CASE("linalg/patches: what each position of the kernel sees, for every order of axes and type") {
  const auto check = [](auto zero, const problem& p, images order) {
    using T = decltype(zero);
    batch<T> x(p.x, order, 1);
    const lora::ndarray<T, 2> got = lora::patches(x.view(), p.kernel, p.g);
    const lora::ndarray<T, 2> want = slow_patches(x.view(), p.kernel, p.g);
    REQUIRE(got.shape() == want.shape());
    int wrong = 0;
    for (index_t i = 0; i < want.extent(0); ++i)
      for (index_t k = 0; k < want.extent(1); ++k) wrong += static_cast<float>(got(i, k)) == static_cast<float>(want(i, k)) ? 0 : 1;
    REQUIRE(wrong == 0);
  };
  for (const problem& p : problems)
    for (const images order : all_images) {
      check(0.0f, p, order);
      check(lora::bfloat16(), p, order);
      check(lora::float16(), p, order);
    }
}

TEST_CASE("linalg/patches: without padding they are sliding_window's") {
  batch<> x({2, 3, 6, 5}, images::plain, 7);
  const auto p = lora::patches(x.view(), {3, 2});
  const auto windows = lora::sliding_window(x.view(), extents{3, 2}, {2, 3});  // [2, 3, 4, 4, 3, 2]
  for (index_t i = 0; i < p.extent(0); ++i)
    for (index_t k = 0; k < p.extent(1); ++k) REQUIRE(p(i, k) == windows(i / 16, k / 6, i / 4 % 4, i % 4, k / 2 % 3, k % 2));
}

TEST_CASE("linalg/conv2d: stays inside forward's bound, for every tier, order of axes and geometry") {
  double worst = 0;
  lora::conv2d_workspace scratch;
  for (const problem& p : problems) {
    const index_t in = p.x[1] * p.kernel[0] * p.kernel[1];
    batch<> w({p.out, p.x[1], p.kernel[0], p.kernel[1]}, images::plain, 2);
    test::matrix a(3, in, test::layout::padded, 3), b(p.out, 3, test::layout::transposed, 4);
    test::matrix a2(1, in, test::layout::plain, 5), b2(p.out, 1, test::layout::plain, 6);
    const lora::low_rank_term terms[] = {{a.view(), b.view(), -0.75f}, {a2.view(), b2.view(), 2.0f}};
    const test::matrix bias(1, p.out, test::layout::plain, 8), more(1, p.out, test::layout::plain, 9);
    const std::vector<float> factor(static_cast<std::size_t>(p.out), -1.25f);
    lora::low_rank_update update(terms);
    update.bias = {more.view().data(), static_cast<std::size_t>(p.out)};
    update.row_factor = factor;
    const lora::float_view<1> base = lora::ndview<const float, 1>(bias.view().data(), {p.out});
    const index_t oh = positions(p.x[2], p.kernel[0], 0, p.g);
    const index_t ow = positions(p.x[3], p.kernel[1], 1, p.g);
    for (const images order : all_images) {
      batch<> x(p.x, order, 1);
      const auto rows = slow_patches(x.view(), p.kernel, p.g);
      const lora::ndview<const float, 2> matrix(w.view().data(), {p.out, in});
      const test::expected want(rows.view(), matrix, update, base);
      for (const images to : all_images) {
        batch<> y({p.x[0], p.out, oh, ow}, to, 11);
        test::for_each_tier([&](lora::simd::tier t) {
          y.for_each([](float& e) { e = test::poison(); });
          lora::conv2d(y.view(), x.view(), w.view(), update, base, scratch, p.g, {t});
          int wrong = 0;
          for (index_t i = 0; i < rows.extent(0); ++i)
            for (index_t o = 0; o < p.out; ++o) {
              const double got = static_cast<double>(y.view()(i / (oh * ow), o, i / ow % oh, i % ow));
              const double ratio = std::abs(got - want.value(i, o)) / want.bound(i, o);
              wrong += ratio <= 1 ? 0 : 1;
              worst = std::max(worst, ratio);
            }
          CAPTURE(&p - problems);
          REQUIRE(wrong == 0);
        });
      }
    }
  }
  CHECK(worst < 0.8);  // a few products: some come near
}

TEST_CASE("linalg/conv2d: types of their own for y, x and w; a merged weight gives the same; nothing is outside y's elements") {
  batch<lora::bfloat16> x({2, 4, 6, 5}, images::gaps, 1);
  batch<lora::float16> w({5, 4, 3, 3}, images::plain, 2);
  test::matrix a(2, 36, test::layout::plain, 3), b(5, 2, test::layout::plain, 4);
  const lora::low_rank_term term{a.view(), b.view(), 0.5f};
  const conv2d_geometry g{.stride = {2, 2}, .padding = {1, 1}};
  batch<lora::float16> y({2, 5, 3, 3}, images::gaps, 5);
  lora::conv2d_workspace scratch;
  lora::conv2d(y.view(), x.view(), w.view(), {&term, 1}, {}, scratch, g);
  const auto rows = slow_patches(x.view(), {3, 3}, g);
  const auto matrix = lora::reshape(w.view(), 5, -1);
  const test::expected want(rows.view(), matrix, {&term, 1}, {}, lora::dtype::f16);
  const lora::ndarray<lora::float16, 2> merged = lora::merged(matrix, {&term, 1});
  lora::ndarray<float, 4> z(extents{2, 5, 3, 3});
  lora::conv2d(z, x.view(), lora::reshape(merged, 5, 4, 3, 3), {}, {}, scratch, g);
  for (index_t i = 0; i < 18; ++i)
    for (index_t o = 0; o < 5; ++o) {
      REQUIRE(std::abs(static_cast<double>(static_cast<float>(y.view()(i / 9, o, i / 3 % 3, i % 3))) - want.value(i, o)) <=
              want.bound(i, o));
      double size = 0;  // the merged weight is rounded to 11 bits
      for (index_t k = 0; k < 36; ++k)
        size += std::abs(static_cast<double>(static_cast<float>(merged(o, k))) * static_cast<double>(static_cast<float>(rows(i, k))));
      REQUIRE(std::abs(static_cast<double>(z(i / 9, o, i / 3 % 3, i % 3)) - want.value(i, o)) <=
              want.bound(i, o) + 0x1p-11 * 1.01 * size + test::gamma(40) * size);
    }
}

TEST_CASE("linalg/conv2d: bits do not depend on the executor, and a second call finds its memory") {
  backwards ex;
  batch<> x({2, 64, 9, 8}, images::plain, 1);
  batch<> w({256, 64, 3, 3}, images::plain, 2);
  test::matrix a(4, 576, test::layout::plain, 3), b(256, 4, test::layout::plain, 4);
  const lora::low_rank_term term{a.view(), b.view(), 0.5f};
  const conv2d_geometry g{.padding = {1, 1}};
  lora::ndarray<float, 4> y(extents{2, 256, 9, 8}), z(extents{2, 256, 9, 8});
  lora::conv2d_workspace scratch;
  lora::conv2d(y, x.view(), w.view(), {&term, 1}, {}, scratch, g);
  lora::conv2d(z, x.view(), w.view(), {&term, 1}, {}, scratch, ex, g);
  CHECK(ex.most > 1);
  int different = 0;
  for (index_t i = 0; i < y.size(); ++i) different += test::bits(y.data()[i]) == test::bits(z.data()[i]) ? 0 : 1;
  CHECK(different == 0);
  const void* const product = scratch.product.data();
  const void* const patches = scratch.patches.data();
  lora::conv2d(z, x.view(), w.view(), {&term, 1}, {}, scratch, ex, g);
  CHECK(scratch.product.data() == product);
  CHECK(scratch.patches.data() == patches);
  CHECK(scratch.patches.size_bytes() < 2 * 64 * 576 * sizeof(float));  // a block, not all 144 tokens
}

TEST_CASE("linalg/conv2d: empty extents") {
  lora::conv2d_workspace scratch;
  const auto run = [&](extents<4> xs, extents<4> ws, extents<4> ys) {
    const auto x = lora::full(xs, 1.0f);
    const auto w = lora::full(ws, 1.0f);
    auto y = lora::full(ys, 7.0f);
    const float bias[] = {3, 3};
    lora::conv2d(y, x, w, {}, ws[0] == 2 ? lora::float_view<1>(lora::ndview<const float, 1>(bias, {2})) : lora::float_view<1>{}, scratch);
    for (index_t i = 0; i < y.size(); ++i) CHECK(y.data()[i] == 3.0f);  // no channels: the bias alone
  };
  run({0, 3, 4, 4}, {2, 3, 3, 3}, {0, 2, 2, 2});
  run({2, 0, 4, 4}, {2, 0, 3, 3}, {2, 2, 2, 2});
  run({2, 0, 4, 4}, {2, 0, 1, 1}, {2, 2, 4, 4});
  run({2, 3, 4, 4}, {0, 3, 3, 3}, {2, 0, 2, 2});
}

TEST_CASE("linalg/conv2d: a stride or dilation of any size, where there is one position or one element of the kernel") {
  // Products with the strides of x would overflow: seen by the sanitizer, and the numbers are those of stride 1.
  constexpr index_t huge = PTRDIFF_MAX;
  const auto last = lora::full(extents{1, 4, 4, 2}, 1.0f);  // channels last
  const lora::ndview<const float, 4> x(last.data(), extents{1, 2, 4, 4}, lora::strides{32, 1, 8, 2});
  const auto point = lora::full(extents{3, 2, 1, 1}, 1.0f);
  const auto pair = lora::full(extents{3, 2, 2, 2}, 1.0f);
  lora::conv2d_workspace scratch;
  const auto first = [&](const auto& w, extents<4> ys, const lora::conv2d_geometry& g) {
    auto y = lora::full(ys, -1.0f);
    lora::conv2d(y, x, w, {}, {}, scratch, g);
    return y(0, 2, ys[2] - 1, ys[3] - 1);
  };
  CHECK(first(point, {1, 3, 1, 1}, {.stride = {huge, huge}}) == 2.0f);
  CHECK(first(point, {1, 3, 1, 4}, {.stride = {huge, 1}}) == 2.0f);
  CHECK(first(point, {1, 3, 4, 4}, {.dilation = {huge, huge}}) == 2.0f);
  CHECK(first(point, {1, 3, 6, 6}, {.padding = {1, 1}, .dilation = {huge, huge}}) == 0.0f);
  CHECK(first(pair, {1, 3, 1, 1}, {.stride = {huge, huge}}) == 8.0f);
  // Two columns of the kernel, so far apart that one lies in the image at most.
  CHECK(first(pair, {1, 3, 1, 2}, {.stride = {huge, 1}, .padding = {0, huge / 4}, .dilation = {1, huge / 4 * 2 + 2}}) == 0.0f);
}

TEST_CASE("linalg/conv2d: what is refused names the numbers") {
  const auto x = lora::zeros<float>(2, 6, 5, 4);
  const auto w = lora::zeros<float>(4, 6, 3, 3);
  auto y = lora::full(extents{2, 4, 3, 2}, 7.0f);
  const lora::low_rank_update none;
  CHECK(refusal(y, x, w, none) == "");
  auto z = lora::full(extents{2, 4, 3, 2}, 7.0f);
  CHECK(refusal(z, x, lora::zeros<float>(4, 3, 3, 3), none) ==
        "conv2d: w is [4, 3, 3, 3] but x is [2, 6, 5, 4]; convolutions in groups are not supported");
  CHECK(refusal(z, x, lora::zeros<float>(4, 4, 3, 3), none) == "conv2d: w is [4, 4, 3, 3] but x is [2, 6, 5, 4]");
  CHECK(refusal(z, x, lora::zeros<float>(4, 6, 3, 2), none) == "conv2d: y is [2, 4, 3, 2] but the result is [2, 4, 3, 3]");
  CHECK(refusal(z, x, lora::zeros<float>(4, 6, 3, 5), none).find("the kernel is larger than the padded image") != std::string::npos);
  CHECK(refusal(z, x, lora::zeros<float>(4, 6, 0, 3), none).find("must be at least 1") != std::string::npos);
  const auto a = lora::zeros<float>(2, 53);
  const auto b = lora::zeros<float>(4, 2);
  const lora::low_rank_term term{a, b, 1.0f};
  CHECK(refusal(z, x, w, lora::low_rank_update(&term, 1)) == "conv2d: a is [2, 53] but w as a matrix is [4, 54]");
  const auto a54 = lora::zeros<float>(2, 54);
  const auto b5 = lora::zeros<float>(5, 2);
  const lora::low_rank_term tall{a54, b5, 1.0f};
  CHECK(refusal(z, x, w, lora::low_rank_update(&tall, 1)) == "conv2d: b is [5, 2] but w as a matrix is [4, 54]");
  for (index_t i = 0; i < z.size(); ++i) REQUIRE(z.data()[i] == 7.0f);

  lora::conv2d_workspace scratch;
  const lora::low_rank_term fits{a54, b, 1.0f};
  auto dilated = lora::zeros<float>(2, 4, 1, 2);
  CHECK_THROWS_WITH_AS(lora::conv2d(dilated, x, w, {&fits, 1}, {}, scratch, {.dilation = {2, 1}}),
                       "conv2d: low-rank terms beside a dilation of [2, 1]: PEFT's forward does not dilate A while its merge does; "
                       "conv2d_geometry::dilated_terms asks for the latter",
                       lora::value_error);
  CHECK_NOTHROW(lora::conv2d(dilated, x, w, {&fits, 1}, {}, scratch, {.dilation = {2, 1}, .dilated_terms = true}));
  CHECK_NOTHROW(lora::conv2d(dilated, x, w, {}, {}, scratch, {.dilation = {2, 1}}));
  const lora::ndview<float, 4> shared(y.data(), extents{2, 4, 3, 2}, lora::strides{0, 6, 2, 1});
  CHECK_THROWS_WITH_AS(lora::conv2d(shared, x, w, {}, {}, scratch),
                       "conv2d: y of shape [2, 4, 3, 2] has stride 0: several results would be written to one element", lora::shape_error);
  constexpr index_t huge = PTRDIFF_MAX / 2;
  CHECK_THROWS_AS((void)lora::patches(x, {3, 3}, {.padding = {huge + 1, 0}}), lora::shape_error);
  CHECK_THROWS_AS((void)lora::patches(x, {3, 3}, {.padding = {huge - 3, huge - 3}}), lora::shape_error);
  CHECK_THROWS_AS((void)lora::patches(x, {3, 3}, {.dilation = {PTRDIFF_MAX, 1}}), lora::shape_error);
  CHECK_THROWS_AS((void)lora::patches(x, {3, 3}, {.padding = {-1, 0}}), lora::shape_error);
  CHECK_THROWS_AS((void)lora::patches(x, {3, 3}, {.stride = {0, 1}}), lora::shape_error);
}
