// SPDX-License-Identifier: Apache-2.0
#include "../nd/view_cases.hpp"

#include <lora/ops/join.hpp>

#include <span>

using lora::_, lora::all, lora::index_t, lora::range;
using test::numbers;

namespace {

/** Arrays of the shapes of a case, with different numbers, in C or F order. */
template <std::size_t R>
std::vector<lora::ndarray<int, R>> inputs_of_case(const std::vector<std::vector<index_t>>& shapes) {
  std::vector<lora::ndarray<int, R>> inputs;
  int next = 1;
  for (const auto& shape : shapes) {
    std::array<index_t, R> n{};
    for (std::size_t i = 0; i < R; ++i) n[i] = shape.at(i);
    inputs.emplace_back(lora::extents<R>(n), inputs.size() % 2 == 0 ? lora::order::C : lora::order::F);
    for (index_t i = 0; i < inputs.back().size(); ++i) inputs.back().data()[i] = next++;
  }
  return inputs;
}

/** Every element of a view in logical order. */
template <class T, std::size_t R>
std::vector<int> listed(const lora::ndview<T, R>& v) {
  if constexpr (R == 0) {
    return {v()};
  } else {
    std::vector<int> all_of_them;
    for (index_t i = 0; i < v.extent(0); ++i)
      for (const int x : listed(v(i, lora::ellipsis))) all_of_them.push_back(x);
    return all_of_them;
  }
}

/** The result with `axis` in front, so that it is simply the inputs' parts one after another. */
template <std::size_t R, bool Stack>
bool join_is_right(const std::vector<std::vector<index_t>>& shapes, index_t axis, const std::vector<index_t>& want) {
  const auto inputs = inputs_of_case<R>(shapes);
  std::vector<lora::ndview<const int, R>> views(inputs.begin(), inputs.end());
  const auto out = [&] {
    if constexpr (Stack) {
      return lora::stack(axis, views);
    } else {
      return lora::concatenate(axis, std::span<const lora::ndview<const int, R>>(views));
    }
  }();
  constexpr std::size_t rank = R + (Stack ? 1 : 0);
  std::vector<index_t> shape;
  for (std::size_t i = 0; i < rank; ++i) shape.push_back(out.extent(i));
  std::vector<int> parts;
  for (const auto& v : views) {
    const auto front = [&] {
      if constexpr (Stack) {
        return v;
      } else {
        return lora::move_axis(v, axis, 0);
      }
    }();
    for (const int x : listed(front)) parts.push_back(x);
  }
  return shape == want && listed(lora::move_axis(out, axis, 0)) == parts;
}

template <bool Stack>
void replay_joins(char kind, int fewest) {
  int checked = 0;
  int refused = 0;
  for (const auto& c : test::view_cases(kind)) {
    std::vector<std::vector<index_t>> shapes;
    for (const auto& text : test::split(c.at(1), '/')) shapes.push_back(numbers(text));
    const index_t axis = numbers(c.at(3)).at(0);
    const bool refuse = c.at(4) == "X";
    const auto want = refuse ? std::vector<index_t>{} : numbers(c.at(4));
    bool right = false;
    try {
      right = shapes[0].size() == 1   ? join_is_right<1, Stack>(shapes, axis, want)
              : shapes[0].size() == 2 ? join_is_right<2, Stack>(shapes, axis, want)
                                      : join_is_right<3, Stack>(shapes, axis, want);
    } catch (const lora::shape_error&) {
      ++refused;
      right = refuse;
    }
    ++checked;
    if (!right) FAIL_CHECK(c.back());
  }
  CHECK(checked == 150);
  CHECK(refused >= fewest);
}

}  // namespace

TEST_CASE("ops/join: NumPy's shapes and refusals for random inputs, and every element where it belongs") {
  replay_joins<false>('J', 10);
  replay_joins<true>('S', 15);
}

