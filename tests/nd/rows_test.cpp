// SPDX-License-Identifier: Apache-2.0
#include <lora/nd/array.hpp>
#include <lora/nd/rows.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <vector>

using lora::_, lora::all, lora::index_t, lora::range;

TEST_CASE("nd/rows: rows are the slices along axis 0, of any rank and stride") {
  auto a = lora::zeros<int>(4, 3, 2);
  for (int i = 0; i < 24; ++i) a.data()[i] = i;
  for (const auto& v : {a.view(), a(range(_, _, -1)), a.view().permute<2, 0, 1>(), a(range(0, 0)), a(all, range(0, 0))}) {
    index_t i = 0;
    for (const auto row : lora::rows(v)) {
      static_assert(decltype(row)::rank() == 2);
      CHECK(row.data() == (row.empty() ? v.data() : v(i).data()));
      CHECK(row.shape() == v(i).shape());
      CHECK(row.stride() == v(i).stride());
      ++i;
    }
    CHECK(i == v.extent(0));
  }
  int sum = 0;
  for (const auto element : lora::rows(a(0, 0))) sum += element();
  CHECK(sum == 1);
  for (const auto row : lora::rows(a)) row(0, 0) = -1;
  CHECK(a(3, 0, 0) == -1);
  // The rows of a broadcast share one address, and there are as many as the shape says.
  auto bias = lora::zeros<int>(3);
  CHECK(lora::rows(lora::broadcast_to(bias, lora::extents{5, 3})).size() == 5);
  CHECK(std::ranges::count_if(lora::rows(a), [](const auto& row) { return row(0, 0) == -1; }) == 4);
}

TEST_CASE("nd/rows: as_span takes what is contiguous by NumPy's rule, and nothing else") {
  auto a = lora::zeros<float>(4, 6);
  std::span<float> s = lora::as_span(a);
  CHECK(s.data() == a.data());
  CHECK(s.size() == 24);
  CHECK(lora::as_span(a(range(1, 3))).size() == 12);
  CHECK(lora::as_span(a(2)).data() == a.data() + 12);
  CHECK(lora::as_span(a(range(_, _, -1), all)(range(0, 1))).size() == 6);  // one row: its stride does not count
  CHECK(lora::as_span(a(all, range(2, 2))).empty());
  CHECK(lora::as_span(a(0, 0, lora::newaxis)).size() == 1);
  CHECK(lora::as_span(lora::ndview<float, 0>(a.data(), {})).size() == 1);
  const auto& read_only = a;
  static_assert(std::is_same_v<decltype(lora::as_span(read_only)), std::span<const float>>);
  CHECK_THROWS_WITH_AS((void)lora::as_span(a(all, range(0, 5))),
                       "as_span: shape [4, 5] with strides [6, 1] is not contiguous in C order; contiguous() makes a copy that is",
                       lora::shape_error);
  CHECK_THROWS_AS((void)lora::as_span(a.view().transpose()), lora::shape_error);
}

TEST_CASE("nd/rows: a view is contiguous when its elements in order are neighbours, and only then") {
  // Every shape of rank 3 with extents up to 3, against every stride from -1 to 6.
  static int memory[64];
  int wrong = 0;
  int contiguous = 0;
  for (int code = 0; code < 64 * 512; ++code) {
    const lora::extents n{code % 4, code / 4 % 4, code / 16 % 4};
    const lora::strides s{code / 64 % 8 - 1, code / 512 % 8 - 1, code / 4096 % 8 - 1};
    const lora::ndview<int, 3> v(memory + 6, n, s);
    bool c = true;
    bool f = true;
    for (index_t i = 0; i < n[0]; ++i)
      for (index_t j = 0; j < n[1]; ++j)
        for (index_t k = 0; k < n[2]; ++k) {
          const index_t at = &v(i, j, k) - v.data();
          c = c && at == (i * n[1] + j) * n[2] + k;
          f = f && at == i + n[0] * (j + n[1] * k);
        }
    wrong += (v.is_contiguous() != c) + (v.is_contiguous(lora::order::F) != f);
    contiguous += c;
    if (c) wrong += lora::as_span(v).size() != static_cast<std::size_t>(v.size());
  }
  CHECK(wrong == 0);
  CHECK(contiguous > 1000);
}

TEST_CASE("nd/rows: row_spans need neighbouring columns, and take any distance between rows") {
  auto a = lora::zeros<float>(4, 6);
  for (int i = 0; i < 24; ++i) a.data()[i] = static_cast<float>(i);
  for (const auto& v : {a.view(), a(all, range(1, 4)), a(range(_, _, -2)), a(all, range(5, 6)), a(range(_, _, 3), range(0, 0))}) {
    index_t i = 0;
    for (const std::span<float> row : lora::row_spans(v)) {
      CHECK(row.size() == static_cast<std::size_t>(v.extent(1)));
      for (std::size_t j = 0; j < row.size(); ++j) CHECK(&row[j] == &v(i, j));
      ++i;
    }
    CHECK(i == v.extent(0));
  }
  CHECK(lora::row_spans(a(all, range(_, _, 7)))[1][0] == 6.0f);  // one column: its stride does not count
  const auto wide = lora::broadcast_to(a(1), lora::extents{3, 6});
  float sum = 0;
  for (const std::span<const float> row : lora::row_spans(wide)) sum += row[0];
  CHECK(sum == 18.0f);
  std::ranges::sort(lora::row_spans(a)[2], std::greater<>());
  CHECK(a(2, 0) == 17.0f);
  CHECK_THROWS_WITH((void)lora::row_spans(a.view().transpose()),
                    "row_spans: shape [6, 4] with strides [1, 6] does not have rows of neighbours; contiguous() makes a copy that is");
}
