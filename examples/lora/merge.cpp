// SPDX-License-Identifier: Apache-2.0
#include "adapted.hpp"
#include "output.hpp"
#include "terminal.hpp"

#include <lora/core/bytes.hpp>
#include <lora/io/safetensors_stream.hpp>
#include <lora/linalg/embedding.hpp>
#include <lora/linalg/merge_report.hpp>
#include <lora/ops/cast.hpp>

#include <algorithm>
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
  bool added = false;                         ///< the base does not have it: the weight of a module that was tied to another
};

[[nodiscard]] std::string shape_of(const lora::any_view& v) {
  lora::detail::text t;
  t << lora::detail::shape_text{v.shape(), v.rank()};
  return t.c_str();
}

void print_line(const std::string& name, const std::string& rank, dtype type, const lora::merge_report& r, const std::string& note = {}) {
  const double swallowed = r.meant == 0 ? 0 : 100 * static_cast<double>(r.swallowed) / static_cast<double>(r.meant);
  std::printf("%s %5s %5s %12.3e %12.3e %9.2f %%", column(escaped(name), 40).c_str(), rank.c_str(), lora::name_of(type), r.max_delta,
              r.max_error, swallowed);
  if (r.not_finite != 0) std::printf("  %td not finite", r.not_finite);
  if (!note.empty()) std::printf("  %s", note.c_str());
  std::printf("\n");
}

/** What the adapters change in the base, before anything is computed or written. */
class plan {
 public:
  plan(const base_model& base, const adapted_base& model) : base_(base), model_(model) {
    for (std::size_t i = 0; i < model.contract().size(); ++i) {
      const lora::module_contract& m = model.contract()[i];
      if (model.tied_to(i) != adapted_base::none)
        add_tied(i, model.tied_to(i));
      else if (changes_weight(i))
        add_weight(i);
      if (changes_bias(i)) add_bias(m, i);
    }
    for (const source& s : model.sources())
      for (const lora::saved_tensor& t : s.adapter.tensors) {
        const auto* const old = base.file.find(t.name);
        change& c = changes_[t.name];
        if (old == nullptr || c.saved != nullptr || !c.weights.empty() || !c.biases.empty())
          refuse(s, "it replaces the tensor '" + t.name + "', " +
                        (old == nullptr ? "which '" + base.file.path() + "' does not have" : "which is changed otherwise too"));
        c.saved = &t;
      }
  }

  [[nodiscard]] const change* find(std::string_view tensor) const {
    const auto at = changes_.find(std::string(tensor));
    return at == changes_.end() ? nullptr : &at->second;
  }
  [[nodiscard]] const std::map<std::string, change>& all() const noexcept { return changes_; }

  /** What the tensor was before; of an added one, the tensor that its module was tied to. */
  [[nodiscard]] lora::any_view before(const std::string& name, const change& c) const {
    return base_.file[c.added ? lora::weight_name(model_.contract()[c.weights.front()]) : name];
  }

  /** Whether the one module of a change is all of its tensor, so that a replacement gives the tensor its shape. */
  [[nodiscard]] bool is_whole(const change& c, const lora::any_view& tensor) const {
    if (c.weights.size() != 1) return false;
    const lora::module_contract& m = model_.contract()[c.weights.front()];
    return c.added || m.tensor.empty() || (tensor.rank() == 2 && tensor.size() == m.out * m.in);
  }

  /** The name, type and shape that a tensor is written with: the base's type; the adapter's shape, where it brings one. */
  [[nodiscard]] lora::io::safetensors_stream::entry entry_of(const std::string& name, const change* c) const {
    const lora::any_view old = c == nullptr ? base_.file[name] : before(name, *c);
    std::vector<lora::index_t> shape(old.shape(), old.shape() + old.rank());
    const auto take = [&](const lora::any_view& v) { shape.assign(v.shape(), v.shape() + v.rank()); };
    if (c != nullptr && c->saved != nullptr) take(c->saved->value);
    if (c != nullptr && !c->weights.empty() && is_whole(*c, old))
      if (const lora::any_view v = model_.replacement(c->weights.front()); v.size() != 0) take(v);
    if (c != nullptr && c->biases.size() == 1 && name == model_.contract()[c->biases.front()].name + ".bias")
      shape.assign(1, model_.bias(c->biases.front()).extent(0));
    return {name, old.type(), std::move(shape)};
  }

 private:
  [[noreturn]] static void refuse(const source& s, const std::string& problem) {
    throw lora::bind_error(("'" + s.path + "': " + problem).c_str());
  }

