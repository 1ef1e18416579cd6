// SPDX-License-Identifier: Apache-2.0
// EXPECT: broadcast_to gives an input the output.s shape
#include <lora/ops/apply.hpp>

int main() {
  auto a = lora::zeros<float>(5);
  auto y = lora::zeros<float>(4, 5);
  const auto twice = [](float x) { return 2 * x; };
  lora::apply(y(0), twice, a);
#ifdef LORA_MUST_FAIL
  lora::apply(y, twice, a);
#endif
}