TEST_CASE("ops/join: arguments, braced lists, spans and vectors, mutable or not, mean the same") {
  auto a = lora::full(lora::extents{2, 3}, 1);
  const auto b = lora::full(lora::extents{2, 3}, 2, lora::order::F);
  const std::vector<int> want{1, 1, 1, 2, 2, 2, 1, 1, 1, 2, 2, 2};
  const auto joined = lora::concatenate(-1, a, b);
  CHECK(listed(joined.view()) == want);
  CHECK(lora::concatenate(0, a, b.view(), a(range(0, 1))).shape() == lora::extents{5, 3});
  CHECK(lora::concatenate(0, lora::full(lora::extents{1, 3}, 5), a).shape() == lora::extents{3, 3});
  CHECK(lora::stack(1, {a.view(), a.view()}).shape() == lora::extents{2, 2, 3});
  const std::vector<lora::ndview<int, 2>> views{a, a};
  CHECK(lora::stack(-1, views).shape() == lora::extents{2, 3, 2});
  CHECK(lora::concatenate(1, std::span(views)).shape() == lora::extents{2, 6});
  const lora::ndview<int, 0> one(a.data(), {});
  CHECK(lora::stack(0, one, one).shape() == lora::extents{2});

  auto out = lora::zeros<int>(2, 2, 3);
  lora::stack_into(out, 0, a, b);
  CHECK(out(1, 0, 0) == 2);
  lora::stack_into(out, 0, {a.view(), a.view()});
  CHECK(out(1, 0, 0) == 1);
  auto wide = lora::zeros<int>(2, 12);
  lora::concatenate_into(wide(all, range(_, _, -2)), 1, a, b);  // backwards, every second column
  CHECK(wide(0, 11) == 1);
  CHECK(wide(0, 1) == 2);
  CHECK(wide(0, 0) == 0);
}

TEST_CASE("ops/join: an input may be its own place in the output, and nothing else of it; nothing is written when it is") {
  auto out = lora::zeros<int>(4, 3);
  for (int i = 0; i < 12; ++i) out.data()[i] = i;
  const auto more = lora::full(lora::extents{2, 3}, 7);
  lora::concatenate_into(out, 0, out(range(0, 2)), more);
  CHECK(listed(out.view()) == std::vector<int>{0, 1, 2, 3, 4, 5, 7, 7, 7, 7, 7, 7});
  CHECK_THROWS_WITH_AS(lora::concatenate_into(out, 0, more, out(range(1, 3))),
                       "concatenate: input 1, [2, 3], overlaps the output elsewhere than in its own place; clone() it first",
                       lora::shape_error);
  CHECK(out(0, 0) == 0);
  auto square = lora::zeros<int>(3, 3);
  CHECK_THROWS_AS(lora::stack_into(square, 0, square(0), square(2), square(1)), lora::shape_error);
  lora::stack_into(square, 0, square(0), square(1), square(2));
  // A destination whose elements share addresses.
  CHECK_THROWS_AS(lora::concatenate_into(lora::ndview<int, 1>(out.data(), {4}, {0}), 0, more(0), more(1, range(0, 1))), lora::shape_error);
}

TEST_CASE("ops/join: error texts, and lengths that do not fit") {
  const auto a = lora::zeros<int>(4, 6);
  const auto b = lora::zeros<int>(3, 5);
  CHECK_THROWS_WITH((void)lora::concatenate(0, a, a, b), "concatenate: input 2 is [3, 5] but input 0 is [4, 6]: only axis 0 may differ");
  CHECK_THROWS_WITH((void)lora::stack(0, a, b), "stack: input 1 is [3, 5] but input 0 is [4, 6]");
  CHECK_THROWS_WITH_AS((void)lora::concatenate(2, a), "concatenate: axis 2 is out of bounds for shape [4, 6] of rank 2", lora::index_error);
  CHECK_THROWS_WITH_AS((void)lora::stack(-4, a), "stack: axis -4 is out of bounds for shape [4, 6] of rank 2", lora::index_error);
  CHECK_THROWS_WITH((void)lora::stack(0, std::vector<lora::ndview<int, 1>>()), "stack: there are no inputs, so the result has no shape");
  auto out = lora::zeros<int>(8, 5);
  CHECK_THROWS_WITH(lora::concatenate_into(out, 0, a, a), "concatenate: the inputs together are [8, 6] but the output is [8, 5]");
  const lora::ndview<const int, 2> endless(a.data(), {index_t{1} << 60, 1}, {0, 0});
  CHECK_THROWS_AS((void)lora::concatenate(0, endless, endless), lora::shape_error);
  CHECK_THROWS_AS((void)lora::concatenate(0, endless, endless, endless, endless, endless, endless, endless, endless), lora::shape_error);
}
