// SPDX-License-Identifier: Apache-2.0
//
// merge_cost_of: when does it pay to merge an adapter into its weight, W' = W + sum s B A (linalg/merge.hpp), instead of adding its terms in
// every call? It computes; it measures nothing and starts nothing.
//
//   lora::machine_limits here;                        // measured once, see docs/memory.md; the defaults are those of one server CPU
//   const auto cost = lora::merge_cost_of({.in = 4096, .out = 4096, .rank = 16, .n = 1}, here);
//   if (tokens_expected > cost.tokens_to_break_even && spare_bytes > cost.extra_bytes) merge();
//
// What it does not weigh: a merged weight serves one adapter only, costs its seconds before the first answer, and with 16-bit weights is
// rounded once more.
#ifndef LORA_ADAPTER_MERGE_COST_HPP
#define LORA_ADAPTER_MERGE_COST_HPP

#include <lora/core/checked.hpp>
#include <lora/core/dtype.hpp>
#include <lora/core/error.hpp>
#include <lora/nd/shape.hpp>

#include <cstddef>
#include <limits>

namespace lora::inline v0 {

/**
 * What the threads of one call can do together. The defaults are one thread of an Intel Xeon (family 6, model 207) with AVX-512, W in memory;
 * of another machine, or for W in a cache, take what forward() itself reaches: bytes of W a second at one token, flops a second at 64 tokens
 * with a W of 1 MiB.
 */
struct machine_limits {
  double stream_bytes_per_second = 17e9;
  double flops_per_second = 160e9;  ///< two a multiply-add
};

/** One linear module with its adapter, and how it is called. */
struct merge_question {
  index_t in = 0;
  index_t out = 0;
  index_t rank = 0;           ///< of all terms added up
  index_t n = 1;              ///< tokens a call
  dtype weight = dtype::f32;  ///< f32, bf16 or f16
  dtype factor = dtype::f32;  ///< of A and B, likewise
};

/** Seconds are those of one module. */
struct merge_cost {
  double merge_seconds = 0;            ///< of merged(), its fresh memory included
  double call_seconds = 0;             ///< of forward() with the terms
  double merged_call_seconds = 0;      ///< of forward() with the merged weight
  double extra_seconds_per_token = 0;  ///< (call_seconds - merged_call_seconds) / n
  double tokens_to_break_even = 0;     ///< merge_seconds / extra_seconds_per_token; infinite when merging never pays
  std::size_t extra_bytes = 0;         ///< of the merged copy; W stays for everybody else
};

namespace detail {

/** merged() takes its terms through A in L1, a load a multiply-add and four sums at a time: a third of what products reach. */
inline constexpr double merge_share_of_flops = 0.33;
/** What a merge moves, in passes over W: W is read, the fresh pages of the copy are zeroed, fetched to be overwritten, and written back. */
inline constexpr double merge_passes = 4;

}  // namespace detail

/**
 * The cost of merging against the cost of not merging.
 *
 * A call without terms takes the larger of w in out / S (W is streamed) and 2 n in out / F (arithmetic), w being the bytes of an element of
 * W. Terms add both their bytes and their arithmetic, one after the other: A and B are small, so nobody fetches them ahead,
 * and what they add to the stream of W does not hide behind it:
 *     extra seconds a call = rank (in + out) (4 / S + 2 n / F).
 * A 16-bit factor counts as 4 bytes an element too: it is widened to float in a pass of its own. Merging takes
 *     4 w in out / S + 2 rank in out / (0.33 F).
 * For large W and one token that is some 4 w in out / (4 rank (in + out)) calls, plus the arithmetic: of the order of a thousand tokens, and
 * with larger batches more, because a call's bytes are shared by its tokens.
 *
 * @throws value_error  when an extent, a rank or n is negative, n is 0, a type is none of f32, bf16 and f16, or a limit is below 1 or not
 *                      finite; shape_error when the copy of W does not fit the address space.
 * @par Accuracy   Of the 64 measurements in bench/merge/measured.json, one machine, a test holds merge_seconds within a factor of 2.5 of all,
 *                 call_seconds within 1.5 of half and 4.5 of all, and tokens_to_break_even within 2 of half and 5 of all whose calls differ by
 *                 more than noise. Calls are limits: forward stays behind them where rows are long (64 tokens, in = 11008 and more), and in
 *                 that file, which is of earlier kernels, with 16-bit weights at 64 tokens. It does not know caches: for a W, A and B that
 *                 stay in one, pass that cache's bandwidth.
 * @par Threads    A pure function. merged() uses one thread; for calls that use more, ask once with the limits of one thread for merge_seconds
 *                 and once with the limits of all for the calls.
 */
[[nodiscard]] inline merge_cost merge_cost_of(const merge_question& question, const machine_limits& limits = {}) {
  const auto& [in, out, rank, n, weight, factor] = question;
  const auto computes = [](dtype t) { return t == dtype::f32 || t == dtype::bf16 || t == dtype::f16; };
  const auto usable = [](double limit) { return limit >= 1 && limit <= std::numeric_limits<double>::max(); };
  if (in < 0 || out < 0 || rank < 0 || n <= 0)
    detail::raise<value_error>(detail::text() << "merge_cost_of: in " << in << ", out " << out << " and rank " << rank
                                              << " must not be negative, n " << n << " must be positive");
  if (!computes(weight) || !computes(factor))
    detail::raise<value_error>(detail::text() << "merge_cost_of: weight " << name_of(weight) << " and factor " << name_of(factor)
                                              << " must be f32, bf16 or f16");
  if (!usable(limits.stream_bytes_per_second) || !usable(limits.flops_per_second))
    detail::raise<value_error>(detail::text() << "merge_cost_of: both limits of the machine must be finite and at least 1");
  const std::ptrdiff_t shape[] = {out, in};
  if (!addressable(shape, 2, size_of(weight)))
    detail::raise<shape_error>(detail::text() << "merge_cost_of: a copy of w " << detail::shape_text{shape, 2}
                                              << " does not fit the address space");

  const double elements = static_cast<double>(in) * static_cast<double>(out);
  const double low = static_cast<double>(rank) * (static_cast<double>(in) + static_cast<double>(out));
  const double tokens = static_cast<double>(n);
  const double bytes = static_cast<double>(size_of(weight)) * elements;
  const double a_byte = 1 / limits.stream_bytes_per_second;
  const double a_flop = 1 / limits.flops_per_second;

  merge_cost cost;
  const double streamed = bytes * a_byte;
  const double computed = 2 * tokens * elements * a_flop;
  cost.merged_call_seconds = streamed > computed ? streamed : computed;
  const double extra = low * (4 * a_byte + 2 * tokens * a_flop);
  cost.call_seconds = cost.merged_call_seconds + extra;
  cost.merge_seconds = detail::merge_passes * streamed + 2 * static_cast<double>(rank) * elements * a_flop / detail::merge_share_of_flops;
  cost.extra_seconds_per_token = extra / tokens;
  cost.tokens_to_break_even = extra > 0 ? cost.merge_seconds / cost.extra_seconds_per_token : std::numeric_limits<double>::infinity();
  cost.extra_bytes = static_cast<std::size_t>(in) * static_cast<std::size_t>(out) * size_of(weight);
  return cost;
}

}  // namespace lora::inline v0

#endif
