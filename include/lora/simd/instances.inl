// SPDX-License-Identifier: Apache-2.0
// Part of simd/dispatch.hpp and simd/instantiate.hpp: everything there is to pick, declared or defined as LORA_KERNEL_INSTANCES says.
LORA_KERNEL_INSTANCES const kernel_table& kernels<float>(tier) noexcept;
LORA_KERNEL_INSTANCES const kernel_table& kernels<bfloat16>(tier) noexcept;
LORA_KERNEL_INSTANCES const kernel_table& kernels<float16>(tier) noexcept;
LORA_KERNEL_INSTANCES const kernel_table& kernels<bfloat16_pair>(tier) noexcept;
LORA_KERNEL_INSTANCES pack_kernel packer<float>(tier) noexcept;
LORA_KERNEL_INSTANCES pack_kernel packer<bfloat16>(tier) noexcept;
LORA_KERNEL_INSTANCES pack_kernel packer<float16>(tier) noexcept;
LORA_KERNEL_INSTANCES pack_kernel packer<bfloat16_pair>(tier) noexcept;
LORA_KERNEL_INSTANCES columns_kernel columns_runner<float>(tier) noexcept;
LORA_KERNEL_INSTANCES columns_kernel columns_runner<bfloat16>(tier) noexcept;
LORA_KERNEL_INSTANCES columns_kernel columns_runner<float16>(tier) noexcept;
LORA_KERNEL_INSTANCES store_kernel storer<float>(tier) noexcept;
LORA_KERNEL_INSTANCES store_kernel storer<bfloat16>(tier) noexcept;
LORA_KERNEL_INSTANCES store_kernel storer<float16>(tier) noexcept;
LORA_KERNEL_INSTANCES norm_kernel norms<void>(tier) noexcept;
