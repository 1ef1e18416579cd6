// SPDX-License-Identifier: Apache-2.0
// EXPECT: assigning to a slice moves no elements; use copy or fill
#include <lora/nd/array.hpp>

int main() {
  auto a = lora::zeros<float>(4, 5);
  a(0, 0) = 1;
#ifdef LORA_MUST_FAIL
  a(0, lora::all) = 1;
#endif
}
