// SPDX-License-Identifier: Apache-2.0
//
// Elements of what a file holds, whatever float type they have, for oracles in float64.
#ifndef LORA_TESTS_IO_ELEMENTS_HPP
#define LORA_TESTS_IO_ELEMENTS_HPP

#include <lora/nd/any_view.hpp>

namespace test {

inline double element(const lora::any_view& v, lora::index_t i, lora::index_t j) {
  return lora::dispatch<2, float, lora::float16, lora::bfloat16>(v, [&](auto m) { return double{static_cast<float>(m(i, j))}; });
}

inline double element(const lora::any_view& v, lora::index_t i) {
  return lora::dispatch<1, float, lora::float16, lora::bfloat16>(v, [&](auto m) { return double{static_cast<float>(m(i))}; });
}

}  // namespace test

#endif
