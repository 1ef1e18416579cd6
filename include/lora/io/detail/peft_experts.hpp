// SPDX-License-Identifier: Apache-2.0
//
// PEFT's target_parameters: pairs that adapt a bare parameter, mostly a tensor [experts, ...] with a matrix for each expert. Read off PEFT 0.21.2
// (tuners/lora/layer.py, ParamWrapper; tuners/tuners_utils.py, _inject_parameters). Not API.
//
// The file has one pair for all experts, A [rank x experts, in] and B [out, rank x experts]. A is viewed as [experts, rank, in], the expert
// slowest, but B as [out, rank, experts], the expert fastest. Both are used where they lie: expert e has rows [e rank, (e + 1) rank) of A and every
// experts-th column of B from e on, as a module of its own, `<module>.<parameter>[e]`.
//
// A name in the file says the module, not the parameter; that is the entry of target_parameters that fits. Several parameters of one module lie
// around each other: the first that the model's class registers is innermost, `<module>.base_layer.base_layer`, the last is `<module>`.
#ifndef LORA_IO_DETAIL_PEFT_EXPERTS_HPP
#define LORA_IO_DETAIL_PEFT_EXPERTS_HPP

#include <lora/io/detail/factors.hpp>
#include <lora/io/peft_config.hpp>
#include <lora/io/safetensors.hpp>

#include <algorithm>

namespace lora::inline v0::detail {

class peft_parameters {
 public:
  /** `order`: names of parameters as the model's class registers them. */
  peft_parameters(const io::safetensors& file, const io::peft_config& config, const std::vector<std::string>& order)
      : file_(file), config_(config), order_(order) {
    if (config.target_parameters.empty()) return;
    constexpr std::string_view prefix = "base_model.model.";
    constexpr std::string_view suffix = ".lora_A.weight";
    for (const io::safetensors::tensor& t : file.tensors())
      if (t.name().starts_with(prefix) && t.name().ends_with(suffix) && t.name().size() > prefix.size() + suffix.size())
        pairs_.push_back(unwrapped(t.name().substr(prefix.size(), t.name().size() - prefix.size() - suffix.size())));
    std::sort(pairs_.begin(), pairs_.end());
  }

  /**
   * Whether the pair of `module`, matrices, adapts a parameter; its modules are appended to `out` then. `ranks` and `alphas` are peft_patterns:
   * their keys are matched with the parameter's whole name.
   */
  template <class Ranks, class Alphas>
  [[nodiscard]] bool append(adapter& out, const io::safetensors::tensor& a, const io::safetensors::tensor& b, std::string_view module,
                            Ranks& ranks, Alphas& alphas, scale_rule rule, std::uint64_t& steps);

 private:
  /** A module's name without PEFT's wrappers around it, and around the modules that it is in. */
  [[nodiscard]] static std::string unwrapped(std::string_view module) {
    std::string name(module);
    constexpr std::string_view wrapper = ".base_layer";
    for (std::size_t at = 0; (at = name.find(wrapper, at)) != std::string::npos;) {
      const std::size_t end = at + wrapper.size();
      if (end == name.size() || name[end] == '.')
        name.erase(at, wrapper.size());
      else
        at = end;
    }
    return name;
  }

  [[noreturn]] void refuse(const io::safetensors::tensor& t, const text& problem) const {
    refuse_tensor(file_.path(), {t.name(), {}, t.offset()}, problem);
  }

  /** Names of the parameters of a module that the configuration has, once each. `bare`: all are given without a module. */
  [[nodiscard]] std::vector<std::string_view> parameters_of(std::string_view module, bool& bare) const {
    std::vector<std::string_view> found;
    bare = true;
    for (const std::string& target : config_.target_parameters) {
      const std::size_t dot = target.rfind('.');
      const std::string_view in = std::string_view(target).substr(0, dot == std::string::npos ? 0 : dot);
      const std::string_view name = std::string_view(target).substr(dot == std::string::npos ? 0 : dot + 1);
      const bool ends = module.ends_with(in) && (module.size() == in.size() || module[module.size() - in.size() - 1] == '.');
      if (!in.empty() && !ends) continue;
      bare = bare && in.empty();
      if (std::find(found.begin(), found.end(), name) == found.end()) found.push_back(name);
    }
    return found;
  }

  /** In the order in which the model's class registers them. */
  void order(std::vector<std::string_view>& names, const io::safetensors::tensor& a) const {
    static constexpr std::string_view transformers[] = {"gate_up_proj", "down_proj"};
    const auto place = [&](std::string_view name) {
      if (!order_.empty()) return static_cast<std::size_t>(std::find(order_.begin(), order_.end(), name) - order_.begin());
      return static_cast<std::size_t>(std::find(std::begin(transformers), std::end(transformers), name) - std::begin(transformers));
    };
    for (const std::string_view name : names)
      if (place(name) == (order_.empty() ? std::size(transformers) : order_.size()))
        refuse(a, text() << "adapts one of " << names.size() << " parameters of its module; which one follows from the order in which the "
                         << "model's class registers them, where " << quote(name)
                         << " is not known: say it in peft_options::parameter_order");
    std::sort(names.begin(), names.end(), [&](std::string_view p, std::string_view q) { return place(p) < place(q); });
  }

