// SPDX-License-Identifier: Apache-2.0
// EXPECT: Eigen has 16-bit floats of its own, and no map can turn lora.s into them
#include <lora/core/half.hpp>
#include <lora/interop/eigen.hpp>
#include <lora/nd/array.hpp>

int main() {
  auto a = lora::zeros<float>(4, 5);
  auto h = lora::zeros<lora::bfloat16>(4, 5);
  (void)lora::as_eigen(a);
  (void)h;
#ifdef LORA_MUST_FAIL
  (void)lora::as_eigen(h);
#endif
}
