// SPDX-License-Identifier: Apache-2.0
//
// The product that the library exists for: y = x W^T + bias + sum over terms of scale * (x A^T) B^T, in one pass over W, with W, A and B
// where they lie. Rows of x are tokens.
//
//   lora::workspace scratch;
//   const lora::low_rank_term term{a, b, scale};             // a [rank, in], b [out, rank]
//   lora::forward(y, x, w, {&term, 1}, bias, scratch);       // x [n, in], w [out, in], bias [out] or {}, y [n, out]
//
// Each of y, x, w, a, b and bias has elements of float, bfloat16 or float16, in any combination. Sums are f32; y is rounded once.
#ifndef LORA_LINALG_FORWARD_HPP
#define LORA_LINALG_FORWARD_HPP

#include <lora/linalg/forward_plan.hpp>
#include <lora/linalg/one_token.hpp>
#include <lora/nd/array.hpp>
#include <lora/nd/overlap.hpp>
#include <lora/parallel/executor.hpp>

#include <cstddef>
#include <cstdint>
#include <span>

namespace lora::inline v0 {

namespace detail {

[[noreturn, gnu::cold, gnu::noinline]] inline void raise_forward(const char* first, shape_text a, const char* second, shape_text b,
                                                                 std::size_t term, bool in_term) {
  text t;
  t << "forward: " << first << " is " << a << " but " << second << " is " << b;
  if (in_term) t << " (term " << term << ")";
  raise<shape_error>(t);
}

template <class View>
[[nodiscard]] shape_text shape_of(const View& v) noexcept {
  return {v.shape().array().data(), View::rank()};
}

[[noreturn, gnu::cold, gnu::noinline]] inline void raise_forward_span(const char* which, std::size_t size, shape_text w) {
  raise<shape_error>(text() << "forward: " << which << " of the update has " << size << " elements but w is " << w);
}

inline void check_forward(const float_view<2>& y, const float_view<2>& x, const float_view<2>& w, const low_rank_update& update,
                          const float_view<1>& bias) {
  const std::span<const low_rank_term> terms = update.terms;
  const index_t n = x.extent(0);
  const index_t in = x.extent(1);
  const index_t out = w.extent(0);
  if (w.extent(1) != in) raise_forward("w", shape_of(w), "x", shape_of(x), 0, false);
  if (y.extent(0) != n) raise_forward("y", shape_of(y), "x", shape_of(x), 0, false);
  if (y.extent(1) != out) raise_forward("y", shape_of(y), "w", shape_of(w), 0, false);
  if (bias.data() != nullptr && bias.extent(0) != out) raise_forward("bias", shape_of(bias), "w", shape_of(w), 0, false);
  if (!update.bias.empty() && update.bias.size() != static_cast<std::size_t>(out))
    raise_forward_span("the bias", update.bias.size(), shape_of(w));
  if (!update.row_factor.empty() && update.row_factor.size() != static_cast<std::size_t>(out))
    raise_forward_span("the row factor", update.row_factor.size(), shape_of(w));
  for (std::size_t i = 0; i < terms.size(); ++i) {
    const auto& [a, b, scale] = terms[i];
    if (a.extent(1) != in) raise_forward("a", shape_of(a), "x", shape_of(x), i, true);
    if (b.extent(0) != out) raise_forward("b", shape_of(b), "w", shape_of(w), i, true);
    if (b.extent(1) != a.extent(0)) raise_forward("b", shape_of(b), "a", shape_of(a), i, true);
  }
  check_replaced("forward", update.rows, out, in);
  if (!update.columns.empty())
    raise<value_error>(text() << "forward: the update replaces columns of w, the rows of an embedding's table: pass it to embed()");
  for (std::size_t axis = 0; axis < 2; ++axis)
    if (y.stride(axis) == 0 && y.extent(axis) > 1 && y.size() != 0)
      raise<shape_error>(text() << "forward: y of shape " << shape_of(y)
                                << " has stride 0: several results would be written to one element");
}

/** What LORA_CHECKS >= 2 asserts before the first write; a pointer to the sentence, or null when all is well. */
[[nodiscard]] inline const char* forward_aliasing(const float_view<2>& y, const float_view<2>& x, const float_view<2>& w,
                                                  const low_rank_update& update, const float_view<1>& bias, workspace& scratch) {
  const auto overlap = [](const auto& a, const auto& b) {
    return a.visit([&](const auto& va) { return b.visit([&](const auto& vb) { return may_overlap(va, vb); }); });
  };
  const bool has_bias = bias.data() != nullptr;
  if (y.visit([](const auto& v) { return may_overlap_itself(v); })) return "forward: elements of y share an address";
  if (overlap(y, x) || overlap(y, w) || (has_bias && overlap(y, bias))) return "forward: y overlaps x, w or bias";
  const auto vector = [](std::span<const float> s) { return float_view<1>(ndview<const float, 1>(s.data(), {s.size()})); };
  if (overlap(y, vector(update.bias)) || overlap(y, vector(update.row_factor)))
    return "forward: y overlaps the update's bias or row factor";
  for (const low_rank_term& t : update.terms)
    if (overlap(y, t.a) || overlap(y, t.b)) return "forward: y overlaps a or b of a term";
  for (const replaced_rows& r : update.rows)
    if (overlap(y, float_view<2>(r.rows))) return "forward: y overlaps the update's rows";
  const float_view<1> memory = ndview<const float, 1>(static_cast<const float*>(scratch.data()), {scratch.size_bytes() / sizeof(float)});
  if (overlap(memory, y) || overlap(memory, x) || overlap(memory, w) || (has_bias && overlap(memory, bias)))
    return "forward: scratch overlaps y, x, w or bias";
  if (overlap(memory, vector(update.bias)) || overlap(memory, vector(update.row_factor)))
    return "forward: scratch overlaps the update's bias or row factor";
  for (const low_rank_term& t : update.terms)
    if (overlap(memory, t.a) || overlap(memory, t.b)) return "forward: scratch overlaps a or b of a term";
  for (const replaced_rows& r : update.rows)
    if (overlap(memory, float_view<2>(r.rows))) return "forward: scratch overlaps the update's rows";
  return nullptr;
}

}  // namespace detail

inline namespace LORA_ISA_TAG {

namespace detail_forward {

/** The base's bias and what the update makes of it. */
[[nodiscard]] inline detail::epilogue finish_of(const low_rank_update& update, const float_view<1>& base) noexcept {
  detail::epilogue e;
  if (!update.replaces_bias) e.bias = base;
  if (!update.bias.empty()) {
    if (e.bias.data() != nullptr)
      e.more = update.bias.data();
    else
      e.bias = float_view<1>(ndview<const float, 1>(update.bias.data(), {update.bias.size()}));
  }
  if (!update.row_factor.empty()) e.factor = update.row_factor.data();
  return e;
}

/** Part `i` of `parts` of [0, whole), in whole units: where it begins. */
[[nodiscard]] inline count split_at(count whole, count unit, count i, count parts) noexcept {
  const count units = (whole + unit - 1) / unit;
  const count at = (units / parts * i + units % parts * i / parts) * unit;
  return at < whole ? at : whole;
}

/**
 * f(i, task) for every part i: tasks take the next one when they are done with one, so that a thread that is late or slow holds up no
 * other for long. Not one task a part, because memory is laid out one share a task: of task t, f has share t to itself.
 */
template <executor E, class F>
void share(E& ex, std::size_t tasks, count parts, const F& f) {
  if (tasks <= 1 || parts <= 1) {
    for (count i = 0; i < parts; ++i) f(i, std::size_t{0});
    return;
  }
  count next = 0;
  ex.run(tasks < static_cast<std::size_t>(parts) ? tasks : static_cast<std::size_t>(parts), [&](std::size_t task) {
    // Relaxed: the counter hands out numbers; what parts write is ordered by the executor.
    for (count i = 0; (i = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED)) < parts;) f(i, task);
  });
}

/** Into how many parts of whole units a loop over [0, whole) is cut: so many for each task, or as many as there are units. */
[[nodiscard]] inline count parts_for(std::size_t tasks, count whole, count unit, count each) noexcept {
  const count units = (whole + unit - 1) / unit;
  if (tasks <= 1) return units < 1 ? units : 1;
  return units / each < static_cast<count>(tasks) ? units : each * static_cast<count>(tasks);
}

/** The operands of a call whose shapes agree, y's elements of any type. */
struct operands_of_call {
  void* y_data;
  const float_view<2>& y;
  const float_view<2>& x;
  const float_view<2>& w;
  const low_rank_update& update;
  const detail::epilogue& finish;
};

/** Turn `turn` of the call, on up to so many tasks of `ex`. */
template <executor E>
void run_turn(const plan& p, const operands_of_call& c, count turn, std::byte* memory, std::size_t most_tasks, E& ex) {
  const float_view<2>& y = c.y;
  const float_view<2>& x = c.x;
  const float_view<2>& w = c.w;
  const low_rank_update& update = c.update;
  const detail::epilogue& finish = c.finish;
  const std::span<const low_rank_term> terms = update.terms;
  const simd::kernel_table& k = *p.kernels.table;
  const count in = w.extent(1);
  const count out = w.extent(0);
  const count x_size = detail::bytes_of(x.type());
  const count y_size = detail::bytes_of(y.type());
  const count w_size = detail::bytes_of(w.type());
  auto* packed_x = reinterpret_cast<float*>(memory + p.x_at);
  auto* packed_floats = reinterpret_cast<float*>(memory + p.floats_at);
  auto* h = reinterpret_cast<float*>(memory + p.h_at);
  auto* operands = reinterpret_cast<operand*>(memory + p.operands_at);
  auto* turned = reinterpret_cast<float*>(memory + p.turned_at);
  const auto scratch = [&p, memory](std::size_t task) { return memory + p.scratch_at + task * p.scratch_bytes; };
  const count tile = detail::tile_rows(*p.form);
  // Rows that follow each other with hardly a gap (pack() leaves less than two lines), in a matrix that is worth fetching.
  const bool streams = fetches(w.size(), w.type(), x.extent(0), simd::active_fetch()) && w.stride(1) == 1 && w.stride(0) >= in &&
                       w.stride(0) <= in + 128 / w_size;
  const simd::fetch fetch = streams ? simd::active_fetch() : simd::fetch::hardware;

  const count first = turn_begin(x.extent(0), turn);
  const count tokens = turn_begin(x.extent(0), turn + 1) - first;
  // The form follows the size of the whole call, so that a row's bits do not depend on the turn it falls into.
  const panels batch(k, *p.form, tokens);
  const char* rows_of_x = in == 0 ? nullptr : static_cast<const char*>(x.data()) + first * x.stride(0) * x_size;
  const std::size_t packers = tokens * in >= share_packing_from ? most_tasks : 1;
  const count pieces = parts_for(packers, in, packing_unit, parts_a_task);
  share(ex, packers, pieces, [&](count piece, std::size_t) {
    const count from = split_at(in, packing_unit, piece, pieces);
    const count to = split_at(in, packing_unit, piece + 1, pieces);
    const auto pack = [&](simd::pack_kernel kernel, float* to_floats, int unit) {
      batch.pack(kernel, rows_of_x, x_size, x.stride(0), x.stride(1), in, from, to, 1.0f, to_floats, unit);
    };
    if (!p.transposed || p.packs) pack(p.kernels.pack_x_as_w, packed_x, p.kernels.unit());
    if (packed_floats != packed_x) pack(p.kernels.pack_x, packed_floats, 1);
    if (p.transposed) detail::turn_tokens(k, x, first, tokens, from, to, turned);
  });

  auto* packed_h = reinterpret_cast<float*>(memory + p.packed_h_at);
  operands[0] = {w.data(), w.type(), true, p.kernels.unit(), w.stride(0), w.stride(1), in, packed_x};
  count used = 1;
  for (const low_rank_term& t : terms) {
    const count rank = t.a.extent(0);
    if (rank == 0 || t.scale == 0.0f) continue;
    const operand down{t.a.data(), t.a.type(), p.kernels.reads(t.a.type(), w.type()), 1, t.a.stride(0), t.a.stride(1), in, packed_floats};
    const detail::rows_job job{&k, &batch, &down, 1, {}, p.kernels.store_floats, h, sizeof(float), rank, 1, simd::fetch::hardware,
                               {}, p.cut};
    const bool large = 2.0 * static_cast<double>(tokens) * static_cast<double>(rank) * static_cast<double>(in) >= parallel_from_flops;
    const count R = p.form->rows;
    const std::size_t tasks = large ? most_tasks : 1;
    const count parts = parts_for(tasks, rank, R, parts_a_task);
    share(ex, tasks, parts, [&](count part, std::size_t task) {
      detail::run_rows(job, split_at(rank, R, part, parts), split_at(rank, R, part + 1, parts), scratch(task));
    });
    batch.pack(k.pack_floats, h, sizeof(float), rank, 1, rank, 0, rank, t.scale, packed_h);
    operands[used++] = {t.b.data(), t.b.type(), p.kernels.reads(t.b.type(), w.type()), 1, t.b.stride(0), t.b.stride(1), rank, packed_h};
    packed_h += batch.packed_size(rank);
  }

  char* const rows_of_y = static_cast<char*>(c.y_data) + first * y.stride(0) * y_size;
  // Outputs whose rows of W are replaced: computed as all are, and then anew, with those rows. They are few.
  const auto compute_replaced = [&, used, rows_of_y] {
    for (const replaced_rows& r : update.rows) {
      operands[0] = {r.rows.data(), dtype::f32, p.kernels.reads(dtype::f32, w.type()), 1, r.rows.stride(0), 1, in, packed_floats, r.first};
      const detail::rows_job job{
          &k, &batch, operands, used, finish, p.kernels.store_y, rows_of_y, y_size, y.stride(0), y.stride(1), simd::fetch::hardware,
          {}, {}};
      detail::run_rows(job, r.first, r.first + r.rows.extent(0), scratch(0));
    }
  };
  if (p.transposed) {
    auto* sums = reinterpret_cast<float*>(memory + p.sums_at);
    const detail::rows_job low{
        &k, &batch, operands + 1, used - 1, {}, p.kernels.store_floats, sums, sizeof(float), simd::columns_panel, 1, simd::fetch::hardware,
        {}, {}};
    const simd::fetch how = w.size() >= fetch_from_bytes / w_size ? simd::active_fetch() : simd::fetch::hardware;
    const int times = how == simd::fetch::hardware                                                            ? 0
                      : how == simd::fetch::ahead && tokens <= simd::fetched_twice_to(w.type() == dtype::f32) ? 2
                                                                                                              : 1;
    const detail::transposed_job job{&k,     p.kernels.columns, p.kernels.store_y, w,    turned, tokens, sums, finish, rows_of_y,
                                     y_size, y.stride(0),       y.stride(1),       times};
    // A part a task: narrower ones would read less of each row of W at a time.
    const auto parts = static_cast<count>(most_tasks);
    share(ex, most_tasks, parts, [&](count part, std::size_t task) {
      const count begin = split_at(out, simd::columns_panel, part, parts);
      const count end = split_at(out, simd::columns_panel, part + 1, parts);
      // The low-rank terms first, then W on top of them.
      if (low.operand_count != 0)
        detail::start_sums(low, sums, tokens, begin, end, scratch(task));
      else
        detail::clear_sums(sums, tokens, begin, end);
      detail::run_transposed(job, begin, end, reinterpret_cast<float*>(scratch(task)));
    });
    compute_replaced();
    return;
  }
  const count parts = parts_for(most_tasks, out, tile, tokens < parts_from_tokens ? 1 : parts_a_task);
  const simd::ahead_by ahead = detail::fetch_distance(w.type(), out / static_cast<count>(most_tasks), in, tokens);
  const detail::rows_job job{&k,          &batch,      operands, used,  finish, p.kernels.store_y, rows_of_y, y_size,
                             y.stride(0), y.stride(1), fetch,    ahead, p.cut};
  share(ex, most_tasks, parts, [&](count part, std::size_t task) {
    detail::run_rows(job, split_at(out, tile, part, parts), split_at(out, tile, part + 1, parts), scratch(task));
  });
  compute_replaced();
}

template <executor E>
void run(const plan& p, const operands_of_call& c, std::byte* memory, E& ex) {
  // Whole turns side by side, where no task gets more tokens than another, and after these each one by all tasks.
  share(ex, p.tasks, p.turns_apart, [&](count turn, std::size_t task) {
    inline_executor here;
    run_turn(p, c, turn, memory + task * p.turn_bytes, 1, here);
  });
  for (count turn = p.turns_apart; turn < turns_of(c.x.extent(0)); ++turn) run_turn(p, c, turn, memory, p.tasks, ex);
}

/** What forward() takes as an operand: a view or a named array of float, bfloat16 or float16, two axes. */
template <class V>
concept matrix = detail::viewable<V> && requires(V& v) {
  requires float_element<typename decltype(detail::as_view(v))::value_type>;
  requires decltype(detail::as_view(v))::rank() == 2;
};
template <class V>
using element_t = typename decltype(detail::as_view(std::declval<V&>()))::value_type;

}  // namespace detail_forward

/**
 * Bytes of workspace that forward() will use for up to `n` tokens with this matrix and these terms, on an executor of that concurrency():
 * one turn of at most 64 tokens, and one for each thread where there are as many turns. Reserve them once, and no later call of up to that size allocates, whatever its bias and its strides of x and y. For x of another type than W, or of y, pass them as X and Y.
 * @throws shape_error when they do not fit the address space.
 */
template <class X = void, class Y = float, detail_forward::matrix W>
[[nodiscard]] std::size_t forward_workspace_bytes(index_t n, const W& weight, const low_rank_update& update, std::size_t concurrency = 1,
                                                  const forward_options& options = {}) {
  using element = detail_forward::element_t<const W>;
  using token = std::conditional_t<std::is_void_v<X>, element, X>;
  const float_view<2> w = detail::as_view(weight);
  if (n <= 0 || w.extent(0) == 0) return 0;
  const auto kernels = detail_forward::choose<Y, token, element>(w, options);
  // The largest of all sizes: a smaller batch may need more than a larger one, whose form pads less or whose turns are shorter. Batches of
  // more than a turn have the form of a full turn.
  std::size_t bytes = detail_forward::plan(kernels, n, n, w, update.terms, concurrency, !update.rows.empty()).bytes;
  const index_t most = n < detail_forward::tokens_a_turn ? n : detail_forward::tokens_a_turn;
  for (index_t tokens = 1; tokens <= most; ++tokens) {
    const std::size_t needed = detail_forward::plan(kernels, tokens, n, w, update.terms, concurrency, !update.rows.empty()).bytes;
    bytes = needed > bytes ? needed : bytes;
  }
  return bytes;
}

/**
 * y = x W^T + bias + sum_i scale_i (x A_i^T) B_i^T.
 *
 * W is read where it lies: once for up to 64 tokens, and in larger batches once for every 64. Each
 * element of y is one chain of fused multiply-adds over `in` and then over the ranks in list order, in f32, followed by the row factor of the
 * update, the bias and one rounding to y's type.
 *
 * @param y        [n, out]     view or array, written; any strides but 0
 * @param x        [n, in]      view or array, any strides
 * @param w        [out, in]    view or array; unit column stride is used in place (any row stride, any alignment), others are gathered by tiles
 * @param update   a list of terms, each a [rank, in], b [out, rank], likewise; ranks may differ and be 0; list order is summation order.
 *                 Or what adapter_set gives for a module: terms, a bias (added to `bias`, or in its place), a factor for each row of w, and
 *                 rows in place of some of w's
 * @param bias     [out], the base's own, or {} for none; any stride
 * @param scratch  overwritten; grown when too small, so keep it
 * @throws shape_error   when extents disagree, naming both; y is untouched.
 * @throws std::bad_alloc  when the workspace must grow and cannot; y is untouched.
 * @pre y and scratch overlap no other argument (asserted when LORA_CHECKS >= 2).
 * @par Cost      2 n (out in + rank (in + out)) flops; no allocation once scratch is large enough.
 * @par Accuracy  |y - exact| <= gamma(in + R) |W||x| + gamma(in + R + 6) sum |s_i||B_i||A_i||x| + u |y|, elementwise, R being the ranks
 *                of all terms added up; the last term with a bias only, and once more with y's own roundoff where y is not f32.
 *                gamma(k) = k u / (1 - k u), u = 2^-24. Holds for every tier, with and without FMA, while nothing overflows or underflows;
 *                derived, underflow and precision::native included, in docs/numerics.md.
 *                With a row factor f and a bias of the update, |f| times all but u |y|, and u (|f S| + |bias| + |update's|) more.
 * @par Bits      Do not depend on the executor, on the position of a row in the batch, or on what other rows hold. They may differ
 *                between tiers, precisions and, unless batch_invariant, sizes n of the batch.
 * @par Threads   Safe beside any call with another y and another scratch.
 */
template <int Checks = LORA_CHECKS, detail_forward::matrix Y, detail_forward::matrix X, detail_forward::matrix W, executor E>
void forward(Y&& y, const X& x, const W& w, const low_rank_update& update, float_view<1> bias, workspace& scratch, E& ex,
             const forward_options& options = {}) {
  const auto to = detail::as_view(y);
  static_assert(!std::is_const_v<typename decltype(detail::as_view(y))::element_type>, "lora: forward writes to a read-only view");
  const auto from = detail::as_view(x);
  const auto rows = detail::as_view(w);
  if constexpr (Checks < 2)
    if (detail_forward::forward_short(to, from, rows, update, bias, scratch, ex.concurrency(), options)) return;
  const float_view<2> out = to;
  const float_view<2> tokens = from;
  const float_view<2> weight = rows;
  detail::check_forward(out, tokens, weight, update, bias);
  if (out.size() == 0) return;
  if constexpr (Checks >= 2) {
    if (const char* aliasing = detail::forward_aliasing(out, tokens, weight, update, bias, scratch)) LORA_ASSERT_HANDLER(aliasing);
    if (detail_forward::forward_short(to, from, rows, update, bias, scratch, ex.concurrency(), options)) return;
  }
  const detail::epilogue finish = detail_forward::finish_of(update, bias);
  const auto kernels =
      detail_forward::choose<detail_forward::element_t<Y>, detail_forward::element_t<const X>, detail_forward::element_t<const W>>(weight,
                                                                                                                                   options);
  const detail_forward::plan p(kernels, tokens.extent(0), tokens.extent(0), weight, update.terms, ex.concurrency(), !update.rows.empty());
  scratch.reserve(p.bytes);
  detail_forward::run(p, {to.data(), out, tokens, weight, update, finish}, static_cast<std::byte*>(scratch.data()), ex);
}

/** As above, on the calling thread. */
template <int Checks = LORA_CHECKS, detail_forward::matrix Y, detail_forward::matrix X, detail_forward::matrix W>
void forward(Y&& y, const X& x, const W& w, const low_rank_update& update, float_view<1> bias, workspace& scratch,
             const forward_options& options = {}) {
  inline_executor here;
  forward<Checks>(y, x, w, update, bias, scratch, here, options);
}

/** For floats all three, so that y, x and w may also be written in braces: {pointer, {n, out}}. */
template <int Checks = LORA_CHECKS, executor E>
void forward(ndview<float, 2> y, ndview<const float, 2> x, ndview<const float, 2> w, const low_rank_update& update, float_view<1> bias,
             workspace& scratch, E& ex, const forward_options& options = {}) {
  forward<Checks, ndview<float, 2>&, ndview<const float, 2>, ndview<const float, 2>>(y, x, w, update, bias, scratch, ex, options);
}
template <int Checks = LORA_CHECKS>
void forward(ndview<float, 2> y, ndview<const float, 2> x, ndview<const float, 2> w, const low_rank_update& update, float_view<1> bias,
             workspace& scratch, const forward_options& options = {}) {
  inline_executor here;
  forward<Checks, ndview<float, 2>&, ndview<const float, 2>, ndview<const float, 2>>(y, x, w, update, bias, scratch, here, options);
}

}  // namespace LORA_ISA_TAG
}  // namespace lora::inline v0

#endif
