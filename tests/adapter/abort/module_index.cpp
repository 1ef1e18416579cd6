// SPDX-License-Identifier: Apache-2.0
// EXPECT: adapter_set: module index out of range
#undef LORA_CHECKS
#define LORA_CHECKS 1
#include <lora/adapter/adapter_set.hpp>

int main() {
  lora::model_contract model;
  model.add("fc1", 2, 3);
  const lora::adapter_set none(model);
  if (!none[0].empty()) return 0;
  return static_cast<int>(none[1].size());
}
