// SPDX-License-Identifier: Apache-2.0
//
// contract_of: the linear modules and convolutions of a base model, read off the names and shapes in its safetensors file. The file cannot
// say which of its matrices belong to a linear layer: every two-dimensional tensor `<name>.weight` is taken for one, but for embeddings that an
// adapter adapts.
//
//   auto base = lora::io::safetensors::open("base.safetensors");
//   lora::model_contract model = lora::io::contract_of(base);
//   lora::model_contract gpt2 = lora::io::contract_of(base, peft.adapter);            // where W may lie as [in, out], or be a table
//   lora::model_contract tied = lora::io::contract_of(base, peft.adapter, {.tied = {{"lm_head", "model.embed_tokens"}}});
//   std::vector<lora::float_view<2>> weights = lora::io::weights_of(base, gpt2);      // each [out, in], in place
#ifndef LORA_IO_CONTRACT_HPP
#define LORA_IO_CONTRACT_HPP

#include <lora/adapter/adapter.hpp>
#include <lora/adapter/contract.hpp>
#include <lora/io/detail/base_matrix.hpp>
#include <lora/io/safetensors.hpp>
#include <lora/nd/float_view.hpp>

#include <concepts>

namespace lora::inline v0::detail {

/**
 * The contract with the shapes of the weights that `source` replaces: a vocabulary that was resized is that of the adapter. Only the first axis
 * of a file's tensor can be one; a weight of another width is left to bind(), which refuses it.
 */
[[nodiscard]] inline model_contract with_replaced_shapes(model_contract base, const adapter& source) {
  std::vector<const any_view*> replaced(base.size());
  bool any = false;
  for (const adapted_module& m : source.modules) {
    const std::size_t at = m.weights.weight.rank() == 2 ? base.find(m.name) : model_contract::not_found;
    if (at == model_contract::not_found || m.weights.weight.extent(1) != base[at].in) continue;
    replaced[at] = &m.weights.weight;
    any = true;
  }
  if (!any) return base;
  model_contract out;
  for (std::size_t i = 0; i < base.size(); ++i) {
    module_contract m = base[i];
    if (replaced[i] != nullptr) m.out = replaced[i]->extent(0);
    out.add(std::move(m));
  }
  return out;
}

}  // namespace lora::inline v0::detail

namespace lora::inline v0::io {

/** The tensors of a base: one file (io::safetensors) or the shards of one (io::sharded). */
template <class T>
concept tensor_table = requires(const T& table, std::string_view name) {
  { *table.tensors().begin() } -> std::convertible_to<const safetensors::tensor&>;
  { table.find(name) } -> std::same_as<const safetensors::tensor*>;
};

/**
 * A module `<name>` [out, in] for each two-dimensional tensor `<name>.weight`, of whatever dtype, in the order of file.tensors(), and a
 * conv2d [out, channels x height x width] for each one of four axes. Other tensors (biases, norms, experts) are left out. Models that store weights as [in, out] (GPT-2) get
 * both extents exchanged here: pass an adapter, which tells, or make the contract by hand.
 *
 * @par Cost   One pass over the table; the file's elements are not touched.
 */
template <tensor_table Table>
[[nodiscard]] model_contract contract_of(const Table& file) {
  model_contract contract;
  for (const safetensors::tensor& t : file.tensors())
    if (auto m = detail::module_of_tensor(t.name(), t.shape(), t.rank())) contract.add(*std::move(m));
  return contract;
}

/** Two modules of one tensor: `module` has no weight of its own in the file and uses that of `to`. */
struct tied_modules {
  std::string module;  ///< "lm_head"
  std::string to;      ///< "model.embed_tokens"
};

struct contract_options {
  /** The model's own knowledge (tie_word_embeddings of its config.json); a file of weights does not say it, and nothing is guessed. */
  std::vector<tied_modules> tied{};
};

}  // namespace lora::inline v0::io

