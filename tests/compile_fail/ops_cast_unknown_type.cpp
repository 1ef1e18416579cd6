// SPDX-License-Identifier: Apache-2.0
// EXPECT: cast converts among float, double, float16, bfloat16
#include <lora/ops/cast.hpp>

int main() {
  auto a = lora::zeros<float>(5);
  auto b = lora::zeros<int>(5);
  lora::cast(a, b);
#ifdef LORA_MUST_FAIL
  auto c = lora::zeros<unsigned long>(5);
  lora::cast(a, c);
#endif
}
