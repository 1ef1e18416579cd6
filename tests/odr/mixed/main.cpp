// SPDX-License-Identifier: Apache-2.0
//
// Calls whichever variants of compute.cpp are linked in, in a fixed order, and prints "<variant> <result>" lines. Compiled with no -m
// flag and without lora, so that it can ask whether the CPU may run a variant before any of that variant's code runs.
#include <cstdio>

extern "C" {
[[gnu::weak]] void plain_o0();
[[gnu::weak]] void checked_o0();
[[gnu::weak]] void avx2_o0();
[[gnu::weak]] void v4_o0();
[[gnu::weak]] void plain_o2();
[[gnu::weak]] void v4_o2();
}

static void call(const char* name, void (*compute)(), bool runnable) {
  if (compute == nullptr) return;
  if (runnable) {
    compute();
  } else {
    std::printf("%s skipped\n", name);
  }
}

int main() {
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool v4 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
                  __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  call("plain_o0", plain_o0, true);
  call("checked_o0", checked_o0, true);
  call("avx2_o0", avx2_o0, avx2);
  call("v4_o0", v4_o0, v4);
  call("plain_o2", plain_o2, true);
  call("v4_o2", v4_o2, v4);
}
