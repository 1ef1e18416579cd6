// SPDX-License-Identifier: Apache-2.0
//
// adapter_set: what all modules of one model add to their weights: for each module index, the terms of every adapter that changes it, in
// list order. Immutable and self-contained (it keeps its adapters and their files alive), so it is the unit that a snapshot cell
// publishes. Looking a module up is two loads; no name is touched.
//
//   lora::adapter_set none(model);                                              // the base alone
//   lora::adapter_set one(model, {lora::bind(file.adapter, model)});            // one adapter
//   lora::adapter_set set(model, {{style, 1.0f}, {facts, 0.5f}});               // shared_ptr<const bound_adapter>, weight
//   const lora::low_rank_update update = set[fc1];                              // what forward() takes: terms, bias, row factor
//   lora::adapter_set dora(model, {{bound, 1.0f}}, weights);                    // DoRA divides by norms of the weights' rows
//   set.weight(fc1, base_w).visit([&](const auto& w) { lora::forward(y, x, w, set[fc1], bias, scratch); });  // W may be replaced
//
// Whatever must be computed from the adapters (a sum of biases, the row factors of DoRA) is computed here, once, and never in a request.
#ifndef LORA_ADAPTER_ADAPTER_SET_HPP
#define LORA_ADAPTER_ADAPTER_SET_HPP

#include <lora/adapter/bind.hpp>
#include <lora/adapter/dora.hpp>
#include <lora/adapter/token_rows.hpp>

namespace lora::inline v0 {

/**
 * An adapter in a set, and the factor on its scale, as PEFT's set_scale: a weight of 0 switches the low-rank terms and the bias of B off.
 * Replaced weights, trained biases, trained token rows and the magnitude of DoRA stay, which with weight 0 is m / |W| * W x.
 */
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
   * @throws bind_error when an adapter was bound to another contract; value_error when a weight is not finite, when two adapters
   *         replace the same weight, bias, tensor or token rows, when one with DoRA meets another in a module (what that means depends on PEFT's
   *         order of calls), when token rows meet terms in an embedding or DoRA in a tied lm_head (PEFT refuses), and for DoRA here: it needs the
   *         weights, see below.
   */
  adapter_set(const model_contract& model, std::vector<weighted_adapter> adapters)
      : first_(model.size() + 1, 0), adapters_(std::move(adapters)) {
    gather(model);
    for (const output& o : outputs_)
      if (o.magnitude.data() != nullptr)
        detail::raise<value_error>(detail::text() << "adapter_set: module " << detail::quote(model[o.module].name)
                                                  << " has a magnitude of DoRA, which needs the weight: pass the weights of all modules");
  }

  /**
   * As above, with DoRA: its row factors m / |W + s B A| are computed here. They hold for these weights; make a new set for others.
   * @param weights  [out, in] of each module, by index, of the base: where an adapter replaces W, that is what is taken. May be empty views
   *                 where no adapter has DoRA, and views of transposed memory
   * @throws shape_error when a weight that is needed is not [out, in]; value_error when it is missing or a row of W + s B A is zero.
   * @par Cost  row_norms() for each module with DoRA.
   */
  template <class Isa = simd::isa_tag>
  adapter_set(const model_contract& model, std::vector<weighted_adapter> adapters, std::span<const float_view<2>> weights)
      : first_(model.size() + 1, 0), adapters_(std::move(adapters)) {
    gather(model);
    for (output& o : outputs_) {
      if (o.magnitude.data() == nullptr) continue;
      const module_contract& m = model[o.module];
      const float_view<2> w = weight(o.module, o.module < weights.size() ? weights[o.module] : float_view<2>());
      if (w.data() == nullptr)
        detail::raise<value_error>(detail::text()
                                   << "adapter_set: the weight of module " << detail::quote(m.name) << " is missing, which DoRA needs");
      o.factor = dora_factor(w, terms_of(o.module), o.magnitude);
    }
  }

