// SPDX-License-Identifier: Apache-2.0
//
// load_diffusers: a LoRA as Hugging Face diffusers saves it, in any of its generations: one .safetensors file for a whole pipeline, each
// name beginning with the component it belongs to (unet., transformer., text_encoder., ...).
//
//   auto loaded = lora::io::load_diffusers("pytorch_lora_weights.safetensors", {.component = "unet"});
//   lora::bound_adapter checked = lora::bind(loaded.adapter, lora::io::contract_of(unet));
//
//   unet.X.attn1.processor.to_q_lora.down.weight   old; to_out_lora is to_out.0; files without "unet." are for the unet
//   unet.X.attn1.to_q.lora.down.weight             later; also lora_linear_layer.down, and in text encoders to_q_lora for q_proj
//   unet.X.attn1.to_q.lora_A.weight                now, as PEFT; its __metadata__ may carry PEFT's configuration
//
// The scale is what diffusers computes: alpha / rank from a tensor X.alpha or from the configuration (with rank_pattern, alpha_pattern
// and use_rslora, read as strictly as adapter_config.json); 1 where there is neither. Whatever else is in the file is refused by name.
#ifndef LORA_IO_DIFFUSERS_HPP
#define LORA_IO_DIFFUSERS_HPP

#include <lora/io/detail/conv_factors.hpp>
#include <lora/io/detail/diffusers_config.hpp>
#include <lora/io/peft.hpp>

#include <set>

namespace lora::inline v0::io {

struct diffusers_options {
  /** "unet", "transformer", "text_encoder", ...: only this one is read, and its name taken off the modules'. Empty: all, with names. */
  std::string component{};
  bool prefault = false;                             ///< read the tensors from disk now instead of when they are first used
  io::placement placement = io::placement::mapping;  ///< as that of peft_options
};

struct diffusers_adapter {
  lora::adapter adapter;             ///< in the order of the A tensors in the file
  std::vector<std::string> skipped;  ///< components that the file has and the options left out
  load_report report;                ///< as that of load_peft, over all components that are read and have a configuration
  std::size_t bytes_copied = 0;      ///< see safetensors::bytes_copied()
};

}  // namespace lora::inline v0::io

