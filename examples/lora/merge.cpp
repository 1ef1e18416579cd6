// SPDX-License-Identifier: Apache-2.0
#include "adapted.hpp"
#include "output.hpp"
#include "terminal.hpp"

#include <lora/core/bytes.hpp>
#include <lora/io/safetensors_stream.hpp>
#include <lora/linalg/merge.hpp>
#include <lora/linalg/merge_report.hpp>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <map>

namespace program {
namespace {

using lora::bfloat16;
using lora::dtype;
using lora::float16;

[[nodiscard]] bool computes(dtype t) noexcept { return t == dtype::f32 || t == dtype::f16 || t == dtype::bf16; }

/** The modules that change one tensor of the base. */
struct change {
  std::vector<std::size_t> weights;  ///< whose matrix lies in it
  std::vector<std::size_t> biases;
  const lora::saved_tensor* saved = nullptr;  ///< what takes its place
};

void print_line(const std::string& name, const std::string& rank, dtype type, const lora::merge_report& r, const std::string& note = {}) {
  const double swallowed = r.meant == 0 ? 0 : 100 * static_cast<double>(r.swallowed) / static_cast<double>(r.meant);
  std::printf("%s %5s %5s %12.3e %12.3e %9.2f %%", column(escaped(name), 40).c_str(), rank.c_str(), lora::name_of(type), r.max_delta,
              r.max_error, swallowed);
  if (r.not_finite != 0) std::printf("  %td not finite", r.not_finite);
  if (!note.empty()) std::printf("  %s", note.c_str());
  std::printf("\n");
}

/** What a module's adapters change in the base, before anything is computed or written. */
class plan {
 public:
  plan(const base_model& base, const adapted_base& model) : base_(base) {
    for (std::size_t i = 0; i < model.contract().size(); ++i) {
      const lora::module_contract& m = model.contract()[i];
      bool weight = false;
      bool bias = false;
      const auto* const t = model.bias_tensor(i);
      for (const given_module& g : model.given(i)) {
        const lora::low_rank& w = g.module->weights;
        weight = weight || w.a.size() != 0 || w.weight.size() != 0 || w.rows.size() != 0;
        bias = bias || w.bias.size() != 0 || w.trained_bias.size() != 0;
        if (w.rows.size() != 0 && w.a.size() != 0)
          refuse(*g.from, "module '" + m.name + "' has trained token rows beside A and B; what merging both means is not defined");
        if (bias && t == nullptr)
          refuse(*g.from, "module '" + m.name + "' has a bias of B, and '" + base.file.path() + "' has no tensor '" + m.name +
                              ".bias' to add it to: the two cannot be merged (PEFT refuses it too)");
      }
      if (weight) add_weight(model, i);
      if (!bias) continue;
      (void)model.bias(i);
      changes_[std::string(t->name())].biases.push_back(i);
    }
    for (const source& s : model.sources())
      for (const lora::saved_tensor& t : s.adapter.tensors) {
        const auto* const old = base.file.find(t.name);
        change& c = changes_[t.name];
        if (old == nullptr || c.saved != nullptr || !c.weights.empty() || !c.biases.empty())
          throw lora::bind_error(("'" + s.path + "': it replaces the tensor '" + t.name + "', " +
                                  (old == nullptr ? "which '" + base.file.path() + "' does not have" : "which is changed otherwise too"))
                                     .c_str());
        c.saved = &t;
      }
  }

  [[nodiscard]] const change* find(std::string_view tensor) const {
    const auto at = changes_.find(std::string(tensor));
    return at == changes_.end() ? nullptr : &at->second;
  }
  [[nodiscard]] std::size_t size() const noexcept { return changes_.size(); }

 private:
  [[noreturn]] static void refuse(const source& s, const std::string& problem) {
    throw lora::bind_error(("'" + s.path + "': " + problem).c_str());
  }

  void add_weight(const adapted_base& model, std::size_t i) {
    const lora::model_contract& contract = model.contract();
    const std::string name = weight_tensor_of(contract[i]);
    const auto* const t = base_.file.find(name);
    if (t == nullptr) throw lora::io_error(("'" + base_.file.path() + "': there is no tensor '" + name + "'").c_str());
    if (!computes(t->type()))
      throw lora::dtype_error(("'" + base_.file.path() + "': tensor '" + name + "' has dtype " + lora::name_of(t->type()) +
                               "; only f32, f16 and bf16 can be merged into")
                                  .c_str());
    (void)model.weight(i);
    // Another module that uses the same rows would change along: a tied lm_head.
    for (std::size_t j = 0; j < contract.size(); ++j) {
      if (j == i || contract[j].in == 0 || weight_tensor_of(contract[j]) != name) continue;
      const bool apart = contract[i].first_row + contract[i].out <= contract[j].first_row ||
                         contract[j].first_row + contract[j].out <= contract[i].first_row;
      if (!apart)
        throw lora::bind_error(("'" + base_.file.path() + "': module '" + contract[j].name + "' uses the weight of '" + contract[i].name +
                                "' too: merged into '" + name + "', the adapter would change both")
                                   .c_str());
    }
    changes_[name].weights.push_back(i);
  }