  /** Number of modules of the model. */
  [[nodiscard]] std::size_t size() const noexcept { return first_.size() - 1; }

  /** What forward() adds to one module; empty where no adapter changes it. Valid as long as the set. @pre module < size() */
  template <int Checks = LORA_CHECKS>
  [[nodiscard]] low_rank_update operator[](std::size_t module) const noexcept {
    if constexpr (Checks >= 1) {
      if (module >= size()) LORA_ASSERT_HANDLER("adapter_set: module index out of range");
    }
    low_rank_update update;
    update.terms = terms_of(module);
    if (!output_of_.empty() && output_of_[module] != none) {
      const output& o = outputs_[output_of_[module]];
      update.bias = o.bias;
      update.row_factor = o.factor;
      update.replaces_bias = o.replaces_bias;
    }
    rows_.give(module, update);
    return update;
  }

  /**
   * The weight [out, in] that an adapter brings for a module in place of the base's; an empty view when none does. A weight that comes with A and B
   * is the base's tensor, and so that of modules tied to it. @pre module < size()
   */
  template <int Checks = LORA_CHECKS>
  [[nodiscard]] float_view<2> weight(std::size_t module) const noexcept {
    if constexpr (Checks >= 1) {
      if (module >= size()) LORA_ASSERT_HANDLER("adapter_set: module index out of range");
    }
    return weights_.empty() ? float_view<2>() : weights_[module];
  }

  /**
   * The weight that a module has under this set: the adapter's, or `base`. Every product with a module whose weight may be replaced
   * (PEFT's modules_to_save, a resized vocabulary) takes this one; its type can be another one than the base's, hence visit().
   */
  template <int Checks = LORA_CHECKS>
  [[nodiscard]] float_view<2> weight(std::size_t module, const float_view<2>& base) const noexcept {
    const float_view<2> own = weight<Checks>(module);
    return own.data() != nullptr ? own : base;
  }

  /** The same for all modules, by index: `base` as io::weights_of gives it. */
  [[nodiscard]] std::vector<float_view<2>> weights(std::span<const float_view<2>> base) const {
    std::vector<float_view<2>> out(size());
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = weight(i, i < base.size() ? base[i] : float_view<2>());
    return out;
  }

  /** Tensors of the base that the adapters replace and that are no matrix of a module: norms that were trained along. By list order. */
  [[nodiscard]] std::span<const saved_tensor> tensors() const noexcept { return tensors_; }

  /** Of tensors(), that of the name; null when no adapter replaces it. @par Cost  O(tensors) comparisons of names: not for requests. */
  [[nodiscard]] const any_view* tensor(std::string_view name) const noexcept {
    for (const saved_tensor& t : tensors_)
      if (t.name == name) return &t.value;
    return nullptr;
  }

  /** Ranks of all terms of a module, added up. */
  [[nodiscard]] index_t rank(std::size_t module) const noexcept {
    index_t sum = 0;
    for (const low_rank_term& t : terms_of(module)) sum += t.a.extent(0);
    return sum;
  }

  [[nodiscard]] std::span<const weighted_adapter> adapters() const noexcept { return adapters_; }

 private:
  /** What a module has beside its terms. */
  struct output {
    std::size_t module;
    std::vector<float> bias;
    std::vector<float> factor;
    float_view<1> magnitude{};
    bool replaces_bias = false;
  };
  static constexpr std::size_t none = static_cast<std::size_t>(-1);

  [[nodiscard]] std::span<const low_rank_term> terms_of(std::size_t module) const noexcept {
    return {terms_.data() + first_[module], first_[module + 1] - first_[module]};
  }

