// SPDX-License-Identifier: Apache-2.0
// EXPECT: permute names an axis that the view does not have
#include <lora/nd/view.hpp>

int main() {
  float memory[6] = {};
  lora::ndview<float, 2> v(memory, {2, 3});
  (void)v.permute<1, 0>();
#ifdef LORA_MUST_FAIL
  (void)v.permute<0, 2>();
#endif
}
