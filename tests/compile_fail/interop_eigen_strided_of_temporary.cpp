// SPDX-License-Identifier: Apache-2.0
// EXPECT: a map of a temporary array would dangle
#include <lora/interop/eigen.hpp>
#include <lora/nd/array.hpp>

int main() {
  auto a = lora::zeros<float>(4);
  (void)lora::as_eigen_strided(a);
#ifdef LORA_MUST_FAIL
  (void)lora::as_eigen_strided(lora::zeros<float>(4));
#endif
}
