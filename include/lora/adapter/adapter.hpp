// SPDX-License-Identifier: Apache-2.0
//
// low_rank: the pair (A, B) of one module with its scale. adapter: the pairs of many modules as they came from a file, each under the
// module's name, not yet checked against any model. Only bind() (adapter/bind.hpp) turns it into something that can compute.
//
//   lora::adapter a;  a.source = "adapter_v1";
//   a.modules.push_back({"fc1", {view_of_a, view_of_b, lora::scale_for(8, 4)}});
#ifndef LORA_ADAPTER_ADAPTER_HPP
#define LORA_ADAPTER_ADAPTER_HPP

#include <lora/adapter/contract.hpp>
#include <lora/adapter/scale.hpp>
#include <lora/core/content_hash.hpp>
#include <lora/nd/any_view.hpp>

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace lora::inline v0 {

/**
 * A [rank, in] down projection, B [out, rank] up projection, and the scale of their product; and what else an adapter may say of a module,
 * each [out] or left empty. Views: the adapter's owner holds the memory.
 *
 *     y = W x + base_bias + scale * (B (A x) + bias)                      PEFT's lora_bias: the bias of B is scaled too
 *     y = magnitude / |W + scale B A|  * (W x + scale B (A x)) + base_bias    DoRA, the norms by rows
 *
 * A module with a trained_bias (PEFT's bias="all" and "lora_only") has that in place of base_bias; it may have nothing else, A and B empty.
 */
struct low_rank {
  any_view a;
  any_view b;
  float scale = 1.0f;
  any_view bias{};          ///< of B
  any_view magnitude{};     ///< of DoRA
  any_view trained_bias{};  ///< replaces the base's
  any_view weight{};        ///< replaces the base's, shaped as that lies in its file: modules_to_save, a base resized or saved along
  any_view rows{};          ///< [n, width], of an embedding: replace the rows `row_indices` of its table (trainable_token_indices)
  std::vector<index_t> row_indices{};
  bool weight_is_own = false;  ///< `weight` unties the module (modules_to_save); without it, modules tied to this one get it too

  /** Whether there is more than A, B and the scale. */
  [[nodiscard]] bool is_plain() const noexcept {
    return bias.size() == 0 && magnitude.size() == 0 && trained_bias.size() == 0 && weight.size() == 0 && rows.size() == 0;
  }
};

/** One adapted module of an adapter, under the name that the model uses for it ("model.layers.0.self_attn.q_proj"). */
struct adapted_module {
  std::string name;
  low_rank weights;
  module_kind kind = module_kind::linear;
  index_t kernel[2] = {1, 1};  ///< of conv2d, whose A [rank, channels, height, width] is given as [rank, channels x height x width]
};

/** A whole tensor of the base that an adapter replaces and that is no matrix of a module: the weight of a norm that was trained along. */
struct saved_tensor {
  std::string name;  ///< in the base's file
  any_view value;
};

/**
 * Everything one adapter file says, in the file's order, unchecked against a model.
 *
 * `owner` keeps the memory alive that the views point into (a file mapping, a buffer); it is shared with everything made from it.
 */
struct adapter {
  std::string source;  ///< where it came from, for messages
  std::vector<adapted_module> modules;
  std::vector<saved_tensor> tensors{};
  std::shared_ptr<const void> owner;
  std::span<const std::byte>
      region{};  ///< the memory that `owner` holds, when it is one piece: bind() refuses views that leave it. Empty: not known
  bool fan_in_fan_out = false;  ///< PEFT's field: some square W lies as [in, out]. Of others the shapes tell; see io::contract_of
  content_hash base{};          ///< of the base model that it was trained on; all zero: not known
};

}  // namespace lora::inline v0

#endif
