// SPDX-License-Identifier: Apache-2.0
// EXPECT: read-only
#include <lora/nd/windows.hpp>
#include <lora/ops/fill.hpp>

int main() {
  auto a = lora::zeros<float>(4, 6);
  lora::fill(a, 1.0f);
#ifdef LORA_MUST_FAIL
  lora::fill(lora::sliding_window(a, 2), 1.0f);
#endif
}
