// SPDX-License-Identifier: Apache-2.0
// EXPECT: T is const or volatile; write the plain type
#include <lora/snapshot/cell.hpp>

struct model {
  int rank = 8;
};

#ifdef LORA_MUST_FAIL
lora::snapshot_cell<const model> cell;
#else
lora::snapshot_cell<model> cell;
#endif
