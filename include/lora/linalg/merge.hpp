// SPDX-License-Identifier: Apache-2.0
//
// merged: W + sum of scale * B A as a new matrix, each row times its factor where the update has one, for adapters that live long enough to
// pay for a copy of W; merged_bias: the bias that goes with it. W itself is never written: going back is dropping the new matrix, and is
// exact.
//
//   lora::ndarray<float, 2> w2 = lora::merged(w, terms);
#ifndef LORA_LINALG_MERGE_HPP
#define LORA_LINALG_MERGE_HPP

#include <lora/linalg/forward.hpp>
#include <lora/nd/array.hpp>
#include <lora/simd/convert.hpp>

namespace lora::inline v0::inline LORA_ISA_TAG {

namespace detail_merge {

/** Rows of a transposed W that are gathered at once: as many as make runs of some cache lines in each page of W that is visited. */
inline constexpr index_t rows_at_once = 64;

/**
 * W[begin : begin + rows, first : first + columns], of a W with unit stride along its rows, as floats with `stride` from row to row; 16 columns
 * at a time, so that what is read stays in L1.
 */
inline void turn_rows(const simd::kernel_table& k, const float_view<2>& w, index_t begin, index_t rows, index_t first, index_t columns,
                      float* to, index_t stride) noexcept {
  constexpr index_t run = 16;
  float block[run * rows_at_once];
  for (index_t at = 0; at < columns; at += run) {
    const index_t width = columns - at < run ? columns - at : run;
    for (index_t c = 0; c < width; ++c)
      detail::widen(k, w.type(), static_cast<const char*>(w.data()) + (begin + (first + at + c) * w.stride(1)) * detail::bytes_of(w.type()),
                    1, block + c * rows_at_once, rows);
    for (index_t r = 0; r < rows; ++r)
      for (index_t c = 0; c < width; ++c) to[r * stride + at + c] = block[c * rows_at_once + r];
  }
}

/**
 * Columns that are taken through all rows of W at once: as many as keep their part of A, copied together, in L1 (32 KiB), but not fewer than
 * 256, with which it stays in L2 up to rank 1024. Whole rows, which read all of A again for each row of W, took 628 ms instead of 170 (rank 256,
 * 4096 x 4096, float, one thread of a Xeon with 2 MiB of L2).
 */
[[nodiscard]] constexpr index_t columns_at_once(index_t rank) noexcept {
  constexpr index_t floats = 8192;
  const index_t columns = rank < floats / 256 ? floats / (rank > 0 ? rank : 1) / 64 * 64 : 256;
  return columns;
}

}  // namespace detail_merge

/**
 * row_factor * (W [out, in] + sum_i scale_i B_i A_i), in list order, as a new C-order matrix of W's element type; rows and columns of W that
 * the update replaces come from there. The bias of the update is not in it: see merged_bias(). For the table of an embedding: merged_table().
 *
 * @throws shape_error naming both shapes when a term does not fit; std::bad_alloc.
 * @par Cost       2 rank in out flops, one pass over W; allocates the result (in huge pages from 4 MiB on), a row (64 where a W of 16 bits lies
 *                 transposed), and the part of each A that 256 to 8192 columns need. Whether it pays: adapter/merge_cost.hpp.
 * @par Accuracy   One f32 chain an element, starting from W: |error| <= gamma(R) |W| + gamma(R + 2) sum |s_i||B_i||A_i|, R being the ranks
 *                 of all terms added up (docs/numerics.md); with a row factor f, |f| times that and u |result| more; then one rounding to W's type.
 */
template <detail_forward::matrix Weight>
[[nodiscard]] auto merged(const Weight& weight, const low_rank_update& update, const forward_options& options = {}) {
  const std::span<const low_rank_term> terms = update.terms;
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
  const std::span<const float> factor = update.row_factor;
  if (!factor.empty() && factor.size() != static_cast<std::size_t>(out))
    detail::raise<shape_error>(detail::text() << "merged: the row factor has " << factor.size() << " elements but w is "
                                              << detail::shape_of(w));
  detail::check_replaced("merged", update.rows, out, in);
  detail::check_replaced("merged", update.columns, in, out);
  ndarray<T, 2> result(extents{out, in});
  if (result.size() == 0) return result;

  const auto& kernels = simd::kernels<float>(options.tier);
  const auto row_of = [](const float_view<2>& v, index_t i) {
    return static_cast<const char*>(v.data()) + i * v.stride(0) * detail::bytes_of(v.type());
  };
  index_t widest = 0;
  index_t ranks = 0;
  for (const low_rank_term& t : terms) {
    const index_t rank = t.scale == 0.0f ? 0 : t.a.extent(0);
    widest = rank > widest ? rank : widest;
    if (!checked_add(ranks, rank, ranks))
      detail::raise<shape_error>(detail::text() << "merged: the ranks of all terms together do not fit an index");
  }

  const index_t most = detail_merge::columns_at_once(ranks);
  const index_t step = most < in ? most : in;
  ndarray<float, 2> panel = uninit<float>(ranks, step);
  ndarray<float, 1> b = uninit<float>(widest);
  // Read element by element, a transposed W would fetch each of its cache lines once for every row.
  const bool transposed = detail::lies_transposed(w);
  const index_t at_once = transposed ? detail_merge::rows_at_once : 1;
  ndarray<float, 2> sums = uninit<float>(std::is_same_v<T, float> ? 0 : at_once, step);
  for (index_t k = 0; k < in; k += step) {
    const index_t columns = in - k < step ? in - k : step;
    float* to = panel.data();
    for (const low_rank_term& t : terms)
      for (index_t j = 0; t.scale != 0.0f && j < t.a.extent(0); ++j, to += step)
        detail::widen(kernels, t.a.type(), row_of(t.a, j) + k * t.a.stride(1) * detail::bytes_of(t.a.type()), t.a.stride(1), to, columns);
    for (index_t n = 0; n < out; ++n) {
      float* row = sums.data() + n % at_once * step;
      if constexpr (std::is_same_v<T, float>) row = result.data() + n * in + k;
      if (!transposed)
        detail::widen(kernels, w.type(), row_of(w, n) + k * w.stride(1) * detail::bytes_of(w.type()), w.stride(1), row, columns);
      else if (n % at_once == 0)
        detail_merge::turn_rows(kernels, w, n, out - n < at_once ? out - n : at_once, k, columns, row,
                                std::is_same_v<T, float> ? in : step);
      detail::replace_in_row(update.rows, update.columns, n, k, columns, row);
      const float* a = panel.data();
      for (const low_rank_term& t : terms) {
        const index_t rank = t.scale == 0.0f ? 0 : t.a.extent(0);
        if (rank == 0) continue;
        detail::widen(kernels, t.b.type(), row_of(t.b, n), t.b.stride(1), b.data(), rank);
        kernels.merge({row, b.data(), 1, a, step, rank, t.scale, columns, row});
        a += rank * step;
      }
      if (!factor.empty())
        for (index_t c = 0; c < columns; ++c) row[c] *= factor[static_cast<std::size_t>(n)];
      if constexpr (!std::is_same_v<T, float>) simd::converter<T, float>(options.tier)(row, 0, result.data() + n * in + k, 0, 1, columns);
    }
  }
  return result;
}

}  // namespace lora::inline v0::inline LORA_ISA_TAG

