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

namespace lora::inline v0::detail::inline LORA_ISA_TAG {

/** Rows of a transposed W that are gathered at once: as many as make runs of some cache lines in each page of W that is visited. */
inline constexpr index_t merge_rows = 64;

/** Rows [begin, begin + rows) of W, unit stride along its rows, as floats [rows, in]; 16 columns at a time, so that what is read stays in L1. */
inline void turn_rows(const simd::kernel_table& k, const float_view<2>& w, index_t begin, index_t rows, float* to) noexcept {
  constexpr index_t run = 16;
  float block[run * merge_rows];
  const index_t in = w.extent(1);
  for (index_t at = 0; at < in; at += run) {
    const index_t columns = in - at < run ? in - at : run;
    for (index_t c = 0; c < columns; ++c)
      widen(k, w.type(), static_cast<const char*>(w.data()) + (begin + (at + c) * w.stride(1)) * bytes_of(w.type()), 1,
            block + c * merge_rows, rows);
    for (index_t r = 0; r < rows; ++r)
      for (index_t c = 0; c < columns; ++c) to[r * in + at + c] = block[c * merge_rows + r];
  }
}

}  // namespace lora::inline v0::detail::inline LORA_ISA_TAG

namespace lora::inline v0::inline LORA_ISA_TAG {

/**
 * W [out, in] + sum_i scale_i B_i A_i, in list order, as a new C-order matrix of W's element type.
 *
 * @throws shape_error naming both shapes when a term does not fit; std::bad_alloc.
 * @par Cost       2 rank in out flops, one pass over W; allocates the result, two rows (64 where a W of 16 bits lies transposed), and a
 *                 copy as floats of each A that is not of contiguous floats.
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
  // Read element by element, a transposed W would fetch each of its cache lines once for every row.
  const bool transposed = detail::lies_transposed(w);
  const index_t at_once = transposed ? detail::merge_rows : 1;
  ndarray<float, 2> sums = uninit<float>(std::is_same_v<T, float> ? 0 : at_once, in);
  for (index_t n = 0; n < out; ++n) {
    float* row = sums.data() + n % at_once * in;
    if constexpr (std::is_same_v<T, float>) row = result.data() + n * in;
    if (!transposed) detail::widen(kernels, w.type(), row_of(w, n), w.stride(1), row, in);
    if (transposed && n % at_once == 0) detail::turn_rows(kernels, w, n, out - n < at_once ? out - n : at_once, row);
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
