// SPDX-License-Identifier: Apache-2.0
#include "output.hpp"
#include "source.hpp"
#include "terminal.hpp"

#include <lora/adapter/compose.hpp>

#include <algorithm>
#include <cstdio>
#include <optional>

namespace program {

void compose(const compose_options& o) {
  const std::optional<base_model> base = open_base_if_given(o.base);
  std::vector<source> sources;
  for (const weighted_path& a : o.adapters) sources.push_back(load(a.path, base ? &*base : nullptr));
  std::vector<lora::composed_part> parts;
  for (std::size_t i = 0; i < sources.size(); ++i) parts.push_back({&sources[i].adapter, o.adapters[i].weight});
  const lora::adapter sum = lora::composed(parts, o.output);
  try {
    write_peft(o.output, sum);
  } catch (const lora::value_error& e) {  // experts
    throw lora::value_error(("'" + o.output + "': " + e.what()).c_str());
  }
  lora::index_t most = 0;
  for (const auto& m : sum.modules) most = std::max(most, m.weights.a.extent(0));
  std::printf("%s: %zu adapters as one, %zu modules, ranks up to %td\n", escaped(o.output).c_str(), sources.size(), sum.modules.size(),
              most);
}

}  // namespace program
