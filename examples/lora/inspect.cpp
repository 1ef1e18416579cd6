// SPDX-License-Identifier: Apache-2.0
#include "source.hpp"
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
};

[[nodiscard]] std::vector<line> measured(const source& s) {
  std::vector<line> lines;
  progress shown("inspect", s.adapter.modules.size());
  for (const auto& m : s.adapter.modules) {
    const lora::low_rank_term term = term_of(s.adapter, m);
    lines.push_back({&m, lora::low_rank_norm({&term, 1})});
    shown.advance(1);
  }
  return lines;
}

[[nodiscard]] std::string types_of(const lora::low_rank& w) {
  const std::string a = lora::name_of(w.a.type());
  const std::string b = lora::name_of(w.b.type());
  return a == b ? a : a + "/" + b;
}

void inspect_adapter(const inspect_options& o, const source& s) {
  const std::vector<line> lines = measured(s);
  std::uint64_t parameters = 0;
  double bytes = 0;
  lora::index_t least = lines.front().module->weights.a.extent(0);
  lora::index_t most = least;
  double largest = 0;
  double squares = 0;
  for (const auto& [m, norm] : lines) {
    parameters += static_cast<std::uint64_t>(m->weights.a.size()) + static_cast<std::uint64_t>(m->weights.b.size());
    bytes += static_cast<double>(m->weights.a.size_bytes()) + static_cast<double>(m->weights.b.size_bytes());
    least = std::min(least, m->weights.a.extent(0));
    most = std::max(most, m->weights.a.extent(0));
    if (std::isfinite(norm)) largest = std::max(largest, norm);
    squares += norm * norm;
  }
  if (o.json) {
    json modules = json::array();
    for (const auto& [m, norm] : lines)
      modules.push_back({{"name", m->name},
                         {"rank", m->weights.a.extent(0)},
                         {"in", m->weights.a.extent(1)},
                         {"out", m->weights.b.extent(0)},
                         {"scale", number(static_cast<double>(m->weights.scale))},
                         {"a_dtype", lora::name_of(m->weights.a.type())},
                         {"b_dtype", lora::name_of(m->weights.b.type())},
                         {"norm", number(norm)}});
    return print({{"path", s.path},
                  {"kind", "adapter"},
                  {"format", name_of(s.kind)},
                  {"parameters", parameters},
                  {"norm", number(std::sqrt(squares))},
                  {"notes", s.notes},
                  {"modules", std::move(modules)}});
  }
  std::printf("%s: %s adapter, %zu modules, %llu parameters (%s), rank ", escaped(s.path).c_str(), name_of(s.kind), lines.size(),
              static_cast<unsigned long long>(parameters), size_text(bytes).c_str());
  std::printf(least == most ? "%td" : "%td to %td", least, most);
  std::printf(", ||s B A|| %.4g in all\n", std::sqrt(squares));
  for (const std::string& n : s.notes) std::printf("note: %s\n", escaped(n).c_str());
  std::size_t width = 9;  // that of "(no name)"
  for (const auto& [m, norm] : lines) width = std::max(width, characters(escaped(m->name)));
  width = std::min<std::size_t>(width, 48);
  std::printf("\n%s %13s %5s %5s %10s  ||s B A||\n", column("module", width).c_str(), "out x in", "type", "rank", "scale");
  for (const auto& [m, norm] : lines) {
    const std::string shape = std::to_string(m->weights.b.extent(0)) + " x " + std::to_string(m->weights.a.extent(1));
    std::printf("%s %13s %5s %5td %10.6g %10.4g %s\n", column(m->name.empty() ? "(no name)" : escaped(m->name), width).c_str(),
                shape.c_str(), types_of(m->weights).c_str(), m->weights.a.extent(0), static_cast<double>(m->weights.scale), norm,
                bar(norm, largest).c_str());
  }
}

void inspect_base(const inspect_options& o) {
  const auto file = lora::io::sharded::open(o.path);
  const lora::model_contract contract = lora::io::contract_of(file);
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
                         {"dtype", lora::name_of(file.find(contract[i].name + ".weight")->type())},
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
    std::printf("%s %13s %5s  %s\n", column(escaped(contract[i].name), 48).c_str(), shape.c_str(),
                lora::name_of(file.find(contract[i].name + ".weight")->type()),
                file.find(contract[i].name + ".bias") != nullptr ? "yes" : "no");
  }
}

}  // namespace

void inspect(const inspect_options& o) {
  if (format_of(o.path) == format::base) return inspect_base(o);
  std::optional<base_model> base;
  if (!o.base.empty()) base = open_base(o.base);
  inspect_adapter(o, load(o.path, base ? &*base : nullptr, nameless::allowed));
}

}  // namespace program
