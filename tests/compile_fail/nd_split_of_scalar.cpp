// SPDX-License-Identifier: Apache-2.0
// EXPECT: a view of rank 0 has no axis to cut
#include <lora/nd/array.hpp>
#include <lora/nd/split.hpp>

int main() {
  auto a = lora::zeros<float>(4, 6);
  (void)lora::split(a(0), 2);
#ifdef LORA_MUST_FAIL
  (void)lora::split(lora::ndview<float, 0>(a.data(), {}), 2);
#endif
}
