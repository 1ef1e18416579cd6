// SPDX-License-Identifier: Apache-2.0
// EXPECT: a view of a temporary array would dangle
#include <lora/nd/array.hpp>
#include <lora/nd/windows.hpp>

int main() {
  auto a = lora::zeros<float>(4, 6);
  (void)lora::sliding_window(a, lora::extents{1, 2}, {0, 1});
#ifdef LORA_MUST_FAIL
  (void)lora::sliding_window(lora::zeros<float>(4, 6), lora::extents{1, 2}, {0, 1});
#endif
}
