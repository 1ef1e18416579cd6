// SPDX-License-Identifier: Apache-2.0
//
// The program of every packaging case: uses lora::lora and, with WITH_IO, lora::io; prints "packaged".
#include <lora/lora.hpp>

#include <cstdio>
#ifdef WITH_IO
#include <lora/io/safetensors.hpp>
#endif

int main() {
  const float w[] = {1, 2, 3, 4};
  const float a[] = {1, 1};
  const float b[] = {1, 2};
  const float x[] = {1, -1};
  float y[2] = {};
  const lora::low_rank_term term{lora::ndview<const float, 2>(a, {1, 2}), lora::ndview<const float, 2>(b, {2, 1}), 0.5f};
  lora::workspace scratch;
  lora::forward(lora::ndview<float, 2>(y, {1, 2}), lora::ndview<const float, 2>(x, {1, 2}), lora::ndview<const float, 2>(w, {2, 2}),
                {&term, 1}, {}, scratch);
#ifdef WITH_IO
  try {
    (void)lora::io::safetensors::open("/nonexistent");
    return 1;
  } catch (const lora::io_error&) {
  }
#endif
  if (y[0] != -1 || y[1] != -1) return 1;
  std::puts("packaged");
}
