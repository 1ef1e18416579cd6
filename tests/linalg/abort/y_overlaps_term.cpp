// SPDX-License-Identifier: Apache-2.0
// EXPECT: one row is fine.*forward: y overlaps a or b of a term
#undef LORA_CHECKS
#define LORA_CHECKS 2
#include <lora/linalg/forward.hpp>

int main() {
  float y[6] = {};
  const float x[6] = {};
  const float w[9] = {};
  const float a[3] = {};
  lora::workspace scratch;
  const lora::low_rank_term term{{a, {1, 3}}, {y + 3, {3, 1}}, 1.0f};
  lora::forward({y, {1, 3}}, {x, {1, 3}}, {w, {3, 3}}, {&term, 1}, {}, scratch);
  std::fputs("one row is fine\n", stderr);
  lora::forward({y, {2, 3}}, {x, {2, 3}}, {w, {3, 3}}, {&term, 1}, {}, scratch);
}
