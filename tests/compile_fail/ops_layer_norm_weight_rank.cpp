// SPDX-License-Identifier: Apache-2.0
// EXPECT: the parameters of a norm are vectors
#include <lora/ops/normalize.hpp>

int main() {
  auto x = lora::zeros<float>(3, 4);
  auto w = lora::zeros<float>(lora::extents{4});
  lora::layer_norm(x, w, w, 1e-5, x);
#ifdef LORA_MUST_FAIL
  auto m = lora::zeros<float>(1, 4);
  lora::layer_norm(x, m, m, 1e-5, x);
#endif
}
