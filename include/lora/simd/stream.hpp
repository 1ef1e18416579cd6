// SPDX-License-Identifier: Apache-2.0
//
// Stores that pass by the caches, for results too large to be found there afterwards. An ordinary store first reads the line it is about to
// overwrite; leaving that out saves a third of the traffic of a copy.
//
//   lora::simd::stream(to, block, sizeof block);   // to: aligned to 16
//   lora::simd::stream_end();                      // once, before anyone else may look
#ifndef LORA_SIMD_STREAM_HPP
#define LORA_SIMD_STREAM_HPP

#include <lora/simd/isa.hpp>

#include <cstddef>

namespace lora::inline v0::simd::inline LORA_ISA_TAG {

/**
 * From how many bytes of output on it pays. A smaller result stays in the cache, where the caller will want it. Measured with 2 * x and with
 * transposed copies, one thread, Xeon with 2 MB of L2: at 4 MB level with ordinary stores, from 8 MB on 1.2 times (apply) to 1.6 times (transpose)
 * as fast.
 */
inline constexpr std::size_t stream_from = std::size_t{8} << 20;

/** Copies `bytes`, a multiple of 64, to `to`, aligned to 16. Whole lines one after another: the CPU joins the stores of a line. */
inline void stream(void* to, const void* from, std::size_t bytes) noexcept {
#if LORA_X86 && defined(__SSE2__)
  typedef long long piece __attribute__((vector_size(16)));
  auto* const t = static_cast<piece*>(to);
  for (std::size_t i = 0; i < bytes / sizeof(piece); i += 4) {
    piece v[4];
    __builtin_memcpy(v, static_cast<const char*>(from) + i * sizeof(piece), sizeof v);
#pragma GCC unroll 4
    for (std::size_t j = 0; j < 4; ++j) {
#if defined(__AVX__)
      asm("vmovntdq %1, %0" : "=m"(t[i + j]) : "x"(v[j]));
#else
      asm("movntdq %1, %0" : "=m"(t[i + j]) : "x"(v[j]));
#endif
    }
  }
#else
  __builtin_memcpy(to, from, bytes);
#endif
}

/** Orders the stores of stream() before whatever follows. They are weakly ordered: without it a release store could overtake them. */
inline void stream_end() noexcept {
#if LORA_X86 && defined(__SSE2__)
  asm volatile("sfence" ::: "memory");
#endif
}

}  // namespace lora::inline v0::simd::inline LORA_ISA_TAG

#endif