  const base_model& base_;
  std::map<std::string, change> changes_;
};

/** Elements of `from` in `type`, each rounded once, with the shape that they had. */
struct converted {
  converted(const lora::any_view& from, dtype type)
      : memory(static_cast<std::size_t>(from.size()) * lora::size_of(type)), view(memory.data(), type, from.shape(), from.rank()) {
    const lora::index_t shape[] = {from.size()};
    const lora::any_view flat(from.data(), from.type(), shape, 1);  // what comes from a file is contiguous
    lora::dispatch<1, float, float16, bfloat16>(flat, [&](auto v) {
      const auto fill = [&](auto* to) {
        using element = std::remove_reference_t<decltype(*to)>;
        for (lora::index_t i = 0; i < v.extent(0); ++i) to[i] = static_cast<element>(static_cast<float>(v(i)));
      };
      if (type == dtype::f32) fill(static_cast<float*>(memory.data()));
      if (type == dtype::f16) fill(static_cast<float16*>(memory.data()));
      if (type == dtype::bf16) fill(static_cast<bfloat16*>(memory.data()));
    });
  }

  lora::aligned_bytes memory;
  lora::any_view view;
};

class merger {
 public:
  merger(const base_model& base, const adapted_base& model, lora::io::safetensors_stream& out) : base_(base), model_(model), out_(out) {}

  /** Writes the tensor that the stream wants next. `type` is that of the base, which stays. */
  void write(const change& c, const std::string& name) {
    const lora::any_view old = base_.file[name];
    if (c.saved != nullptr) {
      write_as(c.saved->value, old.type());
      std::printf("%s %5s %5s  replaced\n", column(escaped(name), 40).c_str(), "", lora::name_of(old.type()));
    } else if (!c.biases.empty()) {
      lora::dispatch<1, float, float16, bfloat16>(old, [&](auto v) { write_biases(c, name, v); });
    } else {
      lora::dispatch<2, float, float16, bfloat16>(model_.weight(c.weights.front()), [&](auto v) { write_weights(c, old, v); });
    }
  }

 private:
  void write_as(const lora::any_view& v, dtype type) {
    if (v.type() == type || !computes(type) || !computes(v.type())) return out_.write(v);
    out_.write(converted(v, type).view);
  }

  template <class W>
  void write_weights(const change& c, const lora::any_view& old, W) {
    using T = std::remove_cv_t<typename W::value_type>;
    const std::size_t first = c.weights.front();
    const lora::any_view from = model_.tensor(first);
    if (c.weights.size() == 1 && model_.weight(first).size() == from.size()) {
      const auto merged = merge_one(first, model_.weight(first).template as<const T, 2>());  // one at a time: never the whole new model
      lora::any_view m(merged.view());
      if (model_.contract()[first].layout == lora::weight_layout::in_out) m = m.transpose();
      if (from.rank() == 4) m = lora::any_view(merged.data(), m.type(), from.shape(), 4);
      if (m.type() == old.type()) return out_.write(m);
      lora::aligned_bytes gathered(from.size_bytes());  // a replacement of another type, which takes the base's
      std::size_t used = 0;
      lora::detail::write_elements(m, [&](const void* data, std::size_t size) {
        std::memcpy(static_cast<std::byte*>(gathered.data()) + used, data, size);
        used += size;
      });
      return write_as(lora::any_view(gathered.data(), m.type(), from.shape(), from.rank()), old.type());
    }
    // Parts of a fused tensor: the rest of it is as it was.
    lora::aligned_bytes memory(from.size_bytes());
    std::memcpy(memory.data(), from.data(), from.size_bytes());
    const lora::any_view whole(memory.data(), from.type(), from.shape(), from.rank(), false);
    for (const std::size_t i : c.weights) {
      const auto merged = merge_one(i, model_.weight(i).template as<const T, 2>());
      const auto part = matrix_in(whole, model_.contract()[i], base_.file.path());
      auto* const data = static_cast<T*>(const_cast<void*>(part.data()));
      for (lora::index_t r = 0; r < merged.extent(0); ++r)
        for (lora::index_t k = 0; k < merged.extent(1); ++k) data[r * part.stride(0) + k * part.stride(1)] = merged(r, k);
    }
    write_as(whole, old.type());
  }

  template <class T>
  [[nodiscard]] lora::ndarray<T, 2> merge_one(std::size_t module, const lora::ndview<const T, 2>& w) {
    const lora::adapter_set set = model_.set_of(module);
    const lora::low_rank_update update = set[module];
    lora::ndarray<T, 2> merged = lora::merged(w, update);
    std::string note = update.row_factor.empty() ? "" : "DoRA";
    const lora::merge_report report = lora::merge_report_of(w, update, merged);
    for (const given_module& g : model_.given(module)) {
      if (g.module->weights.weight.size() != 0) note = note.empty() ? "replaced" : "replaced, " + note;
      if (g.module->weights.rows.size() == 0) continue;
      replace_rows(*g.module, merged);
      note = std::to_string(g.module->weights.row_indices.size()) + " rows replaced";
    }
    print_line(model_.contract()[module].name, std::to_string(set.rank(module)), lora::dtype_of<T>, report, note);
    return merged;
  }

