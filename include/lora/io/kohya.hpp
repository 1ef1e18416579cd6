// SPDX-License-Identifier: Apache-2.0
//
// load_kohya: a LoRA of Stable Diffusion and its kin as kohya-ss' scripts save it: one .safetensors file with lora_down, lora_up and alpha
// of each module, the module's name written with '_' for '.'. That loses where the dots were, so the base's contract gives them back.
//
//   lora::model_contract model = lora::io::contract_of(lora::io::safetensors::open("unet/diffusion_pytorch_model.safetensors"));
//   auto loaded = lora::io::load_kohya("style.safetensors", model, {.components = {"lora_unet"}});
//   lora::bound_adapter checked = lora::bind(loaded.adapter, model);
//
// lora_unet_NAME is the contract's module NAME, or one of the folders that unets stand in within a whole model: unet.NAME,
// model.diffusion_model.NAME, transformer.NAME; so too for lora_te, lora_te1, lora_te2 and lora_te3. A name that fits no module, or
// several, is refused. The scale is alpha / rank; without an alpha tensor, or where it is 0, it is 1. Of a convolution, lora_down is
// [rank, channels, height, width] and lora_up [out, rank, 1, 1]; see linalg/conv2d.hpp. LoHa, LoKr, Tucker cores (lora_mid), DoRA
// (dora_scale) and whatever else changes the result are refused by name.
#ifndef LORA_IO_KOHYA_HPP
#define LORA_IO_KOHYA_HPP

#include <lora/adapter/contract.hpp>
#include <lora/io/detail/conv_factors.hpp>
#include <lora/io/safetensors.hpp>

#include <algorithm>

namespace lora::inline v0::io {

struct kohya_options {
  /** Of lora_unet, lora_te, lora_te1, lora_te2, lora_te3: only these are read, the others reported as skipped. Empty: all. */
  std::vector<std::string> components{};
  bool prefault = false;                             ///< read the tensors from disk now instead of when they are first used
  io::placement placement = io::placement::mapping;  ///< as that of peft_options
};

struct kohya_adapter {
  lora::adapter adapter;             ///< under the contract's names, in the order of the lora_down tensors in the file
  std::vector<std::string> skipped;  ///< components that the file has and the options left out
  std::size_t bytes_copied = 0;      ///< see safetensors::bytes_copied()
};

}  // namespace lora::inline v0::io

namespace lora::inline v0::detail {

struct kohya_component {
  std::string_view name;
  std::string_view folders[3];  // where its modules stand in a contract of a whole model; the first is the one of diffusers
};
inline constexpr kohya_component kohya_components[] = {
    {"lora_unet", {"unet.", "model.diffusion_model.", "transformer."}},
    {"lora_te", {"text_encoder.", "cond_stage_model.transformer.", ""}},
    {"lora_te1", {"text_encoder.", "conditioner.embedders.0.transformer.", ""}},
    {"lora_te2", {"text_encoder_2.", "", ""}},
    {"lora_te3", {"text_encoder_3.", "", ""}},
};

[[nodiscard]] inline const kohya_component* find_kohya_component(std::string_view name) noexcept {
  for (const kohya_component& c : kohya_components)
    if (name.starts_with(c.name) && name.size() > c.name.size() + 1 && name[c.name.size()] == '_') return &c;
  return nullptr;
}

[[nodiscard]] inline std::string underscored(std::string_view name) {
  std::string out(name);
  std::replace(out.begin(), out.end(), '.', '_');
  return out;
}

/** The contract's modules by their names without dots. */
class underscored_names {
 public:
  explicit underscored_names(const model_contract& model) : model_(model) {
    entries_.reserve(model.size());
    for (std::size_t i = 0; i < model.size(); ++i) entries_.push_back({underscored(model[i].name), i});
    std::sort(entries_.begin(), entries_.end(), [](const entry& a, const entry& b) { return a.name < b.name; });
  }

  /** @throws io_error naming the tensor, when no module has this name, or two have it. */
  [[nodiscard]] const std::string& find(std::string_view file, const file_tensor& t, const kohya_component& c,
                                        std::string_view name) const {
    const std::string* found = nullptr;
    const auto look = [&](std::string_view folder) {
      const std::string wanted = underscored(folder).append(name);
      auto at = std::lower_bound(entries_.begin(), entries_.end(), wanted, [](const entry& e, const std::string& w) { return e.name < w; });
      for (; at != entries_.end() && at->name == wanted; ++at) {
        const std::string& candidate = model_[at->module].name;
        if (!candidate.starts_with(folder) || (found != nullptr && *found == candidate)) continue;
        if (found != nullptr)
          refuse_tensor(file, t, text() << "its name can be that of " << quote(*found) << " and of " << quote(candidate));
        found = &candidate;
      }
    };
    look("");
    for (const std::string_view folder : c.folders)
      if (!folder.empty()) look(folder);
    if (found == nullptr) refuse_tensor(file, t, text() << "the model has no module that becomes " << quote(name) << " with '_' for '.'");
    return *found;
  }

