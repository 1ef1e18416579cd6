// SPDX-License-Identifier: Apache-2.0
//
// save_kohya: an adapter as the .safetensors file of kohya-ss' scripts (io/kohya.hpp).
//
//   lora::io::save_kohya("style.safetensors", loaded.adapter, {.component = "lora_unet"});
//
// Modules in unet., text_encoder., text_encoder_2. and text_encoder_3. go to lora_unet, lora_te (lora_te1 where there is a second text
// encoder), lora_te2 and lora_te3; others to the component of the options. Two names that become one without their dots are refused, and
// so is a scale of 0, because an alpha of 0 means 1 to every reader of this format.
#ifndef LORA_IO_KOHYA_WRITER_HPP
#define LORA_IO_KOHYA_WRITER_HPP

#include <lora/io/kohya.hpp>
#include <lora/io/safetensors_writer.hpp>

namespace lora::inline v0::io {

struct kohya_save_options {
  std::string component = "lora_unet";  ///< of modules whose name does not say where they stand
  std::vector<metadata_pair> metadata;  ///< "ss_network_module", ...; written as it is
};

/**
 * @throws value_error before anything is written: no modules, names that collide, A and B that do not fit together or are not f32, f16 or
 *         bf16, a scale that is 0 or that no f32 alpha gives; io_error naming the path and the system's words.
 * @par Cost   One write of the elements, and two fsync.
 */
inline void save_kohya(const std::string& path, const adapter& source, const kohya_save_options& options = {}) {
  using detail::text;
  detail::require_modules("save_kohya", source);
  const auto in = [](std::string_view name, std::string_view folder) { return name.starts_with(folder); };
  const bool two = std::any_of(source.modules.begin(), source.modules.end(), [&](const auto& m) { return in(m.name, "text_encoder_2."); });
  std::vector<std::string> keys;
  std::vector<float> alphas(source.modules.size());
  std::vector<named_view> tensors;
  for (std::size_t i = 0; i < source.modules.size(); ++i) {
    const adapted_module& m = source.modules[i];
    detail::require_writable("save_kohya", m);
    if (m.weights.scale == 0.0f || !detail::float_alpha_of(m.weights, alphas[i]))
      detail::raise<value_error>(
          text() << "save_kohya: module " << detail::quote(m.name)
                 << ": its scale cannot be written: it is 0, which reads back as 1, or no f32 alpha divided by its rank "
                    "gives it");
    std::string component = options.component;
    std::string_view rest = m.name;
    for (const detail::kohya_component& c : detail::kohya_components) {
      if (c.name == (two ? "lora_te" : "lora_te1") || !in(m.name, c.folders[0])) continue;
      component = c.name;
      rest.remove_prefix(c.folders[0].size());
      break;
    }
    const std::string key = component + "_" + detail::underscored(rest);
    const detail::kohya_component* const known = detail::find_kohya_component(key);
    if (known == nullptr || known->name != component || rest.empty())
      detail::raise<value_error>(text() << "save_kohya: module " << detail::quote(m.name) << ": " << detail::quote(component)
                                        << " is not lora_unet, lora_te, lora_te1, lora_te2 or lora_te3");
    keys.push_back(key);
    tensors.push_back({key + ".lora_down.weight", detail::file_a(m)});
    tensors.push_back({key + ".lora_up.weight", detail::file_b(m)});
    tensors.push_back({key + ".alpha", any_view(&alphas[i], dtype::f32, nullptr, 0)});
  }
  std::sort(keys.begin(), keys.end());
  if (const auto twice = std::adjacent_find(keys.begin(), keys.end()); twice != keys.end())
    detail::raise<value_error>(text() << "save_kohya: two modules would both be called " << detail::quote(*twice));
  const detail::safetensors_layout layout(path, std::move(tensors), options.metadata);
  detail::atomic_file file(path);
  layout.write(file);
  file.commit();
}

}  // namespace lora::inline v0::io

#endif
