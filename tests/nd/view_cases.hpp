// SPDX-License-Identifier: Apache-2.0
//
// Reads tests/data/nd_views/cases.inc and runs a question on a view of the case's rank. The format is described in make.py beside it.
#ifndef LORA_TESTS_ND_VIEW_CASES_HPP
#define LORA_TESTS_ND_VIEW_CASES_HPP

#include "cases.hpp"

#include <lora/nd/view.hpp>

#include <doctest/doctest.h>

namespace test {

inline const char* const view_cases_text[] = {
#include "../data/nd_views/cases.inc"
};

/** The fields of each line of one kind, without the arrow. */
inline std::vector<std::vector<std::string>> view_cases(char kind) {
  std::vector<std::vector<std::string>> cases;
  for (const char* const part : view_cases_text) {
    for (const std::string& line : split(part, '\n')) {
      if (line.empty() || line[0] != kind) continue;
      auto fields = split(line, ' ');
      fields.erase(fields.begin() + 4);
      fields.push_back(line);
      cases.push_back(fields);
    }
  }
  return cases;
}

/** Elements for every case's base array to lie in, with room before and behind. */
inline int* view_memory() {
  static std::vector<int> memory(1 << 17);
  return memory.data() + (1 << 16);
}

template <std::size_t R>
lora::ndview<int, R> view_of_case(const std::vector<lora::index_t>& shape, const std::vector<lora::index_t>& stride) {
  std::array<lora::index_t, R> n{};
  std::array<lora::index_t, R> s{};
  for (std::size_t i = 0; i < R; ++i) {
    n[i] = shape.at(i);
    s[i] = stride.at(i);
  }
  return lora::ndview<int, R>(view_memory(), lora::extents<R>(n), lora::strides<R>(s));
}

struct plain_view {
  std::vector<lora::index_t> shape;
  std::vector<lora::index_t> stride;
  lora::index_t offset;
};

/** What a question gives: views, as shape, strides and offset. */
class answer_list {
 public:
  template <class T, std::size_t R>
  void add(const lora::ndview<T, R>& v) {
    plain_view p;
    for (std::size_t i = 0; i < R; ++i) {
      p.shape.push_back(v.extent(i));
      p.stride.push_back(v.stride(i));
    }
    p.offset = v.data() - view_memory();
    views.push_back(p);
  }
  std::vector<plain_view> views;
};

/**
 * Replays the cases of one kind: ask(view, argument, answers) for each, with views of rank Low to High; compares, and counts refusals.
 * `fewest` is what the fixture must at least hold of either.
 */
template <std::size_t Low, std::size_t High, class Ask>
void replay(char kind, int fewest, int fewest_refused, Ask ask) {
  int checked = 0;
  int refused = 0;
  for (const auto& c : view_cases(kind)) {
    const auto shape = numbers(c.at(1));
    const auto stride = numbers(c.at(2));
    const std::string& argument = c.at(3);
    const bool refuse = c.at(4) == "X";
    answer_list answers;
    bool done = false;
    try {
      [&]<std::size_t... I>(std::index_sequence<I...>) {
        ((shape.size() == Low + I ? ask(view_of_case<Low + I>(shape, stride), argument, answers) : void()), ...);
      }(std::make_index_sequence<High - Low + 1>{});
      done = true;
    } catch (const lora::shape_error&) {
    }
    ++checked;
    refused += done ? 0 : 1;
    bool right = done != refuse;
    if (done && right) {
      right = answers.views.size() * 3 + 5 == c.size();  // kind, shape, strides, argument, three for each answer, the line
      for (std::size_t i = 0; right && i < answers.views.size(); ++i) {
        const plain_view& got = answers.views[i];
        const auto want = numbers(c.at(4 + 3 * i));
        const bool empty = lora::detail::product(want.data(), want.size()) == 0;
        right = got.shape == want && numbers(c.at(6 + 3 * i)).at(0) == got.offset &&
                (empty || same_strides(want, numbers(c.at(5 + 3 * i)), got.stride.data()));
      }
    }
    if (!right) FAIL_CHECK(c.back());
  }
  CHECK(checked >= fewest);
  CHECK(refused >= fewest_refused);
}

}  // namespace test

#endif
