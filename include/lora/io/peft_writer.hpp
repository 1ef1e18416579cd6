// SPDX-License-Identifier: Apache-2.0
//
// save_peft: an adapter as the folder that Hugging Face PEFT, and load_peft, read: adapter_model.safetensors and adapter_config.json.
//
//   lora::io::save_peft("adapter_v2", loaded.adapter, {.base_model_name_or_path = "meta-llama/Llama-3.1-8B"});
//
// Every module keeps its own rank and scale: what differs from the first module's goes to rank_pattern and alpha_pattern, under keys that
// match one name only. alpha is written as scale x rank, exactly, so that alpha / rank is the same float again. Tensors keep their types.
// Everything that low_rank and adapter can say is written: biases of B, DoRA, trained biases, embeddings, convolutions, replaced weights and
// tensors, trained token rows. What one configuration of PEFT cannot say is refused by name: some modules with DoRA and some without.
#ifndef LORA_IO_PEFT_WRITER_HPP
#define LORA_IO_PEFT_WRITER_HPP

#include <lora/io/detail/peft_layout.hpp>
#include <lora/io/safetensors_writer.hpp>

namespace lora::inline v0::io {

struct peft_save_options {
  std::string base_model_name_or_path;  ///< null in the file when empty, like the next one
  std::string task_type;                ///< "CAUSAL_LM", ...
};

}  // namespace lora::inline v0::io

namespace lora::inline v0::detail {

/** A key that PEFT's rule matches with this module alone: anchored in front, whatever means something in a pattern escaped. */
[[nodiscard]] inline std::string pattern_of_name(std::string_view name) {
  std::string out = "^";
  for (const char c : name) {
    if (std::string_view("\\.^$*+?{}[]()|").find(c) != std::string_view::npos) out += '\\';
    out += c;
  }
  return out;
}

/** Members of a JSON object or array, one a line, indented under a field. */
class json_members {
 public:
  template <class Value>
  void add(std::string_view key, Value value) {
    next();
    append_string(text_, key);
    text_ += ": ";
    append_number(text_, value);
  }
  void add(std::string_view key, const std::vector<index_t>& values) {
    next();
    append_string(text_, key);
    text_ += ": [";
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (i != 0) text_ += ", ";
      append_number(text_, values[i]);
    }
    text_ += ']';
  }
  void add(std::string_view name) {
    next();
    append_string(text_, name);
  }
  [[nodiscard]] bool empty() const noexcept { return text_.empty(); }
  [[nodiscard]] std::string object() const { return "{" + text_ + (empty() ? "}" : "\n  }"); }
  [[nodiscard]] std::string array_or_null() const { return empty() ? "null" : "[" + text_ + "\n  ]"; }

 private:
  void next() { text_ += empty() ? "\n    " : ",\n    "; }
  std::string text_;
};

[[nodiscard]] inline std::string peft_config_text(const adapter& source, const peft_layout& layout, const io::peft_save_options& options) {
  const low_rank& first = *layout.first;
  json_members ranks;
  json_members alphas;
  json_members targets;
  json_members saved;
  json_members rows;
  for (const adapted_module& m : source.modules) {
    if (m.weights.rows.size() != 0) rows.add(m.name, m.weights.row_indices);
    if (!has_pair(m.weights)) continue;
    if (m.weights.a.extent(0) != first.a.extent(0)) ranks.add(pattern_of_name(m.name), m.weights.a.extent(0));
    if (alpha_of(m.weights) != alpha_of(first)) alphas.add(pattern_of_name(m.name), alpha_of(m.weights));
    targets.add(m.name);
  }
  for (const std::string_view name : layout.modules_to_save) saved.add(name);
  std::string out = "{";
  const auto field = [&](const char* name, std::string_view value) {
    out += out.size() == 1 ? "\n  \"" : ",\n  \"";
    out.append(name).append("\": ").append(value);
  };
  const auto text_or_null = [](const std::string& s) {
    std::string value = s.empty() ? "null" : "";
    if (!s.empty()) append_string(value, s);
    return value;
  };
  const auto number = [](auto n) {
    std::string value;
    append_number(value, n);
    return value;
  };
  const auto flag = [](bool set) { return set ? "true" : "false"; };
  field("alpha_pattern", alphas.object());
  field("base_model_name_or_path", text_or_null(options.base_model_name_or_path));
  field("bias", layout.trains_bias ? "\"all\"" : "\"none\"");
  field("fan_in_fan_out", flag(source.fan_in_fan_out));
  field("inference_mode", "true");
  field("init_lora_weights", "true");
  field("lora_alpha", number(alpha_of(first)));
  field("lora_bias", flag(layout.lora_bias));
  field("lora_dropout", "0.0");
  field("modules_to_save", saved.array_or_null());
  field("peft_type", "\"LORA\"");
  field("r", number(first.a.extent(0)));
  field("rank_pattern", ranks.object());
  field("target_modules", targets.array_or_null());
  field("task_type", text_or_null(options.task_type));
  field("trainable_token_indices", rows.empty() ? "null" : rows.object());
  field("use_dora", flag(layout.use_dora));
  field("use_rslora", "false");
  return out + "\n}\n";
}

}  // namespace lora::inline v0::detail

namespace lora::inline v0::io {

/**
 * Writes the two files into `directory`, which is made when it is not there (its parent must be).
 *
 * Both are complete on the disk before the first is renamed, so that a full disk leaves an old adapter as it was. The two renames are not
 * one: who reads the folder in that moment can see the new tensors with the old configuration. To publish while others read, write into
 * a new folder and rename it.
 *
 * PEFT's lora_bias holds for all modules: where some have a bias of B and others have none, those get zeros, which add nothing. Where a weight
 * is replaced, PEFT wants every parameter of that module from the file: a bias that the base has belongs into low_rank::trained_bias.
 *
 * @throws value_error before anything is written: no module with A and B, a name that occurs twice or is not UTF-8, tensors that do not fit
 *         together or are not f32, f16 or bf16, a scale that is not finite, or what PEFT cannot express: modules with DoRA beside others
 *         without, lora_bias with DoRA or of an embedding, rows of an embedding that is adapted or replaced too, names of replaced modules
 *         that other names end in; io_error naming the path and the system's words.
 * @par Cost   One write of the elements, and an fsync for each file and rename.
 */
inline void save_peft(const std::string& directory, const adapter& source, const peft_save_options& options = {}) {
  detail::peft_layout files(source);
  for (const std::string* s : {&options.base_model_name_or_path, &options.task_type})
    if (!detail::is_utf8(*s)) detail::raise<value_error>(detail::text() << "save_peft: " << detail::quote(*s) << " is not UTF-8");
  const std::string model_path = directory + "/adapter_model.safetensors";
  const std::string text = detail::peft_config_text(source, files, options);
  const detail::safetensors_layout layout(model_path, std::move(files.tensors), {{"format", "pt"}});

  detail::make_folder(directory);
  detail::atomic_file model(model_path);
  layout.write(model);
  detail::atomic_file config(directory + "/adapter_config.json");
  config.write(text.data(), text.size());
  model.commit();
  config.commit();
}

}  // namespace lora::inline v0::io

#endif
