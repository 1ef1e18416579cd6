// SPDX-License-Identifier: Apache-2.0
#include "view_cases.hpp"

#include <lora/nd/array.hpp>
#include <lora/nd/split.hpp>

#include <algorithm>
#include <iterator>

using lora::index_t;
using test::numbers;

TEST_CASE("nd/split: NumPy's answers to random splits") {
  test::replay<1, 4>('T', 200, 50, [](auto v, const std::string& text, auto& answers) {
    const auto n = numbers(text);
    for (const auto part : lora::split(v, n.at(0), n.at(1))) answers.add(part);
  });
  test::replay<1, 4>('H', 200, 5, [](auto v, const std::string& text, auto& answers) {
    const auto n = numbers(text);
    const auto parts = lora::chunk(v, n.at(0), n.at(1));
    for (std::size_t i = 0; i < parts.size(); ++i) answers.add(parts[static_cast<index_t>(i)]);
  });
  test::replay<1, 4>('A', 200, 3, [](auto v, const std::string& text, auto& answers) {
    const auto fields = test::split(text, '/');
    const auto at = numbers(fields.at(0));
    const index_t axis = numbers(fields.at(1)).at(0);
    const auto add = [&](const auto& parts) {
      for (const auto& part : parts) answers.add(part);
    };
    if (at.size() == 1) return add(lora::split_at(v, {at[0]}, axis));
    if (at.size() == 2) return add(lora::split_at(v, {at[0], at[1]}, axis));
    add(lora::split_at(v, {at.at(0), at.at(1), at.at(2)}, axis));
  });
}

TEST_CASE("nd/split: the parts are the whole, once each and in order") {
  auto a = lora::zeros<int>(2, 23);
  for (int i = 0; i < 46; ++i) a.data()[i] = i;
  for (index_t parts = 1; parts <= 25; ++parts) {
    index_t next = 0;
    index_t longest = 0;
    index_t shortest = 23;
    for (auto part : lora::chunk(a, parts, -1)) {
      longest = std::max(longest, part.extent(1));
      shortest = std::min(shortest, part.extent(1));
      for (index_t i = 0; i < part.extent(1); ++i, ++next) CHECK(&part(1, i) == &a(1, next));
    }
    CHECK(next == 23);
    CHECK(longest - shortest <= 1);
  }
  auto [left, right] = lora::split_at(a, {4}, 1);
  CHECK(left.shape() == lora::extents{2, 4});
  right(0, 0) = -4;
  CHECK(a(0, 4) == -4);
}

TEST_CASE("nd/split: a sequence of views is a random-access range of C++20, and survives what it was made from") {
  auto a = lora::zeros<int>(6, 2);
  using sequence = decltype(lora::split(a, 3));
  static_assert(std::random_access_iterator<sequence::iterator>);
  static_assert(std::is_same_v<std::iterator_traits<sequence::iterator>::iterator_category, std::input_iterator_tag>);
  static_assert(std::is_trivially_copyable_v<sequence>);
  auto first = lora::split(a, 3).begin();
  const auto last = lora::split(a, 3).end();
  CHECK(last - first == 3);
  CHECK(first[2].data() == a.data() + 8);
  CHECK((*(first++)).data() == a.data());
  CHECK((*first--).data() == a.data() + 4);
  CHECK((*(2 + first)).data() == (*(last - 1)).data());
  CHECK(first < last);
  CHECK(std::distance(first, last) == 3);
  std::vector<lora::ndview<int, 2>> views(first, last);
  CHECK(views.size() == 3);
  CHECK(lora::split(a, 3)[-1].data() == a.data() + 8);
  CHECK_FALSE(lora::split(a, 3).empty());
}

TEST_CASE("nd/split: error texts") {
  auto a = lora::zeros<int>(4, 5);
  CHECK_THROWS_WITH((void)lora::split(a, 3),
                    "split: axis 0 of shape [4, 5] does not divide into 3 equal parts (chunk() gives unequal ones)");
  CHECK_THROWS_WITH((void)lora::chunk(a, 0, 1), "chunk: axis 1 of shape [4, 5] does not divide into 0 parts");
  CHECK_THROWS_WITH((void)lora::chunk(a, 2, 2), "chunk: axis 2 is out of bounds for shape [4, 5] of rank 2");
  CHECK_THROWS_WITH_AS((void)lora::split_at(a, {2, 6}, 1), "split_at: place 6 is outside axis 1 of shape [4, 5]", lora::index_error);
  CHECK_THROWS_WITH_AS((void)lora::split(a, 2)[2], "index 2 is out of bounds for a sequence of 2 views", lora::index_error);
}
