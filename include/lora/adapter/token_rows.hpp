// SPDX-License-Identifier: Apache-2.0
//
// detail: the trained token rows of an adapter_set, by module, as forward() and embed() take them: sorted, in runs of consecutive rows, as floats
// (a copy, exact: they are few). A module that is tied to an embedding, its tensor being the same, has the same rows, as in PEFT.
#ifndef LORA_ADAPTER_TOKEN_ROWS_HPP
#define LORA_ADAPTER_TOKEN_ROWS_HPP

#include <lora/adapter/bind.hpp>

#include <algorithm>
#include <memory>

namespace lora::inline v0::detail {

/** Whether the rows of a bound module, if it has any, fit a module of a contract. */
[[nodiscard]] inline bool rows_fit(const bound_module& m, const module_contract& c) noexcept {
  if (m.rows.data() == nullptr) return true;
  const bool table = c.kind == module_kind::embedding;
  for (const index_t i : m.row_indices)
    if (i >= (table ? c.in : c.out)) return false;
  return m.rows.extent(1) == (table ? c.out : c.in);
}

class token_rows {
 public:
  /**
   * Takes the rows of a bound module, which fit, and gives them to the modules tied to it that the adapter gives no rows of their own.
   * @throws value_error when a module has rows already.
   */
  void add(const model_contract& model, const bound_adapter& adapter, const bound_module& m) {
    const auto memory = sorted_copy(m);
    const bool table = model[m.module].kind == module_kind::embedding;
    place(model, adapter, m.module, table, false, m, memory);
    if (!table) return;
    const std::string tensor = weight_name(model[m.module]);
    for (std::size_t i = 0; i < model.size(); ++i) {
      const module_contract& other = model[i];
      if (i == m.module || other.kind != module_kind::linear || other.first_row != 0 || weight_name(other) != tensor) continue;
      const auto own = std::find_if(adapter.modules().begin(), adapter.modules().end(),
                                    [i](const bound_module& b) { return b.module == i && b.rows.data() != nullptr; });
      if (own != adapter.modules().end()) continue;
      if (!rows_fit_tied(model[m.module], other))
        raise<value_error>(text() << "adapter_set: modules " << quote(m.name) << " and " << quote(other.name)
                                  << " share a tensor, but not its shape");
      place(model, adapter, i, false, true, m, memory);
    }
  }

  [[nodiscard]] std::size_t size() const noexcept { return placed_.size(); }
  [[nodiscard]] std::size_t module(std::size_t i) const noexcept { return placed_[i].module; }
  /** Whether the rows came by way of the embedding that the module is tied to. */
  [[nodiscard]] bool is_tied(std::size_t i) const noexcept { return placed_[i].tied; }

  /** Puts the rows of a module into its update. */
  void give(std::size_t module, low_rank_update& update) const noexcept {
    for (const placed& p : placed_)  // an embedding, and perhaps an lm_head
      if (p.module == module) (p.table ? update.columns : update.rows) = p.runs;
  }

 private:
  struct placed {
    std::size_t module;
    bool table;
    bool tied;
    std::shared_ptr<const std::vector<float>> memory;  // shared, so that copies of a set stay whole
    std::vector<replaced_rows> runs;
  };

  [[nodiscard]] static bool rows_fit_tied(const module_contract& table, const module_contract& other) noexcept {
    return other.out == table.in && other.in == table.out;
  }

  /** Which row of m.rows comes first, second, ... by its index. */
  [[nodiscard]] static std::vector<std::size_t> order_of(const bound_module& m) {
    std::vector<std::size_t> order(m.row_indices.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return m.row_indices[a] < m.row_indices[b]; });
    return order;
  }

  [[nodiscard]] static std::shared_ptr<const std::vector<float>> sorted_copy(const bound_module& m) {
    const index_t width = m.rows.extent(1);
    std::vector<float> memory;
    memory.reserve(static_cast<std::size_t>(m.rows.size()));
    m.rows.visit([&](const auto& v) {
      for (const std::size_t i : order_of(m))
        for (index_t j = 0; j < width; ++j) memory.push_back(static_cast<float>(v(static_cast<index_t>(i), j)));
    });
    return std::make_shared<const std::vector<float>>(std::move(memory));
  }

  void place(const model_contract& model, const bound_adapter& adapter, std::size_t module, bool table, bool tied, const bound_module& m,
             const std::shared_ptr<const std::vector<float>>& memory) {
    for (const placed& p : placed_)
      if (p.module == module)
        raise<value_error>(text() << "adapter_set: " << quote(adapter.source()) << " and another adapter both bring token rows for module "
                                  << quote(model[module].name) << "; PEFT sets one at a time");
    std::vector<index_t> indices = m.row_indices;
    std::sort(indices.begin(), indices.end());
    placed p{module, table, tied, memory, {}};
    const index_t width = m.rows.extent(1);
    for (std::size_t begin = 0, end = 0; begin < indices.size(); begin = end) {
      for (end = begin + 1; end < indices.size() && indices[end] == indices[end - 1] + 1;) ++end;
      p.runs.push_back({indices[begin], ndview<const float, 2>(memory->data() + static_cast<index_t>(begin) * width,
                                                               {static_cast<index_t>(end - begin), width})});
    }
    placed_.push_back(std::move(p));
  }

  std::vector<placed> placed_;
};

}  // namespace lora::inline v0::detail

#endif
