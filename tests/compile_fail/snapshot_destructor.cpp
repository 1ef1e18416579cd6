// SPDX-License-Identifier: Apache-2.0
// EXPECT: T cannot be destroyed without throwing
#include <lora/snapshot/cell.hpp>

struct model {
#ifdef LORA_MUST_FAIL
  ~model() noexcept(false) {}
#endif
  int rank = 8;
};

int rank_of() { return lora::make_payload<model>()->rank; }
