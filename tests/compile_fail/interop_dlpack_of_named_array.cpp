// SPDX-License-Identifier: Apache-2.0
// EXPECT: the array would stay while others use it
#include <lora/interop/dlpack.hpp>

int main() {
  auto a = lora::zeros<float>(4, 5);
  auto b = lora::zeros<float>(4, 5);
  const auto t = lora::from_dlpack(lora::to_dlpack(std::move(a)));
  (void)t;
  (void)b;
#ifdef LORA_MUST_FAIL
  (void)lora::to_dlpack(b);
#endif
}
