// SPDX-License-Identifier: Apache-2.0
//
// save_peft: an adapter as the folder that Hugging Face PEFT, and load_peft, read: adapter_model.safetensors and adapter_config.json.
//
//   lora::io::save_peft("adapter_v2", loaded.adapter, {.base_model_name_or_path = "meta-llama/Llama-3.1-8B"});
//
// Every module keeps its own rank and scale: what differs from the first module's goes to rank_pattern and alpha_pattern, under keys that
// match one name only. alpha is written as scale x rank, exactly, so that alpha / rank is the same float again. Tensors keep their types.
#ifndef LORA_IO_PEFT_WRITER_HPP
#define LORA_IO_PEFT_WRITER_HPP

#include <lora/io/detail/factors.hpp>
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

[[nodiscard]] inline std::string peft_config_text(const adapter& source, const io::peft_save_options& options) {
  const low_rank& first = source.modules.front().weights;
  std::string ranks;
  std::string alphas;
  std::string targets;
  for (const adapted_module& m : source.modules) {
    const auto entry = [&](std::string& to, auto value) {
      to += to.empty() ? "\n    " : ",\n    ";
      append_string(to, pattern_of_name(m.name));
      to += ": ";
      append_number(to, value);
    };
    if (m.weights.a.extent(0) != first.a.extent(0)) entry(ranks, m.weights.a.extent(0));
    if (alpha_of(m.weights) != alpha_of(first)) entry(alphas, alpha_of(m.weights));
    targets += targets.empty() ? "\n    " : ",\n    ";
    append_string(targets, m.name);
  }
  std::string out = "{\n  \"alpha_pattern\": {";
  out += alphas.empty() ? "" : alphas + "\n  ";
  const auto text_or_null = [&](const std::string& s) {
    if (s.empty())
      out += "null";
    else
      append_string(out, s);
  };
  out += "},\n  \"base_model_name_or_path\": ";
  text_or_null(options.base_model_name_or_path);
  out += ",\n  \"bias\": \"none\",\n  \"fan_in_fan_out\": ";
  out += source.fan_in_fan_out ? "true" : "false";
  out += ",\n  \"inference_mode\": true,\n  \"init_lora_weights\": true,\n  \"lora_alpha\": ";
  append_number(out, alpha_of(first));
  out += ",\n  \"lora_dropout\": 0.0,\n  \"modules_to_save\": null,\n  \"peft_type\": \"LORA\",\n  \"r\": ";
  append_number(out, first.a.extent(0));
  out += ",\n  \"rank_pattern\": {";
  out += ranks.empty() ? "" : ranks + "\n  ";
  out += "},\n  \"target_modules\": [" + targets + "\n  ],\n  \"task_type\": ";
  text_or_null(options.task_type);
  return out + ",\n  \"use_dora\": false,\n  \"use_rslora\": false\n}\n";
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
 * @throws value_error before anything is written: no modules, a name that occurs twice or is not UTF-8, A and B that do not fit together
 *         or are not f32, f16 or bf16, a scale that is not finite; io_error naming the path and the system's words.
 * @par Cost   One write of the elements, and an fsync for each file and rename.
 */
inline void save_peft(const std::string& directory, const adapter& source, const peft_save_options& options = {}) {
  detail::require_modules("save_peft", source);
  std::vector<named_view> tensors;
  for (const adapted_module& m : source.modules) {
    detail::require_writable("save_peft", m);
    tensors.push_back({"base_model.model." + m.name + ".lora_A.weight", m.weights.a});
    tensors.push_back({"base_model.model." + m.name + ".lora_B.weight", m.weights.b});
  }
  for (const std::string* s : {&options.base_model_name_or_path, &options.task_type})
    if (!detail::is_utf8(*s)) detail::raise<value_error>(detail::text() << "save_peft: " << detail::quote(*s) << " is not UTF-8");
  const std::string model_path = directory + "/adapter_model.safetensors";
  const detail::safetensors_layout layout(model_path, std::move(tensors), {{"format", "pt"}});
  const std::string text = detail::peft_config_text(source, options);

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
