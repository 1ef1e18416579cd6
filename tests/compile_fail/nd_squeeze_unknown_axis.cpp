// SPDX-License-Identifier: Apache-2.0
// EXPECT: squeeze<Axes...> names an axis that the view does not have, or one twice
#include <lora/nd/array.hpp>
#include <lora/nd/axes.hpp>

int main() {
  auto a = lora::zeros<float>(1, 1, 6);
  (void)lora::squeeze<0, 1>(a);
#ifdef LORA_MUST_FAIL
  (void)lora::squeeze<0, -3>(a);
#endif
}
