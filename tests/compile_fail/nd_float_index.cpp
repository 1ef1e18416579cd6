// SPDX-License-Identifier: Apache-2.0
// EXPECT: the words of a slice are integers, range, all, newaxis and ellipsis
#include <lora/nd/view.hpp>

int main() {
  float memory[6] = {};
  lora::ndview<float, 2> v(memory, {2, 3});
  const double half = 0.5;
  v(static_cast<int>(half), 1) = 1;
#ifdef LORA_MUST_FAIL
  v(half, 1) = 1;
#endif
}
