// SPDX-License-Identifier: Apache-2.0
//
// The limits of one core. Compiled with -march=native; the compiler's vector types keep all but VDPBF16PS free of intrinsics.
#include "limits.hpp"

#if defined(__AVX512BF16__)
// g++ 12 reports its own AVX-512 header as using uninitialised variables.
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>
#endif

namespace bench {
namespace {

#if defined(__AVX512F__)
constexpr std::size_t register_bytes = 64;
#elif defined(__AVX__)
constexpr std::size_t register_bytes = 32;
#else
constexpr std::size_t register_bytes = 16;
#endif
// Integers, so that no value in memory can slow an addition down.
typedef long long word __attribute__((vector_size(register_bytes), aligned(8)));
constexpr std::size_t line = 64;
constexpr std::size_t words = line / register_bytes;

/** `Streams` parts beside each other, as a kernel reads that many rows at once; each `Ahead` bytes ahead of its use into L1, `Far` into L2. */
template <std::size_t Streams, std::size_t Ahead, std::size_t Far = 0>
std::size_t read_as(const char* p, std::size_t bytes) {
  constexpr std::size_t chains = 8 / Streams;  // lines of one stream a step
  word sum[8 * words] = {};
  const std::size_t part = bytes / Streams / (chains * line) * (chains * line);
  for (std::size_t at = 0; at < part; at += chains * line) {
#pragma GCC unroll 4
    for (std::size_t s = 0; s < Streams; ++s) {
#pragma GCC unroll 8
      for (std::size_t c = 0; c < chains; ++c) {
        const char* const from = p + s * part + at + c * line;
        if constexpr (Far != 0) __builtin_prefetch(from + Far, 0, 2);  // past the end it is ignored
        if constexpr (Ahead != 0) __builtin_prefetch(from + Ahead, 0, 3);
#pragma GCC unroll 4
        for (std::size_t w = 0; w < words; ++w)
          sum[(s * chains + c) * words + w] += *reinterpret_cast<const word*>(from + w * register_bytes);
      }
    }
  }
  word all = {};
#pragma GCC unroll 32
  for (std::size_t c = 0; c < 8 * words; ++c) all += sum[c];
  long long result = 0;
  for (std::size_t i = 0; i < register_bytes / 8; ++i) result += all[i];
  for (std::size_t at = part * Streams; at < bytes; ++at) result += p[at];
  return static_cast<std::size_t>(result);
}

struct way {
  const char* name;
  std::size_t (*read)(const char*, std::size_t);
};
constexpr way ways[] = {
    {"one stream, the CPU's own prefetchers", read_as<1, 0>},
    {"one stream, 1 KiB ahead", read_as<1, 1024>},
    {"one stream, 2 KiB ahead", read_as<1, 2048>},
    {"one stream, 4 KiB ahead", read_as<1, 4096>},
    {"four streams, the CPU's own prefetchers", read_as<4, 0>},
    {"four streams, 1 KiB ahead", read_as<4, 1024>},
    {"four streams, 2 KiB ahead", read_as<4, 2048>},
    {"four streams, 640 bytes ahead and 1280 into L2", read_as<4, 640, 1280>},
};

template <std::size_t Bytes>
double multiply_adds(std::size_t rounds) {
  constexpr std::size_t lanes = Bytes / sizeof(float);
  typedef float vec __attribute__((vector_size(Bytes)));
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
  // By index, unrolled, like every loop over the sums here: a reference into the array would keep all of it on the stack.
#pragma GCC unroll 12
  for (std::size_t c = 0; c < chains; ++c) asm volatile("" ::"v"(sum[c]));
  return 2.0 * double(rounds) * double(chains * lanes);
}

double pairs([[maybe_unused]] std::size_t rounds) {
#if defined(__AVX512BF16__)
  constexpr std::size_t chains = 12;
  __m512 sum[chains];
#pragma GCC unroll 12
  for (std::size_t c = 0; c < chains; ++c) sum[c] = _mm512_set1_ps(float(c));
  const auto a = (__m512bh)_mm512_set1_epi32(0x3f803f80);  // ones
  const auto b = (__m512bh)_mm512_set1_epi32(0x3a833a83);  // about 0.001
  for (std::size_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (std::size_t c = 0; c < chains; ++c) {
      sum[c] = _mm512_dpbf16_ps(sum[c], a, b);
      asm("" : "+v"(sum[c]));
    }
  }
#pragma GCC unroll 12
  for (std::size_t c = 0; c < chains; ++c) asm volatile("" ::"v"(sum[c]));
  return 4.0 * double(rounds) * double(chains * 16);
#else
  return 0;
#endif
}

}  // namespace

int ways_to_read() { return static_cast<int>(sizeof ways / sizeof *ways); }
const char* way_to_read(int number) { return ways[number].name; }
std::size_t read_once(int number, const void* p, std::size_t bytes) { return ways[number].read(static_cast<const char*>(p), bytes); }

bool has(arithmetic kind) {
  switch (kind) {
    case arithmetic::f32_ymm:
      return register_bytes >= 32;
#if defined(__AVX512BF16__)
    case arithmetic::bf16_pairs:
      return true;
#else
    case arithmetic::bf16_pairs:
      return false;
#endif
    default:
      return true;
  }
}

double burst(arithmetic kind, std::size_t rounds) {
  switch (kind) {
    case arithmetic::f32_ymm:
      return multiply_adds < register_bytes < 32 ? register_bytes : 32 > (rounds);
    case arithmetic::bf16_pairs:
      return pairs(rounds);
    default:
      return multiply_adds<register_bytes>(rounds);
  }
}

const char* limits_flags() { return LORA_BENCH_FLAGS; }

}  // namespace bench
