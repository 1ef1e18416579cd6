// SPDX-License-Identifier: Apache-2.0
// EXPECT: a view of a temporary array would dangle
#include <lora/nd/array.hpp>
#include <lora/nd/reshape.hpp>

int main() {
  auto a = lora::zeros<float>(4, 5);
  auto r = lora::reshape(a, 20);
#ifdef LORA_MUST_FAIL
  auto s = lora::reshape(lora::zeros<float>(4, 5), 20);
  (void)s;
#endif
  (void)r;
}
