// SPDX-License-Identifier: Apache-2.0
// EXPECT: reductions take float, double, float16, bfloat16
#include <lora/ops/argmax.hpp>

int main() {
  auto a = lora::zeros<float>(4, 5);
  (void)lora::argmax(a);
#ifdef LORA_MUST_FAIL
  auto b = lora::zeros<unsigned long>(4, 5);
  (void)lora::argmax(b);
#endif
}
