// SPDX-License-Identifier: Apache-2.0
#include "source.hpp"

#include "adapted.hpp"

#include <lora/io/diffusers.hpp>
#include <lora/io/gguf_adapter.hpp>
#include <lora/io/json_adapter.hpp>
#include <lora/io/kohya.hpp>
#include <lora/io/peft.hpp>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>

namespace fs = std::filesystem;

namespace program {
namespace {

[[nodiscard]] std::string quoted(const std::string& s) { return "'" + s + "'"; }

[[noreturn]] void refuse(const std::string& path, const std::string& problem) {
  throw lora::io_error((quoted(path) + ": " + problem).c_str());
}

[[nodiscard]] bool is_index(const std::string& path) { return path.ends_with(".safetensors.index.json"); }

/** The format of a .safetensors file, by the names in it. One adapter's tensor decides: a file that mixes formats is refused by its reader. */
[[nodiscard]] format format_of_tensors(const lora::io::safetensors& file) {
  const auto any = [&](auto&& is) {
    return std::any_of(file.tensors().begin(), file.tensors().end(), [&](const auto& t) { return is(t.name()); });
  };
  if (any([](std::string_view n) { return n.starts_with("lora_unet_") || n.starts_with("lora_te"); })) return format::kohya;
  if (any([](std::string_view n) { return n.starts_with("base_model.model."); })) return format::peft;
  const auto has = [](std::string_view n, std::string_view part) { return n.find(part) != std::string_view::npos; };
  if (any([&](std::string_view n) {
        return has(n, ".lora_A.") || has(n, ".lora_B.") || has(n, ".lora.down.") || has(n, ".lora.up.") || has(n, ".lora_linear_layer.") ||
               has(n, "_lora.down.") || has(n, "_lora.up.");
      }))
    return format::diffusers;
  return format::base;
}

/** A contract that gives every kohya module of a file a name, with the dots still underscores: enough to look at it without its base. */
[[nodiscard]] lora::model_contract underscored_contract(const std::string& path) {
  const auto file = lora::io::safetensors::open(path);
  const std::pair<std::string_view, std::string_view> folders[] = {{"lora_unet_", "unet."},
                                                                   {"lora_te_", "text_encoder."},
                                                                   {"lora_te1_", "text_encoder."},
                                                                   {"lora_te2_", "text_encoder_2."},
                                                                   {"lora_te3_", "text_encoder_3."}};
  lora::model_contract model;
  for (const auto& t : file.tensors()) {
    const std::string_view name = t.name().substr(0, t.name().find('.'));
    for (const auto& [prefix, folder] : folders) {
      if (!name.starts_with(prefix)) continue;
      std::string module = std::string(folder).append(name.substr(prefix.size()));
      if (module.size() > folder.size() && model.find(module) == lora::model_contract::not_found) model.add(std::move(module), 0, 0);
    }
  }
  return model;
}

void load_peft_into(source& s) {
  std::error_code failed;
  std::string folder = s.path;
  if (!fs::is_directory(folder, failed)) {
    const fs::path file(s.path);
    if (file.filename() != "adapter_model.safetensors")
      refuse(s.path, "has the tensors of a PEFT adapter, but rank and alpha stand in adapter_config.json: pass the folder of both");
    folder = file.has_parent_path() ? file.parent_path().string() : ".";
  }
  auto loaded = lora::io::load_peft(folder);
  s.adapter = std::move(loaded.adapter);
  for (const std::string& p : loaded.report.unused_patterns) s.notes.push_back("decided nothing: " + p);
  for (const std::string& f : loaded.report.unknown_fields) s.notes.push_back("unknown field, without effect here: " + f);
}

void load_diffusers_into(source& s, const base_model* base) {
  auto loaded = lora::io::load_diffusers(s.path);
  if (base != nullptr) {
    // The base of one component has no "unet." in front of its names; an adapter of that component alone fits it all the same.
    const auto component = [](const std::string& name) { return name.substr(0, name.find('.')); };
    const std::string only = component(loaded.adapter.modules.front().name);
    const auto& all = loaded.adapter.modules;
    const bool known =
        std::any_of(all.begin(), all.end(), [&](const auto& m) { return base->contract.find(m.name) != base->contract.not_found; });
    if (!known && std::all_of(all.begin(), all.end(), [&](const auto& m) { return component(m.name) == only; }))
      loaded = lora::io::load_diffusers(s.path, {.component = only, .prefault = false});
  }
  s.adapter = std::move(loaded.adapter);
  for (const std::string& p : loaded.report.unused_patterns) s.notes.push_back("decided nothing: " + p);
  for (const std::string& f : loaded.report.unknown_fields) s.notes.push_back("unknown field, without effect here: " + f);
}

void load_json_into(source& s, const base_model* base, nameless rule, const std::string& module) {
  lora::io::json_options options;
  auto loaded = lora::io::load_json(s.path, options);
  lora::adapted_module& m = loaded.adapter.modules.front();
  if (m.name.empty() && !module.empty()) m.name = module;
  if (m.name.empty() && base != nullptr) loaded.place(base->contract);
  if (m.name.empty() && rule == nameless::refused)
    refuse(s.path, "it names no module: add a \"module\" key to it, or pass the base, which may have only one module of its shape");
  for (const std::string& f : loaded.unknown_fields) s.notes.push_back("unknown field, without effect here: " + f);
  s.adapter = std::move(loaded.adapter);
}

/** NAME=TO */
[[nodiscard]] lora::io::tied_modules parse_tied(const std::string& text) {
  const std::size_t at = text.find('=');
  if (at == std::string::npos || at == 0 || at + 1 == text.size())
    throw usage_error("--tied " + text + ": it is NAME=TO, a module and the one whose weight it has, as lm_head=model.embed_tokens");
  return {text.substr(0, at), text.substr(at + 1)};
}

/** NAME=PART:ROWS,PART:ROWS,... */
[[nodiscard]] fused_module parse_fused(const std::string& text) {
  const auto refuse_text = [&]() -> fused_module {
    throw usage_error("--fused " + text + ": it is NAME=PART:ROWS,PART:ROWS,..., as qkv_proj=q_proj:4096,k_proj:1024,v_proj:1024");
  };
  const std::size_t at = text.find('=');
  if (at == std::string::npos || at == 0) return refuse_text();
  fused_module out{text.substr(0, at), {}};
  for (std::size_t begin = at + 1; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    const std::size_t colon = text.rfind(':', end);
    lora::index_t rows = 0;
    if (colon == std::string::npos || colon <= begin) return refuse_text();
    const auto read = std::from_chars(text.data() + colon + 1, text.data() + end, rows);
    if (read.ec != std::errc() || read.ptr != text.data() + end || rows <= 0) return refuse_text();
    out.parts.push_back({text.substr(begin, colon - begin), rows});
    begin = end + 1;
  }
  return out;
}

}  // namespace

const char* name_of(format f) noexcept {
  switch (f) {
    case format::base:
      return "base model";
    case format::peft:
      return "PEFT";
    case format::kohya:
      return "kohya";
    case format::diffusers:
      return "diffusers";
    case format::gguf:
      return "GGUF";
    case format::json:
      break;
  }
  return "JSON";
}

weighted_path parse_weighted(const std::string& text) {
  std::error_code failed;
  const std::size_t at = text.rfind('=');
  if (at == std::string::npos || fs::exists(text, failed)) return {text};
  const char* begin = text.data() + at + 1;
  const char* const end = text.data() + text.size();
  if (begin != end && *begin == '+') ++begin;
  float weight = 0;
  const auto read = std::from_chars(begin, end, weight);
  if (begin != end && read.ec == std::errc() && read.ptr == end && std::isfinite(weight)) return {text.substr(0, at), weight};
  if (fs::exists(text.substr(0, at), failed))
    throw usage_error("--adapter " + text + ": '" + text.substr(at + 1) + "' is not a finite number");
  return {text};
}

format format_of(const std::string& path) {
  std::error_code failed;
  if (fs::is_directory(path, failed)) {
    const bool adapter = fs::exists(path + "/adapter_config.json", failed) || fs::exists(path + "/adapter_model.safetensors", failed);
    const bool model = fs::exists(path + "/model.safetensors", failed) || fs::exists(path + "/model.safetensors.index.json", failed);
    return model && !adapter ? format::base : format::peft;  // load_peft says best what a folder lacks
  }
  if (is_index(path)) return format::base;
  if (path.ends_with(".json")) return format::json;
  const auto file = std::make_shared<const lora::io::mapped_file>(lora::io::mapped_file::open(path));
  const auto bytes = file->bytes();
  if (bytes.size() >= 4 && std::memcmp(bytes.data(), "GGUF", 4) == 0) return format::gguf;
  return format_of_tensors(lora::io::safetensors::parse(bytes, path, file));
}

base_model open_base(const base_option& o, bool needs_modules) {
  lora::io::contract_options options;
  for (const std::string& t : o.tied) options.tied.push_back(parse_tied(t));
  std::vector<fused_module> fused;
  for (const std::string& f : o.fused) fused.push_back(parse_fused(f));
  base_model base{lora::io::sharded::open(o.path), std::move(options), std::move(fused), {}};
  base.contract = contract_for(base, {});
  bool any = !needs_modules;
  for (const auto& t : base.file.tensors()) any = any || t.rank() >= 2;  // experts are called NAME alone
  if (!any) refuse(o.path, "it has no module: no tensor of two axes is called NAME.weight");
  return base;
}

std::optional<base_model> open_base_if_given(const base_option& o) {
  if (!o.path.empty()) return open_base(o);
  if (!o.tied.empty() || !o.fused.empty()) throw usage_error("--tied and --fused say something of a base: pass --base");
  return std::nullopt;
}

source load(const std::string& path, const base_model* base, nameless rule, const std::string& module) {
  source s;
  s.path = path;
  s.kind = format_of(path);
  switch (s.kind) {
    case format::base:
      refuse(path, "is no adapter: it has no tensor of a known adapter format");
    case format::peft:
      load_peft_into(s);
      break;
    case format::kohya:
      if (base == nullptr && rule == nameless::refused)
        refuse(path, "the names of a kohya file have lost their dots: pass --base, whose modules give them back");
      s.adapter = lora::io::load_kohya(path, base != nullptr ? base->contract : underscored_contract(path)).adapter;
      if (base == nullptr) s.notes.emplace_back("names have '_' where the base has '.': pass --base to see them");
      break;
    case format::diffusers:
      load_diffusers_into(s, base);
      break;
    case format::gguf: {
      auto loaded = lora::io::load_gguf(path);
      s.adapter = std::move(loaded.adapter);
      s.architecture = std::move(loaded.architecture);
      break;
    }
    case format::json:
      load_json_into(s, base, rule, module);
      break;
  }
  s.adapter.source = path;
  if (base != nullptr) (void)bound(s.adapter, contract_for(*base, {&s, 1}));
  return s;
}

std::vector<source> load_all(const std::vector<weighted_path>& paths, const base_model& base, const std::string& module) {
  std::vector<source> all;
  for (const auto& [path, weight] : paths) all.push_back(load(path, &base, nameless::refused, module));
  return all;
}

std::vector<float> weights_of(const std::vector<weighted_path>& paths) {
  std::vector<float> all;
  for (const auto& [path, weight] : paths) all.push_back(weight);
  return all;
}

lora::bound_module checked(const lora::adapter& from, const lora::adapted_module& m) {
  const lora::low_rank& w = m.weights;
  if (w.a.data() == nullptr && w.b.data() == nullptr && w.trained_bias.data() == nullptr) return {0, {}, m.name};
  // A contract of this one module: bind() then checks all that can be checked without a base.
  const auto extent = [](const lora::any_view& v, std::size_t axis) { return v.rank() == 2 ? v.extent(axis) : 0; };
  lora::model_contract model;
  model.add(m.name, w.b.rank() == 2 ? extent(w.b, 0) : w.trained_bias.size(), extent(w.a, 1));
  lora::adapter one;
  one.source = from.source;
  one.region = from.region;
  one.modules.push_back(m);
  lora::adapted_module& matrix = one.modules.front();  // of whatever kind: A and B are those of a matrix
  matrix.kind = lora::module_kind::linear;
  matrix.kernel[0] = matrix.kernel[1] = 1;
  matrix.weights.weight = {};
  matrix.weights.rows = {};
  matrix.weights.row_indices.clear();
  return lora::bind(one, model).modules().front();
}

std::vector<std::string> extras_of(const lora::low_rank& w) {
  std::vector<std::string> words;
  if (w.magnitude.size() != 0) words.emplace_back("DoRA");
  if (w.bias.size() != 0) words.emplace_back("lora_bias");
  if (w.trained_bias.size() != 0) words.emplace_back("bias");
  if (w.weight.size() != 0) words.emplace_back("weight");
  if (w.rows.size() != 0) words.push_back(std::to_string(w.row_indices.size()) + " rows");
  return words;
}

}  // namespace program
