// SPDX-License-Identifier: Apache-2.0
//
// A base and the adapters of a command over it: one contract that all of them fit, every weight as the matrix [out, in] wherever and however it
// lies in its file, and what the adapters make of one module at a time, so that the sums that DoRA needs are taken when that module's turn comes.
//
//   const adapted_base model(base, load_all(paths, base), weights);
//   const lora::adapter_set set = model.set_of(i);                       // terms, biases, row factors of module i
//   lora::dispatch<2, ...>(model.weight(i), [&](auto w) { lora::merged(w, set[i]); });
//
// Where a module's matrix comes from stands here alone: from the base's tensor (lora::io says how it lies there), from a copy that an adapter
// brings along, or from the tensor of another module that it is tied to.
#ifndef LORA_EXAMPLES_LORA_ADAPTED_HPP
#define LORA_EXAMPLES_LORA_ADAPTED_HPP

#include "source.hpp"

#include <lora/nd/float_view.hpp>

namespace program {

/**
 * The modules of a base, each weight the way round that the adapters want it, as lora::io::contract_of says for one adapter, with those that are
 * tied, and the parts of fused ones in their place.
 * @throws lora::io_error when the adapters' flags fan_in_fan_out disagree about a square weight, one is shown wrong by another weight, or --tied
 *         or --fused does not fit the file.
 */
[[nodiscard]] lora::model_contract contract_for(const base_model& base, std::span<const source> sources);

/** lora::bind, whose hint at a tied weight is then the program's option. */
[[nodiscard]] lora::bound_adapter bound(const lora::adapter& adapter, const lora::model_contract& contract);

/** What one adapter says of a module. */
struct given_module {
  const source* from;
  const lora::adapted_module* module;
  float weight;  ///< on its scale
};

class adapted_base {
 public:
  /** @throws lora::bind_error naming adapter and module when one does not fit, lora::io_error as contract_for(). `base` must outlive it. */
  adapted_base(const base_model& base, std::vector<source> sources, const std::vector<float>& weights);
  adapted_base(const adapted_base&) = delete;
  adapted_base& operator=(const adapted_base&) = delete;

  [[nodiscard]] const lora::model_contract& contract() const noexcept { return contract_; }
  [[nodiscard]] std::span<const source> sources() const noexcept { return sources_; }
  /** What the adapters say of module i, in list order. */
  [[nodiscard]] std::span<const given_module> given(std::size_t module) const noexcept { return given_[module]; }
  static constexpr std::size_t none = lora::model_contract::not_found;
  /** The module whose weight this one has, by --tied; or none. */
  [[nodiscard]] std::size_t tied_to(std::size_t module) const;
  /** Whether any adapter changes what the module computes: its own part, or what it shares with the modules that it is tied to. */
  [[nodiscard]] bool is_adapted(std::size_t module) const;

  /**
   * What an adapter brings in place of the weight, as it would lie in the file: for this module, or as a copy of the base's weight for one
   * that is tied to it. Empty when none does.
   */
  [[nodiscard]] lora::any_view replacement(std::size_t module) const;
  /**
   * The weight [out, in] of a module, in place: the replacement, or the base's. Empty when there is none.
   * @throws lora::io_error when the tensor does not hold it.
   */
  [[nodiscard]] lora::any_view weight(std::size_t module) const;
  /** The tensor of the base's bias that module i uses; null when it has none. */
  [[nodiscard]] const lora::io::safetensors::tensor* bias_tensor(std::size_t module) const;
  /**
   * Its elements for this module, [out]; empty when it has none. Where an adapter brings a bias of another length, that of a module that was
   * resized, those. @throws lora::io_error when they are not out f32, f16 or bf16.
   */
  [[nodiscard]] lora::float_view<1> bias(std::size_t module) const;

  enum class part { all, bias };
  /**
   * What all adapters together make of one module; set[module] is the update. For part::bias its row factor may be missing, and costs nothing.
   * @throws lora::value_error when they cannot be added: DoRA with another one, two trained biases.
   * @par Cost  With DoRA, lora::row_norms of the weight.
   */
  [[nodiscard]] lora::adapter_set set_of(std::size_t module, part wanted = part::all) const;

 private:
  const base_model& base_;
  std::vector<source> sources_;
  std::vector<float> weights_;  // by source
  lora::model_contract contract_;
  std::vector<std::vector<given_module>> given_;  // by module; points into sources_
};

}  // namespace program

#endif
