// SPDX-License-Identifier: Apache-2.0
//
// What a PATH is, and the adapter in it. The only place that knows which reader belongs to which format: the commands see a lora::adapter.
#ifndef LORA_EXAMPLES_LORA_SOURCE_HPP
#define LORA_EXAMPLES_LORA_SOURCE_HPP

#include "options.hpp"

#include <lora/adapter/adapter_set.hpp>
#include <lora/adapter/fused.hpp>
#include <lora/io/sharded.hpp>

#include <memory>
#include <optional>

namespace program {

enum class format { base, peft, kohya, diffusers, gguf, json };
[[nodiscard]] const char* name_of(format f) noexcept;

/** Told from the folder or the bytes, not from the name, but for *.json. @throws lora::io_error when it cannot be opened, or is nothing known. */
[[nodiscard]] format format_of(const std::string& path);

/** --fused: the parts of every module that is called `name` or ends in it. */
struct fused_module {
  std::string name;
  std::vector<lora::fused_part> parts;
};

/** The base: its file or files, and its modules as names and shapes alone tell. How each lies, the adapters must tell: adapted.hpp. */
struct base_model {
  lora::io::sharded file;
  lora::io::contract_options options;  ///< --tied
  std::vector<fused_module> fused;
  lora::model_contract contract;
};
/** @throws usage_error when --tied or --fused cannot be read, lora::io_error when they contradict the file. */
[[nodiscard]] base_model open_base(const base_option& o, bool needs_modules = true);
/** The same where a command can do without. @throws usage_error for --tied and --fused without a base. */
[[nodiscard]] std::optional<base_model> open_base_if_given(const base_option& o);

/** An adapter, whatever it was stored as. */
struct source {
  format kind = format::peft;
  std::string path;
  lora::adapter adapter;
  std::vector<std::string> notes;  ///< accepted, but worth a look: patterns that matched nothing, unknown fields
  std::string architecture;        ///< of a gguf
};

/** What a nameless .json of the protocol is taken for. */
enum class nameless { refused, allowed };

/**
 * @param base    gives the names of kohya their dots back, places a nameless module, and is what the adapter must then fit; may be null
 * @param module  what a nameless module is taken for
 * @throws lora::error naming the file; usage_error when the format cannot be read without --base.
 */
[[nodiscard]] source load(const std::string& path, const base_model* base, nameless rule = nameless::refused,
                          const std::string& module = {});

/** All adapters of a command, in its order. */
[[nodiscard]] std::vector<source> load_all(const std::vector<weighted_path>& paths, const base_model& base, const std::string& module = {});
[[nodiscard]] std::vector<float> weights_of(const std::vector<weighted_path>& paths);

/**
 * One module as a term of a sum and its vectors, unbound: for norms. Of rank 0 where it has no A and B.
 * @throws lora::bind_error naming file and module when what it has does not fit together.
 */
[[nodiscard]] lora::bound_module checked(const lora::adapter& from, const lora::adapted_module& m);

/** What a module has beside A, B and the scale: "DoRA", "lora_bias", "bias" (a trained one), "weight" (a replaced one), "rows". */
[[nodiscard]] std::vector<std::string> extras_of(const lora::low_rank& w);

}  // namespace program

#endif
