// SPDX-License-Identifier: Apache-2.0
// EXPECT: named_array_or_view
#include <lora/ops/copy.hpp>

int main() {
  auto a = lora::zeros<float>(5);
  auto b = lora::zeros<float>(5);
  lora::copy(a, b);
  lora::copy(a, b(lora::range(0, 5)));  // a temporary view of a named array
#ifdef LORA_MUST_FAIL
  lora::copy(a, lora::zeros<float>(5));
#endif
}
