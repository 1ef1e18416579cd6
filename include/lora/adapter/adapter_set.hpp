// SPDX-License-Identifier: Apache-2.0
//
// adapter_set: what all modules of one model add to their weights: for each module index, the terms of every adapter that changes it, in
// list order. Immutable and self-contained (it keeps its adapters and their files alive), so it is the unit that a snapshot cell
// publishes. Looking a module up is two loads; no name is touched.
//
//   lora::adapter_set none(model);                                              // the base alone
//   lora::adapter_set one(model, {lora::bind(file.adapter, model)});            // one adapter
//   lora::adapter_set set(model, {{style, 1.0f}, {facts, 0.5f}});               // shared_ptr<const bound_adapter>, weight
//   std::span<const lora::low_rank_term> terms = set[fc1];
#ifndef LORA_ADAPTER_ADAPTER_SET_HPP
#define LORA_ADAPTER_ADAPTER_SET_HPP

#include <lora/adapter/bind.hpp>

namespace lora::inline v0 {

/** An adapter in a set, and the factor on its scale; a weight of 0 switches it off. */
struct weighted_adapter {
  std::shared_ptr<const bound_adapter> adapter;
  float weight = 1.0f;

  weighted_adapter(std::shared_ptr<const bound_adapter> shared, float factor = 1.0f) noexcept
      : adapter(std::move(shared)), weight(factor) {}
  /** For an adapter that only this set uses. @throws std::bad_alloc. */
  weighted_adapter(bound_adapter&& own, float factor = 1.0f)
      : adapter(std::make_shared<const bound_adapter>(std::move(own))), weight(factor) {}
};

class adapter_set {
 public:
  /** The base alone: no module has a term. */
  explicit adapter_set(const model_contract& model) : first_(model.size() + 1, 0) {}

  /**
   * Terms of each module in the order of the list.
   * @throws bind_error when an adapter was bound to another contract; value_error when a weight is not finite.
   */
  adapter_set(const model_contract& model, std::vector<weighted_adapter> adapters)
      : first_(model.size() + 1, 0), adapters_(std::move(adapters)) {
    for (const auto& [adapter, weight] : adapters_) {
      if (adapter == nullptr) detail::raise<bind_error>(detail::text() << "adapter_set: a null adapter");
      if (!std::isfinite(weight))
        detail::raise<value_error>(detail::text() << "adapter_set: the weight of " << detail::quote(adapter->source()) << " is not finite");
      for (const bound_module& m : adapter->modules()) {
        if (m.module >= model.size() || m.name != model[m.module].name || m.term.a.extent(1) != model[m.module].in ||
            m.term.b.extent(0) != model[m.module].out)
          detail::raise<bind_error>(detail::text() << "adapter_set: " << detail::quote(adapter->source()) << " was bound to another model");
        if (!std::isfinite(m.term.scale * weight))
          detail::raise<value_error>(detail::text()
                                     << "adapter_set: scale times weight of " << detail::quote(adapter->source()) << " is not finite");
        ++first_[m.module + 1];
      }
    }
    for (std::size_t i = 0; i < model.size(); ++i) first_[i + 1] += first_[i];
    terms_.resize(first_.back());
    std::vector<std::size_t> next(first_.begin(), first_.end() - 1);
    for (const auto& [adapter, weight] : adapters_)
      for (const bound_module& m : adapter->modules()) {
        low_rank_term& t = terms_[next[m.module]++];
        t = m.term;
        t.scale = m.term.scale * weight;
      }
  }

  /** Number of modules of the model. */
  [[nodiscard]] std::size_t size() const noexcept { return first_.size() - 1; }

  /** The terms of one module; empty where no adapter changes it. Valid as long as the set. @pre module < size() */
  template <int Checks = LORA_CHECKS>
  [[nodiscard]] std::span<const low_rank_term> operator[](std::size_t module) const noexcept {
    if constexpr (Checks >= 1) {
      if (module >= size()) LORA_ASSERT_HANDLER("adapter_set: module index out of range");
    }
    return {terms_.data() + first_[module], first_[module + 1] - first_[module]};
  }

  /** Ranks of all terms of a module, added up. */
  [[nodiscard]] index_t rank(std::size_t module) const noexcept {
    index_t sum = 0;
    for (const low_rank_term& t : (*this)[module]) sum += t.a.extent(0);
    return sum;
  }

  [[nodiscard]] std::span<const weighted_adapter> adapters() const noexcept { return adapters_; }

 private:
  std::vector<std::size_t> first_;  // module i has terms [first_[i], first_[i + 1])
  std::vector<low_rank_term> terms_;
  std::vector<weighted_adapter> adapters_;
};

}  // namespace lora::inline v0

#endif
