// SPDX-License-Identifier: Apache-2.0
// EXPECT: the output has the inputs' element type
#include <lora/ops/join.hpp>

int main() {
  auto a = lora::zeros<float>(4, 6);
  auto out = lora::zeros<float>(8, 6);
  lora::concatenate_into(out, 0, a, a);
#ifdef LORA_MUST_FAIL
  auto other = lora::zeros<double>(8, 6);
  lora::concatenate_into(other, 0, a, a);
#endif
}