  [[nodiscard]] bool has_rows(std::size_t i) const {
    const auto given = model_.given(i);
    return std::any_of(given.begin(), given.end(), [](const given_module& g) { return g.module->weights.rows.size() != 0; });
  }
  [[nodiscard]] bool changes_weight(std::size_t i) const { return has_rows(i) || changes_alone(i) || model_.replacement(i).size() != 0; }
  [[nodiscard]] bool changes_bias(std::size_t i) const {
    const auto given = model_.given(i);
    return std::any_of(given.begin(), given.end(), [](const given_module& g) {
      return g.module->weights.bias.size() != 0 || g.module->weights.trained_bias.size() != 0;
    });
  }
  /** Whether the weight is changed by more than what tied modules share: token rows of a table, and a new value of the base's weight. */
  [[nodiscard]] bool changes_alone(std::size_t module) const {
    const auto given = model_.given(module);
    return std::any_of(given.begin(), given.end(), [](const given_module& g) {
      const lora::low_rank& w = g.module->weights;
      return w.a.size() != 0 || (w.weight.size() != 0 && w.weight_is_own);
    });
  }

  void add_bias(const lora::module_contract& m, std::size_t i) {
    const auto* const t = model_.bias_tensor(i);
    if (t == nullptr)
      refuse(*model_.given(i).front().from, "module '" + m.name + "' has a bias of B, and '" + base_.file.path() + "' has no tensor '" +
                                                m.name + ".bias' to add it to: the two cannot be merged (PEFT refuses it too)");
    (void)model_.bias(i);
    changes_[std::string(t->name())].biases.push_back(i);
  }

  void add_weight(std::size_t i) {
    const lora::model_contract& contract = model_.contract();
    const std::string name = lora::weight_name(contract[i]);
    require_floats(name);
    (void)model_.weight(i);
    change& c = changes_[name];
    for (const std::size_t j : c.weights) {  // parts of one tensor, but not the same part twice
      const bool apart = contract[i].matrix != contract[j].matrix || contract[i].first_row + contract[i].out <= contract[j].first_row ||
                         contract[j].first_row + contract[j].out <= contract[i].first_row;
      if (!apart)
        refuse(*model_.given(i).front().from, "module '" + contract[i].name + "' lies in the tensor '" + name + "', where module '" +
                                                  contract[j].name + "' is merged too");
    }
    c.weights.push_back(i);
  }

  /** A tied module gets a tensor of its own, unless all that changes is what it has in common with the table. */
  void add_tied(std::size_t i, std::size_t table) {
    if (!has_rows(i) && !changes_alone(i) && !changes_alone(table)) return;
    const lora::module_contract& m = model_.contract()[i];
    require_floats(lora::weight_name(m));
    const lora::any_view replaced = model_.replacement(table);
    const lora::any_view old = base_.file[lora::weight_name(m)];
    if (replaced.size() != old.size() && replaced.size() != 0 && model_.replacement(i).size() == 0)
      refuse(*model_.given(table).front().from, "it replaces '" + lora::weight_name(m) + "' " + shape_of(old) + " by " +
                                                    shape_of(replaced) + "; what becomes of module '" + m.name +
                                                    "', which is tied to it, it does not say");
    change& c = changes_[m.name + ".weight"];
    c.weights.push_back(i);
    c.added = true;
  }

  void require_floats(const std::string& name) const {
    const auto* const t = base_.file.find(name);
    if (t == nullptr) throw lora::io_error(("'" + base_.file.path() + "': there is no tensor '" + name + "'").c_str());
    if (!computes(t->type()))
      throw lora::dtype_error(("'" + base_.file.path() + "': tensor '" + name + "' has dtype " + lora::name_of(t->type()) +
                               "; only f32, f16 and bf16 can be merged into")
                                  .c_str());
  }

  const base_model& base_;
  const adapted_base& model_;
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
  merger(const adapted_base& model, const plan& changes, lora::io::safetensors_stream& out) : model_(model), changes_(changes), out_(out) {}

  /** Writes the tensor that the stream wants next. The type is that of the base. */
  void write(const change& c, const lora::io::named_view& next) {
    const lora::any_view old = changes_.before(next.name, c);
    if (c.saved != nullptr) {
      write_as(c.saved->value, old.type());
      std::printf("%s %5s %5s  replaced\n", column(escaped(next.name), 40).c_str(), "", lora::name_of(old.type()));
    } else if (!c.biases.empty()) {
      lora::dispatch<1, float, float16, bfloat16>(old, [&](auto v) { write_biases(c, next, v); });
    } else if (!model_.is_adapted(c.weights.front())) {  // of a tied module, whose table goes its own way from here on
      out_.write(old);
      std::printf("%s %5s %5s  as its table was\n", column(escaped(model_.contract()[c.weights.front()].name), 40).c_str(), "",
                  lora::name_of(old.type()));
    } else if (changes_.is_whole(c, old)) {
      as_type(old.type(), [&](auto type) { write_whole(c, next.view, type); });
    } else {
      write_parts(c, old);
    }
  }

