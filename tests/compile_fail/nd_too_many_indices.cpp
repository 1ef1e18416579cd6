// SPDX-License-Identifier: Apache-2.0
// EXPECT: more indices than the array has axes
#include <lora/nd/array.hpp>

int main() {
  auto a = lora::zeros<float>(4, 5);
  a(1, 2) = 3;
#ifdef LORA_MUST_FAIL
  a(1, 2, 3) = 4;
#endif
}
