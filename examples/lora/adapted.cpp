// SPDX-License-Identifier: Apache-2.0
#include "adapted.hpp"

#include <algorithm>

namespace program {
namespace {

[[nodiscard]] bool has_pair(const lora::adapted_module& m) noexcept { return m.weights.a.size() != 0 || m.weights.b.size() != 0; }
[[nodiscard]] bool has_rows(const given_module& g) noexcept { return g.module->weights.rows.size() != 0; }

/**
 * Adds the modules that --fused splits, as shapes: the rows of all parts tell which way the whole lies, and of a square one, where a part is
 * adapted, the adapter's flag, as of any module.
 */
void add_fused(const base_model& base, lora::adapter& all) {
  const lora::model_contract plain = base.fused.empty() ? lora::model_contract() : lora::io::contract_of(base.file);
  for (const fused_module& f : base.fused) {
    lora::index_t rows = 0;
    for (const lora::fused_part& p : f.parts)
      if (!lora::checked_add(rows, p.rows, rows)) return;  // split_fused refuses it
    for (std::size_t i = 0; i < plain.size(); ++i) {
      const lora::module_contract& m = plain[i];
      if (!lora::detail::is_fused(m.name, f.name) || m.kind != lora::module_kind::linear || (rows != m.out && rows != m.in)) continue;
      const bool adapted = std::any_of(all.modules.begin(), all.modules.end(), [&](const auto& given) {
        return std::any_of(f.parts.begin(), f.parts.end(),
                           [&](const auto& p) { return given.name == lora::detail::name_of_part(m.name, p.name); });
      });
      if (m.out == m.in && !adapted) continue;
      const lora::index_t a[] = {1, rows == m.out ? m.in : m.out};
      const lora::index_t b[] = {rows, 1};
      lora::adapted_module whole{m.name, {}};
      whole.weights.a = lora::any_view(nullptr, lora::dtype::f32, a, 2);
      whole.weights.b = lora::any_view(nullptr, lora::dtype::f32, b, 2);
      all.modules.push_back(std::move(whole));
    }
  }
}

[[nodiscard]] lora::model_contract contract_of(const base_model& base, lora::adapter all) {
  add_fused(base, all);
  lora::model_contract contract = lora::io::contract_of(base.file, all, base.options);
  for (const fused_module& f : base.fused) {
    try {
      contract = lora::split_fused(contract, f.name, f.parts);
    } catch (const lora::error& e) {
      throw lora::io_error(("'" + base.file.path() + "': --fused " + f.name + ": " + e.what()).c_str());
    }
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

lora::bound_adapter bound(const lora::adapter& adapter, const lora::model_contract& contract) {
  try {
    return lora::bind(adapter, contract);
  } catch (const lora::bind_error& e) {
    std::string text = e.what();
    constexpr std::string_view option = "io::contract_options::tied";
    if (const std::size_t at = text.find(option); at != std::string::npos) text.replace(at, option.size(), "--tied NAME=TO");
    throw lora::bind_error(text.c_str());
  }
}

adapted_base::adapted_base(const base_model& base, std::vector<source> sources, const std::vector<float>& weights)
    : base_(base), sources_(std::move(sources)), weights_(weights), contract_(contract_for(base, sources_)), given_(contract_.size()) {
  for (std::size_t s = 0; s < sources_.size(); ++s) {
    (void)bound(sources_[s].adapter, contract_);
    for (const auto& m : sources_[s].adapter.modules) given_[contract_.find(m.name)].push_back({&sources_[s], &m, weights[s]});
  }
}

std::size_t adapted_base::tied_to(std::size_t module) const {
  for (const lora::io::tied_modules& t : base_.options.tied)
    if (t.module == contract_[module].name) return contract_.find(t.to);
  return none;
}

bool adapted_base::is_adapted(std::size_t module) const {
  if (!given_[module].empty() || replacement(module).size() != 0) return true;
  const std::size_t table = tied_to(module);
  return table != none && std::any_of(given_[table].begin(), given_[table].end(), [](const auto& g) { return has_rows(g); });
}

lora::any_view adapted_base::replacement(std::size_t module) const {
  for (const given_module& g : given_[module])
    if (g.module->weights.weight.size() != 0) return g.module->weights.weight;
  // A copy of the base's weight is a new value of the parameter that tied modules share; one that was saved whole (modules_to_save) is a new module.
  const auto owner = [&](std::size_t i) {
    const std::size_t table = tied_to(i);
    return table == none ? i : table;
  };
  for (const lora::io::tied_modules& t : base_.options.tied)
    for (const std::size_t i : {contract_.find(t.to), contract_.find(t.module)}) {
      if (i == none || owner(i) != owner(module)) continue;
      for (const given_module& g : given_[i])
        if (const lora::low_rank& w = g.module->weights; w.weight.size() != 0 && !w.weight_is_own) return w.weight;
    }
  return {};
}

lora::any_view adapted_base::weight(std::size_t module) const {
  lora::module_contract m = contract_[module];
  if (m.in == 0) return {};  // a norm, of which only the bias is known
  const std::string name = lora::weight_name(m);
  lora::any_view tensor = replacement(module);
  if (tensor.size() != 0) {  // a matrix of its own, also where the base's is a part of a tensor
    m.tensor.clear();
    m.first_row = 0;
  } else if (const auto* const t = base_.file.find(name)) {
    tensor = t->view();
  } else {
    return {};
  }
  const lora::any_view w = lora::detail::matrix_in(tensor, m, name);
  if (w.rank() != 2 || w.extent(0) != m.out || w.extent(1) != m.in) {
    const lora::index_t wanted[] = {m.out, m.in};
    lora::detail::text t;
    t << lora::detail::quote(base_.file.path()) << ": tensor " << lora::detail::quote(name) << " "
      << lora::detail::shape_text{tensor.shape(), tensor.rank()} << " does not hold the weight " << lora::detail::shape_text{wanted, 2}
      << " of module " << lora::detail::quote(m.name);
    lora::detail::raise<lora::io_error>(t);
  }
  return w;
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
  for (const given_module& g : given_[module])
    if (const lora::any_view& v = g.module->weights.trained_bias; own && t->rank() == 1 && !fits && v.size() == m.out)
      return lora::dispatch<1, float, lora::float16, lora::bfloat16>(v, [](auto typed) { return lora::float_view<1>(typed); });
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
  const std::size_t table = wanted == part::all ? tied_to(module) : none;
  for (std::size_t i = 0; i < sources_.size(); ++i) {
    const lora::adapter& from = sources_[i].adapter;
    lora::adapter one;  // of this module alone, and of the token rows that it shares: what the others need is not computed
    one.source = from.source;
    one.region = from.region;
    one.owner = from.owner;
    one.fan_in_fan_out = from.fan_in_fan_out;
    for (const given_module& g : given_[module]) {
      if (g.from != &sources_[i]) continue;
      one.modules.push_back(*g.module);
      if (wanted == part::bias) one.modules.back().weights.magnitude = {};
      dora = dora || one.modules.back().weights.magnitude.size() != 0;
    }
    if (table != none)
      for (const given_module& g : given_[table])
        if (g.from == &sources_[i] && has_rows(g)) one.modules.push_back(*g.module);
    if (!one.modules.empty()) list.emplace_back(lora::bind(one, contract_), weights_[i]);
  }
  if (dora) {
    views.resize(contract_.size());
    const lora::any_view w = weight(module);
    if (w.type() != lora::dtype::f32 && w.type() != lora::dtype::f16 && w.type() != lora::dtype::bf16)
      throw lora::dtype_error(("'" + base_.file.path() + "': tensor '" + lora::weight_name(contract_[module]) + "' has dtype " +
                               lora::name_of(w.type()) + "; the norms of DoRA need f32, f16 or bf16")
                                  .c_str());
    if (w.data() != nullptr)
      views[module] = lora::dispatch<2, float, lora::float16, lora::bfloat16>(w, [](auto v) { return lora::float_view<2>(v); });
  }
  return {contract_, std::move(list), views};
}

}  // namespace program
