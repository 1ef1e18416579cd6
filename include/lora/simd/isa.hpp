// SPDX-License-Identifier: Apache-2.0
//
// Which instruction sets there are: the tiers that kernels exist for, the one this CPU can run, and the namespace tag that keeps kernels
// of differently compiled files apart.
//
//   lora::simd::best_tier();                                    // what the CPU and the operating system support
//   lora::simd::name_of(lora::simd::tier::avx512);              // "avx512"
#ifndef LORA_SIMD_ISA_HPP
#define LORA_SIMD_ISA_HPP

#include <lora/config.hpp>

#if defined(__x86_64__) || defined(__i386__)
#define LORA_X86 1
#include <cpuid.h>
#else
#define LORA_X86 0
#endif

// Target attributes only add instruction sets, so the "avx2" kernel of a file compiled with -march=native holds AVX-512 code under
// the same name as the one of a file without flags. The linker keeps one copy of each name; if it kept the wrong one for both, the
// program would stop on an older CPU. Hence every kernel, the table, and what inlines them live in an inline namespace spelt from
// the instruction sets that the file was compiled for. (Measured on both compilers; STYLE and docs/consuming say what it cannot do.)
#if defined(__AVX512F__)
#define LORA_TU_AVX512F f
#else
#define LORA_TU_AVX512F
#endif
#if defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)
#define LORA_TU_AVX512X x
#else
#define LORA_TU_AVX512X
#endif
#if defined(__AVX512BF16__)
#define LORA_TU_BF16 b
#else
#define LORA_TU_BF16
#endif
#if defined(__AVX2__)
#define LORA_TU_AVX avx2
#elif defined(__AVX__)
#define LORA_TU_AVX avx
#elif defined(__SSE4_2__)
#define LORA_TU_AVX sse42
#elif defined(__SSE4_1__)
#define LORA_TU_AVX sse41
#elif defined(__SSSE3__)
#define LORA_TU_AVX ssse3
#elif defined(__SSE3__)
#define LORA_TU_AVX sse3
#else
#define LORA_TU_AVX base
#endif
#if defined(__FMA__)
#define LORA_TU_FMA m
#else
#define LORA_TU_FMA
#endif
#if defined(__F16C__)
#define LORA_TU_F16C h
#else
#define LORA_TU_F16C
#endif

#define LORA_TU_PASTE_(a, b, c, d, e, f) isa_##a##b##c##d##e##f
#define LORA_TU_PASTE(a, b, c, d, e, f) LORA_TU_PASTE_(a, b, c, d, e, f)
/** For example isa_base without flags, isa_avx2m with -mavx2 -mfma, isa_avx2mhfxb with -march=native on this generation. */
#define LORA_ISA_TAG LORA_TU_PASTE(LORA_TU_AVX, LORA_TU_FMA, LORA_TU_F16C, LORA_TU_AVX512F, LORA_TU_AVX512X, LORA_TU_BF16)

namespace lora::inline v0::simd {

inline namespace LORA_ISA_TAG {
/** Another type in each set of flags: a default template argument that keeps apart the member functions that call kernels. */
struct isa_tag {};
}  // namespace LORA_ISA_TAG

/** Families of kernels, in rising order of what they ask of the CPU. */
enum class tier : unsigned char {
  generic,      ///< xsimd at the instruction set that the including file is compiled for; runs wherever that file runs
  avx2,         ///< AVX2, FMA and F16C
  avx512,       ///< AVX-512 F, BW, DQ and VL
  avx512_bf16,  ///< and AVX512_BF16, which only precision::native and pairs use: everything else is the avx512 tier's
};

inline constexpr unsigned tier_count = 4;

[[nodiscard]] constexpr const char* name_of(tier t) noexcept {
  constexpr const char* names[tier_count] = {"generic", "avx2", "avx512", "avx512_bf16"};
  return names[static_cast<unsigned>(t)];
}

#if LORA_X86
namespace detail {

/** Conversion of binary16 by the CPU; clang 14's __builtin_cpu_supports does not know it. What saves AVX registers saves its state too. */
[[nodiscard]] inline bool cpu_has_f16c() noexcept {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & (1u << 29)) != 0;
}

[[nodiscard]] inline bool cpu_is_amd() noexcept {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(0, &eax, &ebx, &ecx, &edx) != 0 && ebx == 0x68747541u;  // "Auth" of "AuthenticAMD"
}

}  // namespace detail
#endif

/** How rows of W that come from memory are best fetched; see simd/tile.inl for the two ways, docs/benchmarks for what chose them. */
enum class fetch : unsigned char {
  hardware,  ///< the CPU's own prefetchers, alone
  walk,      ///< the next block of rows, line after line, into L2: AMD (measured on Zen 4)
  ahead,     ///< each row ahead of its use, into L1, and before that into L2 where tokens are few: Intel (measured on Xeon model 207)
};

[[nodiscard]] inline fetch best_fetch() noexcept {
#if LORA_X86
  return detail::cpu_is_amd() ? fetch::walk : fetch::ahead;
#else
  return fetch::hardware;
#endif
}

/**
 * Whether the dot product of pairs of bfloat16 (AVX512_BF16) is faster here than widening to f32 and multiplying that. AMD: one a cycle,
 * twice the flops of multiply-adds (Zen 4). Intel: one in two cycles, in which no multiply-add can start either, so half the flops of
 * multiply-adds (Xeon model 207: 89 GFLOP/s against 178, independent chains in registers); where memory is the limit both are alike.
 */
[[nodiscard]] inline bool best_in_pairs() noexcept {
#if LORA_X86
  return detail::cpu_is_amd();
#else
  return false;
#endif
}

/** The highest tier that this CPU and operating system support. Asks the CPU each time; kernels() remembers. */
[[nodiscard]] inline tier best_tier() noexcept {
#if LORA_X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl"))
    return __builtin_cpu_supports("avx512bf16") ? tier::avx512_bf16 : tier::avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && detail::cpu_has_f16c()) return tier::avx2;
#endif
  return tier::generic;
}

}  // namespace lora::inline v0::simd

#endif
