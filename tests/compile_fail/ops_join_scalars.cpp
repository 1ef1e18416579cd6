// SPDX-License-Identifier: Apache-2.0
// EXPECT: concatenate joins along an axis, and views of rank 0 have none
#include <lora/ops/join.hpp>

int main() {
  auto a = lora::zeros<float>(4, 6);
  lora::ndview<float, 0> one(a.data(), {});
  (void)lora::stack(0, one, one);
#ifdef LORA_MUST_FAIL
  (void)lora::concatenate(0, one, one);
#endif
}