 private:
  struct entry {
    std::string name;
    std::size_t module;
  };
  const model_contract& model_;
  std::vector<entry> entries_;
};

/** Why a tensor is not used, told from what follows its module's name. */
[[nodiscard]] inline const char* kohya_stranger(std::string_view tail) noexcept {
  if (tail == "lora_mid.weight") return "is the core of a Tucker decomposition (LoCon), which is not supported";
  if (tail.starts_with("hada_")) return "belongs to LoHa, which is not supported";
  if (tail.starts_with("lokr_")) return "belongs to LoKr, which is not supported";
  if (tail.starts_with("oft_") || tail.starts_with("boft_")) return "belongs to OFT, which is not supported";
  if (tail.starts_with("dora_scale")) return "is a magnitude vector of DoRA, which is not supported";
  if (tail.starts_with("lora_down.") || tail.starts_with("lora_up."))
    return "is one of several pairs for one module (split projections), which is not supported";
  if (tail == "diff" || tail == "diff_b" || tail == "w_norm" || tail == "b_norm")
    return "replaces weights of the base, which is not supported";
  if (tail == "scalar") return "is a trained scalar of LyCORIS, which is not supported";
  return "is none of lora_down.weight, lora_up.weight and alpha";
}

[[nodiscard]] inline file_tensor tensor_of(const io::safetensors::tensor& t) { return {t.name(), t.view(), t.offset()}; }

inline void assemble_kohya(io::kohya_adapter& out, const io::safetensors& file, const model_contract& model,
                           const io::kohya_options& options) {
  const underscored_names names(model);
  for (const std::string& wanted : options.components)
    if (std::none_of(std::begin(kohya_components), std::end(kohya_components), [&](const auto& c) { return c.name == wanted; }))
      raise<value_error>(text() << "load_kohya: there is no component " << quote(wanted)
                                << "; there are lora_unet, lora_te, lora_te1, lora_te2 and lora_te3");
  const auto partner = [&](std::string_view module, std::string_view tail) { return file.find(std::string(module).append(tail)); };
  for (const io::safetensors::tensor& down : file.tensors()) {
    const file_tensor t = tensor_of(down);
    const kohya_component* const c = find_kohya_component(t.name);
    if (c == nullptr)
      refuse_tensor(file.path(), t,
                    text() << "does not begin with lora_unet_, lora_te_, lora_te1_, lora_te2_ or lora_te3_, as kohya's names do");
    if (!options.components.empty() &&
        std::find(options.components.begin(), options.components.end(), c->name) == options.components.end()) {
      if (std::find(out.skipped.begin(), out.skipped.end(), c->name) == out.skipped.end()) out.skipped.emplace_back(c->name);
      continue;
    }
    const std::size_t dot = t.name.find('.');
    const std::string_view module = t.name.substr(0, dot);
    const std::string_view tail = dot == std::string_view::npos ? std::string_view() : t.name.substr(dot + 1);
    if (tail == "lora_up.weight" || tail == "alpha") {
      if (partner(module, ".lora_down.weight") == nullptr) refuse_tensor(file.path(), t, text() << "has no lora_down beside it");
      continue;
    }
    if (tail != "lora_down.weight") refuse_tensor(file.path(), t, text() << kohya_stranger(tail));
    const io::safetensors::tensor* const up = partner(module, ".lora_up.weight");
    if (up == nullptr) refuse_tensor(file.path(), t, text() << "has no lora_up beside it");
    const file_tensor b = tensor_of(*up);
    const factor_pair pair = checked_pair(file.path(), t, b);
    const std::string& name = names.find(file.path(), t, *c, module.substr(c->name.size() + 1));
    const io::safetensors::tensor* const alpha = partner(module, ".alpha");
    const double value = alpha == nullptr ? 0.0 : scalar_of(file.path(), tensor_of(*alpha));
    const float scale = value == 0.0 ? 1.0f : checked_scale(file.path(), name, value, pair.a.extent(0));
    out.adapter.modules.push_back(pair.module(name, scale));
  }
  if (out.adapter.modules.empty()) raise<io_error>(text() << quote(file.path()) << ": the adapter adapts no module");
}

}  // namespace lora::inline v0::detail

namespace lora::inline v0::io {

/**
 * Loads one file.
 *
 * @param model  the base: its names undo the underscores. Shapes are for bind() to compare.
 * @throws io_error with one sentence that names the file, the tensor and its offset; value_error for an unknown component.
 * @par Cost   The header is read; tensors stay in the mapping (see kohya_adapter::bytes_copied). O(modules log modules) for the names.
 * @par Threads   Safe beside anything.
 */
[[nodiscard]] inline kohya_adapter load_kohya(const std::string& path, const model_contract& model, const kohya_options& options = {}) {
  auto mapping = std::make_shared<const mapped_file>(mapped_file::open(path));
  const bool copied = options.placement == placement::huge_pages;
  if (copied) mapping->prefault();
  const safetensors file = safetensors::parse(mapping->bytes(), path, mapping, {.placement = options.placement});
  kohya_adapter out;
  detail::assemble_kohya(out, file, model, options);
  if (options.prefault && !copied) mapping->prefault();
  out.bytes_copied = file.bytes_copied();
  out.adapter.source = path;
  out.adapter.owner = file.owner();
  return out;
}

}  // namespace lora::inline v0::io

#endif
