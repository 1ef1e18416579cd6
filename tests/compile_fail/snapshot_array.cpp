// SPDX-License-Identifier: Apache-2.0
// EXPECT: T is an array; publish a std::array
#include <lora/snapshot/cell.hpp>

struct model {
  int rank = 8;
};

#ifdef LORA_MUST_FAIL
lora::snapshot_cell<model[2]> cell;
#else
lora::snapshot_cell<model> cell;
#endif
