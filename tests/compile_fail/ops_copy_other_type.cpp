// SPDX-License-Identifier: Apache-2.0
// EXPECT: copy keeps the element type; cast
#include <lora/ops/copy.hpp>

int main() {
  auto a = lora::zeros<float>(5);
  auto b = lora::zeros<float>(5);
  auto c = lora::zeros<double>(5);
  lora::copy(a, b);
#ifdef LORA_MUST_FAIL
  lora::copy(a, c);
#endif
  (void)c;
}
