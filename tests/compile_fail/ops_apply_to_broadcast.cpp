// SPDX-License-Identifier: Apache-2.0
// EXPECT: apply writes to a read-only view
#include <lora/nd/broadcast.hpp>
#include <lora/ops/apply.hpp>

int main() {
  auto a = lora::zeros<float>(5);
  auto b = lora::broadcast_to(a, lora::extents{4, 5});
  auto y = lora::zeros<float>(4, 5);
  const auto twice = [](float x) { return 2 * x; };
  lora::apply(y, twice, b);
#ifdef LORA_MUST_FAIL
  lora::apply(b, twice, y);
#endif
}
