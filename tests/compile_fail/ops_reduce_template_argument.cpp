// SPDX-License-Identifier: Apache-2.0
// EXPECT: sum
#include <lora/ops/reduce.hpp>

int main() {
  auto a = lora::zeros<float>(5);
  (void)lora::sum(a);
#ifdef LORA_MUST_FAIL
  (void)lora::sum<double>(a);  // not NumPy's dtype=: cast first
#endif
}
