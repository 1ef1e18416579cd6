// SPDX-License-Identifier: Apache-2.0
//
// The transposing copy: to[j][i] = from[i][j] for elements of 1, 2, 4 or 8 bytes, in tiles held in registers. No shapes, no checks: copy
// (ops/copy.hpp) finds out when a copy is a transposition and calls this.
//
//   lora::simd::transpose<4>(from, from_step, to, to_step, rows, columns, stream);
#ifndef LORA_SIMD_TRANSPOSE_HPP
#define LORA_SIMD_TRANSPOSE_HPP

#include <lora/simd/active.hpp>
#include <lora/simd/stream.hpp>

#include <cstddef>
#include <utility>

#define LORA_SIMD_BODY <lora/simd/transpose.inl>
#include <lora/simd/for_each_tier.inl>

namespace lora::inline v0::simd::inline LORA_ISA_TAG {

/**
 * Element (j, i) of `to` becomes element (i, j) of `from`; the two share no byte. Rows of both are contiguous.
 *
 * @param from_step  bytes from one row of `from` to the next, any sign
 * @param to_step    bytes from one row of `to` to the next, any sign
 * @param rows       of `from`
 * @param columns    of `from`
 * @param stream     write past the caches where the alignment allows it (see stream.hpp)
 * @par Cost   One pass. Measured with floats, one thread, Xeon with AVX-512 and 2 MB of L2, no -m flag: 512 x 512 at 24 GB/s, 4096 x 4096 at
 *             16 GB/s; the plain loop 2.2 and 0.8, memcpy 29 and 14.
 */
template <int Width>
void transpose(const char* from, std::ptrdiff_t from_step, char* to, std::ptrdiff_t to_step, std::ptrdiff_t rows, std::ptrdiff_t columns,
               bool stream, tier wanted = tier::avx512) noexcept {
#if LORA_X86
  switch (usable_tier(wanted)) {
    case tier::avx512_bf16:
    case tier::avx512:
      return vec_avx512::transpose<Width>(from, from_step, to, to_step, rows, columns, stream);
    case tier::avx2:
      return vec_avx2::transpose<Width>(from, from_step, to, to_step, rows, columns, stream);
    case tier::generic:
      break;
  }
#endif
  (void)wanted;
  vec_generic::transpose<Width>(from, from_step, to, to_step, rows, columns, stream);
}

}  // namespace lora::inline v0::simd::inline LORA_ISA_TAG

#endif
