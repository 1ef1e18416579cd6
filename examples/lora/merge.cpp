// SPDX-License-Identifier: Apache-2.0
#include "output.hpp"
#include "source.hpp"
#include "terminal.hpp"

#include <lora/io/safetensors_stream.hpp>
#include <lora/linalg/merge.hpp>
#include <lora/linalg/merge_report.hpp>

#include <cstdio>

namespace program {
namespace {

/** The module that a tensor is the weight of, if an adapter changes it. */
[[nodiscard]] std::size_t adapted_module(const base_model& base, const lora::adapter_set& set, std::string_view tensor, std::size_t rank) {
  constexpr std::string_view suffix = ".weight";
  if (rank != 2 || !tensor.ends_with(suffix)) return lora::model_contract::not_found;
  const std::size_t i = base.contract.find(tensor.substr(0, tensor.size() - suffix.size()));
  return i == lora::model_contract::not_found || set[i].empty() ? lora::model_contract::not_found : i;
}

void print_line(const std::string& module, lora::index_t rank, lora::dtype type, const lora::merge_report& r) {
  const double swallowed = r.meant == 0 ? 0 : 100 * static_cast<double>(r.swallowed) / static_cast<double>(r.meant);
  std::printf("%s %5td %5s %12.3e %12.3e %9.2f %%", column(escaped(module), 40).c_str(), rank, lora::name_of(type), r.max_delta,
              r.max_error, swallowed);
  if (r.not_finite != 0) std::printf("  %td not finite", r.not_finite);
  std::printf("\n");
}

}  // namespace

void merge(const merge_options& o) {
  require_file_output(o.output);
  const base_model base = open_base(o.base);
  const lora::adapter_set set = load_set(o.adapters, base);

  std::vector<lora::io::safetensors_stream::entry> table;
  std::uint64_t bytes = 0;
  for (std::size_t i = 0; i < base.file.size(); ++i) {
    const auto& t = base.file.tensor(i);
    const bool computes = t.type() == lora::dtype::f32 || t.type() == lora::dtype::f16 || t.type() == lora::dtype::bf16;
    if (!computes && adapted_module(base, set, t.name(), t.rank()) != lora::model_contract::not_found)
      throw lora::dtype_error(("'" + base.file.shard_of(i).path() + "': tensor '" + std::string(t.name()) + "' has dtype " +
                               lora::name_of(t.type()) + "; only f32, f16 and bf16 can be merged into")
                                  .c_str());
    table.push_back({std::string(t.name()), t.type(), std::vector<lora::index_t>(t.shape(), t.shape() + t.rank())});
    bytes += t.size_bytes();
  }
  std::vector<lora::io::metadata_pair> metadata;  // of shards, each has its own: what they agree in
  for (const auto& m : base.file.shards().front().metadata()) {
    bool everywhere = true;
    for (const auto& shard : base.file.shards()) {
      bool here = false;
      for (const auto& other : shard.metadata()) here = here || (other.key == m.key && other.value == m.value);
      everywhere = everywhere && here;
    }
    if (everywhere) metadata.push_back({std::string(m.key), std::string(m.value)});
  }

  std::printf("%s %5s %5s %12s %12s %11s\n", column("module", 40).c_str(), "rank", "type", "max |delta|", "max |error|", "swallowed");
  progress shown("merge", bytes);
  lora::io::safetensors_stream out(o.output, table, std::move(metadata));
  std::size_t changed = 0;
  while (const auto* const next = out.next()) {
    const lora::any_view old = base.file[next->name];
    const std::size_t module = adapted_module(base, set, next->name, old.rank());
    if (module == lora::model_contract::not_found) {
      out.write(old);
    } else {
      lora::dispatch<2, float, lora::float16, lora::bfloat16>(old, [&](auto w) {
        const auto merged = lora::merged(w, set[module]);  // one at a time: the new model is never in memory whole
        out.write(lora::any_view(merged.view()));
        print_line(base.contract[module].name, set.rank(module), old.type(), lora::merge_report_of(w, set[module].terms, merged));
      });
      ++changed;
    }
    shown.advance(old.size_bytes());
  }
  out.commit();
  std::printf("%s: %zu of %zu tensors changed, the others as they were\n", escaped(o.output).c_str(), changed, base.file.size());
}

}  // namespace program
