// SPDX-License-Identifier: Apache-2.0
// EXPECT: broadcast_to adds axes in front and never removes one
#include <lora/nd/broadcast.hpp>

int main() {
  float memory[6] = {};
  lora::ndview<float, 2> v(memory, {2, 3});
  (void)lora::broadcast_to(v, lora::extents{1, 2, 3});
#ifdef LORA_MUST_FAIL
  (void)lora::broadcast_to(v, lora::extents{3});
#endif
}
