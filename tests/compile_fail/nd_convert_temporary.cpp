// SPDX-License-Identifier: Apache-2.0
// EXPECT: a view of a temporary array would dangle
#include <lora/nd/array.hpp>

int main() {
  auto a = lora::zeros<float>(4, 5);
  lora::ndview<const float, 2> v = a;
#ifdef LORA_MUST_FAIL
  lora::ndview<const float, 2> w = lora::zeros<float>(4, 5);
  (void)w;
#endif
  (void)v;
}
