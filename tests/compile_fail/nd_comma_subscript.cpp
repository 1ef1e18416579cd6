// SPDX-License-Identifier: Apache-2.0
// EXPECT: in C\+\+20 v\[i, j\] means v\[j\]; write v\(i, j\)
#include <lora/nd/view.hpp>

int main() {
  float memory[6] = {};
  lora::ndview<float, 2> v(memory, {2, 3});
  v(1, 2) = 3;
#ifdef LORA_MUST_FAIL
  v[1, 2] = 3;
#endif
}
