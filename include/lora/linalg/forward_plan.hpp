// SPDX-License-Identifier: Apache-2.0
//
// What a forward call is told beside its matrices (low_rank_term, low_rank_update, forward_options), and detail: the kernels chosen for it and the layout of
// its workspace, computed before anything is written.
#ifndef LORA_LINALG_FORWARD_PLAN_HPP
#define LORA_LINALG_FORWARD_PLAN_HPP

#include <lora/linalg/columns.hpp>
#include <lora/linalg/replaced_rows.hpp>
#include <lora/linalg/workspace.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

namespace lora::inline v0 {

/** One low-rank term: a [rank, in], b [out, rank], and the factor of their product. A scale of exactly 0 switches the term off. */
struct low_rank_term {
  float_view<2> a;
  float_view<2> b;
  float scale = 1.0f;
};

/**
 * All that adapters change about one linear module: its terms, its bias, and a factor for each of its outputs,
 *
 *     y = row_factor * (W x + sum s_i B_i (A_i x)) + bias
 *
 * A list of terms is one without the rest: wherever one of these is asked for, a vector, array or span of terms will do. Views: what they
 * point into (an adapter_set) must live as long.
 */
struct low_rank_update {
  std::span<const low_rank_term> terms{};
  std::span<const float> bias{};             ///< [out], added to the base's bias or in its place; empty: none
  std::span<const float> row_factor{};       ///< [out]: of DoRA, m / |W + s B A| by rows; empty: 1
  bool replaces_bias = false;                ///< the base's bias is not added
  std::span<const replaced_rows> rows{};     ///< in place of rows of W [out, in], as of a tied lm_head
  std::span<const replaced_rows> columns{};  ///< in place of columns of W, which are rows of an embedding's table: for embed() and merged()

  constexpr low_rank_update() noexcept = default;
  constexpr low_rank_update(const low_rank_term* first, std::size_t count) noexcept : terms(first, count) {}
  template <class Terms>
    requires(!std::is_same_v<std::remove_cvref_t<Terms>, low_rank_update> &&
             std::is_convertible_v<Terms &&, std::span<const low_rank_term>>)
  constexpr low_rank_update(Terms&& list) noexcept : terms(list) {}

