// SPDX-License-Identifier: Apache-2.0
//
// The product that the library exists for: y = x W^T + bias + sum over terms of scale * (x A^T) B^T, in one pass over W, with W, A and B
// where they lie. Rows of x are tokens.
//
//   lora::workspace scratch;
//   const lora::low_rank_term term{a, b, scale};             // a [rank, in], b [out, rank]
//   lora::forward(y, x, w, {&term, 1}, bias, scratch);       // x [n, in], w [out, in], bias [out] or {}, y [n, out]
#ifndef LORA_LINALG_FORWARD_HPP
#define LORA_LINALG_FORWARD_HPP

#include <lora/linalg/rows.hpp>
#include <lora/linalg/workspace.hpp>
#include <lora/nd/overlap.hpp>
#include <lora/parallel/executor.hpp>

#include <cstddef>
#include <cstdint>
#include <span>

namespace lora::inline v0 {

/** One low-rank term: a [rank, in], b [out, rank], and the factor of their product. A scale of exactly 0 switches the term off. */
struct low_rank_term {
  ndview<const float, 2> a;
  ndview<const float, 2> b;
  float scale = 1.0f;
};

/** What a call may choose. */
struct forward_options {
  /** The highest kernel tier to use; lower it to compare or to reproduce another machine's bits. */
  simd::tier tier = simd::tier::avx512;
};

namespace detail {

[[noreturn, gnu::cold, gnu::noinline]] inline void raise_forward(const char* first, shape_text a, const char* second, shape_text b,
                                                                 std::size_t term, bool in_term) {
  text t;
  t << "forward: " << first << " is " << a << " but " << second << " is " << b;
  if (in_term) t << " (term " << term << ")";
  raise<shape_error>(t);
}

template <class T, std::size_t R>
[[nodiscard]] shape_text shape_of(const ndview<T, R>& v) noexcept {
  return {v.shape().array().data(), R};
}

inline void check_forward(const ndview<float, 2>& y, const ndview<const float, 2>& x, const ndview<const float, 2>& w,
                          std::span<const low_rank_term> terms, const ndview<const float, 1>& bias) {
  const index_t n = x.extent(0);
  const index_t in = x.extent(1);
  const index_t out = w.extent(0);
  if (w.extent(1) != in) raise_forward("w", shape_of(w), "x", shape_of(x), 0, false);
  if (y.extent(0) != n) raise_forward("y", shape_of(y), "x", shape_of(x), 0, false);
  if (y.extent(1) != out) raise_forward("y", shape_of(y), "w", shape_of(w), 0, false);
  if (bias.data() != nullptr && bias.extent(0) != out) raise_forward("bias", shape_of(bias), "w", shape_of(w), 0, false);
  for (std::size_t i = 0; i < terms.size(); ++i) {
    const auto& [a, b, scale] = terms[i];
    if (a.extent(1) != in) raise_forward("a", shape_of(a), "x", shape_of(x), i, true);
    if (b.extent(0) != out) raise_forward("b", shape_of(b), "w", shape_of(w), i, true);
    if (b.extent(1) != a.extent(0)) raise_forward("b", shape_of(b), "a", shape_of(a), i, true);
  }
  for (std::size_t axis = 0; axis < 2; ++axis)
    if (y.stride(axis) == 0 && y.extent(axis) > 1 && !y.empty())
      raise<shape_error>(text() << "forward: y of shape " << shape_of(y)
                                << " has stride 0: several results would be written to one element");
}

/** What LORA_CHECKS >= 2 asserts before the first write; a pointer to the sentence, or null when all is well. */
[[nodiscard]] inline const char* forward_aliasing(const ndview<float, 2>& y, const ndview<const float, 2>& x,
                                                  const ndview<const float, 2>& w, std::span<const low_rank_term> terms,
                                                  const ndview<const float, 1>& bias, workspace& scratch) {
  const bool has_bias = bias.data() != nullptr;
  if (may_overlap_itself(y)) return "forward: elements of y share an address";
  if (may_overlap(y, x) || may_overlap(y, w) || (has_bias && may_overlap(y, bias))) return "forward: y overlaps x, w or bias";
  for (const low_rank_term& t : terms)
    if (may_overlap(y, t.a) || may_overlap(y, t.b)) return "forward: y overlaps a or b of a term";
  const ndview<const std::byte, 1> memory(static_cast<const std::byte*>(scratch.data()), {scratch.size_bytes()});
  if (may_overlap(memory, y) || may_overlap(memory, x) || may_overlap(memory, w) || (has_bias && may_overlap(memory, bias)))
    return "forward: scratch overlaps y, x, w or bias";
  for (const low_rank_term& t : terms)
    if (may_overlap(memory, t.a) || may_overlap(memory, t.b)) return "forward: scratch overlaps a or b of a term";
  return nullptr;
}

}  // namespace detail

inline namespace LORA_ISA_TAG {

namespace detail_forward {

using detail::operand;
using detail::panels;
using simd::count;

// More tokens than this are taken in turns, so that the packed x of a turn (1 MiB at in = 4096) stays in L2 while W streams past it. W is
// read again in each turn, which costs a third of what the arithmetic of 64 tokens does and hides behind it. 512 tokens a turn, reading W
// once, ran at 57 GFLOP/s instead of 154 (M = 512, in = out = 4096, AVX-512, one thread).
inline constexpr count tokens_a_turn = 64;

/** Tokens of one turn: turns of equal size, in whole registers of 16, rather than full ones and a small rest. */
[[nodiscard]] constexpr count turn_size(count tokens) noexcept {
  if (tokens <= tokens_a_turn) return tokens;
  const count turns = (tokens + tokens_a_turn - 1) / tokens_a_turn;
  return detail::round_up((tokens + turns - 1) / turns, 16);
}
// Below this many bytes W comes from a cache, where prefetching it again costs a quarter (1024 x 1024: 71 us with, 54 without).
inline constexpr count walk_from_bytes = 8 << 20;
// Below either, a second thread costs more than it brings.
inline constexpr count parallel_from_bytes = 1 << 19;
inline constexpr double parallel_from_flops = 2e6;

/** a + b of counts, or the largest count: which no workspace has room for. */
[[nodiscard]] constexpr count sum_or_most(count a, count b) noexcept {
  count sum = 0;
  return checked_add(a, b, sum) ? sum : PTRDIFF_MAX;
}

struct plan {
  const simd::kernel_table* kernels;
  const simd::form* form;
  panels batch;  // of a full turn
  std::size_t tasks;
  std::size_t x_at;         // packed x
  std::size_t h_at;         // A x, [tokens, rank] of one term
  std::size_t packed_h_at;  // scale * A x of all terms, packed
  std::size_t operands_at;
  std::size_t scratch_at;  // one part a task
  std::size_t scratch_bytes;
  std::size_t bytes;
  std::size_t active;  // terms with a rank and a scale

  /** For a call of `tokens`, whose workspace is also to serve as many tasks as a call of `most_tokens` would start. */
  plan(const simd::kernel_table& k, count tokens, count most_tokens, const ndview<const float, 2>& w, std::span<const low_rank_term> terms,
       std::size_t concurrency)
      : kernels(&k), form(kernels->form_for(tokens)), batch(*kernels, *form, turn_size(tokens)) {
    const count in = w.extent(1);
    const count out = w.extent(0);
    count widest = 0;
    count gather_depth = w.stride(1) != 1 ? in : 0;
    active = 0;
    count padded_rank_total = 0;
    for (const low_rank_term& t : terms) {
      const count rank = t.a.extent(0);
      if (rank == 0 || t.scale == 0.0f) continue;
      ++active;
      padded_rank_total = sum_or_most(padded_rank_total, batch.padded(rank));
      widest = rank > widest ? rank : widest;
      if (t.b.stride(1) != 1) gather_depth = sum_or_most(gather_depth, rank);
      if (t.a.stride(1) != 1) gather_depth = gather_depth > in ? gather_depth : in;
    }
    tasks = 1;
    // In double: views with stride 0 can have more elements than memory, and the workspace below is what refuses those.
    const double flops = 2.0 * static_cast<double>(most_tokens) * static_cast<double>(w.size());
    const bool large = w.size() >= parallel_from_bytes / 4 || flops >= parallel_from_flops;
    if (concurrency > 1 && large) {
      const auto tiles = static_cast<std::size_t>((out + detail::tile_rows(*form) - 1) / detail::tile_rows(*form));
      tasks = concurrency < tiles ? concurrency : tiles;
    }
    detail::layout l;
    const auto floats = [&](count n, count times) {
      std::size_t size = 0;
      const bool fits = checked_mul(static_cast<std::size_t>(n), static_cast<std::size_t>(times), size);
      return fits ? l.add(size, sizeof(float)) : l.add(static_cast<std::size_t>(-1), sizeof(float));
    };
    x_at = floats(batch.padded(in), batch.packed_tokens);
    h_at = floats(widest, batch.tokens);
    packed_h_at = floats(padded_rank_total, batch.packed_tokens);
    operands_at = l.add(1 + active, sizeof(operand));
    scratch_bytes = 0;
    {
      detail::layout one;
      (void)one.add(static_cast<std::size_t>(detail::tile_rows(*form) * batch.packed_tokens), sizeof(float));
      (void)one.add(1 + active, sizeof(simd::segment));
      (void)one.add(static_cast<std::size_t>(detail::tile_rows(*form)), sizeof(float));
      std::size_t gathered = 0;
      if (!checked_mul(static_cast<std::size_t>(detail::tile_rows(*form)), static_cast<std::size_t>(gather_depth), gathered))
        gathered = static_cast<std::size_t>(-1);
      (void)one.add(gathered, sizeof(float));
      scratch_bytes = one.total("forward");
    }
    scratch_at = l.add(tasks, scratch_bytes);
    bytes = l.total("forward");
  }
};

/** Rows split into contiguous ranges of whole tiles, one a task. */
[[nodiscard]] inline count split_at(count rows, count tile, std::size_t task, std::size_t tasks) noexcept {
  const count tiles = (rows + tile - 1) / tile;
  const count at = tiles * static_cast<count>(task) / static_cast<count>(tasks) * tile;
  return at < rows ? at : rows;
}

template <executor E>
void run(const plan& p, const ndview<float, 2>& y, const ndview<const float, 2>& x, const ndview<const float, 2>& w,
         std::span<const low_rank_term> terms, const ndview<const float, 1>& bias, std::byte* memory, E& ex) {
  const simd::kernel_table& k = *p.kernels;
  const count in = w.extent(1);
  const count out = w.extent(0);
  auto* packed_x = reinterpret_cast<float*>(memory + p.x_at);
  auto* h = reinterpret_cast<float*>(memory + p.h_at);
  auto* operands = reinterpret_cast<operand*>(memory + p.operands_at);
  const bool streams = w.size() >= walk_from_bytes / 4 && w.stride(1) == 1 && w.stride(0) >= in && w.stride(0) <= in + 16;

  const count turn = turn_size(x.extent(0));
  for (count first = 0; first < x.extent(0); first += turn) {
    const count tokens = x.extent(0) - first < turn ? x.extent(0) - first : turn;
    // The form follows the size of the whole call, so that a row's bits do not depend on the turn it falls into.
    const panels batch(k, *p.form, tokens);
    const float* rows_of_x = in == 0 ? nullptr : x.data() + first * x.stride(0);
    batch.pack(k, rows_of_x, x.stride(0), x.stride(1), in, 1.0f, packed_x);

    auto* packed_h = reinterpret_cast<float*>(memory + p.packed_h_at);
    operands[0] = {w.data(), w.stride(0), w.stride(1), in, packed_x};
    count used = 1;
    for (const low_rank_term& t : terms) {
      const count rank = t.a.extent(0);
      if (rank == 0 || t.scale == 0.0f) continue;
      const operand down{t.a.data(), t.a.stride(0), t.a.stride(1), in, packed_x};
      detail::run_rows({&k, &batch, &down, 1, nullptr, 1, h, rank, 1, false}, 0, rank, memory + p.scratch_at);
      batch.pack(k, h, rank, 1, rank, t.scale, packed_h);
      operands[used++] = {t.b.data(), t.b.stride(0), t.b.stride(1), rank, packed_h};
      packed_h += batch.packed_size(rank);
    }

    const detail::rows_job job{&k,          &batch,      operands, used, bias.data(), bias.stride(0), y.data() + first * y.stride(0),
                               y.stride(0), y.stride(1), streams};
    const count tile = detail::tile_rows(*p.form);
    ex.run(p.tasks, [&, tasks = p.tasks](std::size_t task) {
      detail::run_rows(job, split_at(out, tile, task, tasks), split_at(out, tile, task + 1, tasks),
                       memory + p.scratch_at + task * p.scratch_bytes);
    });
  }
}

}  // namespace detail_forward

/**
 * Bytes of workspace that forward() will use for up to `n` tokens with this matrix and these terms: reserve them once, and no later call
 * of up to that size allocates, whatever its bias and its strides of x and y.
 * @throws shape_error when they do not fit the address space.
 */
template <class Lazy = void>
[[nodiscard]] std::size_t forward_workspace_bytes(index_t n, const ndview<const float, 2>& w, std::span<const low_rank_term> terms,
                                                  std::size_t concurrency = 1, const forward_options& options = {}) {
  if (n <= 0 || w.extent(0) == 0) return 0;
  const simd::kernel_table& kernels = simd::kernels<Lazy>(options.tier);
  // The largest of all sizes: a smaller batch may need more than a larger one, whose form pads less or whose turns are shorter. Batches of
  // more than a turn have the form of a full turn.
  std::size_t bytes = detail_forward::plan(kernels, n, n, w, terms, concurrency).bytes;
  const index_t most = n < detail_forward::tokens_a_turn ? n : detail_forward::tokens_a_turn;
  for (index_t tokens = 1; tokens <= most; ++tokens) {
    const std::size_t needed = detail_forward::plan(kernels, tokens, n, w, terms, concurrency).bytes;
    bytes = needed > bytes ? needed : bytes;
  }
  return bytes;
}

/**
 * y = x W^T + bias + sum_i scale_i (x A_i^T) B_i^T.
 *
 * W is read where it lies, once for every 64 tokens. Each element of y is one chain of fused multiply-adds over `in` and then over the
 * ranks in list order, in f32, followed by the bias.
 *
 * @param y        [n, out]     written; any strides but 0
 * @param x        [n, in]      any strides
 * @param w        [out, in]    unit column stride is used in place (any row stride, any alignment); others are gathered by tiles
 * @param terms    each a [rank, in], b [out, rank], likewise; ranks may differ and be 0; list order is summation order
 * @param bias     [out], or an empty view for none; any stride
 * @param scratch  overwritten; grown when too small, so keep it
 * @throws shape_error   when extents disagree, naming both; y is untouched.
 * @throws std::bad_alloc  when the workspace must grow and cannot; y is untouched.
 * @pre y and scratch overlap no other argument (asserted when LORA_CHECKS >= 2).
 * @par Cost      2 n (out in + rank (in + out)) flops; no allocation once scratch is large enough.
 * @par Accuracy  |y - exact| <= gamma(in + R) |W||x| + gamma(in + R + 6) sum |s_i||B_i||A_i||x| + u |y|, elementwise, R being the ranks
 *                of all terms added up; the last term with a bias only. gamma(k) = k u / (1 - k u), u = 2^-24. Holds for every tier, with
 *                and without FMA, while nothing overflows or underflows; derived, underflow included, in docs/numerics.md.
 * @par Bits      Do not depend on the executor, on the position of a row in the batch, or on what other rows hold. They may differ
 *                between tiers and between sizes n of the batch.
 * @par Threads   Safe beside any call with another y and another scratch.
 */
template <int Checks = LORA_CHECKS, executor E>
void forward(ndview<float, 2> y, ndview<const float, 2> x, ndview<const float, 2> w, std::span<const low_rank_term> terms,
             ndview<const float, 1> bias, workspace& scratch, E& ex, const forward_options& options = {}) {
  detail::check_forward(y, x, w, terms, bias);
  if (y.size() == 0) return;
  if constexpr (Checks >= 2) {
    if (const char* aliasing = detail::forward_aliasing(y, x, w, terms, bias, scratch)) LORA_ASSERT_HANDLER(aliasing);
  }
  const detail_forward::plan p(simd::kernels<std::void_t<E>>(options.tier), x.extent(0), x.extent(0), w, terms, ex.concurrency());
  scratch.reserve(p.bytes);
  detail_forward::run(p, y, x, w, terms, bias, static_cast<std::byte*>(scratch.data()), ex);
}

/** As above, on the calling thread. */
template <int Checks = LORA_CHECKS>
void forward(ndview<float, 2> y, ndview<const float, 2> x, ndview<const float, 2> w, std::span<const low_rank_term> terms,
             ndview<const float, 1> bias, workspace& scratch, const forward_options& options = {}) {
  inline_executor here;
  forward<Checks>(y, x, w, terms, bias, scratch, here, options);
}

}  // namespace LORA_ISA_TAG
}  // namespace lora::inline v0

#endif
