// SPDX-License-Identifier: Apache-2.0
// EXPECT: MaxRank <= max_rank
#include <lora/nd/any_view.hpp>

int main() {
  const lora::any_view v;
  lora::dispatch_up_to<8, unsigned char>(v, [](auto) {});
#ifdef LORA_MUST_FAIL
  lora::dispatch_up_to<9, unsigned char>(v, [](auto) {});
#endif
}
