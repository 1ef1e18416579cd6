// SPDX-License-Identifier: Apache-2.0
//
// Built with -fno-exceptions: a tensor that from_dlpack refuses has gone back to its deleter, once, when the handler hears of it.
#include <cstdio>
#include <cstdlib>

[[noreturn]] void report(const char* text);
#define LORA_ERROR_HANDLER(text) ::report(text)

#include <lora/interop/dlpack.hpp>

static int given_back = 0;

void report(const char* text) {
  std::printf("given back %d time%s: %s\n", given_back, given_back == 1 ? "" : "s", text);
  std::exit(0);
}

int main() {
  float x[8] = {};
  std::int64_t shape[] = {2};
  lora::DLManagedTensorVersioned m{};
  m.version = {1, 0};
  m.deleter = [](lora::DLManagedTensorVersioned*) { ++given_back; };
  m.dl_tensor.data = x;
  m.dl_tensor.device = {static_cast<lora::DLDeviceType>(1), 0};
  m.dl_tensor.ndim = 1;
  m.dl_tensor.dtype = {2, 32, 4};
  m.dl_tensor.shape = shape;
  (void)lora::from_dlpack(&m);
  std::puts("a wrong tensor was not refused");
  return 1;
}
