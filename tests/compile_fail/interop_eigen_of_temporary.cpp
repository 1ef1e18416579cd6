// SPDX-License-Identifier: Apache-2.0
// EXPECT: a map of a temporary array would dangle
#include <lora/interop/eigen.hpp>
#include <lora/nd/array.hpp>

int main() {
  auto a = lora::zeros<float>(4, 5);
  (void)lora::as_eigen(a);
#ifdef LORA_MUST_FAIL
  (void)lora::as_eigen(lora::zeros<float>(4, 5));
#endif
}
