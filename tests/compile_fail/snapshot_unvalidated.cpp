// SPDX-License-Identifier: Apache-2.0
// EXPECT: this payload was not validated
#include <lora/snapshot/history.hpp>

struct model {
  int rank = 8;
};

void publish(lora::history<model>& h) {
#ifdef LORA_MUST_FAIL
  h.publish(lora::make_payload<model>());
#else
  h.publish(h.validate(lora::make_payload<model>(), {}));
#endif
}
