// SPDX-License-Identifier: Apache-2.0
//
// What the files of o2/ are to each other.
#ifndef LORA_BENCH_FORWARD_O2_O2_HPP
#define LORA_BENCH_FORWARD_O2_O2_HPP

#include "../forward.hpp"

namespace bench {
void o2_lora(peer_list& out);
void o2_eigen(peer_list& out);
}  // namespace bench

#endif
