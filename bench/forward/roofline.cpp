// SPDX-License-Identifier: Apache-2.0
//
// The two limits of one core, measured in the same process and minutes as the peers: how fast W can be read, how fast multiply-adds go.
// Compiled with -march=native; the compiler's vector types keep it free of intrinsics.
#include "forward.hpp"

namespace bench {
namespace {

#if defined(__AVX512F__)
constexpr std::size_t lanes = 16;
#elif defined(__AVX__)
constexpr std::size_t lanes = 8;
#else
constexpr std::size_t lanes = 4;
#endif
typedef float vec __attribute__((vector_size(lanes * sizeof(float))));
typedef float loose __attribute__((vector_size(lanes * sizeof(float)), aligned(4)));

float total(vec v) {
  float sum = 0;
  for (std::size_t i = 0; i < lanes; ++i) sum += v[i];
  return sum;
}

}  // namespace

double stream_read(const float* p, std::size_t n) {
  constexpr std::size_t chains = 8;
  vec sum[chains] = {};
  std::size_t i = 0;
  for (; i + chains * lanes <= n; i += chains * lanes)
#pragma GCC unroll 8
    for (std::size_t c = 0; c < chains; ++c) sum[c] += *reinterpret_cast<const loose*>(p + i + c * lanes);
  double result = 0;
  for (; i < n; ++i) result += double(p[i]);
#pragma GCC unroll 8
  for (std::size_t c = 0; c < chains; ++c) result += double(total(sum[c]));
  return result;
}

double fma_burst(std::size_t rounds) {
  constexpr std::size_t chains = 12;  // enough for two units of latency 4 or 5
  vec sum[chains];
#pragma GCC unroll 12
  for (std::size_t c = 0; c < chains; ++c) sum[c] = vec{} + float(c);
  const vec a = vec{} + 0.999f;
  const vec b = vec{} + 0.001f;
  for (std::size_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (std::size_t c = 0; c < chains; ++c) {
      sum[c] = sum[c] * a + b;
      asm("" : "+v"(sum[c]));
    }
  }
  float keep = 0;
  // By index, unrolled, like every loop over the sums here: a reference into the array would keep all of it on the stack.
#pragma GCC unroll 12
  for (std::size_t c = 0; c < chains; ++c) keep += total(sum[c]);
  asm volatile("" ::"x"(keep));
  return 2.0 * double(rounds) * double(chains * lanes);
}

const char* roofline_flags() { return LORA_BENCH_FLAGS; }

}  // namespace bench
