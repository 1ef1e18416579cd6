// SPDX-License-Identifier: Apache-2.0
//
// merge_report_of: what a merge made of W, measured against the exact sum in double: the largest error, and how many elements were meant to
// move and did not because the step was smaller than half a unit in the last place of W's type.
//
//   auto w2 = lora::merged(w, update);
//   lora::merge_report r = lora::merge_report_of(w, update, w2);
//   std::printf("%td of %td elements swallowed, max |error| %g\n", r.swallowed, r.meant, r.max_error);
#ifndef LORA_LINALG_MERGE_REPORT_HPP
#define LORA_LINALG_MERGE_REPORT_HPP

#include <lora/linalg/forward.hpp>
#include <lora/nd/array.hpp>

#include <cmath>

namespace lora::inline v0 {

struct merge_report {
  index_t elements = 0;    ///< of W
  index_t meant = 0;       ///< whose delta is not 0
  index_t swallowed = 0;   ///< of those meant: new and old weight are equal all the same
  index_t not_finite = 0;  ///< where the old weight, the delta or the new weight is a NaN or an infinity; not counted in the others
  double max_delta = 0;    ///< largest |delta|
  double max_error = 0;    ///< largest |new - (old + delta)|, delta and sum in double
};

inline namespace LORA_ISA_TAG {

/**
 * Compares `after` with row_factor * (before + sum_i scale_i B_i A_i), taken in double. It does not care how `after` was made. delta is what
 * that differs from `before`: with a row factor f (DoRA), (f - 1) before + f sum_i scale_i B_i A_i. Biases are not looked at.
 *
 * @param before  [out, in]
 * @param update  terms, each a [rank, in], b [out, rank], of which a scale of 0 switches one off; and the row factor, or none
 * @param after   [out, in], of any of the three types
 * @throws shape_error naming both shapes; std::bad_alloc.
 * @par Cost      2 R in out flops in double: several times what merged() takes. 8 (256 R + R + 512) bytes.
 * @par Accuracy  delta is off by at most |f| (R + 3) 2^-53 (|before| + sum |s_i||B_i||A_i|): products of floats are exact in double. Without a
 *                row factor it does not depend on `before`.
 */
[[nodiscard]] inline merge_report merge_report_of(const float_view<2>& before, const low_rank_update& update, const float_view<2>& after,
                                                  const forward_options& options = {}) {
  const std::span<const low_rank_term> terms = update.terms;
  const index_t out = before.extent(0);
  const index_t in = before.extent(1);
  if (after.extent(0) != out || after.extent(1) != in)
    detail::raise<shape_error>(detail::text() << "merge_report_of: after is " << detail::shape_of(after) << " but before is "
                                              << detail::shape_of(before));
  index_t ranks = 0;
  for (std::size_t i = 0; i < terms.size(); ++i) {
    const auto& [a, b, scale] = terms[i];
    if (a.extent(1) != in || b.extent(0) != out || b.extent(1) != a.extent(0))
      detail::raise<shape_error>(detail::text() << "merge_report_of: a is " << detail::shape_of(a) << " and b is " << detail::shape_of(b)
                                                << " but before is " << detail::shape_of(before) << " (term " << i << ")");
    if (scale != 0.0f && !checked_add(ranks, a.extent(0), ranks))
      detail::raise<shape_error>(detail::text() << "merge_report_of: the ranks of all terms together do not fit an index");
  }
  const std::span<const float> row_factor = update.row_factor;
  if (!row_factor.empty() && row_factor.size() != static_cast<std::size_t>(out))
    detail::raise<shape_error>(detail::text() << "merge_report_of: the row factor has " << row_factor.size() << " elements but before is "
                                              << detail::shape_of(before));
  merge_report report;
  report.elements = before.size();
  if (report.elements == 0) return report;

  constexpr index_t block = 256;  // columns at once: 2 KiB a rank, so that a panel of usual ranks stays in L1 and L2
  const auto& kernels = simd::kernels<float>(options.tier);
  const auto read = [&](const float_view<2>& v, index_t row, index_t column, float* to, index_t n) {
    const auto* const from = static_cast<const char*>(v.data()) + (row * v.stride(0) + column * v.stride(1)) * detail::bytes_of(v.type());
    detail::widen(kernels, v.type(), from, v.stride(1), to, n);
  };
  ndarray<double, 2> panel = uninit<double>(ranks, block);
  ndarray<double, 1> factors = uninit<double>(ranks);
  ndarray<float, 1> row_of_b = uninit<float>(ranks);
  float old_values[block];
  float new_values[block];
  double delta[block];
  for (index_t k = 0; k < in; k += block) {
    const index_t columns = in - k < block ? in - k : block;
    double* to = panel.data();
    for (const low_rank_term& t : terms)
      for (index_t r = 0; t.scale != 0.0f && r < t.a.extent(0); ++r, to += block) {
        read(t.a, r, k, old_values, columns);
        for (index_t j = 0; j < columns; ++j) to[j] = static_cast<double>(old_values[j]);
      }
    for (index_t n = 0; n < out; ++n) {
      double* factor = factors.data();
      for (const low_rank_term& t : terms) {
        if (t.scale == 0.0f || t.a.extent(0) == 0) continue;
        read(t.b, n, 0, row_of_b.data(), t.a.extent(0));
        for (index_t r = 0; r < t.a.extent(0); ++r) *factor++ = static_cast<double>(t.scale) * static_cast<double>(row_of_b.data()[r]);
      }
      read(before, n, k, old_values, columns);
      read(after, n, k, new_values, columns);
      for (index_t j = 0; j < columns; ++j) delta[j] = 0;
      for (index_t r = 0; r < ranks; ++r) {
        const double f = factors.data()[r];
        const double* const a = panel.data() + r * block;
        for (index_t j = 0; j < columns; ++j) delta[j] += f * a[j];
      }
      if (!row_factor.empty()) {
        const auto f = static_cast<double>(row_factor[static_cast<std::size_t>(n)]);
        for (index_t j = 0; j < columns; ++j) delta[j] = (f - 1) * static_cast<double>(old_values[j]) + f * delta[j];
      }
      for (index_t j = 0; j < columns; ++j) {
        const double size = std::abs(delta[j]);
        const double error = std::abs(static_cast<double>(new_values[j]) - (static_cast<double>(old_values[j]) + delta[j]));
        if (!std::isfinite(error)) {  // whichever of the three it is, it ends up here
          ++report.not_finite;
          continue;
        }
        report.meant += delta[j] != 0;
        report.swallowed += delta[j] != 0 && new_values[j] == old_values[j];
        if (size > report.max_delta) report.max_delta = size;
        if (error > report.max_error) report.max_error = error;
      }
    }
  }
  return report;
}

}  // namespace LORA_ISA_TAG
}  // namespace lora::inline v0

#endif