namespace lora::inline v0::detail {

/** Rows of a tied module's weight: those of the file's, or of what the adapter has in its place, see adapter_set. */
[[nodiscard]] inline index_t rows_of_tied(const io::tied_modules& t, const io::safetensors::tensor& w, const adapter& source) {
  index_t rows = w.shape()[0];
  for (const adapted_module& m : source.modules) {
    const any_view& own = m.weights.weight;
    if (own.rank() != 2 || own.extent(1) != w.shape()[1]) continue;
    if (m.name == t.module) return own.extent(0);
    if (m.name == t.to && !m.weights.weight_is_own) rows = own.extent(0);
  }
  return rows;
}

/** Adds the linear modules that use another module's tensor. */
template <class Table>
void add_tied(model_contract& contract, const Table& file, const adapter& source, const io::contract_options& options) {
  for (const io::tied_modules& t : options.tied) {
    const auto refuse = [&](const text& problem) {
      raise<io_error>(text() << quote(file.path()) << ": contract_options::tied says that " << quote(t.module) << " has the weight of "
                             << quote(t.to) << ", but " << problem.c_str());
    };
    const io::safetensors::tensor* const w = file.find(t.to + ".weight");
    if (w == nullptr || w->rank() != 2) refuse(text() << "there is no tensor " << quote(t.to + ".weight") << " of two axes");
    if (file.find(t.module + ".weight") != nullptr) refuse(text() << "there is a tensor " << quote(t.module + ".weight") << " of its own");
    module_contract m{t.module, rows_of_tied(t, *w, source), w->shape()[1]};
    m.tensor = w->name();
    contract.add(std::move(m));
  }
}

}  // namespace lora::inline v0::detail

