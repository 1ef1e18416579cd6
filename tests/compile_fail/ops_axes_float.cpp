// SPDX-License-Identifier: Apache-2.0
// EXPECT: axes are integers
#include <lora/ops/reduce.hpp>

int main() {
  auto a = lora::zeros<float>(4, 5);
  (void)lora::sum(a, lora::axes{0, 1});
#ifdef LORA_MUST_FAIL
  (void)lora::sum(a, lora::axes{0.5});
#endif
}
