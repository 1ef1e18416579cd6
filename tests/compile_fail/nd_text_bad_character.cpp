// SPDX-License-Identifier: Apache-2.0
// EXPECT: a character that no slice holds
#include <lora/nd/slice_text.hpp>
#include <lora/nd/view.hpp>

using namespace lora::literals;

int main() {
  float memory[6] = {};
  lora::ndview<float, 2> v(memory, {2, 3});
  (void)v("1:, 2"_s);
#ifdef LORA_MUST_FAIL
  (void)v("1:, 2*3"_s);
#endif
}
