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
 * W [out, in] + sum_i scale_i B_i A_i, in list order, as a new C-order matrix of W's element type.
 *
 * @throws shape_error naming both shapes when a term does not fit; std::bad_alloc.
 * @par Cost       2 rank in out flops, one pass over W; allocates the result, two rows, and a copy as floats of each A that is not of
 *                 contiguous floats.
 * @par Accuracy   One f32 chain an element, starting from W: |error| <= gamma(R) |W| + gamma(R + 2) sum |s_i||B_i||A_i|, R being the ranks
 *                 of all terms added up (docs/numerics.md); then one rounding to W's type.
 */
template <detail_forward::matrix Weight>
[[nodiscard]] auto merged(const Weight& weight, std::span<const low_rank_term> terms, const forward_options& options = {}) {
  using T = detail_forward::element_t<const Weight>;
  const float_view<2> w = detail::as_view(weight);
  const index_t out = w.extent(0);
  const index_t in = w.extent(1);
  for (std::size_t i = 0; i < terms.size(); ++i) {
    const auto& [a, b, scale] = terms[i];
    if (a.extent(1) != in || b.extent(0) != out || b.extent(1) != a.extent(0))
      detail::raise<shape_error>(detail::text() << "merged: a is " << detail::shape_of(a) << " and b is " << detail::shape_of(b)
                                                << " but w is " << detail::shape_of(w) << " (term " << i << ")");
  }
  ndarray<T, 2> result(extents{out, in});
  if (result.size() == 0) return result;

  const auto& kernels = simd::kernels<float>(options.tier);
  const simd::store_kernel narrow = simd::storer<T>(options.tier);
  const auto row_of = [](const float_view<2>& v, index_t i) {
    return static_cast<const char*>(v.data()) + i * v.stride(0) * detail::bytes_of(v.type());
  };
  const auto in_place = [](const float_view<2>& a) { return a.stride(1) == 1 && a.type() == dtype::f32; };
  index_t gathered_rows = 0;
  index_t widest = 0;
  for (const low_rank_term& t : terms) {
    if (!in_place(t.a)) gathered_rows += t.a.extent(0);
    widest = t.a.extent(0) > widest ? t.a.extent(0) : widest;
  }
  ndarray<float, 2> gathered = uninit<float>(gathered_rows, in);
  float* to = gathered.data();
  for (const low_rank_term& t : terms)
    for (index_t j = 0; !in_place(t.a) && j < t.a.extent(0); ++j, to += in)
      detail::widen(kernels, t.a.type(), row_of(t.a, j), t.a.stride(1), to, in);

  ndarray<float, 1> b = uninit<float>(widest);
  ndarray<float, 1> sum = uninit<float>(in);
  for (index_t n = 0; n < out; ++n) {
    float* row = sum.data();
    if constexpr (std::is_same_v<T, float>) row = result.data() + n * in;
    detail::widen(kernels, w.type(), row_of(w, n), w.stride(1), row, in);
    const float* next = gathered.data();
    for (const low_rank_term& t : terms) {
      const index_t rank = t.a.extent(0);
      const float* a = static_cast<const float*>(t.a.data());
      index_t stride = t.a.stride(0);
      if (!in_place(t.a)) {
        a = next;
        stride = in;
        next += rank * in;
      }
      if (rank == 0 || t.scale == 0.0f) continue;
      detail::widen(kernels, t.b.type(), row_of(t.b, n), t.b.stride(1), b.data(), rank);
      kernels.merge({row, b.data(), 1, a, stride, rank, t.scale, in, row});
    }
    if constexpr (!std::is_same_v<T, float>) narrow({row, 1, in, 1, nullptr, result.data() + n * in, in, 1});
  }
  return result;
}

}  // namespace lora::inline v0::inline LORA_ISA_TAG

#endif