namespace lora::inline v0::io {

/**
 * As above, with each adapted weight the way round that the adapter's A [rank, in] and B [out, rank] want it. Only for a square W does
 * fan_in_fan_out decide: PEFT writes one flag for the whole file, that of the module it wrapped last, so that GPT-2 with an adapted lm_head says
 * false although c_attn lies as [in, out]. Modules of which the adapter has nothing but a trained bias (norms) are added with in = 0.
 * Bare parameters that the adapter changes (PEFT's target_parameters) become modules of their own, one for each expert: `<parameter>[7]`.
 *
 * Modules that the adapter adapts as embeddings are of that kind: matrix [width, tokens], layout in_out, whatever the flag says. So is one of
 * which it has nothing but trained token rows, unless `options` says that it is tied to another, as an lm_head is.
 *
 * Where the adapter replaces W, its shape is that of the replacement: adapters of a base whose vocabulary was resized bring embeddings that have
 * grown, and PEFT wants the base resized before it loads them.
 *
 * A W that fits neither way is left as [out, in]: bind() says what does not fit.
 *
 * @throws io_error when the flag cannot be believed for a square W, because a W that is not square lies the other way, adapted or not, when nothing
 *         tells how square experts lie, or when their number differs (make the contract by hand); or when the file contradicts options.tied.
 */
template <tensor_table Table>
[[nodiscard]] model_contract contract_of(const Table& file, const adapter& source, const contract_options& options = {}) {
  model_contract given;
  for (const adapted_module& m : source.modules) {
    if (given.find(m.name) != model_contract::not_found) continue;  // bind() refuses it
    const low_rank& w = m.weights;
    if (m.kind == module_kind::embedding) {
      given.add({m.name, 0, 0, weight_layout::in_out, m.kind});
      continue;
    }
    if (w.a.rank() == 2 && w.b.rank() == 2)
      given.add(m.name, w.b.extent(0), w.a.extent(1));
    else if (w.trained_bias.rank() == 1 && w.trained_bias.size() != 0 && w.weight.rank() != 4)
      given.add(m.name, w.trained_bias.extent(0), 0);
  }
  const model_contract plain = detail::with_replaced_shapes(contract_of(file), source);
  const std::string* contradiction = nullptr;
  const std::string* square = nullptr;
  for (std::size_t i = 0; i < given.size(); ++i) {
    const std::size_t at = plain.find(given[i].name);
    // Embeddings, too, say nothing of the flag.
    if (at == model_contract::not_found || given[i].kind == module_kind::embedding || plain[at].kind != module_kind::linear) continue;
    if (plain[at].out == plain[at].in)
      square = &plain[at].name;
    else if (given[i].in != 0 && (plain[at].out == given[i].in && plain[at].in == given[i].out) != source.fan_in_fan_out)
      contradiction = &plain[at].name;
  }
  for (std::size_t i = 0; i < plain.size(); ++i) {  // weights that are not adapted: the length of their bias tells
    const module_contract& m = plain[i];
    const safetensors::tensor* const bias = m.out == m.in || m.kind != module_kind::linear ? nullptr : file.find(m.name + ".bias");
    if (bias != nullptr && bias->rank() == 1 && bias->shape()[0] == (source.fan_in_fan_out ? m.out : m.in)) contradiction = &m.name;
  }
  if (contradiction != nullptr && square != nullptr)
    detail::raise<io_error>(detail::text() << detail::quote(source.source) << ": fan_in_fan_out is "
                                           << (source.fan_in_fan_out ? "true" : "false") << ", but the weight of "
                                           << detail::quote(*contradiction) << " lies the other way; how the square weight of "
                                           << detail::quote(*square) << " lies cannot be told, so the contract must be made by hand");
  model_contract contract;
  for (std::size_t i = 0; i < plain.size(); ++i) {
    module_contract m = plain[i];
    const std::size_t at = m.kind == module_kind::linear ? given.find(m.name) : model_contract::not_found;
    if (at != model_contract::not_found && given[at].kind == module_kind::embedding) {
      contract.add({m.name, m.in, m.out, weight_layout::in_out, module_kind::embedding});
      continue;
    }
    bool turned = false;
    if (at != model_contract::not_found && given[at].in != 0)
      turned = m.out == m.in ? source.fan_in_fan_out : m.out == given[at].in && m.in == given[at].out;
    else if (at != model_contract::not_found)  // only a bias: its length tells
      turned = m.out == m.in ? source.fan_in_fan_out : m.in == given[at].out && m.out != given[at].out;
    if (turned) {
      std::swap(m.out, m.in);
      m.layout = weight_layout::in_out;
    }
    contract.add(std::move(m));
  }
  detail::add_parameters(contract, file, source);
  for (std::size_t i = 0; i < given.size(); ++i) {
    if (given[i].in != 0 || given[i].kind == module_kind::embedding || plain.find(given[i].name) != model_contract::not_found) continue;
    const safetensors::tensor* const bias = file.find(given[i].name + ".bias");
    if (bias != nullptr && bias->rank() == 1) contract.add(given[i].name, bias->shape()[0], 0);
  }
  detail::add_tied(contract, file, source, options);
  return contract;
}

/**
 * The weight of each module, by index, as [out, in] where it lies: what adapter_set needs for DoRA, and forward() for a product. A convolution
 * is its matrix, an expert or a part of a fused module its place in the tensor. Empty views where the file has no tensor of that name with the
 * module's axes, or one of another dtype than f32, f16 and bf16. A set whose adapters replace weights gives those that products take:
 * set.weights(weights_of(file, model)).
 *
 * @throws shape_error when an expert, or the rows of a part, do not lie in their tensor.
 */
template <tensor_table Table>
[[nodiscard]] std::vector<float_view<2>> weights_of(const Table& file, const model_contract& model) {
  std::vector<float_view<2>> weights(model.size());
  for (std::size_t i = 0; i < model.size(); ++i) {
    const std::string name = weight_name(model[i]);
    const safetensors::tensor* const t = file.find(name);
    if (t == nullptr || (t->type() != dtype::f32 && t->type() != dtype::f16 && t->type() != dtype::bf16)) continue;
    const any_view v = detail::matrix_in(t->view(), model[i], name);
    if (v.rank() != 2) continue;
    if (v.type() == dtype::f32) weights[i] = v.as<const float, 2>();
    if (v.type() == dtype::f16) weights[i] = v.as<const float16, 2>();
    if (v.type() == dtype::bf16) weights[i] = v.as<const bfloat16, 2>();
  }
  return weights;
}

}  // namespace lora::inline v0::io

#endif
