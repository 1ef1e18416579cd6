// SPDX-License-Identifier: Apache-2.0
#include "output.hpp"
#include "source.hpp"
#include "terminal.hpp"

#include <lora/adapter/compose.hpp>

#include <cstdio>
#include <optional>

namespace program {

void compose(const compose_options& o) {
  std::optional<base_model> base;
  if (!o.base.empty()) base = open_base(o.base);
  std::vector<source> sources;
  for (const weighted_path& a : o.adapters) sources.push_back(load(a.path, base ? &*base : nullptr));
  std::vector<lora::composed_part> parts;
  for (std::size_t i = 0; i < sources.size(); ++i) parts.push_back({&sources[i].adapter, o.adapters[i].weight});
  lora::adapter sum = lora::composed(parts, o.output);
  // One flag for the file: parts that disagree leave open how a square weight lies.
  for (const source& s : sources) sum.fan_in_fan_out = sum.fan_in_fan_out || s.adapter.fan_in_fan_out;
  for (const source& s : sources)
    for (const auto& m : s.adapter.modules)
      if (s.adapter.fan_in_fan_out != sum.fan_in_fan_out && m.weights.a.extent(1) == m.weights.b.extent(0))
        throw lora::value_error(("'" + s.path + "': module '" + m.name +
                                 "' has a square weight, and only another of the adapters says fan_in_fan_out: one file cannot say both")
                                    .c_str());
  write_peft(o.output, sum);
  lora::index_t most = 0;
  for (const auto& m : sum.modules) most = std::max(most, m.weights.a.extent(0));
  std::printf("%s: %zu adapters as one, %zu modules, ranks up to %td\n", escaped(o.output).c_str(), sources.size(), sum.modules.size(),
              most);
}

}  // namespace program
