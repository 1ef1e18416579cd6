// SPDX-License-Identifier: Apache-2.0
//
// How large an adapter is, as functions, so that nobody derives it twice.
//
//   lora::parameter_count(4096, 4096, 8);   // 65,536
//   lora::compression(4096, 4096, 8);       // 256 times fewer than the full matrix
#ifndef LORA_ADAPTER_COUNT_HPP
#define LORA_ADAPTER_COUNT_HPP

#include <lora/nd/shape.hpp>

namespace lora::inline v0 {

/** Trained numbers of one adapted module: rank (in + out). @throws shape_error when an extent is negative or the count does not fit. */
[[nodiscard]] constexpr index_t parameter_count(index_t out, index_t in, index_t rank) {
  index_t sum = 0;
  index_t product = 0;
  if (out < 0 || in < 0 || rank < 0 || !checked_add(out, in, sum) || !checked_mul(sum, rank, product))
    detail::raise<shape_error>(detail::text() << "parameter_count: out " << out << ", in " << in << ", rank " << rank
                                              << " are negative or too large");
  return product;
}

/** Elements of the full matrix over those of the adapter: out in / (rank (in + out)); infinite for a rank of 0, NaN when out and in are 0 as well. */
[[nodiscard]] constexpr double compression(index_t out, index_t in, index_t rank) {
  return static_cast<double>(out) * static_cast<double>(in) / static_cast<double>(parameter_count(out, in, rank));
}

}  // namespace lora::inline v0

#endif
