// SPDX-License-Identifier: Apache-2.0
// EXPECT: forward: elements of y share an address
#undef LORA_CHECKS
#define LORA_CHECKS 2
#include <lora/linalg/forward.hpp>

int main() {
  float y[6] = {};
  const float x[6] = {};
  const float w[9] = {};
  lora::workspace scratch;
  lora::forward({y, {2, 3}, lora::strides{2, 1}}, {x, {2, 3}}, {w, {3, 3}}, {}, {}, scratch);
}
