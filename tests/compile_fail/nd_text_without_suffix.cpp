// SPDX-License-Identifier: Apache-2.0
// EXPECT: the words of a slice are integers, range, all, newaxis and ellipsis
#include <lora/nd/array.hpp>
#include <lora/nd/slice_text.hpp>

using namespace lora::literals;

int main() {
  auto a = lora::zeros<float>(4, 5);
  auto s = a("1:, 2"_s);
#ifdef LORA_MUST_FAIL
  (void)a("1:, 2");
#endif
  (void)s;
}
