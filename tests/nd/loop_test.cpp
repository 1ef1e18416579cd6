// SPDX-License-Identifier: Apache-2.0
//
// The loop plan: every element of every operand is visited once and together with its partners, whatever the strides; and the plan is as
// short as promised.
#include <lora/nd/array.hpp>
#include <lora/nd/loop.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <random>
#include <vector>

using lora::extents;
using lora::index_t;
using lora::strides;
using lora::detail::loop_block;
using lora::detail::loop_plan;

namespace {

using visit3 = std::array<index_t, 3>;  // where each of three operands is

std::vector<visit3> visited(const loop_plan<3>& plan) {
  std::vector<visit3> v;
  plan.for_each_block([&](const loop_block<3>& b) {
    for (index_t r = 0; r < b.rows; ++r)
      for (index_t c = 0; c < b.count; ++c) {
        visit3 at{};
        for (std::size_t op = 0; op < 3; ++op) at[op] = b.offset[op] + r * b.row_stride[op] + c * b.stride[op];
        v.push_back(at);
      }
  });
  return v;
}

template <std::size_t R>
std::vector<visit3> expected(const std::array<index_t, R>& shape, const std::array<std::array<index_t, R>, 3>& stride) {
  std::vector<visit3> v;
  const index_t size = lora::detail::product(shape.data(), R);
  for (index_t flat = 0; flat < size; ++flat) {
    visit3 at{};
    index_t rest = flat;
    for (std::size_t i = R; i-- > 0;) {
      for (std::size_t op = 0; op < 3; ++op) at[op] += rest % shape[i] * stride[op][i];
      rest /= shape[i];
    }
    v.push_back(at);
  }
  return v;
}

template <std::size_t R>
int wrong_in_random_plans(int cases) {
  std::mt19937 engine(4711);
  const auto between = [&](index_t low, index_t high) {
    return low + static_cast<index_t>(engine() % static_cast<std::uint32_t>(high - low + 1));
  };
  int wrong = 0;
  for (int i = 0; i < cases; ++i) {
    std::array<index_t, R> shape{};
    std::array<std::array<index_t, R>, 3> stride{};
    for (index_t& n : shape) n = between(0, 40) == 0 ? 0 : between(1, 4);
    for (std::size_t op = 0; op < 3; ++op) {
      if (between(0, 1) == 0) {
        for (index_t& s : stride[op]) s = between(-6, 6);
      } else {  // a slice of an ordinary array in some order of axes, so that axes do join
        std::array<std::size_t, R> order{};
        for (std::size_t k = 0; k < R; ++k) order[k] = k;
        if (between(0, 2) == 0) std::shuffle(order.begin(), order.end(), engine);
        index_t step = 1;
        for (std::size_t k = R; k-- > 0;) {
          stride[op][order[k]] = between(0, 4) == 0 ? -step : step;
          step *= std::max<index_t>(1, shape[order[k]]);
        }
      }
    }
    loop_plan<3> plan{extents<R>(shape), strides<R>(stride[0]), strides<R>(stride[1]), strides<R>(stride[2])};
    auto want = expected<R>(shape, stride);
    auto have = visited(plan);
    auto order = have;
    std::sort(want.begin(), want.end());
    std::sort(have.begin(), have.end());
    wrong += have != want ? 1 : 0;
    for (std::size_t axis = 0; axis < plan.rank(); ++axis) {
      bool rises = false;
      bool falls = false;
      for (std::size_t op = 0; op < 3; ++op) {
        rises = rises || plan.stride(axis, op) > 0;
        falls = falls || plan.stride(axis, op) < 0;
      }
      wrong += falls && !rises ? 1 : 0;  // would have been turned round
    }
    plan.reverse();
    auto back = visited(plan);
    std::reverse(back.begin(), back.end());
    wrong += back != order ? 1 : 0;
    // Axes come sorted by the output's strides, and no two neighbours could still be joined.
    for (std::size_t axis = 1; axis < plan.rank(); ++axis) {
      wrong += std::abs(plan.stride(axis, 0)) < std::abs(plan.stride(axis - 1, 0)) ? 1 : 0;
      bool joins = true;
      for (std::size_t op = 0; op < 3; ++op) joins = joins && plan.stride(axis, op) == plan.stride(axis - 1, op) * plan.extent(axis - 1);
      wrong += joins ? 1 : 0;
    }
    for (std::size_t axis = 0; axis < plan.rank(); ++axis) {
      wrong += plan.extent(axis) < 2 ? 1 : 0;
    }
  }
  return wrong;
}

loop_plan<2> plan_of(const lora::ndview<float, 3>& a, const lora::ndview<float, 3>& b) { return {a.shape(), a.stride(), b.stride()}; }

}  // namespace

