// SPDX-License-Identifier: Apache-2.0
// EXPECT: softmax does not mix double with smaller types
#include <lora/ops/softmax.hpp>

int main() {
  auto a = lora::zeros<double>(3, 4);
  lora::softmax(a, a, 1);
#ifdef LORA_MUST_FAIL
  auto f = lora::zeros<float>(3, 4);
  lora::softmax(a, f, 1);
#endif
}
