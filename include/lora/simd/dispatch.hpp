// SPDX-License-Identifier: Apache-2.0
//
// Picks the kernels of the products at run time: those of the active tier (simd/active.hpp), or of a lower one for one call.
//
//   const auto& k = lora::simd::kernels();                       // the best this machine has
//   const auto& g = lora::simd::kernels(lora::simd::tier::generic);
#ifndef LORA_SIMD_DISPATCH_HPP
#define LORA_SIMD_DISPATCH_HPP

#include <lora/simd/active.hpp>
#include <lora/simd/avx2.hpp>
#include <lora/simd/avx512.hpp>
#include <lora/simd/generic.hpp>

namespace lora::inline v0::simd::inline LORA_ISA_TAG {

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

}  // namespace lora::inline v0::simd::inline LORA_ISA_TAG

#endif
