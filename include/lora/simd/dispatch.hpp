// SPDX-License-Identifier: Apache-2.0
//
// Picks the kernels at run time. The choice is made once, by asking the CPU, and can be lowered by the environment variable LORA_TIER
// (generic, avx2, avx512), which is read at that moment only, or for one call by passing a tier. That cache is the only static of the
// library; filling it twice gives the same value.
//
//   const auto& k = lora::simd::kernels();                       // the best this machine has
//   const auto& g = lora::simd::kernels(lora::simd::tier::generic);
//   lora::simd::tier_name();                                     // "avx512": print it beside every measurement
#ifndef LORA_SIMD_DISPATCH_HPP
#define LORA_SIMD_DISPATCH_HPP

#include <lora/simd/avx2.hpp>
#include <lora/simd/avx512.hpp>
#include <lora/simd/generic.hpp>

#include <cstdlib>

namespace lora::inline v0::simd::inline LORA_ISA_TAG {

/** The highest tier in use: best_tier(), or LORA_TIER where that names a lower one. An unknown or higher name is ignored. */
[[nodiscard]] inline tier active_tier() noexcept {
  static const tier chosen = [] {
    const tier best = best_tier();
    const char* wanted = std::getenv("LORA_TIER");
    if (wanted == nullptr) return best;
    for (unsigned i = 0; i < tier_count; ++i) {
      const auto t = static_cast<tier>(i);
      if (t <= best && __builtin_strcmp(wanted, name_of(t)) == 0) return t;
    }
    return best;
  }();
  return chosen;
}

/**
 * The kernels of `wanted`, or of the active tier where that is lower.
 * This and its callers are templates only so that a file which includes them and calls none does not compile the kernels (a fifth of
 * what including lora.hpp costs); the argument means nothing.
 */
template <class Lazy = void>
[[nodiscard]] const kernel_table& kernels(tier wanted = tier::avx512) noexcept {
#if LORA_X86
  const tier active = active_tier();
  switch (wanted < active ? wanted : active) {
    case tier::avx512:
      return avx512::table<Lazy>();
    case tier::avx2:
      return avx2::table<Lazy>();
    case tier::generic:
      break;
  }
#endif
  (void)wanted;
  return generic::table<Lazy>();
}

/** Name of the active tier. */
[[nodiscard]] inline const char* tier_name() noexcept { return name_of(active_tier()); }

}  // namespace lora::inline v0::simd::inline LORA_ISA_TAG

#endif
