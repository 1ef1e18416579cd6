// SPDX-License-Identifier: Apache-2.0
//
// Includes LORA_SIMD_BODY once for each tier of this architecture, in that tier's namespace and with its LORA_SIMD_TARGET; then forgets
// both names. The way of including is Highway's (foreach_target.h); the tiers and tags are ours (isa.hpp).

namespace lora::inline v0::simd::inline LORA_ISA_TAG::vec_generic {
#define LORA_SIMD_TARGET
#define LORA_SIMD_TIER 0
#include LORA_SIMD_BODY
#undef LORA_SIMD_TIER
#undef LORA_SIMD_TARGET
}  // namespace lora::inline v0::simd::inline LORA_ISA_TAG::vec_generic

#if LORA_X86
namespace lora::inline v0::simd::inline LORA_ISA_TAG::vec_avx2 {
#define LORA_SIMD_TARGET [[gnu::target("avx2,fma,f16c")]]
#define LORA_SIMD_TIER 1
#include LORA_SIMD_BODY
#undef LORA_SIMD_TIER
#undef LORA_SIMD_TARGET
}  // namespace lora::inline v0::simd::inline LORA_ISA_TAG::vec_avx2

namespace lora::inline v0::simd::inline LORA_ISA_TAG::vec_avx512 {
#define LORA_SIMD_TARGET [[gnu::target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]]
#define LORA_SIMD_TIER 2
#include LORA_SIMD_BODY
#undef LORA_SIMD_TIER
#undef LORA_SIMD_TARGET
}  // namespace lora::inline v0::simd::inline LORA_ISA_TAG::vec_avx512
#endif

#undef LORA_SIMD_BODY