  void gather(const model_contract& model) {
    for (const auto& [adapter, weight] : adapters_) {
      if (adapter == nullptr) detail::raise<bind_error>(detail::text() << "adapter_set: a null adapter");
      if (!std::isfinite(weight))
        detail::raise<value_error>(detail::text() << "adapter_set: the weight of " << detail::quote(adapter->source()) << " is not finite");
      for (const bound_module& m : adapter->modules()) {
        const bool known = m.module < model.size() && m.name == model[m.module].name;
        if (!known || !detail::rows_fit(m, model[m.module]) || !fits(m, model[m.module]))
          detail::raise<bind_error>(detail::text() << "adapter_set: " << detail::quote(adapter->source()) << " was bound to another model");
        if (!std::isfinite(m.term.scale * weight))
          detail::raise<value_error>(detail::text()
                                     << "adapter_set: scale times weight of " << detail::quote(adapter->source()) << " is not finite");
        if (m.term.a.extent(0) != 0) ++first_[m.module + 1];
      }
    }
    for (std::size_t i = 0; i < model.size(); ++i) first_[i + 1] += first_[i];
    terms_.resize(first_.back());
    std::vector<std::size_t> next(first_.begin(), first_.end() - 1);
    for (const auto& [adapter, weight] : adapters_)
      for (const bound_module& m : adapter->modules()) {
        if (m.term.a.extent(0) != 0) {
          low_rank_term& t = terms_[next[m.module]++];
          t = m.term;
          t.scale = m.term.scale * weight;
        }
        add_output(model, *adapter, m, weight);
        add_weight(model, *adapter, m);
      }
    for (const auto& [adapter, weight] : adapters_) {
      add_tied_weights(model, *adapter);
      add_tensors(*adapter);
    }
    for (const output& o : outputs_)
      if (o.magnitude.data() != nullptr && terms_of(o.module).size() > 1)
        detail::raise<value_error>(detail::text() << "adapter_set: module " << detail::quote(model[o.module].name)
                                                  << " has an adapter with DoRA and another one; their sum is not defined");
    gather_rows(model);
  }

  void gather_rows(const model_contract& model) {
    for (const auto& [adapter, weight] : adapters_)
      for (const bound_module& m : adapter->modules())
        if (m.rows.data() != nullptr) rows_.add(model, *adapter, m);
    for (std::size_t i = 0; i < rows_.size(); ++i) {
      const std::size_t module = rows_.module(i);
      const bool has_dora = !output_of_.empty() && output_of_[module] != none && outputs_[output_of_[module]].magnitude.data() != nullptr;
      if (has_dora || (!rows_.is_tied(i) && !terms_of(module).empty()))
        detail::raise<value_error>(detail::text()
                                   << "adapter_set: module " << detail::quote(model[module].name) << " has trained token rows and also "
                                   << (has_dora ? "DoRA" : "lora_A and lora_B") << ", which PEFT refuses to combine");
    }
  }

  /** Whether what was bound has the shapes of this contract's module. */
  [[nodiscard]] static bool fits(const bound_module& m, const module_contract& c) noexcept {
    if (m.trained_bias.data() != nullptr && m.trained_bias.extent(0) != c.out) return false;
    if (m.weight.data() != nullptr && (m.weight.extent(0) != c.out || m.weight.extent(1) != c.in)) return false;
    return m.term.a.extent(0) == 0 || (m.term.a.extent(1) == c.in && m.term.b.extent(0) == c.out);
  }

  [[noreturn, gnu::cold, gnu::noinline]] static void raise_replaced_twice(const bound_adapter& adapter, const char* what,
                                                                          const std::string& name) {
    detail::raise<value_error>(detail::text() << "adapter_set: " << detail::quote(adapter.source()) << " and another adapter both replace "
                                              << what << detail::quote(name));
  }

  void add_weight(const model_contract& model, const bound_adapter& adapter, const bound_module& m) {
    if (m.weight.data() == nullptr) return;
    if (weights_.empty()) weights_.resize(model.size());
    if (weights_[m.module].data() != nullptr) raise_replaced_twice(adapter, "the weight of module ", m.name);
    weights_[m.module] = m.weight;
  }

