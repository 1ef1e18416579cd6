// SPDX-License-Identifier: Apache-2.0
//
// detail: the tensors of a PEFT adapter that belong to embeddings. Their names end without ".weight" (peft/tuners/lora/layer.py, class Embedding):
//
//   base_model.model.<module>.lora_embedding_A                            [rank, tokens]
//   base_model.model.<module>.lora_embedding_B                            [width, rank]
//   base_model.model.<module>.lora_magnitude_vector                       [width], with DoRA: the norms run over the vocabulary
//   base_model.model.<module>.token_adapter.trainable_tokens_delta        [n, width]: whole rows, not differences, whatever the name says
//                                                                         (peft/tuners/trainable_tokens/layer.py writes them by index_copy)
#ifndef LORA_IO_DETAIL_PEFT_EMBEDDING_HPP
#define LORA_IO_DETAIL_PEFT_EMBEDDING_HPP

#include <lora/adapter/adapter.hpp>
#include <lora/io/detail/factors.hpp>
#include <lora/io/peft_config.hpp>
#include <lora/io/safetensors.hpp>

namespace lora::inline v0::detail {

inline constexpr std::string_view peft_embedding_a = ".lora_embedding_A";
inline constexpr std::string_view peft_embedding_b = ".lora_embedding_B";
inline constexpr std::string_view peft_token_rows = ".token_adapter.trainable_tokens_delta";

/** Whether a tensor is read by assemble_peft_embeddings(). `module_of(name, suffix)` is peft_module. */
template <class ModuleOf>
[[nodiscard]] bool is_peft_embedding(std::string_view name, ModuleOf&& module_of) {
  return !module_of(name, peft_embedding_a).empty() || !module_of(name, peft_embedding_b).empty() ||
         !module_of(name, peft_token_rows).empty();
}

/** Shape and dtype of one tensor; `shape` says in words what is expected. */
inline void require_peft_matrix(const io::safetensors& file, const io::safetensors::tensor& t, const char* shape) {
  if (t.type() != dtype::f32 && t.type() != dtype::f16 && t.type() != dtype::bf16)
    raise<io_error>(about_tensor(file.path(), t.name()) << "dtype " << name_of(t.type()) << " is not one of f32, f16 and bf16");
  if (t.rank() != 2)
    raise<io_error>(about_tensor(file.path(), t.name()) << "shape " << shape_text{t.shape(), t.rank()} << " is not " << shape);
}

/** The list of trainable_token_indices that speaks of a module: PEFT compares the ends of names, without regard to dots. */
[[nodiscard]] inline const io::peft_token_list& peft_tokens_of(const io::peft_config& config, const io::safetensors& file,
                                                               const io::safetensors::tensor& t, std::string_view module) {
  const io::peft_token_list* found = nullptr;
  for (const io::peft_token_list& l : config.trainable_tokens) {
    if (!module.ends_with(l.module)) continue;
    if (found != nullptr)
      raise<io_error>(about_tensor(file.path(), t.name()) << "fits two names of trainable_token_indices of adapter_config.json, "
                                                          << quote(found->module) << " and " << quote(l.module));
    found = &l;
  }
  if (found == nullptr)
    raise<io_error>(about_tensor(file.path(), t.name())
                    << "holds trained token rows, which trainable_token_indices of adapter_config.json does not announce");
  return *found;
}

/** Every list must have its tensor; one without may repeat another's indices: a tied module, whose rows PEFT saves with the embedding. */
inline void check_peft_tokens(const io::peft_config& config, const std::string& config_path,
                              const std::vector<const io::peft_token_list*>& used) {
  for (const io::peft_token_list& l : config.trainable_tokens) {
    bool told = false;
    for (const io::peft_token_list* u : used) told = told || u == &l || u->indices == l.indices;
    if (told) continue;
    text t;
    t << quote(config_path) << ": trainable_token_indices announces " << l.indices.size() << " token rows";
    if (!l.module.empty()) t << " of " << quote(l.module);
    raise<io_error>(t << ", but no tensor of token_adapter.trainable_tokens_delta holds them");
  }
}

/**
 * Adds the embeddings of `file` to `out`, behind what is there. `scale_of(module, a)` checks the rank of A and gives the scale,
 * `vector_of(module, suffix, length)` is a vector of the module or empty.
 */
template <class ModuleOf, class ScaleOf, class VectorOf>
void assemble_peft_embeddings(adapter& out, const io::safetensors& file, const io::peft_config& config, const std::string& config_path,
                              std::string_view prefix, std::string_view magnitude, ModuleOf&& module_of, ScaleOf&& scale_of,
                              VectorOf&& vector_of) {
  const auto partner = [&](std::string_view module, std::string_view suffix) {
    return file.find(std::string(prefix).append(module).append(suffix));
  };
  for (const io::safetensors::tensor& a : file.tensors()) {
    if (const std::string_view of_b = module_of(a.name(), peft_embedding_b); !of_b.empty() && partner(of_b, peft_embedding_a) == nullptr)
      raise<io_error>(about_tensor(file.path(), a.name()) << "has no lora_embedding_A beside it");
    const std::string_view module = module_of(a.name(), peft_embedding_a);
    if (module.empty()) continue;
    const io::safetensors::tensor* const b = partner(module, peft_embedding_b);
    if (b == nullptr) raise<io_error>(about_tensor(file.path(), a.name()) << "has no lora_embedding_B beside it");
    if (config.lora_bias)
      raise<io_error>(about_tensor(file.path(), a.name())
                      << "adapts an embedding, but lora_bias of adapter_config.json is true, which PEFT does not define for embeddings");
    require_peft_matrix(file, a, "that of a matrix [rank, tokens]");
    require_peft_matrix(file, *b, "that of a matrix [width, rank]");
    if (a.shape()[0] != b->shape()[1])
      raise<io_error>(about_tensor(file.path(), a.name())
                      << "shape " << shape_text{a.shape(), 2} << " [rank, tokens] and its lora_embedding_B " << shape_text{b->shape(), 2}
                      << " [width, rank] have different ranks");
    low_rank weights{a.view(), b->view(), scale_of(module, a)};
    if (config.use_dora) weights.magnitude = vector_of(module, magnitude, b->shape()[0]);
    if (config.use_dora && weights.magnitude.size() == 0)
      raise<io_error>(about_tensor(file.path(), a.name())
                      << "has no lora_magnitude_vector beside it, but use_dora of adapter_config.json is true");
    out.modules.push_back({std::string(module), std::move(weights), module_kind::embedding});
  }

  std::vector<const io::peft_token_list*> used;
  for (const io::safetensors::tensor& t : file.tensors()) {
    const std::string_view module = module_of(t.name(), peft_token_rows);
    if (module.empty()) continue;
    const io::peft_token_list& list = peft_tokens_of(config, file, t, module);
    if (list.module.empty() && !used.empty())
      raise<io_error>(
          about_tensor(file.path(), t.name())
          << "is the second of trained token rows, but trainable_token_indices of adapter_config.json is one list, for one embedding");
    used.push_back(&list);
    require_peft_matrix(file, t, "that of token rows [n, width]");
    if (static_cast<std::size_t>(t.shape()[0]) != list.indices.size())
      raise<io_error>(about_tensor(file.path(), t.name())
                      << "shape " << shape_text{t.shape(), 2} << " has " << t.shape()[0]
                      << " rows, but trainable_token_indices of adapter_config.json has " << list.indices.size() << " indices");
    if (t.shape()[1] == 0)
      raise<io_error>(about_tensor(file.path(), t.name())
                      << "shape " << shape_text{t.shape(), 2} << " is not that of token rows [n, width]");
    if (partner(module, peft_embedding_a) != nullptr || partner(module, ".lora_A.weight") != nullptr)
      raise<io_error>(about_tensor(file.path(), t.name())
                      << "replaces rows of a module that is adapted too, which PEFT refuses to combine");
    low_rank weights;
    weights.rows = t.view();
    weights.row_indices = list.indices;
    out.modules.push_back({std::string(module), std::move(weights), module_kind::embedding});
  }
  check_peft_tokens(config, config_path, used);
}

}  // namespace lora::inline v0::detail

#endif
