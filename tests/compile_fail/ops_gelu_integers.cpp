// SPDX-License-Identifier: Apache-2.0
// EXPECT: the vector math takes float, double, float16 and bfloat16
#include <lora/ops/activation.hpp>

int main() {
  auto a = lora::zeros<float>(3, 4);
  lora::gelu(a, a);
#ifdef LORA_MUST_FAIL
  auto i = lora::zeros<int>(3, 4);
  lora::gelu(i, i);
#endif
}
