// SPDX-License-Identifier: Apache-2.0
// EXPECT: copy takes two views of one rank
#include <lora/ops/copy.hpp>

int main() {
  auto a = lora::zeros<float>(1, 5);
  auto b = lora::zeros<float>(5);
  lora::copy(a(0), b);
#ifdef LORA_MUST_FAIL
  lora::copy(a, b);
#endif
}
