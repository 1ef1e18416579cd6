// SPDX-License-Identifier: Apache-2.0
// EXPECT: snapshot_pin: there is no value to dereference
#undef LORA_CHECKS
#define LORA_CHECKS 1
#include <lora/snapshot/cell.hpp>

int main() {
  lora::snapshot_cell<int> cell;
  auto reader = cell.reader();
  return *reader.pin();
}
