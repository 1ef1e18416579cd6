// SPDX-License-Identifier: Apache-2.0
//
// merged: W + sum of scale * B A as a new matrix, for adapters that live long enough to pay for a copy of W. W itself is never written:
// going back is dropping the new matrix, and is exact.
//
//   lora::ndarray<float, 2> w2 = lora::merged(w, terms);
#ifndef LORA_LINALG_MERGE_HPP
#define LORA_LINALG_MERGE_HPP

#include <lora/linalg/forward.hpp>
#include <lora/nd/array.hpp>

namespace lora::inline v0::inline LORA_ISA_TAG {

/**
 * W [out, in] + sum_i scale_i B_i A_i, in list order, as a new C-order matrix.
 *
 * @throws shape_error naming both shapes when a term does not fit; std::bad_alloc.
 * @par Cost       2 rank in out flops, one pass over W; allocates the result and, for strided A, a copy of one row.
 * @par Accuracy   One f32 chain an element, starting from W: |error| <= gamma(R) |W| + gamma(R + 2) sum |s_i||B_i||A_i|, R being the ranks
 *                 of all terms added up (docs/numerics.md).
 */
template <class Lazy = void>
[[nodiscard]] ndarray<float, 2> merged(ndview<const float, 2> w, std::span<const low_rank_term> terms,
                                       const forward_options& options = {}) {
  const index_t out = w.extent(0);
  const index_t in = w.extent(1);
  for (std::size_t i = 0; i < terms.size(); ++i) {
    const auto& [a, b, scale] = terms[i];
    if (a.extent(1) != in || b.extent(0) != out || b.extent(1) != a.extent(0))
      detail::raise<shape_error>(detail::text() << "merged: a is " << detail::shape_of(a) << " and b is " << detail::shape_of(b)
                                                << " but w is " << detail::shape_of(w) << " (term " << i << ")");
  }
  ndarray<float, 2> result(extents{out, in});
  for (index_t n = 0; n < out; ++n)
    for (index_t k = 0; k < in; ++k) result.data()[n * in + k] = w.data()[n * w.stride(0) + k * w.stride(1)];
  if (result.size() == 0) return result;

  const auto& kernels = simd::kernels<Lazy>(options.tier);
  for (const low_rank_term& t : terms) {
    const index_t rank = t.a.extent(0);
    if (rank == 0 || t.scale == 0.0f) continue;
    ndview<const float, 2> a = t.a;
    ndarray<float, 2> gathered;
    if (a.stride(1) != 1 && in > 1) {
      gathered = uninit<float>(rank, in);
      for (index_t j = 0; j < rank; ++j)
        for (index_t k = 0; k < in; ++k) gathered.data()[j * in + k] = a.data()[j * a.stride(0) + k * a.stride(1)];
      a = gathered.view();
    }
    for (index_t n = 0; n < out; ++n) {
      float* row = result.data() + n * in;
      kernels.merge({row, t.b.data() + n * t.b.stride(0), t.b.stride(1), a.data(), a.stride(0), rank, t.scale, in, row});
    }
  }
  return result;
}

}  // namespace lora::inline v0::inline LORA_ISA_TAG

#endif
