// SPDX-License-Identifier: Apache-2.0
// EXPECT: a view of a temporary array would dangle
#include <lora/nd/array.hpp>
#include <lora/nd/axes.hpp>

int main() {
  auto a = lora::zeros<float>(1, 6);
  (void)lora::squeeze<0>(a);
#ifdef LORA_MUST_FAIL
  (void)lora::squeeze<0>(lora::zeros<float>(1, 6));
#endif
}
