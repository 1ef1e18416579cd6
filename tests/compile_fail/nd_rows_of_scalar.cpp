// SPDX-License-Identifier: Apache-2.0
// EXPECT: a view of rank 0 has no rows
#include <lora/nd/array.hpp>
#include <lora/nd/rows.hpp>

int main() {
  auto a = lora::zeros<float>(4, 6);
  (void)lora::rows(a(0));
#ifdef LORA_MUST_FAIL
  (void)lora::rows(lora::ndview<float, 0>(a.data(), {}));
#endif
}
