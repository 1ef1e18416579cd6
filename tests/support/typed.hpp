// SPDX-License-Identifier: Apache-2.0
//
// A test matrix of any of the three types of products.
//
//   const test::typed<lora::bfloat16> w(out, in, test::layout::transposed, seed);
#ifndef LORA_TESTS_SUPPORT_TYPED_HPP
#define LORA_TESTS_SUPPORT_TYPED_HPP

#include "support/oracle.hpp"

#include <limits>

namespace test {

/** A matrix rounded to T, with T's NaN around every element, in the same layout. */
template <class T>
class typed {
 public:
  typed(index_t rows, index_t columns, layout l, std::uint64_t seed) : floats_(rows, columns, l, seed) {
    const auto v = floats_.view();
    const auto reach = lora::detail::span_of(v.shape().array().data(), v.stride().array().data(), 2);
    memory_.assign(static_cast<std::size_t>(reach.size) + 64, T(std::numeric_limits<float>::quiet_NaN()));
    auto* p = memory_.data() + 33 + reach.below;
    view_ = {p, v.shape(), v.stride()};
    for (index_t i = 0; i < rows; ++i)
      for (index_t j = 0; j < columns; ++j) p[i * v.stride(0) + j * v.stride(1)] = T(floats_(i, j));
  }
  typed(const typed&) = delete;
  typed& operator=(const typed&) = delete;

  [[nodiscard]] lora::ndview<T, 2> view() { return view_; }
  [[nodiscard]] lora::ndview<const T, 2> view() const { return view_; }
  [[nodiscard]] lora::ndview<const T, 2> first(index_t rows) const { return {view_.data(), {rows, view_.extent(1)}, view_.stride()}; }

 private:
  matrix floats_;
  std::vector<T> memory_;
  lora::ndview<T, 2> view_;
};

}  // namespace test

#endif
