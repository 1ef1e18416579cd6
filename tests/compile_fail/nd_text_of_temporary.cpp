// SPDX-License-Identifier: Apache-2.0
// EXPECT: a slice of a temporary array would dangle
#include <lora/nd/array.hpp>
#include <lora/nd/slice_text.hpp>

using namespace lora::literals;

int main() {
  auto a = lora::zeros<float>(4, 5);
  auto s = a("1:, 2"_s);
#ifdef LORA_MUST_FAIL
  (void)lora::zeros<float>(4, 5)("1:, 2"_s);
#endif
  (void)s;
}
