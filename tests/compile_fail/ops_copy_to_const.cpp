// SPDX-License-Identifier: Apache-2.0
// EXPECT: copy writes to a read-only view
#include <lora/ops/copy.hpp>

int main() {
  auto a = lora::zeros<float>(5);
  const auto b = lora::zeros<float>(5);
  lora::copy(b, a);
#ifdef LORA_MUST_FAIL
  lora::copy(a, b);
#endif
}
