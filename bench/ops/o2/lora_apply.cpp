// SPDX-License-Identifier: Apache-2.0
//
// apply at -O2, in a library of its own: in one program the linker would keep one copy of the functions that do not depend on the lambda, of
// either optimisation.
#include "../lora_apply.inl"

extern "C" [[gnu::visibility("default")]] void lora_bench_apply_o2(const bench::task& t, const void* from, void* to) {
  (t.rank == 1 ? scale<1> : scale<4>)(t, from, to);
}