namespace lora::inline v0 {

/**
 * The bias that belongs to merged(): the base's and the update's, added in f32, or the one that is there; as new floats [out].
 *
 * @throws shape_error  when the two differ in length.
 * @throws value_error  when the update has a bias and the base none: a model without a bias cannot hold the merge (PEFT refuses it too).
 */
[[nodiscard]] inline ndarray<float, 1> merged_bias(float_view<1> base, const low_rank_update& update) {
  if (base.data() == nullptr && !update.bias.empty())
    detail::raise<value_error>(detail::text() << "merged_bias: the update has a bias of " << update.bias.size()
                                              << " elements and the base has none to add it to");
  if (base.data() == nullptr) return {};
  if (!update.bias.empty() && update.bias.size() != static_cast<std::size_t>(base.extent(0)))
    detail::raise<shape_error>(detail::text() << "merged_bias: the update's bias has " << update.bias.size()
                                              << " elements but the base's is " << detail::shape_of(base));
  ndarray<float, 1> sum(extents{base.extent(0)});
  for (index_t i = 0; i < base.extent(0); ++i) {
    sum(i) = update.replaces_bias ? 0.0f : base(i);
    if (!update.bias.empty())
      sum(i) = update.replaces_bias ? update.bias[static_cast<std::size_t>(i)] : sum(i) + update.bias[static_cast<std::size_t>(i)];
  }
  return sum;
}

}  // namespace lora::inline v0

#endif
