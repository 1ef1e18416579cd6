// SPDX-License-Identifier: Apache-2.0
// EXPECT: a view of a temporary array would dangle
#include <lora/nd/array.hpp>
#include <lora/nd/split.hpp>

int main() {
  auto a = lora::zeros<float>(4, 6);
  (void)lora::chunk(a, 2, 1);
#ifdef LORA_MUST_FAIL
  (void)lora::chunk(lora::zeros<float>(4, 6), 2, 1);
#endif
}
