// SPDX-License-Identifier: Apache-2.0
// EXPECT: a view of a temporary array would dangle
#include <lora/nd/array.hpp>
#include <lora/nd/broadcast.hpp>

int main() {
  auto a = lora::zeros<float>(5);
  auto b = lora::broadcast_to(a, lora::extents{4, 5});
#ifdef LORA_MUST_FAIL
  auto c = lora::broadcast_to(lora::zeros<float>(5), lora::extents{4, 5});
  (void)c;
#endif
  (void)b;
}
