// SPDX-License-Identifier: Apache-2.0
// EXPECT: diagonal needs a view of two axes or more
#include <lora/nd/array.hpp>
#include <lora/nd/axes.hpp>

int main() {
  auto a = lora::zeros<float>(4, 6);
  (void)lora::diagonal(a);
#ifdef LORA_MUST_FAIL
  (void)lora::diagonal(a(0));
#endif
}