  /** A copy of the base goes into the parameter, which tied modules share (lm_head and embedding); a trained copy is a parameter of its own. */
  void add_tied_weights(const model_contract& model, const bound_adapter& adapter) {
    for (const bound_module& m : adapter.modules()) {
      if (m.weight.data() == nullptr || m.weight_is_own) continue;
      const module_contract& from = model[m.module];
      const std::string tensor = weight_name(from);
      for (std::size_t i = 0; i < model.size(); ++i) {
        const module_contract& to = model[i];
        if (weights_[i].data() != nullptr || to.first_row != from.first_row || to.matrix != from.matrix || weight_name(to) != tensor)
          continue;
        weights_[i] = m.weight.visit([&](const auto& w) { return float_view<2>(to.layout == from.layout ? w : w.transpose()); });
        if (weights_[i].extent(0) != to.out || weights_[i].extent(1) != to.in)
          detail::raise<value_error>(detail::text()
                                     << "adapter_set: " << detail::quote(adapter.source()) << " replaces the weight of module "
                                     << detail::quote(from.name) << " by " << detail::shape_of(m.weight) << ", but that of "
                                     << detail::quote(to.name) << ", which is tied to it, has another shape");
      }
    }
  }

  void add_tensors(const bound_adapter& adapter) {
    if (adapter.tensors().empty()) return;
    std::vector<std::string_view> earlier;  // one adapter's names were compared by bind()
    for (const saved_tensor& t : tensors_) earlier.push_back(t.name);
    std::sort(earlier.begin(), earlier.end());
    for (const saved_tensor& t : adapter.tensors())
      if (std::binary_search(earlier.begin(), earlier.end(), std::string_view(t.name)))
        raise_replaced_twice(adapter, "the tensor ", t.name);
    tensors_.insert(tensors_.end(), adapter.tensors().begin(), adapter.tensors().end());
  }

  /** Biases are summed in f32, in list order. */
  void add_output(const model_contract& model, const bound_adapter& adapter, const bound_module& m, float weight) {
    const bool has_bias = m.bias.data() != nullptr && m.term.scale * weight != 0.0f;
    if (!has_bias && m.magnitude.data() == nullptr && m.trained_bias.data() == nullptr) return;
    if (output_of_.empty()) output_of_.assign(model.size(), none);
    if (output_of_[m.module] == none) {
      output_of_[m.module] = outputs_.size();
      outputs_.push_back({m.module, {}, {}});
    }
    output& o = outputs_[output_of_[m.module]];
    if (m.magnitude.data() != nullptr) o.magnitude = m.magnitude;
    if (m.trained_bias.data() != nullptr && o.replaces_bias) raise_replaced_twice(adapter, "the bias of module ", m.name);
    if ((has_bias || m.trained_bias.data() != nullptr) && o.bias.empty())
      o.bias.assign(static_cast<std::size_t>(model[m.module].out), 0.0f);
    const float scale = m.term.scale * weight;
    for (std::size_t i = 0; i < o.bias.size(); ++i) {
      if (m.trained_bias.data() != nullptr) o.bias[i] += m.trained_bias(static_cast<index_t>(i));
      if (has_bias) o.bias[i] += scale * m.bias(static_cast<index_t>(i));
    }
    o.replaces_bias = o.replaces_bias || m.trained_bias.data() != nullptr;
  }

  std::vector<std::size_t> first_;  // module i has terms [first_[i], first_[i + 1])
  std::vector<low_rank_term> terms_;
  std::vector<std::size_t> output_of_;  // by module, an index into outputs_ or none; empty when there are no outputs
  std::vector<output> outputs_;
  detail::token_rows rows_;
  std::vector<float_view<2>> weights_;  // by module; empty when nothing is replaced
  std::vector<saved_tensor> tensors_;
  std::vector<weighted_adapter> adapters_;
};

}  // namespace lora::inline v0

#endif
