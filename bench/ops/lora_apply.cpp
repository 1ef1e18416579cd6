// SPDX-License-Identifier: Apache-2.0
//
// lora: element by element, and the second measurement of itself.
#include "lora_apply.inl"

extern "C" void lora_bench_apply_o2(const bench::task& t, const void* from, void* to);

void bench::lora_apply(const task& t, peer_list& out) {
  if (t.what == op::scale) out.push_back({"lora", "apply with a lambda", t.rank == 1 ? scale<1> : scale<4>});
}

void bench::lora_again(const task& t, peer_list& out) {
  const peer first = out.front();
  out.push_back({"lora again", "the same code a second time", first.run, first.batch});
  if (t.what == op::scale) out.push_back({"lora -O2", "the same, compiled with -O2", lora_bench_apply_o2});
}
