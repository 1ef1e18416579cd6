// SPDX-License-Identifier: Apache-2.0
// EXPECT: joined views have one rank
#include <lora/ops/join.hpp>

int main() {
  auto a = lora::zeros<float>(4, 6);
  (void)lora::stack(0, a, a);
#ifdef LORA_MUST_FAIL
  (void)lora::stack(0, a, a(0));
#endif
}
