// SPDX-License-Identifier: Apache-2.0
#include "output.hpp"
#include "source.hpp"
#include "terminal.hpp"

#include <lora/io/gguf_adapter_writer.hpp>
#include <lora/io/json_adapter_writer.hpp>
#include <lora/io/kohya_writer.hpp>

#include <cstdio>
#include <optional>

namespace program {
namespace {

/** llama.cpp loads an adapter only when each of its tensors belongs to one of the base, and its names are not those of other frameworks. */
[[nodiscard]] bool has_gguf_name(std::string_view module) {
  if (module == "output") return true;
  if (!module.starts_with("blk.")) return false;
  module.remove_prefix(4);
  const std::size_t digits = module.find_first_not_of("0123456789");
  return digits != 0 && digits != std::string_view::npos && module[digits] == '.' && module.size() > digits + 1;
}

/** What only PEFT's folder can say and the other writers cannot see: they refuse what a module has beside A, B and the scale themselves. */
void require_layout_told(const source& s) {
  for (const auto& m : s.adapter.modules) {
    const bool square = m.weights.a.rank() == 2 && m.weights.b.rank() == 2 && m.weights.a.extent(1) == m.weights.b.extent(0);
    if (s.adapter.fan_in_fan_out && square && m.kind == lora::module_kind::linear)
      lora::detail::raise<lora::value_error>(
          lora::detail::text()
          << "module " << lora::detail::quote(m.name)
          << " lies as [in, out] in its base (fan_in_fan_out), which no shape tells of a square weight, nor does the format");
  }
}

void write(const convert_options& o, const source& s) {
  if (o.to == "peft") return write_peft(o.output, s.adapter);
  require_file_output(o.output);
  require_layout_told(s);
  if (o.to == "kohya") return lora::io::save_kohya(o.output, s.adapter);
  if (o.to == "json") return lora::io::save_json(o.output, s.adapter);
  for (const auto& m : s.adapter.modules)
    if (!has_gguf_name(m.name))
      lora::detail::raise<lora::value_error>(lora::detail::text()
                                             << "module " << lora::detail::quote(m.name)
                                             << ": llama.cpp calls modules blk.N.NAME, and for some models it also reorders their rows, "
                                                "which a change of the name alone would not do");
  const std::string& architecture = o.architecture.empty() ? s.architecture : o.architecture;
  if (!s.architecture.empty() && architecture != s.architecture)
    lora::detail::raise<lora::value_error>(lora::detail::text() << "it is for " << lora::detail::quote(s.architecture) << ", not for "
                                                                << lora::detail::quote(architecture));
  lora::io::save_gguf(o.output, s.adapter, {.architecture = architecture, .name = ""});
}

}  // namespace

void convert(const convert_options& o) {
  const std::optional<base_model> base = open_base_if_given(o.base);
  const source s = load(o.input, base ? &*base : nullptr);
  if (o.to == "gguf" && o.architecture.empty() && s.architecture.empty())
    throw usage_error("--architecture is required: a gguf adapter says which models it is for, and the input does not");
  try {
    write(o, s);
  } catch (const lora::value_error& e) {  // the format cannot say it; the file to name is the input
    throw lora::value_error(("'" + o.input + "': it cannot be written as " + o.to + ": " + e.what()).c_str());
  }
  std::printf("%s: %zu modules, from %s to %s\n", escaped(o.output).c_str(), s.adapter.modules.size(), name_of(s.kind), o.to.c_str());
}

}  // namespace program
