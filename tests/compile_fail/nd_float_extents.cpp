// SPDX-License-Identifier: Apache-2.0
// EXPECT: extents are integers; cast floating point values and bools yourself
#include <lora/nd/shape.hpp>

int main() {
  lora::extents<2> shape{2, 3u};
#ifdef LORA_MUST_FAIL
  lora::extents<2> odd{2.5, 3};
  (void)odd;
#endif
  (void)shape;
}
