// SPDX-License-Identifier: Apache-2.0
//
// The half of checks_test.cpp that is compiled without checks; both are linked into one program.
#undef LORA_CHECKS
#define LORA_CHECKS 0
#include <lora/nd/array.hpp>

namespace test {

float unchecked_element(lora::ndview<float, 2> v, long i, long j) { return v(i, j); }
float unchecked_element(const lora::ndarray<float, 2>& a, long i, long j) { return a(i, j); }
float unchecked_element(lora::ndview<float, 1> v, long i) { return v[i]; }

}  // namespace test
