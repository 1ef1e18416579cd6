// SPDX-License-Identifier: Apache-2.0
//
// load_peft: a LoRA adapter as Hugging Face PEFT saves it: a directory with adapter_config.json and adapter_model.safetensors. Gives the
// pairs (A, B, scale) of all modules as views into the mapped file, unchecked against any model. It writes nothing.
//
//   auto loaded = lora::io::load_peft("adapter_v1");
//   for (const auto& m : loaded.adapter.modules) use(m.name, m.weights.a, m.weights.b, m.weights.scale);
//   for (const auto& p : loaded.report.unused_patterns) log(p);
//
// Biases of B (lora_bias), magnitudes of DoRA, trained biases, trained token rows and replaced weights (modules_to_save, copies of embeddings)
// come with their modules; other tensors that modules_to_save replaces, those of norms, are adapter::tensors. Whatever would make the result differ from PEFT's is
// refused by name: configuration fields (io/peft_config.hpp), other tensors, A without B, ranks that disagree, tensors that the configuration
// does not announce or announces in vain, pattern keys outside the supported subset (io/pattern.hpp).
#ifndef LORA_IO_PEFT_HPP
#define LORA_IO_PEFT_HPP

#include <lora/adapter/adapter.hpp>
#include <lora/io/contract.hpp>
#include <lora/io/detail/conv_factors.hpp>
#include <lora/io/detail/peft_embedding.hpp>
#include <lora/io/detail/peft_experts.hpp>
#include <lora/io/detail/peft_saved.hpp>
#include <lora/io/pattern.hpp>
#include <lora/io/peft_config.hpp>
#include <lora/io/safetensors.hpp>

#include <cfloat>
#include <filesystem>

namespace lora::inline v0::io {

struct peft_options {
  bool prefault = false;  ///< read the tensors from disk now instead of when they are first used
  /** Where A and B will be. An adapter of 4 MiB and more may gain from huge pages; a copy is also safe from writers that truncate the file. */
  io::placement placement = io::placement::mapping;
  /**
   * Of a module with several adapted parameters (target_parameters): their names in the order in which the model's class registers them, which
   * the file does not say. transformers' gate_up_proj before down_proj is known.
   */
  std::vector<std::string> parameter_order{};
};

/** What was accepted silently and might deserve a look. */
struct load_report {
  /** "rank_pattern: KEY" for each key that decided nothing: it matches no module, or an earlier key always matches first; so too
   *  "modules_to_save: NAME" where the file has nothing of it. */
  std::vector<std::string> unused_patterns;
  /** Tensors that replace the base's without modules_to_save naming them, as PEFT takes them: copies of embeddings that were adapted or resized. */
  std::vector<std::string> saved_along;
  /** Configuration fields that PEFT 0.21.2 does not have, with values that switch nothing on. */
  std::vector<std::string> unknown_fields;
  std::size_t tensors_used = 0;  ///< all tensors of the file: others are refused
};

struct peft_adapter {
  /**
   * In the order of the A tensors in the file, then embeddings, likewise, modules with trained token rows, and modules with a trained bias only;
   * `owner` keeps the mapping, or the copy.
   */
  lora::adapter adapter;
  peft_config config;
  load_report report;
  std::size_t bytes_copied = 0;  ///< see safetensors::bytes_copied()
};

}  // namespace lora::inline v0::io

namespace lora::inline v0::detail {

/** The patterns of one field, compiled, and which of them decided anything. */
template <class Value>
class peft_patterns {
 public:
  using entries = std::vector<io::peft_config::pattern_value<Value>>;

  peft_patterns(const entries& patterns, const char* field, const std::string& file)
      : all_(patterns), field_(field), file_(file), used_(patterns.size(), false) {
    programs_.resize(patterns.size());
    std::size_t states = 0;
    for (std::size_t i = 0; i < patterns.size(); ++i) {
      if (const pattern_failure f = pattern_compiler(patterns[i].key).compile(programs_[i], true))
        raise<io_error>(about(i) << f.sentence << " (position " << f.position << ")");
      // Short keys can expand to long programs: 4 million states are some 200 MB. 50,000 plain module names need 3 million.
      states += programs_[i].code.size() + 16;
      if (states > std::size_t{1} << 22) raise<io_error>(about(i) << "all keys up to this one need too much memory");
    }
  }

