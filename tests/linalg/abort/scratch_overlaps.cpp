// SPDX-License-Identifier: Apache-2.0
// EXPECT: forward: scratch overlaps y, x, w or bias
#undef LORA_CHECKS
#define LORA_CHECKS 2
#include <lora/linalg/forward.hpp>

int main() {
  float y[6] = {};
  const float w[9] = {};
  lora::workspace scratch(1 << 16);
  const auto* x = static_cast<const float*>(scratch.data());
  lora::forward({y, {2, 3}}, {x, {2, 3}}, {w, {3, 3}}, {}, {}, scratch);
}
