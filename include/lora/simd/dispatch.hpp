// SPDX-License-Identifier: Apache-2.0
//
// Picks the kernels of the products at run time: those of the active tier (simd/active.hpp), or of a lower one for one call.
//
//   const auto& k = lora::simd::kernels();                       // the best this machine has
//   const auto& g = lora::simd::kernels(lora::simd::tier::generic);
//
// Each file that calls a product compiles the kernels of the types it names, for every tier. A program of many such files may compile them
// once: see simd/instantiate.hpp.
#ifndef LORA_SIMD_DISPATCH_HPP
#define LORA_SIMD_DISPATCH_HPP

#include <lora/simd/active.hpp>
#include <lora/simd/avx2.hpp>
#include <lora/simd/avx512.hpp>
#include <lora/simd/avx512_bf16.hpp>
#include <lora/simd/generic.hpp>

namespace lora::inline v0::simd::inline LORA_ISA_TAG {

/** The highest tier there is: what a call asks for that does not mind. */
inline constexpr tier any_tier = tier::avx512_bf16;

/**
 * The kernels for W of float, bfloat16, float16 or bfloat16_pair in the tier `wanted`, or in the active tier where that is lower. Of pairs
 * there are none below avx512_bf16: ask has_pairs() first.
 * This and its callers are templates also so that a file which includes them and calls none does not compile the kernels (a fifth of
 * what including lora.hpp costs).
 */
template <class W = float>
[[nodiscard]] const kernel_table& kernels(tier wanted = any_tier) noexcept {
  if constexpr (std::is_same_v<W, bfloat16_pair>) {
#if LORA_X86
    return avx512_bf16::pair_table<void>();
#else
    return kernels<bfloat16>(wanted);
#endif
  } else {
#if LORA_X86
    const tier t = usable_tier(wanted);
    if (t >= tier::avx512) return avx512::table<W>();
    if (t == tier::avx2) return avx2::table<W>();
#endif
    (void)wanted;
    return generic::table<W>();
  }
}

/** Whether there are kernels of pairs in this tier: for precision::pairs, and for precision::native where best_in_pairs(). */
[[nodiscard]] inline bool has_pairs([[maybe_unused]] tier wanted) noexcept {
#if LORA_X86
  return usable_tier(wanted) >= tier::avx512_bf16;
#else
  return false;
#endif
}

/** Packs tokens of X: float, bfloat16 or float16 as floats; bfloat16_pair as pairs. */
template <class X>
[[nodiscard]] pack_kernel packer(tier wanted = any_tier) noexcept {
  if constexpr (std::is_same_v<X, bfloat16_pair>) {
#if LORA_X86
    return &avx512_bf16::pack_pairs;
#else
    return packer<bfloat16>(wanted);
#endif
  } else {
#if LORA_X86
    const tier t = usable_tier(wanted);
    if (t >= tier::avx512) return avx512::packer<X>();
    if (t == tier::avx2) return avx2::packer<X>();
#endif
    (void)wanted;
    return generic::packer<X>();
  }
}

/** The product with W transposed: float, bfloat16 or float16. */
template <class W>
[[nodiscard]] columns_kernel columns_runner(tier wanted = any_tier) noexcept {
#if LORA_X86
  const tier t = usable_tier(wanted);
  if (t >= tier::avx512) return avx512::columns_runner<W>();
  if (t == tier::avx2) return avx2::columns_runner<W>();
#endif
  (void)wanted;
  return generic::columns_runner<W>();
}

/** Writes sums as Y: float, bfloat16 or float16. */
template <class Y>
[[nodiscard]] store_kernel storer(tier wanted = any_tier) noexcept {
#if LORA_X86
  const tier t = usable_tier(wanted);
  if (t >= tier::avx512) return avx512::storer<Y>();
  if (t == tier::avx2) return avx2::storer<Y>();
#endif
  (void)wanted;
  return generic::storer<Y>();
}

/** Squared norms of the rows of W + C A. */
template <class Unused = void>
[[nodiscard]] norm_kernel norms(tier wanted = any_tier) noexcept {
#if LORA_X86
  const tier t = usable_tier(wanted);
  if (t >= tier::avx512) return &avx512::run_norms;
  if (t == tier::avx2) return &avx2::run_norms;
#endif
  (void)wanted;
  return &generic::run_norms;
}

#if defined(LORA_EXTERN_KERNELS)
#define LORA_KERNEL_INSTANCES extern template
#include <lora/simd/instances.inl>
#undef LORA_KERNEL_INSTANCES
#endif

}  // namespace lora::inline v0::simd::inline LORA_ISA_TAG

#endif
