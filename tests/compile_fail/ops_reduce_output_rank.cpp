// SPDX-License-Identifier: Apache-2.0
// EXPECT: the output of a reduction has the input's axes without those that are reduced
#include <lora/ops/reduce.hpp>

int main() {
  auto a = lora::zeros<float>(4, 5);
  auto out = lora::zeros<float>(4);
  lora::sum(a, lora::axes{1}, out);
#ifdef LORA_MUST_FAIL
  lora::sum(a, lora::axes{0, 1}, out);
#endif
}
