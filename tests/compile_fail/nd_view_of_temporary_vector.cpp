// SPDX-License-Identifier: Apache-2.0
// EXPECT: a view of a temporary container would dangle
#include <lora/nd/view.hpp>

#include <vector>

int main() {
  std::vector<float> memory(20);
  lora::ndview<float, 2> v(memory, {4, 5});
#ifdef LORA_MUST_FAIL
  lora::ndview<float, 2> w(std::vector<float>(20), {4, 5});
  (void)w;
#endif
  (void)v;
}
