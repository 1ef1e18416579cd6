// SPDX-License-Identifier: Apache-2.0
// EXPECT: a view of a temporary array would dangle
#include <lora/nd/array.hpp>

int main() {
  auto a = lora::zeros<float>(4, 5);
  auto v = a.view();
#ifdef LORA_MUST_FAIL
  auto w = lora::zeros<float>(4, 5).view();
  (void)w;
#endif
  (void)v;
}