TEST_CASE("nd/loop: random strides: each element once, with its partners, and backwards in the opposite order") {
  CHECK(wrong_in_random_plans<1>(500) == 0);
  CHECK(wrong_in_random_plans<2>(4000) == 0);
  CHECK(wrong_in_random_plans<4>(4000) == 0);
  CHECK(wrong_in_random_plans<8>(100) == 0);
}

TEST_CASE("nd/loop: arrays that are contiguous together become one row") {
  auto a = lora::zeros<float>(4, 5, 6);
  auto b = lora::zeros<float>(4, 5, 6);
  const auto plan = plan_of(a, b);
  CHECK(plan.rank() == 1);
  CHECK(plan.extent(0) == 120);
  CHECK(plan.stride(0, 0) == 1);
  const auto turned = plan_of(a.view().permute<2, 0, 1>(), b.view().permute<2, 0, 1>());
  CHECK(turned.rank() == 1);
  CHECK(turned.extent(0) == 120);
}

TEST_CASE("nd/loop: part of the last axis leaves two, part of the middle axis too") {
  auto a = lora::zeros<float>(4, 5, 6);
  const auto last = plan_of(a(lora::all, lora::all, lora::range(0, 3)), a(lora::all, lora::all, lora::range(0, 3)));
  CHECK(last.rank() == 2);
  CHECK(last.extent(0) == 3);
  CHECK(last.extent(1) == 20);
  CHECK(last.stride(1, 0) == 6);
  const auto middle = plan_of(a(lora::all, lora::range(0, 4)), a(lora::all, lora::range(0, 4)));
  CHECK(middle.rank() == 2);
  CHECK(middle.extent(0) == 24);
  CHECK(middle.extent(1) == 4);
}

TEST_CASE("nd/loop: an axis is turned round only when no operand walks up it") {
  auto a = lora::zeros<float>(4, 5, 6);
  auto b = lora::zeros<float>(4, 5, 6);
  const auto down = lora::range(lora::_, lora::_, -1);
  const auto both = plan_of(a(down, down, down), b(down, down, down));
  CHECK(both.rank() == 1);
  CHECK(both.stride(0, 0) == 1);
  CHECK(both.offset(0) == -119);  // from the view's origin, which is the last element
  const auto one = plan_of(a(down, down, down), b);
  CHECK(one.rank() == 1);
  CHECK(one.stride(0, 0) == -1);
  CHECK(one.stride(0, 1) == 1);
  CHECK(one.offset(0) == 0);
  const loop_plan<2> with_zero(extents{4}, strides{-1}, strides{0});
  CHECK(with_zero.stride(0, 0) == 1);
  CHECK(with_zero.offset(0) == -3);
}

TEST_CASE("nd/loop: axes are sorted by the output, then by the inputs, then in C order") {
  const loop_plan<2> by_output(extents{2, 3, 4}, strides{1, 2, 6}, strides{12, 4, 1});
  CHECK(by_output.extent(0) == 2);
  CHECK(by_output.extent(2) == 4);
  const loop_plan<2> by_input(extents{2, 3}, strides{7, 7}, strides{5, 9});
  CHECK(by_input.extent(0) == 2);
  const loop_plan<1> tie(extents{2, 3}, strides{7, -7});
  CHECK(tie.extent(0) == 3);
  CHECK(tie.stride(0, 0) == 7);  // turned round
}

TEST_CASE("nd/loop: one element, none, and axes of length 1") {
  const loop_plan<1> scalar{extents<0>(), strides<0>()};
  CHECK(scalar.rank() == 0);
  int blocks = 0;
  scalar.for_each_block(
      [&](const loop_block<1>& b) { blocks += b.count == 1 && b.rows == 1 && b.stride[0] == 1 && b.offset[0] == 0 ? 1 : 100; });
  CHECK(blocks == 1);
  const loop_plan<1> ones(extents{1, 7, 1}, strides{99, 2, -5});
  CHECK(ones.rank() == 1);
  CHECK(ones.extent(0) == 7);
  CHECK(ones.offset(0) == 0);
  const loop_plan<1> none(extents{3, 0, 2}, strides{1, 1, 1});
  CHECK(none.empty());
  none.for_each_block([&](const loop_block<1>&) { ++blocks; });
  CHECK(blocks == 1);
}
