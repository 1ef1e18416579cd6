// SPDX-License-Identifier: Apache-2.0
// EXPECT: an expression of Eigen has no elements in memory
#include <lora/interop/eigen.hpp>

int main() {
  Eigen::MatrixXf a(2, 2);
  a.setZero();
  auto sum = a + a;
  (void)lora::as_view(a);
  (void)sum;
#ifdef LORA_MUST_FAIL
  (void)lora::as_view(sum);
#endif
}
