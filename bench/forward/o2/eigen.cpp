// SPDX-License-Identifier: Apache-2.0
//
// Eigen as ../eigen.cpp calls it, at -O2 without an -m flag: the generic tier's peer.
#include "o2.hpp"

#if defined(LORA_BENCH_HAVE_EIGEN)
#include "../eigen.inl"

void bench::o2_eigen(peer_list& out) { out.push_back(eigen_peer("Eigen -O2", "-O2 and no -m flag")); }
#else
void bench::o2_eigen(peer_list&) {}
#endif
