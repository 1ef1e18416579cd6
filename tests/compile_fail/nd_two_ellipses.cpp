// SPDX-License-Identifier: Apache-2.0
// EXPECT: or a second ellipsis
#include <lora/nd/view.hpp>

int main() {
  float memory[6] = {};
  lora::ndview<float, 2> v(memory, {2, 3});
  (void)v(lora::ellipsis, 1);
#ifdef LORA_MUST_FAIL
  (void)v(lora::ellipsis, 1, lora::ellipsis);
#endif
}