  /** The value of the first key that matches, as PEFT's get_pattern_key. */
  [[nodiscard]] Value value_for(std::string_view module, Value otherwise, std::uint64_t& steps) {
    for (std::size_t i = 0; i < all_.size(); ++i) {
      const pattern_answer answer = pattern_runner(programs_[i], module, true, steps).run();
      if (answer == pattern_answer::undefined)
        raise<io_error>(about(i) << "\\d, \\w and \\s are supported for ASCII names only, not for the module " << quote(module));
      // Work, not time: some 20 s. A thousand patterns for a thousand modules need a thousandth of it.
      if (steps > std::uint64_t{1} << 32) raise<io_error>(about(i) << "matching the patterns against the modules takes too long");
      if (answer == pattern_answer::yes) return use(i);
    }
    // When nothing matches, PEFT looks the module's name up as a key all the same.
    for (std::size_t i = 0; i < all_.size(); ++i)
      if (all_[i].key == module) return use(i);
    return otherwise;
  }

  void report_unused(std::vector<std::string>& out) const {
    for (std::size_t i = 0; i < all_.size(); ++i)
      if (!used_[i]) out.push_back(std::string(field_) + ": " + all_[i].key);
  }

 private:
  [[nodiscard]] text about(std::size_t i) const noexcept {
    return text() << quote(file_) << ": " << field_ << " " << quote(all_[i].key) << ": ";
  }
  [[nodiscard]] Value use(std::size_t i) {
    used_[i] = true;
    return all_[i].value;
  }

