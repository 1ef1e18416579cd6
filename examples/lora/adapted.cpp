// SPDX-License-Identifier: Apache-2.0
#include "adapted.hpp"

#include <algorithm>

namespace program {
namespace {

constexpr std::size_t not_found = lora::model_contract::not_found;

[[nodiscard]] bool has_pair(const lora::adapted_module& m) noexcept { return m.weights.a.size() != 0 || m.weights.b.size() != 0; }

/** As lora::io::contract_of(file, adapter), whose reasons stand there, over all shards. */
[[nodiscard]] lora::model_contract contract_of(const base_model& base, const lora::adapter& given) {
  if (base.file.shards().size() == 1) return lora::io::contract_of(base.file.shards().front(), given);
  const auto shape_of = [&](const std::string& name, lora::index_t& out, lora::index_t& in) {
    for (const auto& m : given.modules) {
      if (m.name != name) continue;
      out = has_pair(m) && m.weights.b.rank() == 2 ? m.weights.b.extent(0)
            : m.weights.trained_bias.rank() == 1   ? m.weights.trained_bias.extent(0)
                                                   : 0;
      in = has_pair(m) && m.weights.a.rank() == 2 ? m.weights.a.extent(1) : 0;
      return out != 0;
    }
    return false;
  };
  lora::model_contract contract;
  const std::string* square = nullptr;
  const std::string* contradiction = nullptr;
  for (std::size_t i = 0; i < base.contract.size(); ++i) {
    const lora::module_contract& m = base.contract[i];
    lora::index_t out = 0;
    lora::index_t in = 0;
    bool turned = false;
    if (shape_of(m.name, out, in)) {
      const bool fits_turned = m.in == out && (in == 0 ? m.out != out : m.out == in);
      turned = m.out == m.in ? given.fan_in_fan_out : fits_turned;
      if (in != 0 && m.out == m.in) square = &m.name;
      if (in != 0 && m.out != m.in && fits_turned != given.fan_in_fan_out) contradiction = &m.name;
    }
    contract.add(m.name, turned ? m.in : m.out, turned ? m.out : m.in, turned ? lora::weight_layout::in_out : lora::weight_layout::out_in);
  }
  if (square != nullptr && contradiction != nullptr)
    throw lora::io_error(("'" + given.source + "': fan_in_fan_out is " + (given.fan_in_fan_out ? "true" : "false") +
                          ", but the weight of '" + *contradiction + "' lies the other way; how the square weight of '" + *square +
                          "' lies cannot be told")
                             .c_str());
  for (const auto& m : given.modules) {  // a norm with a trained bias
    if (has_pair(m) || contract.find(m.name) != not_found) continue;
    const auto* const bias = base.file.find(m.name + ".bias");
    if (bias != nullptr && bias->rank() == 1) contract.add(m.name, bias->shape()[0], 0);
  }
  return contract;
}

}  // namespace

lora::model_contract contract_for(const base_model& base, std::span<const source> sources) {
  if (sources.size() == 1) return contract_of(base, sources.front().adapter);
  // All modules as of one adapter, those with A and B first: their shapes tell more than a bias.
  lora::adapter all;
  all.source = sources.empty() ? std::string() : sources.front().path;
  const source* flagged = nullptr;
  for (const source& s : sources)
    if (s.adapter.fan_in_fan_out && flagged == nullptr) flagged = &s;
  if (flagged != nullptr) {
    all.source = flagged->path;
    all.fan_in_fan_out = true;
    for (const source& s : sources)
      for (const auto& m : s.adapter.modules)
        if (s.kind == format::peft && !s.adapter.fan_in_fan_out && has_pair(m) && m.weights.a.rank() == 2 && m.weights.b.rank() == 2 &&
            m.weights.a.extent(1) == m.weights.b.extent(0))
          throw lora::io_error(("'" + s.path + "': fan_in_fan_out is false, and '" + flagged->path +
                                "' says true; how the square weight of '" + m.name + "' lies cannot be told")
                                   .c_str());
  }
  for (const bool pairs : {true, false})
    for (const source& s : sources)
      for (const auto& m : s.adapter.modules)
        if (has_pair(m) == pairs) all.modules.push_back(m);
  return contract_of(base, all);
}

std::string weight_tensor_of(const lora::module_contract& m) { return m.tensor.empty() ? m.name + ".weight" : m.tensor; }

lora::any_view matrix_in(const lora::any_view& tensor, const lora::module_contract& m, const std::string& file) {
  lora::any_view v = tensor;
  if (m.kind == lora::module_kind::conv2d && v.rank() == 4 && v.is_contiguous()) {
    const lora::index_t shape[] = {v.extent(0), v.extent(1) * v.extent(2) * v.extent(3)};
    v = lora::any_view(v.data(), v.type(), shape, 2);
  }
  if (v.rank() == 2 && m.layout == lora::weight_layout::in_out) v = v.transpose();
  const bool fits = v.rank() == 2 && v.extent(1) == m.in && m.first_row >= 0 && m.first_row <= v.extent(0) - m.out;
  if (!fits || (m.first_row == 0 && m.tensor.empty() && v.extent(0) != m.out)) {
    const lora::index_t wanted[] = {m.out, m.in};
    lora::detail::text t;
    t << lora::detail::quote(file) << ": tensor " << lora::detail::quote(weight_tensor_of(m)) << " "
      << lora::detail::shape_text{tensor.shape(), tensor.rank()} << " does not hold the weight " << lora::detail::shape_text{wanted, 2}
      << " of module " << lora::detail::quote(m.name);
    lora::detail::raise<lora::io_error>(t);
  }
  const lora::index_t shape[] = {m.out, m.in};
  const lora::index_t strides[] = {v.stride(0), v.stride(1)};
  const auto* const data =
      static_cast<const std::byte*>(v.data()) + m.first_row * v.stride(0) * static_cast<lora::index_t>(lora::size_of(v.type()));
  return lora::any_view(data, v.type(), shape, 2, strides);
}

adapted_base::adapted_base(const base_model& base, std::vector<source> sources, const std::vector<float>& weights)
    : base_(base), sources_(std::move(sources)), contract_(contract_for(base, sources_)), given_(contract_.size()) {
  for (std::size_t s = 0; s < sources_.size(); ++s) {
    (void)lora::bind(sources_[s].adapter, contract_);
    for (const auto& m : sources_[s].adapter.modules) given_[contract_.find(m.name)].push_back({&sources_[s], &m, weights[s]});
  }
}

lora::any_view adapted_base::tensor(std::size_t module) const {
  for (const given_module& g : given_[module])
    if (g.module->weights.weight.size() != 0) return g.module->weights.weight;
  const auto* const t = base_.file.find(weight_tensor_of(contract_[module]));
  return t == nullptr ? lora::any_view() : t->view();
}

lora::any_view adapted_base::weight(std::size_t module) const {
  if (contract_[module].in == 0) return {};  // a norm, of which only the bias is known
  const lora::any_view t = tensor(module);
  return t.data() == nullptr ? t : matrix_in(t, contract_[module], base_.file.path());
}

const lora::io::safetensors::tensor* adapted_base::bias_tensor(std::size_t module) const {
  const lora::module_contract& m = contract_[module];
  if (const auto* const own = base_.file.find(m.name + ".bias")) return own;
  constexpr std::string_view suffix = ".weight";
  if (!m.tensor.ends_with(suffix)) return nullptr;
  // A part of a fused tensor has its part of the fused bias; a tied weight brings no bias along.
  const auto* const whole = base_.file.find(m.tensor);
  if (whole == nullptr || whole->rank() != 2 || whole->shape()[m.layout == lora::weight_layout::in_out ? 1 : 0] == m.out) return nullptr;
  return base_.file.find(m.tensor.substr(0, m.tensor.size() - suffix.size()) + ".bias");
}

lora::float_view<1> adapted_base::bias(std::size_t module) const {
  const lora::module_contract& m = contract_[module];
  const auto* const t = bias_tensor(module);
  if (t == nullptr) return {};
  const bool own = t->name() == m.name + ".bias";
  const bool fits = t->rank() == 1 && (own ? t->shape()[0] == m.out : m.first_row <= t->shape()[0] - m.out);
  if (!fits)
    throw lora::io_error(("'" + base_.file.path() + "': tensor '" + std::string(t->name()) +
                          "' does not have one element for each row of the weight of module '" + m.name + "'")
                             .c_str());
  if (t->type() != lora::dtype::f32 && t->type() != lora::dtype::f16 && t->type() != lora::dtype::bf16)
    throw lora::dtype_error(("'" + base_.file.path() + "': tensor '" + std::string(t->name()) + "' has dtype " + lora::name_of(t->type()) +
                             "; a bias is added in f32, f16 or bf16")
                                .c_str());
  return lora::dispatch<1, float, lora::float16, lora::bfloat16>(t->view(), [&](auto v) {
    using element = std::remove_cvref_t<decltype(v(0))>;
    return lora::float_view<1>(lora::ndview<const element, 1>(v.data() + (own ? 0 : m.first_row), lora::extents{m.out}));
  });
}

lora::adapter_set adapted_base::set_of(std::size_t module, part wanted) const {
  std::vector<lora::weighted_adapter> list;
  std::vector<lora::float_view<2>> views;
  bool dora = false;
  for (const auto& [from, given, weight] : given_[module]) {
    lora::adapter one;  // of this module alone: what the others need is not computed
    one.source = from->adapter.source;
    one.region = from->adapter.region;
    one.owner = from->adapter.owner;
    one.fan_in_fan_out = from->adapter.fan_in_fan_out;
    one.modules.push_back(*given);
    if (wanted == part::bias) one.modules.front().weights.magnitude = {};
    dora = dora || one.modules.front().weights.magnitude.size() != 0;
    list.emplace_back(lora::bind(one, contract_), weight);
  }
  if (dora) {
    views.resize(contract_.size());
    const lora::any_view w = weight(module);
    if (w.type() != lora::dtype::f32 && w.type() != lora::dtype::f16 && w.type() != lora::dtype::bf16)
      throw lora::dtype_error(("'" + base_.file.path() + "': tensor '" + weight_tensor_of(contract_[module]) + "' has dtype " +
                               lora::name_of(w.type()) + "; the norms of DoRA need f32, f16 or bf16")
                                  .c_str());
    if (w.data() != nullptr)
      views[module] = lora::dispatch<2, float, lora::float16, lora::bfloat16>(w, [](auto v) { return lora::float_view<2>(v); });
  }
  return {contract_, std::move(list), views};
}

}  // namespace program
