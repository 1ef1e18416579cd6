// SPDX-License-Identifier: Apache-2.0
//
// The tensors of a PEFT file that are no part of a low-rank pair but replace tensors of the base whole. Not API.
//
//   base_model.model.M.weight, .bias, ...        what modules_to_save names: no marker, only the configuration tells
//   base_model.model.M.weight, .bias             a resized embedding that is not adapted: PEFT saves it along and says so nowhere
//   base_model.model.M.base_layer.weight, .bias  the base of an adapted M, which save_embedding_layers puts beside it
//   base_model.model.M.lora_magnitude_vector.weight   a second copy of the magnitude, which save_embedding_layers makes of an adapted embedding
//   base_model.model.M.original_module.bias      with bias = "all": copies under other names, which PEFT loads to no effect
//
// Source: PEFT 0.21.2, utils/save_and_load.py (get_peft_model_state_dict) and utils/other.py (ModulesToSaveWrapper, _set_trainable).
#ifndef LORA_IO_DETAIL_PEFT_SAVED_HPP
#define LORA_IO_DETAIL_PEFT_SAVED_HPP

#include <lora/adapter/adapter.hpp>
#include <lora/io/peft_config.hpp>
#include <lora/io/safetensors.hpp>

#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace lora::inline v0::detail {

class peft_saved {
 public:
  /** Both must outlive the object. */
  peft_saved(const io::safetensors& file, const io::peft_config& config)
      : file_(file), config_(config), used_(config.modules_to_save.size(), false) {}

  /** Whether the tensor is one of these. @par Cost  The length of the name times the entries of modules_to_save. */
  [[nodiscard]] bool takes(const io::safetensors::tensor& t) { return part_of(t).what != kind::none; }

  /** Adds all of them: matrices and what belongs to them to their modules (new ones, behind the others), the rest to out.tensors. */
  void add_to(adapter& out) {
    std::vector<std::size_t> by_name(out.modules.size());
    for (std::size_t i = 0; i < by_name.size(); ++i) by_name[i] = i;
    const auto position = [&](std::string_view name) {
      return std::lower_bound(by_name.begin(), by_name.end(), name,
                              [&](std::size_t i, std::string_view wanted) { return out.modules[i].name < wanted; });
    };
    std::sort(by_name.begin(), by_name.end(), [&](std::size_t i, std::size_t j) { return out.modules[i].name < out.modules[j].name; });
    const auto module_of = [&](std::string_view name) -> adapted_module& {
      const auto at = position(name);
      if (at != by_name.end() && out.modules[*at].name == name) return out.modules[*at];
      by_name.insert(at, out.modules.size());
      out.modules.emplace_back();
      out.modules.back().name = name;
      return out.modules.back();
    };
    for (const io::safetensors::tensor& t : file_.tensors()) {
      const part p = part_of(t);
      if (p.what == kind::none || p.what == kind::copy) continue;
      if (!p.announced) along_.emplace_back(t.name());
      if (p.what == kind::weight) {
        require_floats(t);
        if (t.view().size() == 0)
          raise<io_error>(about_tensor(file_.path(), t.name()) << "shape " << shape_text{t.shape(), t.rank()} << " has no elements");
        adapted_module& m = module_of(p.module);
        m.weights.weight = t.view();
        m.weights.weight_is_own = p.announced;
        if (t.rank() == 4 && m.weights.a.size() == 0) {
          m.kind = module_kind::conv2d;
          m.kernel[0] = t.shape()[2];
          m.kernel[1] = t.shape()[3];
        }
      } else if (p.what == kind::bias) {
        require_floats(t);
        if (t.rank() != 1 || t.shape()[0] == 0)
          raise<io_error>(about_tensor(file_.path(), t.name()) << "shape " << shape_text{t.shape(), t.rank()} << " is not that of a bias");
        module_of(p.module).weights.trained_bias = t.view();
      } else {
        out.tensors.push_back({std::string(p.path), t.view()});
      }
    }
  }

  /** Entries of modules_to_save of which the file has nothing, and the tensors that no field announced. */
  void report(std::vector<std::string>& unused, std::vector<std::string>& along) const {
    for (std::size_t i = 0; i < used_.size(); ++i)
      if (!used_[i]) unused.push_back("modules_to_save: " + config_.modules_to_save[i]);
    along.insert(along.end(), along_.begin(), along_.end());
  }

 private:
  enum class kind : unsigned char { none, weight, bias, other, copy };
  struct part {
    kind what = kind::none;
    bool announced = true;
    std::string_view module{};
    std::string_view path{};  // the name without base_model.model.
  };
  static constexpr std::string_view prefix = "base_model.model.";

  [[nodiscard]] const io::safetensors::tensor* find(std::string_view module, std::string_view suffix) const {
    return file_.find(std::string(prefix).append(module).append(suffix));
  }
  [[nodiscard]] bool adapted(std::string_view module) const {
    return find(module, ".lora_A.weight") != nullptr || find(module, ".lora_embedding_A") != nullptr;
  }
  /** The weight of a linear module, an embedding or a convolution: what low_rank::weight can hold. */
  [[nodiscard]] static bool is_matrix(const io::safetensors::tensor* t) noexcept {
    return t != nullptr && (t->rank() == 2 || t->rank() == 4);
  }

