// SPDX-License-Identifier: Apache-2.0
// EXPECT: a view of a temporary container would dangle
#include <lora/nd/view.hpp>

#include <array>

int main() {
  const std::array<float, 3> memory{1, 2, 3};
  lora::ndview<const float, 1> v(memory, {3});
#ifdef LORA_MUST_FAIL
  lora::ndview<const float, 1> w(std::array<float, 3>{1, 2, 3}, {3});
  (void)w;
#endif
  (void)v;
}