  const entries& all_;
  const char* field_;
  const std::string& file_;
  std::vector<pattern_program> programs_;
  std::vector<bool> used_;
};

inline constexpr std::string_view peft_prefix = "base_model.model.";
inline constexpr std::string_view peft_a = ".lora_A.weight";
inline constexpr std::string_view peft_b = ".lora_B.weight";
inline constexpr std::string_view peft_b_bias = ".lora_B.bias";
inline constexpr std::string_view peft_magnitude = ".lora_magnitude_vector";
inline constexpr std::string_view peft_wrapped_bias = ".base_layer.bias";  // of a module that is adapted too
inline constexpr std::string_view peft_bias = ".bias";                     // of one that is not

/** The module in base_model.model.<module><suffix>; empty when the name is not of that form. */
[[nodiscard]] inline std::string_view peft_module(std::string_view name, std::string_view suffix) noexcept {
  if (!name.starts_with(peft_prefix) || !name.ends_with(suffix) || name.size() <= peft_prefix.size() + suffix.size()) return {};
  return name.substr(peft_prefix.size(), name.size() - peft_prefix.size() - suffix.size());
}

/** Why a tensor is not used, told from its name. */
[[nodiscard]] inline const char* peft_stranger(std::string_view name) noexcept {
  const auto has = [&](std::string_view part) { return name.find(part) != std::string_view::npos; };
  if (has("lora_diag")) return "is a diagonal of KaSA, which is not supported";
  if (has(".base_layer.")) return "is a copy of a base tensor of a module that has no lora_A";
  if (!name.starts_with(peft_prefix)) return "does not begin with 'base_model.model.', as the names of PEFT do";
  if (name.ends_with(peft_a) || name.ends_with(peft_b)) return "names no module";
  if (has("lora_embedding_") || has("trainable_tokens_delta"))
    return "does not end in .lora_embedding_A, .lora_embedding_B or .token_adapter.trainable_tokens_delta behind a module";
  if (has(".lora_A.") || has(".lora_B."))
    return "does not end in .lora_A.weight or .lora_B.weight (a name of the adapter inside is not PEFT's file format)";
  return "is not a lora_A or lora_B weight, and modules_to_save does not name its module";
}

/** True only when there is nothing of that name: other failures are for mapped_file::open to report. */
[[nodiscard]] inline bool is_missing(const std::string& path) {
  std::error_code failed;
  return std::filesystem::status(path, failed).type() == std::filesystem::file_type::not_found;
}

/** An error for a directory without configuration: the likely mistakes are named. */
[[noreturn, gnu::cold, gnu::noinline]] inline void raise_no_peft_config(const std::string& directory) {
  namespace fs = std::filesystem;
  std::error_code failed;
  std::vector<std::string> found;
  for (fs::directory_iterator i(directory, failed), end; !failed && i != end; i.increment(failed)) {
    std::error_code ignored;
    if (fs::is_regular_file(i->path() / "adapter_config.json", ignored)) found.push_back(i->path().string());
  }
  std::sort(found.begin(), found.end());
  text t;
  t << quote(directory) << ": there is no adapter_config.json";
  if (!found.empty()) {
    t << "; PEFT saves adapters with a name of their own in sub-folders: pass";
    for (std::size_t i = 0; i < found.size() && i < 3; ++i) t << (i == 0 ? " " : " or ") << quote(found[i]);
    if (found.size() > 3) t << " or another of its " << found.size() << " adapters";
  } else if (!is_missing(directory + "/adapter_model.safetensors")) {
    t << " beside its adapter_model.safetensors: rank and alpha are unknown without it";
  } else if (is_missing(directory)) {
    t << ": the directory does not exist";
  }
  raise<io_error>(t);
}

inline void require_matrix(const io::safetensors& file, const io::safetensors::tensor& t) {
  if (t.type() != dtype::f32 && t.type() != dtype::f16 && t.type() != dtype::bf16)
    raise<io_error>(about_tensor(file.path(), t.name()) << "dtype " << name_of(t.type()) << " is not one of f32, f16 and bf16");
  if (t.rank() != 2)
    raise<io_error>(about_tensor(file.path(), t.name()) << "shape " << shape_text{t.shape(), t.rank()} << " is not that of a matrix");
}

inline void require_vector(const io::safetensors& file, const io::safetensors::tensor& t, index_t out) {
  if (t.type() != dtype::f32 && t.type() != dtype::f16 && t.type() != dtype::bf16)
    raise<io_error>(about_tensor(file.path(), t.name()) << "dtype " << name_of(t.type()) << " is not one of f32, f16 and bf16");
  if (t.rank() != 1 || t.shape()[0] == 0 || (out >= 0 && t.shape()[0] != out)) {
    text problem = about_tensor(file.path(), t.name());
    problem << "shape " << shape_text{t.shape(), t.rank()} << " is not ";
    if (out >= 0)
      problem << "[" << out << "], the outputs of its lora_B";
    else
      problem << "that of a bias";
    raise<io_error>(problem);
  }
}

/** What a tensor beside A and B belongs to. */
struct peft_extra {
  std::string_view module;  // empty: it is none of these
  std::string_view suffix;
};
[[nodiscard]] inline peft_extra peft_extra_of(std::string_view name) noexcept {
  for (const std::string_view suffix : {peft_b_bias, peft_magnitude, peft_wrapped_bias, peft_bias})
    if (const std::string_view module = peft_module(name, suffix); !module.empty()) return {module, suffix};
  return {};
}

/**
 * Whether an extra tensor is announced by the configuration and has its pair; trained biases of modules that are not adapted become modules
 * of their own.
 */
inline void check_peft_extra(io::peft_adapter& out, const io::safetensors& file, const io::safetensors::tensor& t, const peft_extra& e) {
  const bool trained = e.suffix == peft_wrapped_bias || e.suffix == peft_bias;
  const bool announced = trained ? out.config.trains_bias : e.suffix == peft_magnitude ? out.config.use_dora : out.config.lora_bias;
  if (!announced)
    raise<io_error>(about_tensor(file.path(), t.name()) << (trained                      ? "is a trained bias, but bias"
                                                            : e.suffix == peft_magnitude ? "is a magnitude of DoRA, but use_dora"
                                                                                         : "is a bias of B, but lora_bias")
                                                        << " of adapter_config.json is " << (trained ? "\"none\"" : "false"));
  const std::string partner = std::string(peft_prefix).append(e.module).append(peft_a);
  const bool embedding =
      e.suffix == peft_magnitude && file.find(std::string(peft_prefix).append(e.module).append(peft_embedding_a)) != nullptr;
  const bool paired = embedding || file.find(partner) != nullptr;
  if (e.suffix == peft_bias) {
    if (paired)
      raise<io_error>(about_tensor(file.path(), t.name())
                      << "is a trained bias of an adapted module; its name would end in .base_layer.bias");
    require_vector(file, t, -1);
    adapted_module m;
    m.name = e.module;
    m.weights.trained_bias = t.view();
    out.adapter.modules.push_back(std::move(m));
  } else if (!paired) {
    raise<io_error>(about_tensor(file.path(), t.name()) << "has no lora_A beside it");
  }
}

/** The tensor of a module with this suffix, checked; empty when there is none. */
inline any_view peft_vector(const io::safetensors& file, std::string_view module, std::string_view suffix, index_t rows) {
  const io::safetensors::tensor* const t = file.find(std::string(peft_prefix).append(module).append(suffix));
  if (t == nullptr) return {};
  require_vector(file, *t, rows);
  return t->view();
}

/** Pairs the tensors of `file` and gives each pair its rank and scale by out.config: load_peft without the disk. */
inline void assemble_peft(io::peft_adapter& out, const io::safetensors& file, const std::string& config_path,
                          const std::vector<std::string>& parameter_order = {}) {
  peft_patterns<index_t> ranks(out.config.rank_pattern, "rank_pattern", config_path);
  peft_patterns<double> alphas(out.config.alpha_pattern, "alpha_pattern", config_path);
  const scale_rule rule = out.config.use_rslora ? scale_rule::alpha_over_sqrt_rank : scale_rule::alpha_over_rank;
  std::uint64_t steps = 0;
  const auto scale_of = [&](std::string_view module, const io::safetensors::tensor& a) {
    const index_t rank = ranks.value_for(module, out.config.rank, steps);
    const double alpha = alphas.value_for(module, out.config.alpha, steps);
    if (a.shape()[0] != rank)
      raise<io_error>(about_tensor(file.path(), a.name()) << "shape " << shape_text{a.shape(), a.rank()} << " has rank " << a.shape()[0]
                                                          << ", but r and rank_pattern of adapter_config.json say " << rank);
    if (!(std::abs(alpha) <= static_cast<double>(FLT_MAX)))
      raise<io_error>(text() << quote(config_path) << ": the alpha of module " << quote(module) << " does not fit a float");
    return scale_for(alpha, rank, rule);
  };
  peft_parameters parameters(file, out.config, parameter_order);
  peft_saved saved(file, out.config);

  for (const io::safetensors::tensor& a : file.tensors()) {
    const std::string_view module = peft_module(a.name(), peft_a);
    if (module.empty()) {
      const std::string_view module_of_b = peft_module(a.name(), peft_b);
      if (!peft_extra_of(a.name()).module.empty() || is_peft_embedding(a.name(), peft_module) || saved.takes(a))
        continue;  // looked at below
      if (module_of_b.empty()) raise<io_error>(about_tensor(file.path(), a.name()) << peft_stranger(a.name()));
      const std::string partner = std::string(peft_prefix).append(module_of_b).append(peft_a);
      if (file.find(partner) == nullptr) raise<io_error>(about_tensor(file.path(), a.name()) << "has no lora_A beside it");
      continue;
    }
    const std::string partner = std::string(peft_prefix).append(module).append(peft_b);
    const io::safetensors::tensor* const b = file.find(partner);
    if (b == nullptr) raise<io_error>(about_tensor(file.path(), a.name()) << "has no lora_B beside it");
    const bool convolution = is_convolution(a.rank());
    if (!convolution) {
      require_matrix(file, a);
      require_matrix(file, *b);
    }
    if (parameters.append(out.adapter, a, *b, module, ranks, alphas, rule, steps)) continue;
    const factor_pair pair = convolution ? checked_pair(file.path(), {a.name(), a.view(), a.offset()}, {b->name(), b->view(), b->offset()})
                                         : factor_pair{a.view(), b->view()};

    if (a.shape()[0] != b->shape()[1])
      raise<io_error>(about_tensor(file.path(), a.name()) << "shape " << shape_text{a.shape(), 2} << " [rank, in] and its lora_B "
                                                          << shape_text{b->shape(), 2} << " [out, rank] have different ranks");
    adapted_module m = pair.module(std::string(module), scale_of(module, a));
    low_rank& weights = m.weights;
    if (out.config.lora_bias) weights.bias = peft_vector(file, module, peft_b_bias, b->shape()[0]);
    if (out.config.use_dora)
      weights.magnitude = convolution ? conv_magnitude(file, std::string(peft_prefix).append(module).append(peft_magnitude), b->shape()[0])
                                      : peft_vector(file, module, peft_magnitude, b->shape()[0]);
    if (out.config.trains_bias) weights.trained_bias = peft_vector(file, module, peft_wrapped_bias, b->shape()[0]);
    if (out.config.lora_bias && weights.bias.size() == 0)
      raise<io_error>(about_tensor(file.path(), b->name()) << "has no bias beside it, but lora_bias of adapter_config.json is true");
    if (out.config.use_dora && weights.magnitude.size() == 0)
      raise<io_error>(about_tensor(file.path(), a.name())
                      << "has no lora_magnitude_vector beside it, but use_dora of adapter_config.json is true");
    out.adapter.modules.push_back(std::move(m));
  }
  assemble_peft_embeddings(
      out.adapter, file, out.config, config_path, peft_prefix, peft_magnitude, peft_module, scale_of,
      [&](std::string_view module, std::string_view suffix, index_t n) { return peft_vector(file, module, suffix, n); });
  for (const io::safetensors::tensor& t : file.tensors())
    if (const peft_extra e = peft_extra_of(t.name()); !e.module.empty() && !saved.takes(t)) check_peft_extra(out, file, t, e);
  saved.add_to(out.adapter);
  out.adapter.fan_in_fan_out = out.config.fan_in_fan_out;
  if (out.adapter.modules.empty()) raise<io_error>(text() << quote(file.path()) << ": the adapter adapts no module");
  ranks.report_unused(out.report.unused_patterns);
  alphas.report_unused(out.report.unused_patterns);
  saved.report(out.report.unused_patterns, out.report.saved_along);
  out.report.unknown_fields = out.config.unknown_fields;
  out.report.tensors_used = file.tensors().size();
}

}  // namespace lora::inline v0::detail

