// SPDX-License-Identifier: Apache-2.0
// EXPECT: T cannot be constructed from these arguments
#include <lora/snapshot/payload.hpp>

class model {
 public:
  explicit model(int rank) : rank_(rank) {}
  int rank() const { return rank_; }

 private:
  int rank_;
};

int rank_of() {
#ifdef LORA_MUST_FAIL
  return lora::make_payload<model>("eight")->rank();
#else
  return lora::make_payload<model>(8)->rank();
#endif
}
