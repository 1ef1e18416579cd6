// SPDX-License-Identifier: Apache-2.0
// EXPECT: softmax writes to a read-only view
#include <lora/nd/broadcast.hpp>
#include <lora/ops/softmax.hpp>

int main() {
  auto a = lora::zeros<float>(4);
  auto y = lora::zeros<float>(3, 4);
  auto b = lora::broadcast_to(a, y.shape());
  lora::softmax(b, y, 1);
#ifdef LORA_MUST_FAIL
  lora::softmax(y, b, 1);
#endif
}
