// SPDX-License-Identifier: Apache-2.0
//
// low_rank: the pair (A, B) of one module with its scale. adapter: the pairs of many modules as they came from a file, each under the
// module's name, not yet checked against any model. Only bind() (adapter/bind.hpp) turns it into something that can compute.
//
//   lora::adapter a;  a.source = "adapter_v1";
//   a.modules.push_back({"fc1", {view_of_a, view_of_b, lora::scale_for(8, 4)}});
#ifndef LORA_ADAPTER_ADAPTER_HPP
#define LORA_ADAPTER_ADAPTER_HPP

#include <lora/adapter/scale.hpp>
#include <lora/core/content_hash.hpp>
#include <lora/nd/any_view.hpp>

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace lora::inline v0 {

/** A [rank, in] down projection, B [out, rank] up projection, and the scale of their product. Views: the adapter's owner holds the memory. */
struct low_rank {
  any_view a;
  any_view b;
  float scale = 1.0f;
};

/** One adapted module of an adapter, under the name that the model uses for it ("model.layers.0.self_attn.q_proj"). */
struct adapted_module {
  std::string name;
  low_rank weights;
};

/**
 * Everything one adapter file says, in the file's order, unchecked against a model.
 *
 * `owner` keeps the memory alive that the views point into (a file mapping, a buffer); it is shared with everything made from it.
 */
struct adapter {
  std::string source;  ///< where it came from, for messages
  std::vector<adapted_module> modules;
  std::shared_ptr<const void> owner;
  std::span<const std::byte>
      region{};         ///< the memory that `owner` holds, when it is one piece: bind() refuses views that leave it. Empty: not known
  content_hash base{};  ///< of the base model that it was trained on; all zero: not known
};

}  // namespace lora::inline v0

#endif
