// SPDX-License-Identifier: Apache-2.0
// EXPECT: fill writes to a read-only view
#include <lora/nd/broadcast.hpp>
#include <lora/ops/fill.hpp>

int main() {
  auto a = lora::zeros<float>(5);
  auto b = lora::broadcast_to(a, lora::extents{4, 5});
  lora::fill(a, 1);
#ifdef LORA_MUST_FAIL
  lora::fill(b, 1);
#endif
  (void)b;
}
