// SPDX-License-Identifier: Apache-2.0
//
// Loops over raw pointers, compiled for this machine.
#include "loops.inl"

void bench::native_loops(const task& t, peer_list& out) { add_loops(t, out, "-march=native"); }
