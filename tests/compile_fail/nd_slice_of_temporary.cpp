// SPDX-License-Identifier: Apache-2.0
// EXPECT: a slice of a temporary array would dangle
#include <lora/nd/array.hpp>

int main() {
  auto a = lora::zeros<float>(4, 5);
  auto s = a(0, lora::all);
#ifdef LORA_MUST_FAIL
  auto t = lora::zeros<float>(4, 5)(0, lora::all);
  (void)t;
#endif
  (void)s;
}
