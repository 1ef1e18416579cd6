// SPDX-License-Identifier: Apache-2.0
//
// The half of checks_test.cpp that is compiled without checks; both are linked into one program.
#undef LORA_CHECKS
#define LORA_CHECKS 0
#include <lora/nd/array.hpp>
#include <lora/nd/slice_text.hpp>

namespace test {

float unchecked_element(lora::ndview<float, 2> v, long i, long j) { return v(i, j); }
float unchecked_element(const lora::ndarray<float, 2>& a, long i, long j) { return a(i, j); }
float unchecked_element(lora::ndview<float, 1> v, long i) { return v[i]; }

using namespace lora::literals;

lora::ndview<float, 1> unchecked_cut(lora::ndview<float, 2> v, long i) { return v(lora::range(lora::_, lora::_, -1), i); }
lora::ndview<float, 1> unchecked_literal(lora::ndview<float, 2> v) { return v("::-1, 4"_s); }
float unchecked_literal_element(lora::ndview<float, 2> v) { return v("3, 4"_s); }
std::size_t unchecked_layout() { return sizeof(lora::ndview<float, 3>) * 1000 + sizeof(lora::ndarray<float, 3>); }

}  // namespace test
