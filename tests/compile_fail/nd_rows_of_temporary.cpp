// SPDX-License-Identifier: Apache-2.0
// EXPECT: a view of a temporary array would dangle
#include <lora/nd/array.hpp>
#include <lora/nd/rows.hpp>

int main() {
  auto a = lora::zeros<float>(4, 6);
  (void)lora::rows(a);
#ifdef LORA_MUST_FAIL
  (void)lora::rows(lora::zeros<float>(4, 6));
#endif
}
