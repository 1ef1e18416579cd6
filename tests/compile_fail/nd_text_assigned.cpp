// SPDX-License-Identifier: Apache-2.0
// EXPECT: assigning to a slice moves no elements
#include <lora/nd/array.hpp>
#include <lora/nd/slice_text.hpp>

using namespace lora::literals;

int main() {
  auto a = lora::zeros<float>(4, 5);
  auto s = a("1:, 2"_s);
#ifdef LORA_MUST_FAIL
  a("1:, 2"_s) = s;
#endif
  (void)s;
}
