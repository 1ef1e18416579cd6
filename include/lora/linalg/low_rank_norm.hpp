// SPDX-License-Identifier: Apache-2.0
//
// low_rank_norm: the Frobenius norm of sum s_i B_i A_i, in double, from the factors alone: B A is never formed. With terms of opposite
// scales it is the distance between two adapters. For tools and reports; nothing on the way of a request needs it.
//
//   double size = lora::low_rank_norm({&term, 1});
//   const lora::low_rank_term difference[] = {{a1, b1, s1}, {a2, b2, -s2}};
//   double distance = lora::low_rank_norm(difference);
#ifndef LORA_LINALG_LOW_RANK_NORM_HPP
#define LORA_LINALG_LOW_RANK_NORM_HPP

#include <lora/linalg/forward.hpp>
#include <lora/nd/array.hpp>

#include <cmath>

namespace lora::inline v0::inline LORA_ISA_TAG {

namespace detail_norm {

[[nodiscard]] inline double dot(const double* x, const double* y, index_t n) noexcept {
  double sums[4] = {};  // independent chains: one would wait for each addition
  index_t i = 0;
  for (; i + 4 <= n; i += 4) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) sums[j] += x[i + j] * y[i + j];
  }
  for (; i < n; ++i) sums[0] += x[i] * y[i];
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

/**
 * R of a QR decomposition by Householder reflections, in place: `columns` holds `count` columns of `n` elements, one behind the other; the
 * first min(j + 1, n) elements of column j are R's afterwards. Source: Golub, Van Loan, Matrix Computations, algorithm 5.2.1.
 */
inline void triangle(double* columns, index_t n, index_t count) noexcept {
  for (index_t k = 0; k < count && k < n; ++k) {
    double* const v = columns + k * n + k;
    const index_t rows = n - k;
    const double length = std::sqrt(dot(v, v, rows));
    if (length == 0) continue;
    const double first = v[0];
    const double diagonal = first > 0 ? -length : length;  // the sign that adds in the next line, where the other one could cancel
    v[0] = first - diagonal;
    const double half = length * (length + std::abs(first));  // v'v / 2
    for (index_t j = k + 1; j < count; ++j) {
      double* const to = columns + j * n + k;
      const double factor = dot(v, to, rows) / half;
      for (index_t i = 0; i < rows; ++i) to[i] -= factor * v[i];
    }
    v[0] = diagonal;
  }
}

/** Rows of a view, or its columns, times `scale`, as doubles, one behind the other. */
inline void widen_rows(const float_view<2>& v, bool columns, double scale, double* to) {
  v.visit([&](const auto& as_it_lies) {
    const auto m = columns ? as_it_lies.transpose() : as_it_lies;
    for (index_t i = 0; i < m.extent(0); ++i)
      for (index_t j = 0; j < m.extent(1); ++j) *to++ = scale * static_cast<double>(static_cast<float>(m(i, j)));
  });
}

}  // namespace detail_norm

/**
 * || sum_i scale_i B_i A_i ||_F.
 *
 * With all A's on top of each other A = (Q_A T_A)', and all scaled B's beside each other B = Q_B T_B, it is the norm of the small T_B T_A'.
 * The shorter form trace((A A')(B' B)) squares the elements first: of two adapters that differ by 1e-9 it would see nothing, because it loses
 * half of the digits where terms cancel.
 *
 * @param terms  each a [rank, in], b [out, rank]; ranks may differ
 * @throws shape_error naming both shapes when the terms do not fit together; std::bad_alloc.
 * @return 0 without terms; NaN or infinity when an element that counts is one; a term of scale 0 is not looked at.
 * @par Cost      2 R^2 (in + out) + 2 R^3 multiply-adds in double, R being the sum of the ranks; 8 R (in + out + R) bytes.
 * @par Accuracy  |error| <= c R u sum_i |scale_i| ||B_i||_F ||A_i||_F with a small c (of the order of the extents) and u = 2^-53: relative to
 *                what is added, also where the terms cancel. Higham, Accuracy and Stability of Numerical Algorithms, theorem 19.4.
 */
[[nodiscard]] inline double low_rank_norm(std::span<const low_rank_term> terms) {
  index_t in = 0;
  index_t out = 0;
  index_t ranks = 0;
  const low_rank_term* first = nullptr;
  for (std::size_t i = 0; i < terms.size(); ++i) {
    const auto& [a, b, scale] = terms[i];
    if (first == nullptr) first = &terms[i];
    if (a.extent(0) != b.extent(1) || a.extent(1) != first->a.extent(1) || b.extent(0) != first->b.extent(0))
      detail::raise<shape_error>(detail::text()
                                 << "low_rank_norm: a is " << detail::shape_of(a) << " and b is " << detail::shape_of(b) << " (term " << i
                                 << "), the first term's are " << detail::shape_of(first->a) << " and " << detail::shape_of(first->b));
    if (scale != 0.0f && !checked_add(ranks, a.extent(0), ranks))
      detail::raise<shape_error>(detail::text() << "low_rank_norm: the ranks of all terms together do not fit an index");
    in = a.extent(1);
    out = b.extent(0);
  }
  if (ranks == 0 || in == 0 || out == 0) return 0;

  ndarray<double, 2> left = uninit<double>(ranks, out);
  ndarray<double, 2> right = uninit<double>(ranks, in);
  index_t at = 0;
  for (const auto& [a, b, scale] : terms) {
    if (scale == 0.0f) continue;
    detail_norm::widen_rows(b, true, static_cast<double>(scale), left.data() + at * out);
    detail_norm::widen_rows(a, false, 1.0, right.data() + at * in);
    at += a.extent(0);
  }
  detail_norm::triangle(left.data(), out, ranks);
  detail_norm::triangle(right.data(), in, ranks);
  double squares = 0;
  for (index_t i = 0; i < ranks && i < out; ++i)
    for (index_t j = 0; j < ranks && j < in; ++j) {
      double sum = 0;
      for (index_t k = i > j ? i : j; k < ranks; ++k) sum += left.data()[k * out + i] * right.data()[k * in + j];
      squares += sum * sum;
    }
  return std::sqrt(squares);
}

}  // namespace lora::inline v0::inline LORA_ISA_TAG

#endif
