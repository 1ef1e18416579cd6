// SPDX-License-Identifier: Apache-2.0
// EXPECT: T is not an object type
#include <lora/snapshot/cell.hpp>

struct model {
  int rank = 8;
};

#ifdef LORA_MUST_FAIL
lora::snapshot_cell<int(int)> cell;
#else
lora::snapshot_cell<model> cell;
#endif