  /** Trained token rows are columns of the matrix [width, tokens] of an embedding, and rows of that of an lm_head. */
  template <class T>
  static void replace_rows(const lora::adapted_module& m, lora::ndarray<T, 2>& merged) {
    lora::dispatch<2, float, float16, bfloat16>(m.weights.rows, [&](auto rows) {
      for (std::size_t i = 0; i < m.weights.row_indices.size(); ++i)
        for (lora::index_t k = 0; k < rows.extent(1); ++k)
          (m.kind == lora::module_kind::embedding ? merged(k, m.weights.row_indices[i]) : merged(m.weights.row_indices[i], k)) =
              static_cast<T>(static_cast<float>(rows(static_cast<lora::index_t>(i), k)));
    });
  }

  template <class V>
  void write_biases(const change& c, const std::string& name, const V& old) {
    using T = std::remove_cv_t<typename V::value_type>;
    lora::ndarray<T, 1> sum(lora::extents{old.extent(0)});
    for (lora::index_t i = 0; i < old.extent(0); ++i) sum(i) = old(i);
    for (const std::size_t module : c.biases) {
      const lora::adapter_set set = model_.set_of(module, adapted_base::part::bias);
      const lora::low_rank_update update = set[module];
      const lora::float_view<1> base = model_.bias(module);
      const auto merged = lora::merged_bias(base, update);
      const lora::index_t begin = static_cast<const T*>(base.data()) - old.data();
      lora::merge_report r;
      r.elements = base.extent(0);
      for (lora::index_t i = 0; i < base.extent(0); ++i) {
        sum(begin + i) = static_cast<T>(merged(i));
        const double was = static_cast<double>(base(i));
        const double now = static_cast<double>(static_cast<float>(sum(begin + i)));
        const double given = update.bias.empty() ? 0 : static_cast<double>(update.bias[static_cast<std::size_t>(i)]);
        const double delta = update.replaces_bias ? given - was : given;
        const double error = std::abs(now - (was + delta));
        if (!std::isfinite(error)) {
          ++r.not_finite;
          continue;
        }
        r.meant += delta != 0;
        r.swallowed += delta != 0 && now == was;
        r.max_delta = std::max(r.max_delta, std::abs(delta));
        r.max_error = std::max(r.max_error, error);
      }
      const std::string label = c.biases.size() == 1 ? name : model_.contract()[module].name + ".bias";
      print_line(label, "", lora::dtype_of<T>, r, update.replaces_bias ? "replaced" : "");
    }
    out_.write(lora::any_view(sum.view()));
  }

  const base_model& base_;
  const adapted_base& model_;
  lora::io::safetensors_stream& out_;
};

/** Of shards, each has its own: what they agree in. */
[[nodiscard]] std::vector<lora::io::metadata_pair> common_metadata(const lora::io::sharded& file) {
  std::vector<lora::io::metadata_pair> metadata;
  for (const auto& m : file.shards().front().metadata()) {
    bool everywhere = true;
    for (const auto& shard : file.shards()) {
      bool here = false;
      for (const auto& other : shard.metadata()) here = here || (other.key == m.key && other.value == m.value);
      everywhere = everywhere && here;
    }
    if (everywhere) metadata.push_back({std::string(m.key), std::string(m.value)});
  }
  return metadata;
}

}  // namespace

void merge(const merge_options& o) {
  require_file_output(o.output, o.adapters);
  const base_model base = open_base(o.base);
  const adapted_base model(base, load_all(o.adapters, base), weights_of(o.adapters));
  const plan changes(base, model);

  std::vector<lora::io::safetensors_stream::entry> table;
  std::uint64_t bytes = 0;
  for (std::size_t i = 0; i < base.file.size(); ++i) {
    const auto& t = base.file.tensor(i);
    lora::any_view shaped = t.view();
    if (const change* const c = changes.find(t.name()); c != nullptr && c->saved != nullptr)
      shaped = c->saved->value;
    else if (c != nullptr && !c->weights.empty())
      shaped = model.tensor(c->weights.front());  // a replacement may have grown
    table.push_back({std::string(t.name()), t.type(), std::vector<lora::index_t>(shaped.shape(), shaped.shape() + shaped.rank())});
    bytes += t.size_bytes();
  }

  std::printf("%s %5s %5s %12s %12s %11s\n", column("module", 40).c_str(), "rank", "type", "max |delta|", "max |error|", "swallowed");
  progress shown("merge", bytes);
  lora::io::safetensors_stream out(o.output, table, common_metadata(base.file));
  merger writer(base, model, out);
  while (const auto* const next = out.next()) {
    const std::string name = next->name;
    const lora::any_view old = base.file[name];
    const change* const c = changes.find(name);
    if (c == nullptr)
      out.write(old);
    else
      writer.write(*c, name);
    shown.advance(old.size_bytes());
  }
  out.commit();
  std::printf("%s: %zu of %zu tensors changed, the others as they were\n", escaped(o.output).c_str(), changes.size(), base.file.size());
}

}  // namespace program