 private:
  void write_as(const lora::any_view& v, dtype type) {
    if (v.type() == type || !computes(type) || !computes(v.type())) return out_.write(v);
    out_.write(converted(v, type).view);
  }

  /** Calls f with a value of the type: that of a tensor of the base, in which its successor is written. */
  template <class F>
  static void as_type(dtype type, F f) {
    if (type == dtype::f16) return f(float16());
    if (type == dtype::bf16) return f(bfloat16());
    f(0.0f);
  }

  /** One module that is its tensor. One at a time: never the whole new model. */
  template <class T>
  void write_whole(const change& c, const lora::any_view& wanted, T type) {
    const lora::module_contract& m = model_.contract()[c.weights.front()];
    const lora::ndarray<T, 2> merged = merge_one(c.weights.front(), type);
    const lora::any_view v(merged.view());
    if (m.kind == lora::module_kind::conv2d)
      out_.write(lora::any_view(merged.data(), v.type(), wanted.shape(), wanted.rank()));
    else if (m.layout == lora::weight_layout::in_out && m.kind != lora::module_kind::embedding)
      out_.write(v.transpose());
    else
      out_.write(v);
  }

  /** Parts of a fused tensor, or experts: the rest of it is as it was. */
  void write_parts(const change& c, const lora::any_view& old) {
    lora::aligned_bytes memory(old.size_bytes());
    std::memcpy(memory.data(), old.data(), old.size_bytes());
    const lora::any_view whole(memory.data(), old.type(), old.shape(), old.rank(), false);
    for (const std::size_t i : c.weights) {
      const lora::module_contract& m = model_.contract()[i];
      const lora::any_view part = lora::detail::matrix_in(whole, m, lora::weight_name(m));
      lora::dispatch<2, float, float16, bfloat16>(part, [&](auto to) {
        using element = std::remove_cv_t<typename decltype(to)::value_type>;
        const lora::ndarray<element, 2> merged = merge_one(i, element());
        auto* const data = const_cast<element*>(to.data());  // of `memory`
        for (lora::index_t r = 0; r < m.out; ++r)
          for (lora::index_t k = 0; k < m.in; ++k) data[r * to.stride(0) + k * to.stride(1)] = merged(r, k);
      });
    }
    out_.write(whole);
  }

  /**
   * The new weight, [out, in]; of an embedding the table, [tokens, width]. Rounded once, to T: a replacement of another type is merged as
   * floats, which it is exactly.
   */
  template <class T>
  [[nodiscard]] lora::ndarray<T, 2> merge_one(std::size_t module, T) {
    const lora::any_view w = model_.weight(module);
    if (w.type() == lora::dtype_of<T>) return merge_into<T>(module, w.as<const T, 2>());
    lora::ndarray<float, 2> wide(lora::extents{w.extent(0), w.extent(1)});
    lora::dispatch<2, float, float16, bfloat16>(w, [&](auto v) { lora::cast(v, wide); });
    return merge_into<T>(module, lora::ndview<const float, 2>(wide.view()));
  }

  template <class T, class From>
  [[nodiscard]] static lora::ndarray<T, 2> rounded(lora::ndarray<From, 2> sum) {
    if constexpr (std::is_same_v<From, T>) {
      return sum;
    } else {
      lora::ndarray<T, 2> to(sum.shape());
      lora::cast(sum, to);
      return to;
    }
  }

  template <class T, class W>
  [[nodiscard]] lora::ndarray<T, 2> merge_into(std::size_t module, const W& w) {
    const lora::adapter_set set = model_.set_of(module);
    const lora::low_rank_update update = set[module];
    const bool table = model_.contract()[module].kind == lora::module_kind::embedding;
    lora::ndarray<T, 2> merged = rounded<T>(table ? lora::merged_table(w.transpose(), update) : lora::merged(w, update));
    const lora::float_view<2> after = table ? lora::float_view<2>(merged.view().transpose()) : lora::float_view<2>(merged.view());
    std::string note;
    const auto add = [&](const std::string& word) { note += (note.empty() ? "" : ", ") + word; };
    if (model_.replacement(module).size() != 0) add("replaced");
    if (!update.row_factor.empty()) add("DoRA");
    lora::index_t rows = 0;
    for (const auto* const list : {&update.rows, &update.columns})
      for (const lora::replaced_rows& r : *list) rows += r.rows.extent(0);
    if (rows != 0) add(std::to_string(rows) + " rows replaced");
    print_line(model_.contract()[module].name, std::to_string(set.rank(module)), lora::dtype_of<T>, report_of(w, update, after), note);
    return merged;
  }

