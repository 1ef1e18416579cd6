// SPDX-License-Identifier: Apache-2.0
// EXPECT: joined views have one element type
#include <lora/ops/join.hpp>

int main() {
  auto a = lora::zeros<float>(4, 6);
  (void)lora::concatenate(0, a, a);
#ifdef LORA_MUST_FAIL
  (void)lora::concatenate(0, a, lora::zeros<double>(4, 6));
#endif
}
