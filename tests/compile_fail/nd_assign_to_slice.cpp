// SPDX-License-Identifier: Apache-2.0
// EXPECT: assigning to a slice moves no elements; use copy or fill
#include <lora/nd/array.hpp>

int main() {
  auto a = lora::zeros<float>(4, 5);
  auto row = a(0, lora::all);
  row = a(1, lora::all);  // rebinds a named view
#ifdef LORA_MUST_FAIL
  a(0, lora::all) = a(1, lora::all);
#endif
}
