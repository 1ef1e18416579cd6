// SPDX-License-Identifier: Apache-2.0
// EXPECT: a view of a temporary array would dangle
#include <lora/nd/array.hpp>
#include <lora/nd/axes.hpp>

int main() {
  auto a = lora::zeros<float>(4, 6);
  (void)lora::diagonal(a);
#ifdef LORA_MUST_FAIL
  (void)lora::diagonal(lora::zeros<float>(4, 6));
#endif
}
