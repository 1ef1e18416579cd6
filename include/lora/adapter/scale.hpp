// SPDX-License-Identifier: Apache-2.0
//
// The scale of an adapter: the factor s in y = W x + s B (A x). Computed from the training configuration once, in double, and rounded
// to float once; it lives beside A and B, never inside them.
//
//   float s = lora::scale_for(16.0, 8, lora::scale_rule::alpha_over_rank);        // 2
//   float q = lora::scale_for(12.0, 9, lora::scale_rule::alpha_over_sqrt_rank);   // 4 (use_rslora)
#ifndef LORA_ADAPTER_SCALE_HPP
#define LORA_ADAPTER_SCALE_HPP

#include <lora/core/error.hpp>

#include <cmath>
#include <cstddef>

namespace lora::inline v0 {

/** How alpha and rank make the scale. Source: Hu et al. 2021 (alpha / r); Kalajdzievski 2023, "rsLoRA" (alpha / sqrt(r)). */
enum class scale_rule : unsigned char { alpha_over_rank, alpha_over_sqrt_rank };

/**
 * @throws value_error when rank < 1, or alpha is not finite, or the scale does not fit a float.
 * @par Accuracy   Correctly rounded division (and square root) in double, then one rounding to float.
 */
[[nodiscard]] inline float scale_for(double alpha, std::ptrdiff_t rank, scale_rule rule = scale_rule::alpha_over_rank) {
  if (rank < 1) detail::raise<value_error>(detail::text() << "scale: rank " << rank << " must be at least 1");
  const double divisor = rule == scale_rule::alpha_over_rank ? static_cast<double>(rank) : std::sqrt(static_cast<double>(rank));
  const double scale = alpha / divisor;
  if (!std::isfinite(scale) || !std::isfinite(static_cast<float>(scale)))
    detail::raise<value_error>(detail::text() << "scale: alpha / rank is not a finite float (rank " << rank << ")");
  return static_cast<float>(scale);
}

}  // namespace lora::inline v0

#endif
