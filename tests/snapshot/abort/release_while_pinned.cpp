// SPDX-License-Identifier: Apache-2.0
// EXPECT: snapshot_reader: release\(\) while pinned
#undef LORA_CHECKS
#define LORA_CHECKS 1
#include <lora/snapshot/cell.hpp>

int main() {
  lora::snapshot_cell<int> cell(1);
  auto reader = cell.reader();
  auto pin = reader.pin();
  reader.release();
}
