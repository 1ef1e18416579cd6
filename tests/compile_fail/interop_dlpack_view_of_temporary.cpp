// SPDX-License-Identifier: Apache-2.0
// EXPECT: a view of a temporary dlpack_tensor would dangle
#include <lora/interop/dlpack.hpp>

int main() {
  const auto t = lora::from_dlpack(lora::to_dlpack(lora::zeros<float>(4, 5)));
  (void)t.view();
#ifdef LORA_MUST_FAIL
  (void)lora::from_dlpack(lora::to_dlpack(lora::zeros<float>(4, 5))).view();
#endif
}
