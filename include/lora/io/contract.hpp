// SPDX-License-Identifier: Apache-2.0
//
// contract_of: the linear modules of a base model, read off the names and shapes in its safetensors file. The file cannot say which of
// its matrices belong to a linear layer: every two-dimensional tensor `<name>.weight` is taken for one, embeddings included.
//
//   auto base = lora::io::safetensors::open("base.safetensors");
//   lora::model_contract model = lora::io::contract_of(base);
#ifndef LORA_IO_CONTRACT_HPP
#define LORA_IO_CONTRACT_HPP

#include <lora/adapter/contract.hpp>
#include <lora/io/safetensors.hpp>

namespace lora::inline v0::io {

/**
 * A module `<name>` [out, in] for each two-dimensional tensor `<name>.weight`, of whatever dtype, in the order of file.tensors().
 * Other tensors (biases, norms, convolutions) are left out. Models that store weights as [in, out] (GPT-2) get both extents exchanged.
 *
 * @par Cost   One pass over the table; the file's elements are not touched.
 */
[[nodiscard]] inline model_contract contract_of(const safetensors& file) {
  constexpr std::string_view suffix = ".weight";
  model_contract contract;
  for (const safetensors::tensor& t : file.tensors()) {
    const std::string_view name = t.name();
    if (t.rank() != 2 || name.size() <= suffix.size() || !name.ends_with(suffix)) continue;
    contract.add(std::string(name.substr(0, name.size() - suffix.size())), t.shape()[0], t.shape()[1]);
  }
  return contract;
}

}  // namespace lora::inline v0::io

#endif
