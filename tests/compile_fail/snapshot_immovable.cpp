// SPDX-License-Identifier: Apache-2.0
// EXPECT: T cannot be moved into a payload; build it in place
#include <lora/snapshot/cell.hpp>

struct model {
  model() = default;
  model(const model&) = delete;
  model& operator=(const model&) = delete;
  int rank = 8;
};

lora::stamp publish(lora::snapshot_cell<model>& cell) {
#ifdef LORA_MUST_FAIL
  return cell.publish(model{});
#else
  return cell.publish(lora::make_payload<model>());
#endif
}
