// SPDX-License-Identifier: Apache-2.0
//
// row_norms: the euclidean norm of each row of W + sum of scale * B A, in double, without that matrix: what DoRA divides by.
//
//   std::vector<double> n = lora::row_norms(w, terms);
//
// The well-known identity |w + s b A|^2 = |w|^2 + 2 s (W A^T) b + s^2 b (A A^T) b is not used: W A^T alone takes the very multiply-adds that
// summing a row of W + s B A takes, and where the row nearly vanishes the identity loses all digits while the sum loses none.
#ifndef LORA_LINALG_ROW_NORMS_HPP
#define LORA_LINALG_ROW_NORMS_HPP

#include <lora/linalg/merge.hpp>

#include <cmath>
#include <vector>

namespace lora::inline v0::inline LORA_ISA_TAG {

/**
 * |w_i + sum_t scale_t (B_t A_t)_i| for each row i of W [out, in], f32, f16 or bf16.
 *
 * @throws shape_error naming both shapes when a term does not fit; std::bad_alloc.
 * @par Cost       2 R in out flops in double, one pass over W; allocates the result, 256 columns of all A as doubles, 64 rows of W.
 * @par Accuracy   Each element of the matrix errs by gamma(R) (|W| + sum |s||B||A|), each norm by (in / 2 + 2) roundings more, all of u = 2^-53.
 *                 The last bits may differ between tiers and compilers, which fuse differently.
 */
[[nodiscard]] inline std::vector<double> row_norms(const float_view<2>& w, std::span<const low_rank_term> terms,
                                                   const forward_options& options = {}) {
  constexpr index_t block_columns = 256;
  constexpr index_t block_rows = detail_merge::rows_at_once;
  const index_t out = w.extent(0);
  const index_t in = w.extent(1);
  index_t ranks = 0;
  for (std::size_t i = 0; i < terms.size(); ++i) {
    const auto& [a, b, scale] = terms[i];
    if (a.extent(1) != in || b.extent(0) != out || b.extent(1) != a.extent(0))
      detail::raise<shape_error>(detail::text() << "row_norms: a is " << detail::shape_of(a) << " and b is " << detail::shape_of(b)
                                                << " but w is " << detail::shape_of(w) << " (term " << i << ")");
    if (scale != 0.0f && !checked_add(ranks, a.extent(0), ranks))
      detail::raise<shape_error>(detail::text() << "row_norms: the ranks of all terms together do not fit an index");
  }
  std::vector<double> sums(static_cast<std::size_t>(out), 0.0);
  if (w.size() == 0) return sums;

  const simd::kernel_table& kernels = simd::kernels<float>(options.tier);
  const simd::norm_kernel add_squares = simd::norms(options.tier);
  const auto at = [](const float_view<2>& v, index_t i, index_t j) {
    return static_cast<const char*>(v.data()) + (i * v.stride(0) + j * v.stride(1)) * detail::bytes_of(v.type());
  };
  const bool transposed = detail::lies_transposed(w);
  const bool in_place = w.type() == dtype::f32 && (w.stride(1) == 1 || in == 1);
  ndarray<double, 2> a = uninit<double>(ranks, block_columns);
  ndarray<double, 2> c = uninit<double>(block_rows, ranks);
  ndarray<float, 2> rows = uninit<float>(in_place ? 0 : block_rows, block_columns);
  std::vector<float> line(static_cast<std::size_t>(ranks > block_columns ? ranks : block_columns));
  for (index_t k = 0; k < in; k += block_columns) {
    const index_t columns = in - k < block_columns ? in - k : block_columns;
    double* to = a.data();
    for (const low_rank_term& t : terms)
      for (index_t j = 0; t.scale != 0.0f && j < t.a.extent(0); ++j, to += block_columns) {
        detail::widen(kernels, t.a.type(), at(t.a, j, k), t.a.stride(1), line.data(), columns);
        for (index_t i = 0; i < columns; ++i) to[i] = static_cast<double>(line[static_cast<std::size_t>(i)]);
      }
    for (index_t n = 0; n < out; n += block_rows) {
      const index_t count = out - n < block_rows ? out - n : block_rows;
      double* coefficient = c.data();
      for (index_t r = 0; r < count; ++r)
        for (const low_rank_term& t : terms) {
          if (t.scale == 0.0f) continue;
          detail::widen(kernels, t.b.type(), at(t.b, n + r, 0), t.b.stride(1), line.data(), t.b.extent(1));
          for (index_t j = 0; j < t.b.extent(1); ++j)
            *coefficient++ = static_cast<double>(t.scale) * static_cast<double>(line[static_cast<std::size_t>(j)]);  // exact
        }
      const float* from = reinterpret_cast<const float*>(at(w, n, k));
      index_t stride = w.stride(0);
      if (!in_place) {
        if (transposed)
          detail_merge::turn_rows(kernels, w, n, count, k, columns, rows.data(), block_columns);
        else
          for (index_t r = 0; r < count; ++r)
            detail::widen(kernels, w.type(), at(w, n + r, k), w.stride(1), rows.data() + r * block_columns, columns);
        from = rows.data();
        stride = block_columns;
      }
      add_squares({from, stride, c.data(), a.data(), block_columns, ranks, count, columns, sums.data() + n});
    }
  }
  for (double& s : sums) s = std::sqrt(s);
  return sums;
}

}  // namespace lora::inline v0::inline LORA_ISA_TAG

#endif
