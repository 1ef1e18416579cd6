// SPDX-License-Identifier: Apache-2.0
//
// dora_factor: what DoRA (Liu et al., 2024) multiplies each output by, m / |W + s B A| with the norms taken by rows of [out, in]. adapter_set
// computes it once for a module; forward() applies it to finished sums, before the bias.
//
//   std::vector<float> g = lora::dora_factor(w, {&term, 1}, magnitude);     // y = g * (W x + s B A x) + bias
#ifndef LORA_ADAPTER_DORA_HPP
#define LORA_ADAPTER_DORA_HPP

#include <lora/linalg/row_norms.hpp>

namespace lora::inline v0::inline LORA_ISA_TAG {

/**
 * magnitude [out] over row_norms(w, terms), divided in double and rounded to float once.
 *
 * @throws shape_error naming both shapes; value_error when a norm is zero or not finite: the factor would not be a number.
 * @par Cost  That of row_norms().
 */
[[nodiscard]] inline std::vector<float> dora_factor(const float_view<2>& w, std::span<const low_rank_term> terms,
                                                    const float_view<1>& magnitude, const forward_options& options = {}) {
  if (magnitude.extent(0) != w.extent(0))
    detail::raise<shape_error>(detail::text() << "dora_factor: magnitude is " << detail::shape_of(magnitude) << " but w is "
                                              << detail::shape_of(w));
  const std::vector<double> norms = row_norms(w, terms, options);
  std::vector<float> factor(norms.size());
  for (std::size_t i = 0; i < norms.size(); ++i) {
    if (!(norms[i] > 0) || !std::isfinite(norms[i]))
      detail::raise<value_error>(detail::text() << "dora_factor: row " << i << " of W + s B A has "
                                                << (norms[i] == 0 ? "norm 0" : "a norm that is not finite") << ", which DoRA divides by");
    factor[i] = static_cast<float>(static_cast<double>(magnitude(static_cast<index_t>(i))) / norms[i]);
  }
  return factor;
}

}  // namespace lora::inline v0::inline LORA_ISA_TAG

#endif
