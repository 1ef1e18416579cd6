// SPDX-License-Identifier: Apache-2.0
// EXPECT: snapshot_reader: destroyed or assigned to while pinned
#undef LORA_CHECKS
#define LORA_CHECKS 1
#include <lora/snapshot/cell.hpp>

int main() {
  lora::snapshot_cell<int> cell(1);
  // Through a volatile pointer: g++ would see the mistake at compile time otherwise.
  auto* volatile reader = new lora::snapshot_reader<int>(cell.reader());
  auto pin = reader->pin();
  delete reader;
}