  /** Of terms; the bias and the factor do not count. */
  [[nodiscard]] constexpr std::size_t size() const noexcept { return terms.size(); }
  [[nodiscard]] constexpr bool empty() const noexcept { return terms.empty(); }
  [[nodiscard]] constexpr const low_rank_term& operator[](std::size_t i) const noexcept { return terms[i]; }
};

/** How elements of W are multiplied. */
enum class precision : unsigned char {
  exact,   ///< products of 16-bit elements are exact, sums are f32
  native,  ///< as `pairs` where that is faster on this CPU (simd::best_in_pairs(): AMD), else as `exact`: never slower than it
  pairs,  ///< where W and x are both bfloat16 and the CPU can, its dot product of pairs, faster or not: one rounding a product, no subnormals
};

/** What a call may choose. */
struct forward_options {
  /** The highest kernel tier to use; lower it to compare or to reproduce another machine's bits. */
  simd::tier tier = simd::tier::avx512_bf16;
  lora::precision precision = precision::exact;
  /** The same bits for a row of x alone and in any batch, whatever its size: each sum is one chain of one register. Slower from 8 tokens on. */
  bool batch_invariant = false;
};

inline namespace LORA_ISA_TAG {

namespace detail_forward {

using detail::operand;
using detail::panels;
using simd::count;

// More tokens than this are taken in turns, so that the packed x of a turn (1 MiB at in = 4096; of longer rows, a band of k: detail::bands)
// stays in L2 while W streams past it. W is read again in each turn, which costs a third of what the arithmetic of 64 tokens does and hides
// behind it. 512 tokens a turn, reading W once, ran at 57 GFLOP/s instead of 154 (M = 512, in = out = 4096, AVX-512, one thread).
inline constexpr count tokens_a_turn = 64;

[[nodiscard]] constexpr count turns_of(count tokens) noexcept { return tokens <= tokens_a_turn ? 1 : (tokens - 1) / tokens_a_turn + 1; }

/**
 * Where turn `i` begins: turns of nearly equal size, in whole registers of 16 tokens, rather than full ones and a small rest, which would
 * read all of W for few tokens (200 tokens, 4096 x 4096: 64 + 64 + 64 + 8 took 47.1 ms, 48 + 48 + 48 + 56 takes 45.0).
 */
[[nodiscard]] constexpr count turn_begin(count tokens, count i) noexcept {
  const count turns = turns_of(tokens);
  const count groups = (tokens - 1) / 16 + 1;
  const count begin = (groups / turns * i + groups % turns * i / turns) * 16;
  return begin < tokens ? begin : tokens;
}

/** Tokens of the largest turn, for which the workspace is laid out. */
[[nodiscard]] constexpr count turn_size(count tokens) noexcept {
  const count turns = turns_of(tokens);
  return turns == 1 ? tokens : ((tokens - 1) / 16 + turns) / turns * 16;
}

/**
 * How many of the turns are better computed side by side, each by one task, than one after the other by all: no task waits for the tokens that
 * another packs, and two that read the same rows of W at about the same time share them. As many as leave no task more than others.
 */
[[nodiscard]] constexpr count turns_of_tasks(count tokens, count tasks) noexcept {
  const count turns = turns_of(tokens);
  if (tasks <= 1 || turns < tasks || tokens > (count{1} << 30)) return 0;  // nobody waits for the last, and nothing here overflows
  const count apart = turns / tasks * tasks;
  const count even = apart * turn_size(tokens);
  return even - turn_begin(tokens, apart) > even / 32 ? 0 : apart;
}

// Below this many bytes W may come from a cache, where a walk, and one token of a float W, lose by fetching it again (1024 x 1024: 71 us with,
// 54 without).
inline constexpr count fetch_from_bytes = 8 << 20;
// All others fetch smaller W, too: from memory 256 to 1024 square take 0.55 to 0.85 of the time at 1 (bf16), 4 and 16 tokens, from a cache at most
// 1.07 (1.14 where fetch_twice applies). Smaller ones gain nothing: 128 x 128 of floats in a cache took 1.07 of the time at 4 tokens.
inline constexpr count fetch_small_from_bytes = 128 << 10;

/** Whether a W of so many elements is fetched ahead of its use. */
[[nodiscard]] constexpr bool fetches(count elements, dtype type, count tokens, simd::fetch how) noexcept {
  const bool small_too = how == simd::fetch::ahead && (tokens > 1 || type != dtype::f32);
  return elements >= (small_too ? fetch_small_from_bytes : fetch_from_bytes) / detail::bytes_of(type);
}
// Below either, a second thread costs more than it brings.
inline constexpr count parallel_from_bytes = 1 << 19;
inline constexpr double parallel_from_flops = 2e6;
// So many parts of W's rows a task, of which a thread that is done takes the next: 64 tokens by 4096 x 4096 on two threads took 0.85 to 0.95 of the
// time of halves where others used the machine, the same where nobody did. Fewer tokens wait for memory, which has a time of its own: 1 to 4
// took 1.02 to 1.04.
inline constexpr count parts_a_task = 4;
inline constexpr count parts_from_tokens = 24;
// A second thread pays for packing so many elements of x. Its parts are whole units of k: of turn_tokens, of pairs, of a step of any form.
inline constexpr count share_packing_from = 1 << 16;
inline constexpr count packing_unit = 128;

/** a + b of counts, or the largest count: which no workspace has room for. */
[[nodiscard]] constexpr count sum_or_most(count a, count b) noexcept {
  count sum = 0;
  return checked_add(a, b, sum) ? sum : PTRDIFF_MAX;
}

// Up to so many tokens of so few elements are each summed as one token is, so that they may take the short way (linalg/one_token.hpp). On the
// long way that takes 1.03 to 1.06 of the time; six tokens took 1.5.
inline constexpr count few_tokens = 4;
inline constexpr count few_tokens_to_depth = 64;

/** The kernels of one combination of element types, tier and options. */
struct kernel_choice {
  const simd::kernel_table* table;
  const simd::form* (*form_for)(count tokens);
  bool pairs;                     // W is read as pairs of bfloat16
  simd::pack_kernel pack_x;       // as floats
  simd::pack_kernel pack_x_as_w;  // as the kernel of W wants it
  simd::store_kernel store_y;
  simd::store_kernel store_floats;
  simd::columns_kernel columns;

  [[nodiscard]] int unit() const noexcept { return pairs ? 2 : 1; }
  /** The form for so many tokens of `in` elements. */
  [[nodiscard]] const simd::form* form_of(count tokens, count in) const noexcept {
    const bool few = tokens <= few_tokens && in <= few_tokens_to_depth && !pairs;
    return few ? table->row_form_for(tokens) : form_for(tokens);
  }
  /** Whether the kernel of W reads this operand, which is of W's type, as it is. */
  [[nodiscard]] bool reads(dtype type, dtype w) const noexcept { return type == w && !pairs; }
};

/** Whether W is read as pairs of bfloat16: in place or not at all. */
template <class X, class W>
[[nodiscard]] bool takes_pairs([[maybe_unused]] count column_stride, [[maybe_unused]] const forward_options& options) noexcept {
  if constexpr (std::is_same_v<W, bfloat16> && std::is_same_v<X, bfloat16>) {
    const bool wanted = options.precision == precision::pairs || (options.precision == precision::native && simd::active_in_pairs());
    return wanted && column_stride == 1 && simd::has_pairs(options.tier);
  } else {
    return false;
  }
}

/** `w`: only how it lies counts. */
template <class Y, class X, class W>
[[nodiscard]] kernel_choice choose(const float_view<2>& w, const forward_options& options) noexcept {
  kernel_choice c{};
  const simd::tier t = options.tier;
  c.pack_x = simd::packer<X>(t);
  c.pack_x_as_w = c.pack_x;
  c.store_y = simd::storer<Y>(t);
  c.store_floats = simd::storer<float>(t);
  c.columns = simd::columns_runner<W>(t);
  c.pairs = takes_pairs<X, W>(w.stride(1), options);
  if constexpr (std::is_same_v<W, bfloat16> && std::is_same_v<X, bfloat16>) {
    if (c.pairs) {
      c.table = &simd::kernels<simd::bfloat16_pair>(t);
      c.pack_x_as_w = simd::packer<simd::bfloat16_pair>(t);
    }
  }
  if (!c.pairs) c.table = &simd::kernels<W>(t);
  c.form_for = options.batch_invariant ? c.table->row_form_for : c.table->form_for;
  return c;
}

/** Whether a second thread pays. In double: views with stride 0 can have more elements than memory, and the workspace refuses those. */
[[nodiscard]] inline bool wants_threads(count w_size, dtype w_type, count tokens) noexcept {
  return w_size >= parallel_from_bytes / detail::bytes_of(w_type) ||
         2.0 * static_cast<double>(tokens) * static_cast<double>(w_size) >= parallel_from_flops;
}

struct plan {
  kernel_choice kernels;
  const simd::form* form;
  panels batch;  // of a full turn
  detail::bands cut;
  std::size_t tasks;
  std::size_t x_at;         // packed x, as W's kernel wants it
  std::size_t floats_at;    // packed x as floats, where that is something else and is needed
  std::size_t h_at;         // A x, [tokens, rank] of one term
  std::size_t packed_h_at;  // scale * A x of all terms, packed
  std::size_t operands_at;
  std::size_t scratch_at;  // one part a task
  std::size_t scratch_bytes;
  std::size_t turn_bytes;  // all of the above for one task
  std::size_t bytes;
  count turns_apart;   // so many turns are shared out among the tasks, each to one, with memory of its own
  std::size_t active;  // terms with a rank and a scale
  bool packs;          // x is multiplied by something besides W: a term, or rows in place of W's
  bool transposed;
  std::size_t turned_at;  // where W lies transposed: x turned, and the sums [tokens, out]
  std::size_t sums_at;

  /** For a call of `tokens`, whose workspace is also to serve as many tasks as a call of `most_tokens` would start. */
  plan(const kernel_choice& k, count tokens, count most_tokens, const float_view<2>& w, std::span<const low_rank_term> terms,
       std::size_t concurrency, bool replaces = false)
      : kernels(k), form(kernels.form_of(tokens, w.extent(1))), batch(*kernels.table, *form, turn_size(tokens)) {
    const count in = w.extent(1);
    const count out = w.extent(0);
    count widest = 0;
    transposed = detail::lies_transposed(w);
    count gather_depth = w.stride(1) != 1 && !transposed ? in : 0;
    active = 0;
    count padded_rank_total = 0;
    for (const low_rank_term& t : terms) {
      const count rank = t.a.extent(0);
      if (rank == 0 || t.scale == 0.0f) continue;
      ++active;
      padded_rank_total = sum_or_most(padded_rank_total, batch.padded(rank));
      widest = rank > widest ? rank : widest;
      const auto in_place = [&](const float_view<2>& v) {
        return v.stride(1) == 1 && (v.type() == dtype::f32 || kernels.reads(v.type(), w.type()));
      };
      if (!in_place(t.b)) gather_depth = sum_or_most(gather_depth, rank);
      if (!in_place(t.a)) gather_depth = gather_depth > in ? gather_depth : in;
    }
    cut = transposed ? detail::bands{} : detail::bands_of(batch, w.type(), simd::active_fetch(), in, kernels.unit());
    packs = active != 0 || replaces;
    tasks = 1;
    if (concurrency > 1 && wants_threads(w.size(), w.type(), most_tokens)) {
      const auto tiles = static_cast<std::size_t>((out + detail::tile_rows(*form) - 1) / detail::tile_rows(*form));
      tasks = concurrency < tiles ? concurrency : tiles;
    }
    detail::layout l;
    const auto floats = [&](count n, count times) {
      std::size_t size = 0;
      const bool fits = checked_mul(static_cast<std::size_t>(n), static_cast<std::size_t>(times), size);
      return fits ? l.add(size, sizeof(float)) : l.add(static_cast<std::size_t>(-1), sizeof(float));
    };
    turned_at = sums_at = l.add(0, 1);
    if (transposed) {
      turned_at = floats(in, batch.tokens);
      sums_at = floats(out < PTRDIFF_MAX - simd::columns_panel ? detail::sums_a_token(out) : out, batch.tokens);
    }
    x_at = l.add(0, 1);
    if (!transposed || packs) x_at = floats(batch.padded(in, kernels.unit()), batch.packed_tokens);
    floats_at = x_at;
    if (kernels.pairs && packs) floats_at = floats(batch.padded(in), batch.packed_tokens);
    h_at = floats(widest, batch.tokens);
    packed_h_at = floats(padded_rank_total, batch.packed_tokens);
    operands_at = l.add(1 + active, sizeof(operand));
    scratch_bytes = 0;
    {
      detail::layout one;
      (void)one.add(static_cast<std::size_t>(detail::tile_rows(*form) * batch.packed_tokens), sizeof(float));
      (void)one.add(1 + active, sizeof(simd::segment));
      (void)one.add(static_cast<std::size_t>(detail::tile_rows(*form)), sizeof(float));
      (void)one.add(static_cast<std::size_t>(cut.partials), sizeof(float));
      std::size_t gathered = 0;
      if (!checked_mul(static_cast<std::size_t>(detail::tile_rows(*form)), static_cast<std::size_t>(gather_depth), gathered))
        gathered = static_cast<std::size_t>(-1);
      (void)one.add(gathered, sizeof(float));
      if (transposed) (void)one.add(static_cast<std::size_t>(detail::columns_a_tile(1)), sizeof(float));
      scratch_bytes = one.total("forward");
    }
    scratch_at = l.add(0, 1);
    detail::layout alone = l;
    detail::layout apart;
    (void)alone.add(1, scratch_bytes);
    (void)l.add(tasks, scratch_bytes);
    turn_bytes = alone.total("forward");
    bytes = l.total("forward");
    turns_apart = turns_of_tasks(tokens, static_cast<count>(tasks));
    // As many as there can be, not as turns_apart says: a call on fewer threads, or of fewer tokens, needs no more.
    const auto most_turns = static_cast<std::size_t>(turns_of(most_tokens));
    (void)apart.add(tasks < most_turns ? tasks : most_turns, turn_bytes);
    const std::size_t together = apart.total("forward");
    bytes = together > bytes ? together : bytes;
  }
};

}  // namespace detail_forward
}  // namespace LORA_ISA_TAG
}  // namespace lora::inline v0

#endif
