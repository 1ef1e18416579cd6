// SPDX-License-Identifier: Apache-2.0
// EXPECT: halves are fine.*forward: y overlaps x, w or bias
#undef LORA_CHECKS
#define LORA_CHECKS 2
#include <lora/linalg/forward.hpp>

int main() {
  float memory[12] = {};
  const float w[9] = {};
  lora::workspace scratch;
  // Two halves of the columns of one matrix interleave, and share nothing; with one column more they do.
  const lora::ndview<float, 2> all(memory, {2, 6});
  lora::forward(all(lora::all, lora::range(3, 6)), all(lora::all, lora::range(0, 3)), {w, {3, 3}}, {}, {}, scratch);
  std::fputs("halves are fine\n", stderr);
  lora::forward(all(lora::all, lora::range(2, 5)), all(lora::all, lora::range(0, 3)), {w, {3, 3}}, {}, {}, scratch);
}