namespace lora::inline v0::detail {

enum class diffusers_role : std::uint8_t { a, b, alpha, none };

/** What the name of a tensor says. `module` begins with the component and a dot. */
struct diffusers_name {
  std::string component;
  std::string module;
  diffusers_role role = diffusers_role::none;
};

[[nodiscard]] inline diffusers_name parse_diffusers_name(std::string_view name) {
  diffusers_name out;
  const auto cut = [&](std::string_view suffix) {
    if (name.size() <= suffix.size() || !name.ends_with(suffix)) return false;
    name.remove_suffix(suffix.size());
    return true;
  };
  const std::size_t dot = name.find('.');
  out.component = name.substr(0, dot);
  if (out.component == "down_blocks" || out.component == "mid_block" || out.component == "up_blocks" || dot == std::string_view::npos) {
    out.component = "unet";  // files from before components had names
    out.module = "unet.";
  }
  const bool text_encoder = out.component.starts_with("text_encoder");
  if (cut(".lora_A.weight") || cut(".lora.down.weight") || cut(".lora_linear_layer.down.weight"))
    out.role = diffusers_role::a;
  else if (cut(".lora_B.weight") || cut(".lora.up.weight") || cut(".lora_linear_layer.up.weight"))
    out.role = diffusers_role::b;
  else if (cut(".alpha"))
    out.role = diffusers_role::alpha;
  std::string rest;
  if (out.role == diffusers_role::none) {
    const struct {
      std::string_view old, unet, text;
    } layers[] = {{".to_q_lora", ".to_q", ".q_proj"},
                  {".to_k_lora", ".to_k", ".k_proj"},
                  {".to_v_lora", ".to_v", ".v_proj"},
                  {".to_out_lora", ".to_out.0", ".out_proj"}};
    const bool down = cut(".down.weight");
    if (!down && !cut(".up.weight")) return out;
    for (const auto& layer : layers)
      if (cut(layer.old)) {
        out.role = down ? diffusers_role::a : diffusers_role::b;
        cut(".processor");
        rest = std::string(name).append(text_encoder ? layer.text : layer.unet);
        break;
      }
  } else {
    rest = name;
    if (const std::size_t at = rest.find(".processor."); at != std::string::npos) rest.erase(at, 10);
  }
  out.module += rest;
  if (out.module.size() <= out.component.size() + 1) out.role = diffusers_role::none;
  return out;
}

/** Why a tensor is not used, told from its name. */
[[nodiscard]] inline const char* diffusers_stranger(std::string_view name) noexcept {
  const auto has = [&](std::string_view part) { return name.find(part) != std::string_view::npos; };
  if (name.starts_with("lora_unet_") || name.starts_with("lora_te")) return "has a name of kohya's format: see load_kohya";
  if (name.starts_with("base_model.model.")) return "has a name of PEFT's format: see load_peft";
  if (has("lora_magnitude_vector") || has("dora_scale")) return "is a magnitude vector of DoRA, which is not supported";
  if (name.ends_with(".lora_B.bias")) return "is a bias of B (lora_bias), which is not supported";
  if (has("lora_mid") || has("hada_") || has("lokr_")) return "belongs to LyCORIS, which is not supported";
  return "is neither lora_A nor lora_B, nor lora.down or lora.up, nor an alpha";
}

struct diffusers_entry {
  diffusers_name name;
  file_tensor tensor;
};

inline void assemble_diffusers(io::diffusers_adapter& out, const io::safetensors& file, const io::diffusers_options& options) {
  diffusers_configs configs(file.path());
  for (const auto& m : file.metadata())
    if (m.key == "lora_adapter_metadata") configs.parse(m.value);

  // Sorted by module and role; names of different generations can mean the same module, so names are compared after they are parsed.
  std::vector<diffusers_entry> entries;
  std::set<std::string> skipped;
  for (const io::safetensors::tensor& t : file.tensors()) {
    diffusers_entry e{parse_diffusers_name(t.name()), {t.name(), t.view(), t.offset()}};
    if (!options.component.empty() && e.name.component != options.component && e.name.role != diffusers_role::none) {
      skipped.insert(std::move(e.name.component));
      continue;
    }
    if (e.name.role == diffusers_role::none) refuse_tensor(file.path(), e.tensor, text() << diffusers_stranger(t.name()));
    entries.push_back(std::move(e));
  }
  out.skipped.assign(skipped.begin(), skipped.end());
  std::vector<std::size_t> order(entries.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  const auto before = [&](std::size_t x, std::size_t y) {
    const diffusers_name& p = entries[x].name;
    const diffusers_name& q = entries[y].name;
    return p.module != q.module ? p.module < q.module : p.role != q.role ? p.role < q.role : x < y;
  };
  std::sort(order.begin(), order.end(), before);
  for (std::size_t i = 1; i < order.size(); ++i)
    if (entries[order[i]].name.module == entries[order[i - 1]].name.module &&
        entries[order[i]].name.role == entries[order[i - 1]].name.role)
      refuse_tensor(file.path(), entries[order[i]].tensor,
                    text() << "means the same as " << quote(entries[order[i - 1]].tensor.name) << ", in another spelling");
  const auto find = [&](const std::string& module, diffusers_role role) -> const diffusers_entry* {
    const auto at = std::lower_bound(order.begin(), order.end(), module, [&](std::size_t i, const std::string& wanted) {
      return entries[i].name.module != wanted ? entries[i].name.module < wanted : entries[i].name.role < role;
    });
    return at != order.end() && entries[*at].name.module == module && entries[*at].name.role == role ? &entries[*at] : nullptr;
  };

  for (const diffusers_entry& e : entries) {
    const std::string& module = e.name.module;
    const diffusers_entry* const b = find(module, diffusers_role::b);
    if (e.name.role != diffusers_role::a) {
      if (find(module, diffusers_role::a) == nullptr) refuse_tensor(file.path(), e.tensor, text() << "has no A (lora.down) beside it");
      continue;
    }
    if (b == nullptr) refuse_tensor(file.path(), e.tensor, text() << "has no B (lora.up) beside it");
    const factor_pair pair = checked_pair(file.path(), e.tensor, b->tensor);
    const index_t rank = pair.a.extent(0);
    const std::string_view inside = std::string_view(module).substr(e.name.component.size() + 1);
    float scale = 1.0f;
    if (const diffusers_entry* const alpha = find(module, diffusers_role::alpha); alpha != nullptr) {
      if (configs.find(e.name.component) != nullptr)
        refuse_tensor(file.path(), alpha->tensor,
                      text() << "stands beside a configuration in lora_adapter_metadata: diffusers refuses both");
      scale = checked_scale(file.path(), module, scalar_of(file.path(), alpha->tensor), rank);
    } else if (diffusers_configs::component* const c = configs.find(e.name.component); c != nullptr) {
      const index_t wanted = c->ranks->value_for(inside, c->config.rank, configs.steps);
      if (wanted != rank)
        refuse_tensor(file.path(), e.tensor,
                      text() << "has rank " << rank << ", but r and rank_pattern in lora_adapter_metadata say " << wanted);
      scale = checked_scale(file.path(), module, c->alphas->value_for(inside, c->config.alpha, configs.steps), rank,
                            c->config.use_rslora ? scale_rule::alpha_over_sqrt_rank : scale_rule::alpha_over_rank);
    }
    out.adapter.modules.push_back(pair.module(options.component.empty() ? module : std::string(inside), scale));
  }
  if (out.adapter.modules.empty()) raise<io_error>(text() << quote(file.path()) << ": the adapter adapts no module");
  for (const auto& c : configs.components) {
    if (!options.component.empty() && c->name != options.component) continue;
    c->ranks->report_unused(out.report.unused_patterns);
    c->alphas->report_unused(out.report.unused_patterns);
    for (const std::string& f : c->config.unknown_fields) out.report.unknown_fields.push_back(c->name + "." + f);
  }
  out.report.tensors_used = entries.size();
}

}  // namespace lora::inline v0::detail

namespace lora::inline v0::io {

/**
 * Loads one file.
 *
 * @throws io_error with one sentence that names the file, the tensor and its offset, or the field of the configuration.
 * @par Cost   The header is read; tensors stay in the mapping (see diffusers_adapter::bytes_copied).
 * @par Threads   Safe beside anything.
 */
[[nodiscard]] inline diffusers_adapter load_diffusers(const std::string& path, const diffusers_options& options = {}) {
  auto mapping = std::make_shared<const mapped_file>(mapped_file::open(path));
  const bool copied = options.placement == placement::huge_pages;
  if (copied) mapping->prefault();
  const safetensors file = safetensors::parse(mapping->bytes(), path, mapping, {.placement = options.placement});
  diffusers_adapter out;
  detail::assemble_diffusers(out, file, options);
  if (options.prefault && !copied) mapping->prefault();
  out.bytes_copied = file.bytes_copied();
  out.adapter.source = path;
  out.adapter.owner = file.owner();
  return out;
}

}  // namespace lora::inline v0::io

#endif
