// SPDX-License-Identifier: Apache-2.0
// EXPECT: a number does not fit a signed 64-bit index
#include <lora/nd/slice_text.hpp>
#include <lora/nd/view.hpp>

using namespace lora::literals;

int main() {
  float memory[6] = {};
  lora::ndview<float, 2> v(memory, {2, 3});
  (void)v("1:, 2"_s);
#ifdef LORA_MUST_FAIL
  (void)v("1:, 9223372036854775808"_s);
#endif
}
