// SPDX-License-Identifier: Apache-2.0
// EXPECT: a view of a temporary Eigen object would dangle
#include <lora/interop/eigen.hpp>

int main() {
  Eigen::MatrixXf a(2, 2);
  a.setZero();
  (void)lora::as_view(a);
#ifdef LORA_MUST_FAIL
  (void)lora::as_view(Eigen::MatrixXf(2, 2));
#endif
}
