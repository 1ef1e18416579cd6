// SPDX-License-Identifier: Apache-2.0
// EXPECT: an array of a temporary archive would dangle
#include <lora/io/npz.hpp>

int main() {
  const auto f = lora::io::npz::parse({}, "f");
  (void)f["x"];
#ifdef LORA_MUST_FAIL
  (void)lora::io::npz::parse({}, "f")["x"];
#endif
}
