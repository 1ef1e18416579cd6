// SPDX-License-Identifier: Apache-2.0
//
// detail: the short way of forward for one token and a W that lies in a cache: y is summed where it lies, x is read where it lies, and what
// a call otherwise spends on tiles, tasks and the layout of its workspace is not spent. The kernels, their order and so the bits are those
// of the long way.
#ifndef LORA_LINALG_ONE_TOKEN_HPP
#define LORA_LINALG_ONE_TOKEN_HPP

#include <lora/linalg/forward_plan.hpp>

#include <cstddef>
#include <span>

namespace lora::inline v0::inline LORA_ISA_TAG::detail_forward {

// The short way keeps what it needs on the stack; more or larger terms take the long way.
inline constexpr std::size_t short_terms = 8;
inline constexpr count short_ranks = 512;  // of all terms, each rounded up to whole registers

/**
 * The product of forward() for one token, or false, with nothing written, where the short way does not serve it.
 * @pre check_forward() has passed; y [1, out] is not empty.
 */
[[nodiscard]] inline bool forward_one(const kernel_choice& c, void* y_data, const float_view<2>& y, const float_view<2>& x,
                                      const float_view<2>& w, std::span<const low_rank_term> terms, const detail::epilogue& finish,
                                      workspace& scratch, std::size_t concurrency) {
  const count in = w.extent(1);
  const count out = w.extent(0);
  const bool dense = w.stride(1) == 1 && y.type() == dtype::f32 && (out == 1 || y.stride(1) == 1) && in > 0;
  const float_view<1>& bias = finish.bias;
  const bool plain_bias = bias.data() == nullptr || (bias.type() == dtype::f32 && bias.stride(0) == 1);
  if (!dense || !plain_bias || c.pairs || terms.size() > short_terms) return false;
  if (w.size() >= fetch_from_bytes / detail::bytes_of(w.type()) || (concurrency > 1 && wants_threads(w, 1))) return false;

  const simd::kernel_table& k = *c.table;
  count ranks = 0;
  for (const low_rank_term& t : terms) {
    const count rank = t.a.extent(0);
    if (rank == 0 || t.scale == 0.0f) continue;
    const auto in_place = [&](const float_view<2>& v) {
      return v.stride(1) == 1 && (v.type() == dtype::f32 || c.reads(v.type(), w.type()));
    };
    if (rank > short_ranks || !in_place(t.a) || !in_place(t.b)) return false;
    ranks += detail::round_up(rank, k.lanes);
  }
  if (ranks > short_ranks) return false;

  const auto* packed = static_cast<const float*>(x.data());
  if (x.type() != dtype::f32 || x.stride(1) != 1 || in % k.lanes != 0) {
    scratch.reserve(static_cast<std::size_t>(detail::round_up(in, k.lanes)) * sizeof(float));
    auto* const to = static_cast<float*>(scratch.data());
    c.pack_x({x.data(), x.stride(0), x.stride(1), 1, in, 1.0f, 1, 1, to});
    packed = to;
  }

  simd::segment segments[1 + short_terms];
  segments[0] = {w.data(), w.stride(0), in, packed, 0, true};
  count used = 1;
  float low[short_ranks];
  float* h = low;
  for (const low_rank_term& t : terms) {
    const count rank = t.a.extent(0);
    if (rank == 0 || t.scale == 0.0f) continue;
    const simd::segment down{t.a.data(), t.a.stride(0), in, packed, 0, c.reads(t.a.type(), w.type())};
    k.run_short({&down, 1, rank, h});
    for (count j = 0; j < rank; ++j) h[j] *= t.scale;
    const count padded = detail::round_up(rank, k.lanes);
    for (count j = rank; j < padded; ++j) h[j] = 0.0f;
    segments[used++] = {t.b.data(), t.b.stride(0), rank, h, 0, c.reads(t.b.type(), w.type())};
    h += padded;
  }

  auto* const to = static_cast<float*>(y_data);
  k.run_short({segments, used, out, to});
  // A loop each, over memory: what is rounded here is what the store kernels round.
  if (const float* factor = finish.factor)
    for (count n = 0; n < out; ++n) to[n] *= factor[n];
  if (const auto* from = static_cast<const float*>(bias.data())) {
    if (const float* more = finish.more) {
      for (count n = 0; n < out; ++n) to[n] += from[n] + more[n];
    } else {
      for (count n = 0; n < out; ++n) to[n] += from[n];
    }
  }
  return true;
}

}  // namespace lora::inline v0::inline LORA_ISA_TAG::detail_forward

#endif
