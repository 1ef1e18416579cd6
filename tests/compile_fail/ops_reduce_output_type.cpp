// SPDX-License-Identifier: Apache-2.0
// EXPECT: the output of a reduction has the element type of its result
#include <lora/ops/reduce.hpp>

int main() {
  auto a = lora::zeros<signed char>(4, 5);
  auto wide = lora::zeros<std::int64_t>(4);
  lora::sum(a, lora::axes{1}, wide);
#ifdef LORA_MUST_FAIL
  auto narrow = lora::zeros<signed char>(4);
  lora::sum(a, lora::axes{1}, narrow);
#endif
}
