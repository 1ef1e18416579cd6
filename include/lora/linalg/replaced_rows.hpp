// SPDX-License-Identifier: Apache-2.0
//
// replaced_rows: consecutive rows of a matrix in whose place an adapter puts its own (PEFT's trainable_token_indices: the rows of an
// embedding's table that were trained whole, and those of a tied lm_head). A part of low_rank_update; adapter_set makes it.
//
//   const lora::replaced_rows part{31999, rows.view()};      // rows [k, in]: rows 31999, 32000, ... of W
//   update.rows = {&part, 1};
#ifndef LORA_LINALG_REPLACED_ROWS_HPP
#define LORA_LINALG_REPLACED_ROWS_HPP

#include <lora/core/error.hpp>
#include <lora/nd/view.hpp>

#include <span>

namespace lora::inline v0 {

/** Row first + i of the matrix is rows(i): floats, unit column stride. A list of these is in ascending order and meets no row twice. */
struct replaced_rows {
  index_t first = 0;
  ndview<const float, 2> rows{};
};

namespace detail {

/** That every part lies inside the `count` rows of `width` elements and behind the one before it. */
inline void check_replaced(const char* operation, std::span<const replaced_rows> parts, index_t count, index_t width) {
  index_t next = 0;
  for (const replaced_rows& p : parts) {
    const index_t k = p.rows.extent(0);
    if (p.rows.extent(1) != width || (p.rows.stride(1) != 1 && width > 1))
      raise<shape_error>(text() << operation << ": the update replaces rows by " << shape_text{p.rows.shape().array().data(), 2}
                                << (p.rows.extent(1) != width ? ", but a row has " : " whose columns are not contiguous; a row has ")
                                << width << " elements");
    if (p.first < next || p.first > count || k > count - p.first)
      raise<shape_error>(text() << operation << ": the update replaces " << k << " rows from row " << p.first << " on, of " << count
                                << " rows, and the rows before " << next << " are taken or passed");
    next = p.first + k;
  }
}

/** The row that is put in place of `row`, or null. @par Cost  O(log(parts)). */
[[nodiscard]] inline const float* replacement(std::span<const replaced_rows> parts, index_t row) noexcept {
  std::size_t low = 0;  // parts before it begin at or before the row
  std::size_t high = parts.size();
  while (low < high) {
    const std::size_t middle = low + (high - low) / 2;
    if (parts[middle].first <= row)
      low = middle + 1;
    else
      high = middle;
  }
  if (low == 0) return nullptr;
  const replaced_rows& p = parts[low - 1];
  return row - p.first < p.rows.extent(0) ? p.rows.data() + (row - p.first) * p.rows.stride(0) : nullptr;
}

/** Puts into w = W[row, first : first + count] what replaces it: a row of `rows`, and elements of `columns`, the rows of W transposed. */
inline void replace_in_row(std::span<const replaced_rows> rows, std::span<const replaced_rows> columns, index_t row, index_t first,
                           index_t count, float* w) noexcept {
  if (!rows.empty())
    if (const float* from = replacement(rows, row))
      for (index_t i = 0; i < count; ++i) w[i] = from[first + i];
  for (const replaced_rows& p : columns)
    for (index_t i = 0; i < p.rows.extent(0); ++i)
      if (p.first + i >= first && p.first + i < first + count) w[p.first + i - first] = p.rows.data()[i * p.rows.stride(0) + row];
}

}  // namespace detail
}  // namespace lora::inline v0

#endif
