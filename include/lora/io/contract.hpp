// SPDX-License-Identifier: Apache-2.0
//
// contract_of: the linear modules of a base model, read off the names and shapes in its safetensors file. The file cannot say which of
// its matrices belong to a linear layer: every two-dimensional tensor `<name>.weight` is taken for one, embeddings included.
//
//   auto base = lora::io::safetensors::open("base.safetensors");
//   lora::model_contract model = lora::io::contract_of(base);
//   lora::model_contract gpt2 = lora::io::contract_of(base, peft.adapter);            // where W may lie as [in, out]
//   std::vector<lora::float_view<2>> weights = lora::io::weights_of(base, gpt2);      // each [out, in], in place
#ifndef LORA_IO_CONTRACT_HPP
#define LORA_IO_CONTRACT_HPP

#include <lora/adapter/adapter.hpp>
#include <lora/adapter/contract.hpp>
#include <lora/io/safetensors.hpp>
#include <lora/nd/float_view.hpp>

namespace lora::inline v0::io {

/**
 * A module `<name>` [out, in] for each two-dimensional tensor `<name>.weight`, of whatever dtype, in the order of file.tensors().
 * Other tensors (biases, norms, convolutions) are left out. Models that store weights as [in, out] (GPT-2) get
 * both extents exchanged here: pass an adapter, which tells, or make the contract by hand.
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

/**
 * As above, with each adapted weight the way round that the adapter's A [rank, in] and B [out, rank] want it. Only for a square W does
 * fan_in_fan_out decide: PEFT writes one flag for the whole file, that of the module it wrapped last, so that GPT-2 with an adapted lm_head says
 * false although c_attn lies as [in, out]. Modules of which the adapter has nothing but a trained bias (norms) are added with in = 0.
 *
 * A W that fits neither way is left as [out, in]: bind() says what does not fit.
 *
 * @throws io_error when the flag cannot be believed for a square W, because a W that is not square lies the other way, adapted or not; make the
 *         contract by hand.
 */
[[nodiscard]] inline model_contract contract_of(const safetensors& file, const adapter& source) {
  model_contract given;
  for (const adapted_module& m : source.modules) {
    if (given.find(m.name) != model_contract::not_found) continue;  // bind() refuses it
    const low_rank& w = m.weights;
    if (w.a.rank() == 2 && w.b.rank() == 2)
      given.add(m.name, w.b.extent(0), w.a.extent(1));
    else if (w.trained_bias.rank() == 1)
      given.add(m.name, w.trained_bias.extent(0), 0);
  }
  const model_contract plain = contract_of(file);
  const std::string* contradiction = nullptr;
  const std::string* square = nullptr;
  for (std::size_t i = 0; i < given.size(); ++i) {
    const std::size_t at = plain.find(given[i].name);
    if (at == model_contract::not_found || given[i].in == 0) continue;
    if (plain[at].out == plain[at].in)
      square = &plain[at].name;
    else if ((plain[at].out == given[i].in && plain[at].in == given[i].out) != source.fan_in_fan_out)
      contradiction = &plain[at].name;
  }
  for (std::size_t i = 0; i < plain.size(); ++i) {  // weights that are not adapted: the length of their bias tells
    const module_contract& m = plain[i];
    const safetensors::tensor* const bias = m.out == m.in ? nullptr : file.find(m.name + ".bias");
    if (bias != nullptr && bias->rank() == 1 && bias->shape()[0] == (source.fan_in_fan_out ? m.out : m.in)) contradiction = &m.name;
  }
  if (contradiction != nullptr && square != nullptr)
    detail::raise<io_error>(detail::text() << detail::quote(source.source) << ": fan_in_fan_out is "
                                           << (source.fan_in_fan_out ? "true" : "false") << ", but the weight of "
                                           << detail::quote(*contradiction) << " lies the other way; how the square weight of "
                                           << detail::quote(*square) << " lies cannot be told, so the contract must be made by hand");
  model_contract contract;
  for (std::size_t i = 0; i < plain.size(); ++i) {
    const module_contract& m = plain[i];
    const std::size_t at = given.find(m.name);
    bool turned = false;
    if (at != model_contract::not_found && given[at].in != 0)
      turned = m.out == m.in ? source.fan_in_fan_out : m.out == given[at].in && m.in == given[at].out;
    else if (at != model_contract::not_found)  // only a bias: its length tells
      turned = m.out == m.in ? source.fan_in_fan_out : m.in == given[at].out && m.out != given[at].out;
    if (turned)
      contract.add(m.name, m.in, m.out, weight_layout::in_out);
    else
      contract.add(m.name, m.out, m.in);
  }
  for (std::size_t i = 0; i < given.size(); ++i) {
    if (given[i].in != 0 || plain.find(given[i].name) != model_contract::not_found) continue;
    const safetensors::tensor* const bias = file.find(given[i].name + ".bias");
    if (bias != nullptr && bias->rank() == 1) contract.add(given[i].name, bias->shape()[0], 0);
  }
  return contract;
}

/**
 * The weight of each module, by index, as [out, in] where it lies: what adapter_set needs for DoRA, and forward() for a product. Empty views
 * where the file has no two-dimensional tensor of that name, or one of another dtype than f32, f16 and bf16.
 */
[[nodiscard]] inline std::vector<float_view<2>> weights_of(const safetensors& file, const model_contract& model) {
  std::vector<float_view<2>> weights(model.size());
  for (std::size_t i = 0; i < model.size(); ++i) {
    const safetensors::tensor* const t = file.find(model[i].name + ".weight");
    if (t == nullptr || t->rank() != 2) continue;
    const auto use = [&](const auto& v) {
      if (model[i].layout == weight_layout::in_out)
        weights[i] = v.transpose();
      else
        weights[i] = v;
    };
    const any_view v = t->view();
    if (v.type() == dtype::f32) use(v.as<const float, 2>());
    if (v.type() == dtype::f16) use(v.as<const float16, 2>());
    if (v.type() == dtype::bf16) use(v.as<const bfloat16, 2>());
  }
  return weights;
}

}  // namespace lora::inline v0::io

#endif
