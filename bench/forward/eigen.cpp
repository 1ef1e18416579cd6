// SPDX-License-Identifier: Apache-2.0
//
// Eigen, compiled with -march=native.
#include "forward.hpp"

#if defined(LORA_BENCH_HAVE_EIGEN)
#include "eigen.inl"

void bench::eigen_peers(peer_list& out) { out.push_back(eigen_peer("Eigen", "-march=native")); }
#else
void bench::eigen_peers(peer_list&) {}
#endif