namespace lora::inline v0::io {

/**
 * Loads the adapter of a directory.
 *
 * Names are base_model.model.<module>.lora_A.weight [rank, in] and .lora_B.weight [out, rank], of embeddings lora_embedding_A [rank, tokens]
 * and lora_embedding_B [width, rank], of dtype f32, f16 or bf16, carried as they are; of a convolution, lora_A [rank, channels, height, width] and
 * lora_B [out, rank, 1, 1], carried as the matrices that they are. A parameter of experts (target_parameters) becomes a module `<parameter>[e]`
 * for each of them, its factors views of the file's. The rank is read from the tensors and must be the one of r and rank_pattern. The scale is alpha / rank, or alpha / sqrt(rank) with
 * use_rslora, of the module's own alpha and rank.
 *
 * @throws io_error with one sentence that names the file and the field, key or tensor. Nothing is loaded then.
 * @par Cost   The configuration and the header are read; tensors stay in the mapping, or are copied (see peft_adapter::bytes_copied).
 * @par Threads   Safe beside anything.
 */
[[nodiscard]] inline peft_adapter load_peft(const std::string& directory, const peft_options& options = {}) {
  const std::string config_path = directory + "/adapter_config.json";
  const std::string model_path = directory + "/adapter_model.safetensors";
  if (detail::is_missing(config_path)) detail::raise_no_peft_config(directory);
  if (detail::is_missing(model_path))
    detail::raise<io_error>(detail::text() << detail::quote(directory) << ": there is no adapter_model.safetensors"
                                           << (detail::is_missing(directory + "/adapter_model.bin")
                                                   ? ""
                                                   : "; its adapter_model.bin is a pickle, which is never read: save it as safetensors"));
  peft_adapter out;
  {
    const mapped_file config = mapped_file::open(config_path);
    out.config = peft_config::parse(config.bytes(), config_path);
  }
  auto mapping = std::make_shared<const mapped_file>(mapped_file::open(model_path));
  const bool copied = options.placement == placement::huge_pages;
  if (copied) mapping->prefault();
  const safetensors file = safetensors::parse(mapping->bytes(), model_path, mapping, {.placement = options.placement});

  detail::assemble_peft(out, file, config_path, options.parameter_order);
  if (options.prefault && !copied) mapping->prefault();

  out.bytes_copied = file.bytes_copied();
  out.adapter.source = directory;
  out.adapter.owner = file.owner();
  if (out.bytes_copied == 0) out.adapter.region = mapping->bytes();  // else some tensors lie in copies beside the mapping
  return out;
}

}  // namespace lora::inline v0::io

#endif
