// SPDX-License-Identifier: Apache-2.0
#include "adapted.hpp"
#include "measure.hpp"
#include "terminal.hpp"

#include <lora/linalg/low_rank_norm.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <optional>

namespace program {
namespace {

using json = nlohmann::ordered_json;

void print(const json& j) {
  // Names from files may not be UTF-8; JSON must be.
  std::printf("%s\n", j.dump(2, ' ', false, json::error_handler_t::replace).c_str());
}

[[nodiscard]] json number(double value) { return std::isfinite(value) ? json(value) : json(nullptr); }

struct line {
  const lora::adapted_module* module;
  double norm;
  bool whole;  ///< the norm is that of the whole update, W in it: otherwise of s B A
};

/** Norms of s B A from the factors; where a row factor scales W too, and the base is there, of what it makes of W. */
[[nodiscard]] std::vector<line> measured(const source& s, const adapted_base* model) {
  std::vector<line> lines;
  progress shown("inspect", s.adapter.modules.size());
  for (const auto& m : s.adapter.modules) {
    const lora::low_rank_term term = checked(s.adapter, m).term;
    line l{&m, 0, false};
    const std::size_t i = model == nullptr ? 0 : model->contract().find(m.name);
    if (m.weights.magnitude.size() != 0 && model != nullptr) {
      const lora::adapter_set set = model->set_of(i);
      l.norm = update_distance(model->weight(i), set[i], {});
      l.whole = true;
    } else if (term.a.extent(0) != 0) {
      l.norm = lora::low_rank_norm({&term, 1});
    }
    lines.push_back(l);
    shown.advance(1);
  }
  return lines;
}

[[nodiscard]] const char* name_of(lora::module_kind kind) noexcept {
  switch (kind) {
    case lora::module_kind::embedding:
      return "embedding";
    case lora::module_kind::conv2d:
      return "conv2d";
    case lora::module_kind::linear:
      break;
  }
  return "linear";
}

/** All tensors that a module brings. */
[[nodiscard]] std::vector<const lora::any_view*> tensors_of(const lora::low_rank& w) {
  std::vector<const lora::any_view*> all;
  for (const lora::any_view* const v : {&w.a, &w.b, &w.bias, &w.magnitude, &w.trained_bias, &w.weight, &w.rows})
    if (v->size() != 0) all.push_back(v);
  return all;
}

/** What the column `with` says: the kind unless it is linear, and what there is beside A and B. */
[[nodiscard]] std::string also_of(const lora::adapted_module& m) {
  std::string all = m.kind == lora::module_kind::linear ? "" : name_of(m.kind);
  for (const std::string& w : extras_of(m.weights)) all += (all.empty() ? "" : ", ") + w;
  return all;
}

[[nodiscard]] std::string types_of(const lora::low_rank& w) {
  if (w.a.size() == 0 && w.b.size() == 0) return tensors_of(w).empty() ? "" : lora::name_of(tensors_of(w).front()->type());
  const std::string a = lora::name_of(w.a.type());
  const std::string b = lora::name_of(w.b.type());
  return a == b ? a : a + "/" + b;
}

[[nodiscard]] lora::index_t rank_of(const lora::low_rank& w) { return w.a.rank() == 2 ? w.a.extent(0) : 0; }

/** [out, in] as far as the adapter says. */
[[nodiscard]] std::pair<lora::index_t, lora::index_t> shape_of(const lora::low_rank& w) {
  const lora::index_t out = w.b.rank() == 2              ? w.b.extent(0)
                            : w.trained_bias.rank() == 1 ? w.trained_bias.extent(0)
                            : w.rows.rank() == 2         ? w.rows.extent(1)
                                                         : 0;
  if (w.a.rank() == 2) return {out, w.a.extent(1)};
  if (w.weight.rank() >= 2 && w.weight.extent(0) != 0) return {w.weight.extent(0), w.weight.size() / w.weight.extent(0)};
  return {out, 0};
}

void print_json(const source& s, const std::vector<line>& lines, std::uint64_t parameters, double norm) {
  json modules = json::array();
  for (const auto& [m, size, whole] : lines) {
    const lora::low_rank& w = m->weights;
    const auto [out, in] = shape_of(w);
    json one{{"name", m->name}, {"kind", name_of(m->kind)}, {"rank", rank_of(w)}, {"in", in}, {"out", out}};
    if (w.a.size() != 0) {
      one["scale"] = number(static_cast<double>(w.scale));
      one["a_dtype"] = lora::name_of(w.a.type());
      one["b_dtype"] = lora::name_of(w.b.type());
      one["norm"] = number(size);
      one["norm_of"] = whole ? "update" : "s B A";
    }
    one["dora"] = w.magnitude.size() != 0;
    one["lora_bias"] = w.bias.size() != 0;
    one["trained_bias"] = w.trained_bias.size() != 0;
    one["replaced_weight"] = w.weight.size() != 0;
    one["replaced_rows"] = w.row_indices;
    modules.push_back(std::move(one));
  }
  json tensors = json::array();
  for (const lora::saved_tensor& t : s.adapter.tensors) tensors.push_back(t.name);
  print({{"path", s.path},
         {"kind", "adapter"},
         {"format", program::name_of(s.kind)},
         {"parameters", parameters},
         {"norm", number(norm)},
         {"fan_in_fan_out", s.adapter.fan_in_fan_out},
         {"notes", s.notes},
         {"modules", std::move(modules)},
         {"replaced_tensors", std::move(tensors)}});
}

void inspect_adapter(const inspect_options& o, const source& s, const adapted_base* model) {
  const std::vector<line> lines = measured(s, model);
  std::uint64_t parameters = 0;
  double bytes = 0;
  lora::index_t least = 0;
  lora::index_t most = 0;
  double largest = 0;
  double squares = 0;
  std::size_t whole = 0;
  std::size_t dora = 0;
  std::size_t extras = 0;  // width of the column that says what else a module has
  const auto count = [&](const lora::any_view& v) {
    parameters += static_cast<std::uint64_t>(v.size());
    bytes += static_cast<double>(v.size_bytes());
  };
  for (const auto& [m, norm, is_whole] : lines) {
    for (const lora::any_view* const v : tensors_of(m->weights)) count(*v);
    const lora::index_t rank = rank_of(m->weights);
    least = least == 0 || (rank != 0 && rank < least) ? rank : least;
    most = std::max(most, rank);
    if (std::isfinite(norm)) largest = std::max(largest, norm);
    squares += norm * norm;
    whole += is_whole;
    dora += m->weights.magnitude.size() != 0;
    extras = std::max(extras, also_of(*m).size());
  }
  for (const lora::saved_tensor& t : s.adapter.tensors) count(t.value);
  if (o.json) return print_json(s, lines, parameters, std::sqrt(squares));

  const char* const what = whole == 0 ? "||s B A||" : "||update||";
  std::printf("%s: %s adapter, %zu modules, %llu parameters (%s)", escaped(s.path).c_str(), program::name_of(s.kind), lines.size(),
              static_cast<unsigned long long>(parameters), size_text(bytes).c_str());
  if (most != 0) std::printf(least == most ? ", rank %td" : ", rank %td to %td", least, most);
  std::printf(", %s %.4g in all\n", what, std::sqrt(squares));
  for (const std::string& n : s.notes) std::printf("note: %s\n", escaped(n).c_str());
  if (s.adapter.fan_in_fan_out) std::printf("note: fan_in_fan_out: square weights of the base lie as [in, out]\n");
  if (dora != 0 && whole == 0)
    std::printf("note: DoRA scales whole rows of W, which ||s B A|| does not see: pass --base to measure its updates\n");
  std::size_t width = 9;  // that of "(no name)"
  for (const line& l : lines) width = std::max(width, characters(escaped(l.module->name)));
  width = std::min<std::size_t>(width, 48);
  const auto also = [&](std::string_view text) {
    return extras == 0 ? std::string() : " " + column(text, std::max<std::size_t>(extras, 4));
  };
  std::printf("\n%s %13s %5s %5s %10s%s %10s\n", column("module", width).c_str(), "out x in", "type", "rank", "scale", also("with").c_str(),
              what);
  for (const auto& [m, norm, is_whole] : lines) {
    const auto [out, in] = shape_of(m->weights);
    const std::string name = column(m->name.empty() ? "(no name)" : escaped(m->name), width);
    const std::string with = also(also_of(*m));
    if (rank_of(m->weights) == 0) {
      const std::string shape = std::to_string(out) + " x " + (in == 0 ? "-" : std::to_string(in));
      std::printf("%s %13s %5s %5s %10s%s\n", name.c_str(), shape.c_str(), types_of(m->weights).c_str(), "", "", with.c_str());
      continue;
    }
    const std::string shape = std::to_string(out) + " x " + std::to_string(in);
    std::printf("%s %13s %5s %5td %10.6g%s %10.4g %s\n", name.c_str(), shape.c_str(), types_of(m->weights).c_str(), rank_of(m->weights),
                static_cast<double>(m->weights.scale), with.c_str(), norm, bar(norm, largest).c_str());
  }
  for (const lora::saved_tensor& t : s.adapter.tensors) {
    lora::detail::text shape;
    shape << lora::detail::shape_text{t.value.shape(), t.value.rank()};
    std::printf("replaces the tensor %s %s\n", escaped(t.name).c_str(), shape.c_str());
  }
}

void inspect_base(const inspect_options& o) {
  const base_model base = open_base({o.path, o.base.tied, o.base.fused}, false);
  const lora::io::sharded& file = base.file;
  const lora::model_contract& contract = base.contract;
  std::map<std::string, std::pair<std::size_t, std::uint64_t>> types;
  std::uint64_t bytes = 0;
  for (std::size_t i = 0; i < file.size(); ++i) {
    auto& [count, size] = types[lora::name_of(file.tensor(i).type())];
    ++count;
    size += file.tensor(i).size_bytes();
    bytes += file.tensor(i).size_bytes();
  }
  if (o.json) {
    json modules = json::array();
    for (std::size_t i = 0; i < contract.size(); ++i)
      modules.push_back({{"name", contract[i].name},
                         {"out", contract[i].out},
                         {"in", contract[i].in},
                         {"kind", name_of(contract[i].kind)},
                         {"tensor", lora::weight_name(contract[i])},
                         {"dtype", lora::name_of(file.find(lora::weight_name(contract[i]))->type())},
                         {"bias", file.find(contract[i].name + ".bias") != nullptr}});
    return print({{"path", o.path},
                  {"kind", "base"},
                  {"files", file.shards().size()},
                  {"tensors", file.size()},
                  {"bytes", bytes},
                  {"modules", std::move(modules)}});
  }
  std::printf("%s: base model, %zu tensors in %zu file%s, %s, %zu modules\n", escaped(o.path).c_str(), file.size(), file.shards().size(),
              file.shards().size() == 1 ? "" : "s", size_text(static_cast<double>(bytes)).c_str(), contract.size());
  for (const auto& [type, sum] : types)
    std::printf("%-6s %6zu tensors %10s\n", type.c_str(), sum.first, size_text(static_cast<double>(sum.second)).c_str());
  if (contract.size() != 0) std::printf("\n%s %13s %5s  bias\n", column("module", 48).c_str(), "out x in", "type");
  for (std::size_t i = 0; i < contract.size(); ++i) {
    const std::string shape = std::to_string(contract[i].out) + " x " + std::to_string(contract[i].in);
    std::string rest = file.find(contract[i].name + ".bias") != nullptr ? "yes" : "no";
    if (contract[i].kind == lora::module_kind::conv2d)
      rest += "  conv2d " + std::to_string(contract[i].kernel[0]) + " x " + std::to_string(contract[i].kernel[1]);
    if (!contract[i].tensor.empty()) rest += "  in " + escaped(contract[i].tensor);
    std::printf("%s %13s %5s  %s\n", column(escaped(contract[i].name), 48).c_str(), shape.c_str(),
                lora::name_of(file.find(lora::weight_name(contract[i]))->type()), rest.c_str());
  }
}

}  // namespace

void inspect(const inspect_options& o) {
  if (format_of(o.path) == format::base) return inspect_base(o);
  const std::optional<base_model> base = open_base_if_given(o.base);
  source s = load(o.path, base ? &*base : nullptr, nameless::allowed);
  if (!base || (!s.adapter.modules.empty() && s.adapter.modules.front().name.empty())) return inspect_adapter(o, s, nullptr);
  std::vector<source> one;
  one.push_back(std::move(s));
  const adapted_base model(*base, std::move(one), {1.0f});
  inspect_adapter(o, model.sources().front(), &model);
}

}  // namespace program
