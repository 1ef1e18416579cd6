// SPDX-License-Identifier: Apache-2.0
// EXPECT: f returns a floating point number for an integer output
#include <lora/ops/apply.hpp>

int main() {
  auto a = lora::zeros<float>(5);
  auto y = lora::zeros<int>(5);
  lora::apply(
      y, [](float x) { return x > 0 ? 1 : 0; }, a);
#ifdef LORA_MUST_FAIL
  lora::apply(
      y, [](float x) { return 2 * x; }, a);
#endif
}
