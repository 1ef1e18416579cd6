// SPDX-License-Identifier: Apache-2.0
// EXPECT: a pointer into a temporary array would dangle
#include <lora/nd/array.hpp>

int main() {
  auto a = lora::zeros<float>(4, 5);
  const float* p = a.data();
#ifdef LORA_MUST_FAIL
  const float* q = lora::zeros<float>(4, 5).data();
  (void)q;
#endif
  (void)p;
}
