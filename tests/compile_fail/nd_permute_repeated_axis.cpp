// SPDX-License-Identifier: Apache-2.0
// EXPECT: permute must name each axis exactly once
#include <lora/nd/view.hpp>

int main() {
  float memory[6] = {};
  lora::ndview<float, 2> v(memory, {2, 3});
  (void)v.permute<1, 0>();
#ifdef LORA_MUST_FAIL
  (void)v.permute<1, 1>();
#endif
}