  /** Of the terms and the row factor: token rows are taken over, and what stands in them is their own. */
  template <class W>
  [[nodiscard]] static lora::merge_report report_of(const W& w, const lora::low_rank_update& update, const lora::float_view<2>& after) {
    if (update.rows.empty() && update.columns.empty()) return lora::merge_report_of(w, update, after);
    lora::low_rank_update rest = update;
    rest.rows = {};
    rest.columns = {};
    if (rest.terms.empty()) return {};
    lora::low_rank_update rows_alone;
    rows_alone.rows = update.rows;
    rows_alone.columns = update.columns;
    const auto before = lora::merged(w, rows_alone);
    return lora::merge_report_of(before, rest, after);
  }

  template <class V>
  void write_biases(const change& c, const lora::io::named_view& next, const V& old) {
    using T = std::remove_cv_t<typename V::value_type>;
    lora::ndarray<T, 1> sum(lora::extents{next.view.extent(0)});
    for (lora::index_t i = 0; i < std::min(sum.extent(0), old.extent(0)); ++i) sum(i) = old(i);
    for (const std::size_t module : c.biases) {
      const lora::adapter_set set = model_.set_of(module, adapted_base::part::bias);
      const lora::low_rank_update update = set[module];
      const lora::float_view<1> base = model_.bias(module);
      const auto merged = lora::merged_bias(base, update);
      const lora::module_contract& m = model_.contract()[module];
      const lora::index_t begin = next.name == m.name + ".bias" ? 0 : m.first_row;
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
      const std::string label = c.biases.size() == 1 ? next.name : m.name + ".bias";
      print_line(label, "", lora::dtype_of<T>, r, update.replaces_bias ? "replaced" : "");
    }
    out_.write(lora::any_view(sum.view()));
  }

  const adapted_base& model_;
  const plan& changes_;
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

/** What the new file asks of whoever loads it. */
void print_ties(const base_model& base, const plan& changes, const adapted_base& model) {
  for (const auto& [name, c] : changes.all()) {
    if (c.added) {
      std::printf("note: '%s' is a tensor of its own now: the model must not be loaded as tied any more (tie_word_embeddings)\n",
                  escaped(name).c_str());
      continue;
    }
    if (c.weights.size() != 1 || model.contract()[c.weights.front()].kind != lora::module_kind::embedding) continue;
    const std::string& table = model.contract()[c.weights.front()].name;
    const lora::any_view old = base.file[name];
    bool alone = std::none_of(base.options.tied.begin(), base.options.tied.end(), [&](const auto& t) { return t.to == table; });
    for (const auto& t : base.file.tensors())  // an output layer of its own has the shape of the table
      alone = alone && (t.name() == name || t.rank() != 2 || t.shape()[0] != old.extent(0) || t.shape()[1] != old.extent(1));
    if (alone)
      std::printf("note: a module that is tied to '%s' changes with it; --tied NAME=%s gives it a tensor of its own where it should not\n",
                  escaped(table).c_str(), escaped(table).c_str());
  }
}

}  // namespace

void merge(const merge_options& o) {
  require_file_output(o.output, o.adapters);
  const base_model base = open_base(o.base);
  const adapted_base model(base, load_all(o.adapters, base), weights_of(o.adapters));
  const plan changes(base, model);

  std::vector<lora::io::safetensors_stream::entry> table;
  std::uint64_t bytes = 0;
  std::size_t added = 0;
  for (const auto& t : base.file.tensors()) {
    table.push_back(changes.entry_of(std::string(t.name()), changes.find(t.name())));
    bytes += t.size_bytes();
  }
  for (const auto& [name, c] : changes.all()) {
    if (!c.added) continue;
    table.push_back(changes.entry_of(name, &c));
    bytes += changes.before(name, c).size_bytes();
    ++added;
  }

  std::printf("%s %5s %5s %12s %12s %11s\n", column("module", 40).c_str(), "rank", "type", "max |delta|", "max |error|", "swallowed");
  progress shown("merge", bytes);
  lora::io::safetensors_stream out(o.output, table, common_metadata(base.file));
  merger writer(model, changes, out);
  while (const auto* const next = out.next()) {
    const change* const c = changes.find(next->name);
    const lora::any_view old = c == nullptr ? base.file[next->name] : changes.before(next->name, *c);
    if (c == nullptr)
      out.write(old);
    else
      writer.write(*c, *next);
    shown.advance(old.size_bytes());
  }
  out.commit();
  print_ties(base, changes, model);
  std::printf("%s: %zu of %zu tensors changed%s, the others as they were\n", escaped(o.output).c_str(), changes.all().size() - added,
              base.file.size(), added == 0 ? "" : (", " + std::to_string(added) + " added").c_str());
}

}  // namespace program