  /** PEFT wraps the modules whose names end in an entry, as text: "head" takes "lm_head"; what is below them is saved with them. */
  [[nodiscard]] bool announced(std::string_view module) {
    bool any = false;
    for (std::size_t i = 0; i < used_.size(); ++i) {
      const std::string_view entry = config_.modules_to_save[i];
      for (std::size_t end = module.size(); end != 0 && end != std::string_view::npos; end = module.substr(0, end).rfind('.')) {
        // Work, not time: some 10 s. A hundred entries for a thousand tensors need a thousandth of it.
        if (++steps_ > std::uint64_t{1} << 30)
          raise<io_error>(text() << quote(file_.path()) << ": comparing its tensors with modules_to_save takes too long");
        if (module.substr(0, end).ends_with(entry)) any = used_[i] = true;
      }
    }
    return any;
  }

  [[nodiscard]] part part_of(const io::safetensors::tensor& t) {
    const std::string_view name = t.name();
    if (!name.starts_with(prefix)) return {};
    const std::string_view path = name.substr(prefix.size());
    if (repeats_magnitude(t)) return {kind::copy, true, path, path};
    for (const std::string_view marker : {".lora_", ".token_adapter."})
      if (name.find(marker, prefix.size() - 1) != std::string_view::npos) return {};
    const std::size_t dot = path.rfind('.');
    if (dot == std::string_view::npos || dot == 0) return {};
    const std::string_view module = path.substr(0, dot);
    const std::string_view parameter = path.substr(dot + 1);
    const bool weight = parameter == "weight";
    const bool bias = parameter == "bias";

    constexpr std::string_view base_layer = ".base_layer";
    if (module.ends_with(base_layer)) {
      const std::string_view base = module.substr(0, module.size() - base_layer.size());
      if (!adapted(base)) return {};
      if (weight && is_matrix(&t)) return {kind::weight, false, base, path};
      if (bias && !config_.trains_bias && is_matrix(find(base, ".base_layer.weight"))) return {kind::bias, false, base, path};
      return {};
    }
    if (adapted(module)) return {};
    const std::size_t inside = std::min(path.find(".original_module."), path.find(".modules_to_save."));
    if (inside != std::string_view::npos)
      return config_.trains_bias && announced(path.substr(0, inside)) ? part{kind::copy, true, module, path} : part{};
    if (announced(module)) {
      if (weight && is_matrix(&t)) return {kind::weight, true, module, path};
      // Alone in the file it may be that of a matrix: bind() and the base tell.
      const io::safetensors::tensor* const own = find(module, ".weight");
      if (bias && (own == nullptr ? t.rank() == 1 : is_matrix(own))) return {kind::bias, true, module, path};
      return {kind::other, true, module, path};
    }
    if (weight && t.rank() == 2) {
      // bias = "all" trains whatever has "bias" in its name: T5's relative_attention_bias.weight.
      return {kind::weight, config_.trains_bias && path.find("bias") != std::string_view::npos, module, path};
    }
    if (bias) {
      const io::safetensors::tensor* const own = find(module, ".weight");
      if (own != nullptr && own->rank() == 2) return {kind::bias, config_.trains_bias, module, path};
    }
    if (config_.trains_bias && path.find("bias") != std::string_view::npos && !(bias && t.rank() == 1))
      return {kind::other, true, module, path};
    return {};
  }

  /** PEFT loads both into one parameter, so they must be the same bytes. */
  [[nodiscard]] bool repeats_magnitude(const io::safetensors::tensor& t) const {
    constexpr std::string_view suffix = ".weight";
    if (!t.name().ends_with(".lora_magnitude_vector.weight")) return false;
    const io::safetensors::tensor* const first = file_.find(t.name().substr(0, t.name().size() - suffix.size()));
    if (first == nullptr) return false;
    if (first->type() != t.type() || first->size_bytes() != t.size_bytes() ||
        (t.size_bytes() != 0 && std::memcmp(first->view().data(), t.view().data(), t.size_bytes()) != 0))
      raise<io_error>(about_tensor(file_.path(), t.name()) << "is another magnitude than " << quote(first->name()));
    return true;
  }

  void require_floats(const io::safetensors::tensor& t) const {
    if (t.type() != dtype::f32 && t.type() != dtype::f16 && t.type() != dtype::bf16)
      raise<io_error>(about_tensor(file_.path(), t.name()) << "dtype " << name_of(t.type()) << " is not one of f32, f16 and bf16");
  }

  const io::safetensors& file_;
  const io::peft_config& config_;
  std::vector<bool> used_;
  std::uint64_t steps_ = 0;  // comparisons
  std::vector<std::string> along_;
};

}  // namespace lora::inline v0::detail

#endif
