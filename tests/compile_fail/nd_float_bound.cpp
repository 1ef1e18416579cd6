// SPDX-License-Identifier: Apache-2.0
// EXPECT: slice bounds are integers
#include <lora/nd/slice.hpp>

int main() {
  (void)lora::range(1, lora::_);
#ifdef LORA_MUST_FAIL
  (void)lora::range(1.5, lora::_);
#endif
}
