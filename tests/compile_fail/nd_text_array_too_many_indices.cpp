// SPDX-License-Identifier: Apache-2.0
// EXPECT: more indices than the array has axes
#include <lora/nd/array.hpp>
#include <lora/nd/slice_text.hpp>

using namespace lora::literals;

int main() {
  auto a = lora::zeros<float>(4, 5);
  auto s = a("1:, 2"_s);
#ifdef LORA_MUST_FAIL
  (void)a("0, 0, 0"_s);
#endif
  (void)s;
}
