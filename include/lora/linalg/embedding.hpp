// SPDX-License-Identifier: Apache-2.0
//
// embed: rows of an embedding's table, looked up by token, with adapters: y_t = embed_scale * factor * (table[id_t] + sum s_i B_i A_i[:, id_t]).
// merged_table: the table with the adapters in it, in its own order. The output side of a tied table is an ordinary forward().
//
//   lora::workspace scratch;
//   lora::embed(y, ids, table, set[embed_tokens], scratch);                                  // y [n, width], ids [n], table [tokens, width]
//   lora::embed(y, ids, table, set[embed_tokens], scratch, {.embed_scale = std::sqrt(2048.0f)});   // Gemma
//   lora::ndarray<float, 2> merged = lora::merged_table(table, set[embed_tokens]);           // [tokens, width], for a file
#ifndef LORA_LINALG_EMBEDDING_HPP
#define LORA_LINALG_EMBEDDING_HPP

#include <lora/linalg/merge.hpp>
#include <lora/simd/transpose.hpp>

#include <cmath>
#include <cstdint>

namespace lora::inline v0 {

/** What a call of embed() may choose. */
struct embed_options {
  /** Multiplies the finished row, base and adapters alike. Gemma's embedding has sqrt(width), which PEFT applies to its terms too. */
  float embed_scale = 1.0f;
  /** The highest kernel tier to use. */
  simd::tier tier = simd::tier::avx512_bf16;
};

namespace detail {

/** Checks all of a call but the indices: embed() and merged_table() alike. */
inline void check_table(const char* operation, const float_view<2>& table, const low_rank_update& update) {
  const auto refuse = [&](const char* which, shape_text shape, std::size_t term) {
    raise<shape_error>(text() << operation << ": " << which << " is " << shape << " but table [tokens, width] is " << shape_of(table)
                              << " (term " << term << ")");
  };
  for (std::size_t i = 0; i < update.terms.size(); ++i) {
    const auto& [a, b, scale] = update.terms[i];
    if (a.extent(1) != table.extent(0)) refuse("a [rank, tokens]", shape_of(a), i);
    if (b.extent(0) != table.extent(1)) refuse("b [width, rank]", shape_of(b), i);
    if (b.extent(1) != a.extent(0))
      raise<shape_error>(text() << operation << ": b is " << shape_of(b) << " but a is " << shape_of(a) << " (term " << i << ")");
  }
  if (!update.row_factor.empty() && update.row_factor.size() != static_cast<std::size_t>(table.extent(1)))
    raise<shape_error>(text() << operation << ": the row factor of the update has " << update.row_factor.size()
                              << " elements but table [tokens, width] is " << shape_of(table));
  if (!update.bias.empty() || update.replaces_bias)
    raise<value_error>(text() << operation << ": the update has a bias, which an embedding has no place for");
  if (!update.rows.empty())
    raise<value_error>(text() << operation << ": the update is that of a linear layer: it replaces rows of W [out, in]");
  check_replaced(operation, update.columns, table.extent(0), table.extent(1));
}

/** Refuses the first index outside the table. */
template <class Id>
void check_ids(const ndview<const Id, 1>& ids, const float_view<2>& table) {
  for (index_t i = 0; i < ids.extent(0); ++i) {
    const Id id = *(ids.data() + i * ids.stride(0));
    if (id < 0 || static_cast<std::int64_t>(id) >= static_cast<std::int64_t>(table.extent(0)))
      raise<index_error>(text() << "embed: ids[" << i << "] is " << static_cast<std::int64_t>(id) << ", outside the " << table.extent(0)
                                << " tokens of table " << shape_of(table));
  }
}

}  // namespace detail

inline namespace LORA_ISA_TAG {

namespace detail_embed {

using simd::count;

// B is turned once for so many tokens, [rank, columns] floats, so that a token's row is summed along the row: as merged() does, and with its
// kernel. Turning B for one token alone costs three times the sum; nothing beside one layer of the model that follows.
inline constexpr count tokens_at_once = 64;

struct plan {
  count ranks = 0;    // of all terms that count
  count columns = 0;  // of the table, at once
  std::size_t panel_at = 0;
  std::size_t row_at = 0;
  std::size_t factor_at = 0;
  std::size_t bytes = 0;

  plan(count width, const low_rank_update& update, const char* operation) {
    for (const low_rank_term& t : update.terms)
      if (t.scale != 0.0f && !checked_add(ranks, t.a.extent(0), ranks))
        detail::raise<shape_error>(detail::text() << operation << ": the ranks of all terms together do not fit an index");
    const count most = detail_merge::columns_at_once(ranks);
    columns = most < width ? most : width;
    detail::layout l;
    std::size_t low = 0;
    std::size_t panel = 0;
    const auto r = static_cast<std::size_t>(ranks);
    if (!checked_mul(r, static_cast<std::size_t>(tokens_at_once), low) || !checked_mul(r, static_cast<std::size_t>(columns), panel))
      low = panel = static_cast<std::size_t>(-1);
    (void)l.add(low, sizeof(float));
    panel_at = l.add(panel, sizeof(float));
    row_at = l.add(static_cast<std::size_t>(columns), sizeof(float));
    factor_at = l.add(static_cast<std::size_t>(columns), sizeof(float));
    bytes = l.total(operation);
  }
};

/** One call, without its types. */
struct lookup {
  const simd::kernel_table* kernels;
  simd::store_kernel store;
  simd::tier tier;
  void* y;
  count y_size;  // bytes of an element
  count y_row_stride;
  count y_column_stride;
  const void* ids;  // null: 0, 1, 2, ...
  bool wide;        // std::int64_t; else std::int32_t
  count ids_stride;
  count tokens;
  float embed_scale;

  [[nodiscard]] count id(count t) const noexcept {
    if (ids == nullptr) return t;
    if (wide) return static_cast<count>(static_cast<const std::int64_t*>(ids)[t * ids_stride]);
    return static_cast<const std::int32_t*>(ids)[t * ids_stride];
  }
};

[[nodiscard]] inline const char* element_of(const float_view<2>& v, count i, count j) noexcept {
  return static_cast<const char*>(v.data()) + (i * v.stride(0) + j * v.stride(1)) * detail::bytes_of(v.type());
}

/** Columns [first, first + n) of B', [rank, n] of `stride`, as floats. */
template <class Isa = simd::isa_tag>
void turn_b(const simd::kernel_table& k, simd::tier tier, const float_view<2>& b, count first, count n, float* to, count stride) noexcept {
  if (b.type() == dtype::f32 && b.stride(1) == 1 && b.extent(1) > 1) {
    simd::transpose<4>(element_of(b, first, 0), b.stride(0) * 4, reinterpret_cast<char*>(to), stride * 4, n, b.extent(1), false, tier);
    return;
  }
  for (count j = 0; j < b.extent(1); ++j) detail::widen(k, b.type(), element_of(b, first, j), b.stride(0), to + j * stride, n);
}

template <class Isa = simd::isa_tag>
void run(const lookup& l, const plan& p, const float_view<2>& table, const low_rank_update& update, std::byte* memory) noexcept {
  const simd::kernel_table& k = *l.kernels;
  const count width = table.extent(1);
  auto* const low = reinterpret_cast<float*>(memory);
  auto* const panel = reinterpret_cast<float*>(memory + p.panel_at);
  auto* const row = reinterpret_cast<float*>(memory + p.row_at);
  auto* const scaled = reinterpret_cast<float*>(memory + p.factor_at);
  const float* const factor = update.row_factor.empty() ? nullptr : update.row_factor.data();
  for (count begin = 0; begin < l.tokens; begin += tokens_at_once) {
    const count n = l.tokens - begin < tokens_at_once ? l.tokens - begin : tokens_at_once;
    if (p.ranks != 0)
      for (count t = 0; t < n; ++t) {
        float* to = low + t * p.ranks;
        for (const low_rank_term& term : update.terms) {
          if (term.scale == 0.0f || term.a.extent(0) == 0) continue;
          detail::widen(k, term.a.type(), element_of(term.a, 0, l.id(begin + t)), term.a.stride(0), to, term.a.extent(0));
          to += term.a.extent(0);
        }
      }
    for (count c = 0; c < width; c += p.columns) {
      const count columns = width - c < p.columns ? width - c : p.columns;
      float* to = panel;
      for (const low_rank_term& term : update.terms) {
        if (term.scale == 0.0f || term.a.extent(0) == 0) continue;
        turn_b(k, l.tier, term.b, c, columns, to, p.columns);
        to += term.a.extent(0) * p.columns;
      }
      const float* times = factor == nullptr ? nullptr : factor + c;
      if (l.embed_scale != 1.0f) {
        for (count i = 0; i < columns; ++i) scaled[i] = times == nullptr ? l.embed_scale : l.embed_scale * times[i];
        times = scaled;
      }
      for (count t = 0; t < n; ++t) {
        const count id = l.id(begin + t);
        if (const float* own = update.columns.empty() ? nullptr : detail::replacement(update.columns, id))
          k.widen[0](own + c, row, columns);
        else
          detail::widen(k, table.type(), element_of(table, id, c), table.stride(1), row, columns);
        const float* coefficients = low + t * p.ranks;
        const float* b = panel;
        for (const low_rank_term& term : update.terms) {
          const count rank = term.scale == 0.0f ? 0 : term.a.extent(0);
          if (rank == 0) continue;
          k.merge({row, coefficients, 1, b, p.columns, rank, term.scale, columns, row});
          coefficients += rank;
          b += rank * p.columns;
        }
        l.store({row, 1, columns, 1, nullptr, static_cast<char*>(l.y) + ((begin + t) * l.y_row_stride + c * l.y_column_stride) * l.y_size,
                 l.y_row_stride, l.y_column_stride, times});
      }
    }
  }
}

/** What embed() takes as indices: a view or a named array of one axis. */
template <class V>
concept indices = detail::viewable<V> && requires(V& v) {
  requires std::is_same_v<std::remove_const_t<typename decltype(detail::as_view(v))::value_type>, std::int32_t> ||
               std::is_same_v<std::remove_const_t<typename decltype(detail::as_view(v))::value_type>, std::int64_t>;
  requires decltype(detail::as_view(v))::rank() == 1;
};

/** What LORA_CHECKS >= 2 asserts before the first write; a pointer to the sentence, or null when all is well. */
template <class Y, class Id>
[[nodiscard]] const char* aliasing(const ndview<Y, 2>& y, const ndview<const Id, 1>& ids, const float_view<2>& table,
                                   const low_rank_update& update, workspace& scratch) {
  const ndview<const float, 1> memory(static_cast<const float*>(scratch.data()), {scratch.size_bytes() / sizeof(float)});
  const auto overlap = [](const auto& a, const float_view<2>& b) { return b.visit([&](const auto& v) { return may_overlap(a, v); }); };
  const auto factor = ndview<const float, 1>(update.row_factor.data(), {update.row_factor.size()});
  if (may_overlap_itself(y)) return "embed: elements of y share an address";
  if (overlap(y, table) || may_overlap(y, ids) || may_overlap(y, factor)) return "embed: y overlaps table, ids or the row factor";
  if (overlap(memory, table) || may_overlap(memory, ids) || may_overlap(memory, factor) || may_overlap(memory, y))
    return "embed: scratch overlaps y, table, ids or the row factor";
  for (const low_rank_term& t : update.terms)
    if (overlap(y, t.a) || overlap(y, t.b) || overlap(memory, t.a) || overlap(memory, t.b))
      return "embed: y or scratch overlaps a or b of a term";
  for (const replaced_rows& r : update.columns)
    if (may_overlap(y, r.rows) || may_overlap(memory, r.rows)) return "embed: y or scratch overlaps the update's rows";
  return nullptr;
}

}  // namespace detail_embed

/** Bytes of workspace that embed() uses for this table and update, whatever the number of tokens. @throws shape_error when they do not fit. */
template <detail_forward::matrix Table>
[[nodiscard]] std::size_t embed_workspace_bytes(const Table& table, const low_rank_update& update) {
  return detail_embed::plan(detail::as_view(table).extent(1), update, "embed").bytes;
}

/**
 * y_t = embed_scale * row_factor * (table[ids_t] + sum_i scale_i B_i A_i[:, ids_t]): a row of the table for each token, as PEFT's lora.Embedding
 * with W = table^T [width, tokens], and its DoRA, whose norms run over the vocabulary. A token whose row the update replaces (its `columns`)
 * has that row in place of the table's.
 *
 * @param y        [n, width]       view or array, written; any strides but 0
 * @param ids      [n]              std::int32_t or std::int64_t, any stride; 0 <= id < tokens, from the front: there are no negative indices
 * @param table    [tokens, width]  as a file holds it; any strides
 * @param update   what adapter_set gives for the module, or a list of terms: a [rank, tokens], b [width, rank], any strides
 * @param scratch  overwritten; grown when too small, so keep it: see embed_workspace_bytes()
 * @throws index_error  naming position and value, when an id is outside the table; y is untouched, as with all that follow.
 * @throws shape_error  when extents disagree, naming both.
 * @throws value_error  when the update has a bias or is that of a linear layer, or embed_scale is not finite.
 * @throws std::bad_alloc  when the workspace must grow and cannot.
 * @pre y and scratch overlap no other argument (asserted when LORA_CHECKS >= 2).
 * @par Cost      n width rank multiply-adds, B turned once for 64 tokens; reads rank elements of A a token, `tokens` apart.
 *                No allocation once scratch is large enough.
 * @par Accuracy  One f32 chain an element, from the table's on, then the factors, then one rounding to y's type:
 *                |error| <= |embed_scale factor| (gamma(R + 2) |table| + gamma(R + 4) sum |s_i||B_i||A_i|), R being the ranks added up, and
 *                u |y| more where y is not f32. PEFT rounds to the table's type after every step; with an f32 table it is as exact.
 * @par Bits      A row's depend on its id alone, not on the batch: embed() of id t is row t of merged_table(), where embed_scale is 1.
 * @par Threads   Safe beside any call with another y and another scratch. Takes no executor: split ids and y, the bits stay the same.
 */
template <int Checks = LORA_CHECKS, detail_forward::matrix Y, detail_embed::indices Ids, detail_forward::matrix Table>
void embed(Y&& y, const Ids& ids, const Table& table, const low_rank_update& update, workspace& scratch,
           const embed_options& options = {}) {
  const auto to = detail::as_view(y);
  static_assert(!std::is_const_v<typename decltype(detail::as_view(y))::element_type>, "lora: embed writes to a read-only view");
  using id_type = std::remove_const_t<typename decltype(detail::as_view(ids))::value_type>;
  using element = detail_forward::element_t<Y>;
  const ndview<const id_type, 1> which = detail::as_view(ids);
  const float_view<2> from = detail::as_view(table);
  if (to.extent(0) != which.extent(0))
    detail::raise<shape_error>(detail::text() << "embed: y is " << detail::shape_of(to) << " but ids is " << detail::shape_of(which));
  if (to.extent(1) != from.extent(1))
    detail::raise<shape_error>(detail::text() << "embed: y is " << detail::shape_of(to) << " but table [tokens, width] is "
                                              << detail::shape_of(from));
  for (std::size_t axis = 0; axis < 2; ++axis)
    if (to.stride(axis) == 0 && to.extent(axis) > 1 && to.size() != 0)
      detail::raise<shape_error>(detail::text() << "embed: y of shape " << detail::shape_of(to)
                                                << " has stride 0: several results would be written to one element");
  detail::check_table("embed", from, update);
  if (!std::isfinite(options.embed_scale)) detail::raise<value_error>(detail::text() << "embed: embed_scale is not finite");
  detail::check_ids(which, from);
  if (to.size() == 0) return;
  if constexpr (Checks >= 2) {
    if (const char* aliasing = detail_embed::aliasing(to, which, from, update, scratch)) LORA_ASSERT_HANDLER(aliasing);
  }
  const detail_embed::plan p(from.extent(1), update, "embed");
  scratch.reserve(p.bytes);
  const detail_embed::lookup l{&simd::kernels<float>(options.tier),
                               simd::storer<element>(options.tier),
                               options.tier,
                               to.data(),
                               static_cast<simd::count>(sizeof(element)),
                               to.stride(0),
                               to.stride(1),
                               which.data(),
                               std::is_same_v<id_type, std::int64_t>,
                               which.stride(0),
                               which.extent(0),
                               options.embed_scale};
  detail_embed::run(l, p, from, update, static_cast<std::byte*>(scratch.data()));
}

/**
 * The table with the update in it, [tokens, width] in C order and of the table's element type: what a file of the merged model holds. Each
 * row is that of embed(), so that going over to the merged table changes no bit.
 *
 * @throws shape_error, value_error  as embed(); std::bad_alloc.
 * @par Cost      As embed() of every token; allocates the result and embed_workspace_bytes().
 * @par Accuracy  As embed().
 */
template <detail_forward::matrix Table>
[[nodiscard]] auto merged_table(const Table& table, const low_rank_update& update, simd::tier tier = simd::tier::avx512_bf16) {
  using T = detail_forward::element_t<const Table>;
  const float_view<2> from = detail::as_view(table);
  detail::check_table("merged_table", from, update);
  ndarray<T, 2> result(extents{from.extent(0), from.extent(1)});
  if (result.size() == 0) return result;
  const detail_embed::plan p(from.extent(1), update, "merged_table");
  workspace scratch(p.bytes);
  const detail_embed::lookup l{&simd::kernels<float>(tier),
                               simd::storer<T>(tier),
                               tier,
                               result.data(),
                               sizeof(T),
                               from.extent(1),
                               1,
                               nullptr,
                               false,
                               0,
                               from.extent(0),
                               1.0f};
  detail_embed::run(l, p, from, update, static_cast<std::byte*>(scratch.data()));
  return result;
}

}  // namespace LORA_ISA_TAG
}  // namespace lora::inline v0

#endif
