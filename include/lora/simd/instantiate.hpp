// SPDX-License-Identifier: Apache-2.0
//
// Compiles the kernels of every type and tier in the one file that includes this, for programs of many files that call products. Compile the
// whole program with LORA_EXTERN_KERNELS defined, and let one file, for all that name the same -m flags, be
//
//   #include <lora/simd/instantiate.hpp>
//
// Without that file the linker names what is missing: lora::simd::kernels<float>(tier) and its like. Nothing else changes: not a bit of a
// result, and no inlining in a kernel; a call of a product makes up to five calls more.
#ifndef LORA_SIMD_INSTANTIATE_HPP
#define LORA_SIMD_INSTANTIATE_HPP

#include <lora/simd/dispatch.hpp>

namespace lora::inline v0::simd::inline LORA_ISA_TAG {

#define LORA_KERNEL_INSTANCES template
#include <lora/simd/instances.inl>
#undef LORA_KERNEL_INSTANCES

}  // namespace lora::inline v0::simd::inline LORA_ISA_TAG

#endif
