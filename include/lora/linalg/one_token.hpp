// SPDX-License-Identifier: Apache-2.0
//
// detail: the short way of forward for one token, or a few, and a W that lies in a cache: y is summed where it lies, x is read where it lies, and what
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
// Two tokens, or up to few_tokens of few elements, are taken one after the other while W is no larger: blocks of them are summed to the same
// bits (T = 1), but 64 x 64 with a term of rank 4 took 790 ns on the long way for two and 920 for four, in place of 300 and 610.
inline constexpr count two_tokens_to_bytes = 128 << 10;
inline constexpr count few_tokens_to_bytes = 64 << 10;

/**
 * One call, word by word. A float_view that is made of a view made just before is copied by 16 bytes what was stored by 8, which no CPU
 * hands on from its store buffer: three of them cost as much as a tenth of a product of 64 x 64.
 */
struct one_token {
  void* y;
  const void* x;
  count x_stride;  // from column to column
  const void* w;
  count w_row_stride;
  count in;
  count out;
  dtype x_type;
  dtype w_type;
  const simd::kernel_table* kernels;
  simd::pack_kernel pack_x;
};

/**
 * The product of forward() for one token, or false, with nothing written, where the short way does not serve it; shapes of the update or of
 * the bias that disagree are among that, and are refused on the long way.
 */
[[nodiscard]] inline bool forward_one(const one_token& c, const low_rank_update& update, const float_view<1>& bias, workspace& scratch,
                                      std::size_t concurrency) {
  const std::span<const low_rank_term> terms = update.terms;
  const count in = c.in;
  const count out = c.out;
  const simd::kernel_table& k = *c.kernels;
  const bool plain_bias = bias.data() == nullptr || (bias.extent(0) == out && bias.type() == dtype::f32 && bias.stride(0) == 1);
  const auto fits = [out](std::span<const float> v) { return v.empty() || v.size() == static_cast<std::size_t>(out); };
  if (!update.rows.empty() || !update.columns.empty() || !plain_bias || !fits(update.bias) || !fits(update.row_factor) ||
      terms.size() > short_terms || in >= fetch_from_bytes || out >= fetch_from_bytes)
    return false;
  if (out * in >= fetch_from_bytes / detail::bytes_of(c.w_type) || (concurrency > 1 && wants_threads(out * in, c.w_type, 1))) return false;

  const auto reads = [&](const float_view<2>& v) { return v.stride(1) == 1 && (v.type() == dtype::f32 || v.type() == c.w_type); };
  const count unit = k.lanes > 8 ? k.lanes : 8;  // floats that run_short() fills up
  count ranks = 0;
  for (const low_rank_term& t : terms) {
    const count rank = t.a.extent(0);
    if (t.a.extent(1) != in || t.b.extent(0) != out || t.b.extent(1) != rank) return false;
    if (rank == 0 || t.scale == 0.0f) continue;
    if (rank > short_ranks || !reads(t.a) || !reads(t.b)) return false;
    ranks += detail::round_up(rank, unit);
  }
  if (ranks > short_ranks) return false;

  const auto* packed = static_cast<const float*>(c.x);
  if (c.x_type != dtype::f32 || c.x_stride != 1 || in % k.lanes != 0) {
    scratch.reserve(static_cast<std::size_t>(detail::round_up(in, k.lanes)) * sizeof(float));
    auto* const to = static_cast<float*>(scratch.data());
    c.pack_x({c.x, 0, c.x_stride, 1, in, 1.0f, 1, 1, to});
    packed = to;
  }

  simd::segment segments[1 + short_terms];
  segments[0] = {c.w, c.w_row_stride, in, packed, 0, true};
  count used = 1;
  alignas(64) float low[short_ranks];
  float* h = low;
  for (const low_rank_term& t : terms) {
    const count rank = t.a.extent(0);
    if (rank == 0 || t.scale == 0.0f) continue;
    const simd::segment down{t.a.data(), t.a.stride(0), in, packed, 0, t.a.type() == c.w_type};
    k.run_short({&down, 1, rank, h, true, t.scale});
    segments[used++] = {t.b.data(), t.b.stride(0), rank, h, 0, t.b.type() == c.w_type};
    h += detail::round_up(rank, unit);
  }

  auto* const to = static_cast<float*>(c.y);
  k.run_short({segments, used, out, to});
  // A loop each, over memory: what is rounded here is what the store kernels round.
  if (const float* factor = update.row_factor.data())
    for (count n = 0; n < out; ++n) to[n] *= factor[n];
  const auto* from = update.replaces_bias ? nullptr : static_cast<const float*>(bias.data());
  const float* const more = update.bias.data();
  if (from != nullptr && more != nullptr) {
    for (count n = 0; n < out; ++n) to[n] += from[n] + more[n];
  } else if (from != nullptr || more != nullptr) {
    if (from == nullptr) from = more;
    for (count n = 0; n < out; ++n) to[n] += from[n];
  }
  return true;
}

/** The same for the views of a call, whose shapes nobody has checked yet: where they disagree, too, nothing is written. */
template <class Y, class X, class W>
[[nodiscard]] bool forward_short(const ndview<Y, 2>& y, const ndview<X, 2>& x, const ndview<W, 2>& w, const low_rank_update& update,
                                 const float_view<1>& bias, workspace& scratch, std::size_t concurrency, const forward_options& options) {
  if constexpr (std::is_same_v<Y, float>) {
    using token = std::remove_const_t<X>;
    using element = std::remove_const_t<W>;
    const count tokens = x.extent(0);
    if (tokens < 1 || tokens > few_tokens) return false;
    const count in = w.extent(1);
    const count out = w.extent(0);
    const bool fits = x.extent(1) == in && y.extent(0) == tokens && y.extent(1) == out;
    if (!fits || in == 0 || out == 0 || w.stride(1) != 1 || (out != 1 && y.stride(1) != 1)) return false;
    if (takes_pairs<token, element>(1, options)) return false;
    one_token c{y.data(),
                x.data(),
                x.stride(1),
                w.data(),
                w.stride(0),
                in,
                out,
                dtype_of<token>,
                dtype_of<element>,
                &simd::kernels<element>(options.tier),
                simd::packer<token>(options.tier)};
    if (tokens == 1) return forward_one(c, update, bias, scratch, concurrency);
    const count most = (tokens == 2 ? two_tokens_to_bytes : few_tokens_to_bytes) / detail::bytes_of(c.w_type);
    if ((tokens > 2 && in > few_tokens_to_depth) || in > most || out > most || in * out > most || y.stride(0) == 0) return false;
    for (count t = 0; t < tokens; ++t) {
      c.y = y.data() + t * y.stride(0);
      c.x = x.data() + t * x.stride(0);
      if (!forward_one(c, update, bias, scratch, concurrency)) return false;  // the first, or none
    }
    return true;
  } else {
    return false;
  }
}

}  // namespace lora::inline v0::inline LORA_ISA_TAG::detail_forward

#endif