  // An expert takes more memory than the elements of a small one in the file. Models have some hundred in each of some hundred layers.
  static constexpr index_t most_experts = index_t{1} << 18;

  const io::safetensors& file_;
  const io::peft_config& config_;
  const std::vector<std::string>& order_;
  std::vector<std::string> pairs_;  // the unwrapped name of each pair's module, sorted
  index_t experts_ = 0;
};

template <class Ranks, class Alphas>
bool peft_parameters::append(adapter& out, const io::safetensors::tensor& a, const io::safetensors::tensor& b, std::string_view module,
                             Ranks& ranks, Alphas& alphas, scale_rule rule, std::uint64_t& steps) {
  if (config_.target_parameters.empty()) return false;
  const std::string name = unwrapped(module);
  bool bare = false;
  std::vector<std::string_view> names = parameters_of(name, bare);
  const auto [first, last] = std::equal_range(pairs_.begin(), pairs_.end(), name);
  const auto levels = static_cast<std::size_t>(last - first);
  // A target without a module could be a parameter of any: a pair of one matrix is then taken for that of an ordinary module.
  if (bare && levels == 1 && (a.rank() != 2 || a.shape()[0] == ranks.value_for(name, config_.rank, steps))) names.clear();
  if (names.empty() && name == module) return false;
  if (a.rank() != 2) refuse(a, text() << "shape " << shape_text{a.shape(), a.rank()} << " is not that of an adapted parameter");
  if (names.empty()) refuse(a, text() << "adapts a module inside of one with adapted parameters, which is not supported");
  if (names.size() != levels)
    refuse(a, text() << "is one of " << levels
                     << " pairs for the parameters of its module, but target_parameters of adapter_config.json name " << names.size());
  if (config_.use_dora || config_.lora_bias || config_.fan_in_fan_out)
    refuse(a, text() << "adapts a parameter, with which PEFT takes no use_dora, lora_bias or fan_in_fan_out");
  if (levels > 1) order(names, a);
  std::size_t depth = 0;  // wrappers around this one
  for (std::string_view rest = module; rest.ends_with(".base_layer"); rest.remove_suffix(std::string_view(".base_layer").size())) ++depth;
  if (depth >= levels) refuse(a, text() << "has more .base_layer in its name than its module has adapted parameters");
  const std::string_view parameter = names[levels - 1 - depth];

  const std::string full = std::string(name).append(".").append(parameter);
  const index_t rank = ranks.value_for(full, config_.rank, steps);
  const double alpha = alphas.value_for(full, config_.alpha, steps);
  const index_t rows = a.shape()[0];
  const index_t in = a.shape()[1];
  const index_t outputs = b.shape()[0];
  if (rows != b.shape()[1] || rows == 0 || rows % rank != 0 || in == 0 || outputs == 0)
    refuse(a, text() << "shape " << shape_text{a.shape(), 2} << " and its lora_B " << shape_text{b.shape(), 2}
                     << " are not [experts x rank, in] and [out, rank x experts] with the rank " << rank
                     << " that r and rank_pattern of adapter_config.json say");
  const index_t experts = rows / rank;
  if (experts > most_experts - experts_) refuse(a, text() << "and those before it adapt more than " << most_experts << " experts");
  experts_ += experts;
  const float scale = checked_scale(file_.path(), full, alpha, rank, rule);
  if (experts == 1) {
    out.modules.push_back({parameter == "weight" ? name : full, {a.view(), b.view(), scale}});
    return true;
  }
  const index_t shape_a[2] = {rank, in};
  const index_t shape_b[2] = {outputs, rank};
  const index_t strides_b[2] = {rows, experts};
  const auto* const data_a = static_cast<const unsigned char*>(a.view().data());
  const auto* const data_b = static_cast<const unsigned char*>(b.view().data());
  for (index_t e = 0; e < experts; ++e) {
    const any_view own_a(data_a + e * rank * in * static_cast<index_t>(size_of(a.type())), a.type(), shape_a, 2);
    const any_view own_b(data_b + e * static_cast<index_t>(size_of(b.type())), b.type(), shape_b, 2, strides_b);
    out.modules.push_back({full + "[" + std::to_string(e) + "]", {own_a, own_b, scale}});
  }
  return true;
}

}  // namespace lora::inline v0::detail

#endif
