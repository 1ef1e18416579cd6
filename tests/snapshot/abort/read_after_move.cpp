// SPDX-License-Identifier: Apache-2.0
// EXPECT: snapshot_reader: read\(\) on a moved-from reader
#undef LORA_CHECKS
#define LORA_CHECKS 1
#include <lora/snapshot/cell.hpp>

#include <utility>

int main() {
  lora::snapshot_cell<int> cell(1);
  auto reader = cell.reader();
  auto other = std::move(reader);
  reader.read();
}
