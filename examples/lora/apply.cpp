// SPDX-License-Identifier: Apache-2.0
#include "adapted.hpp"
#include "output.hpp"
#include "terminal.hpp"

#include <lora/io/npy.hpp>
#include <lora/io/npy_writer.hpp>
#include <lora/parallel/thread_pool.hpp>

#include <algorithm>

namespace program {
namespace {

using lora::bfloat16;
using lora::float16;
using lora::index_t;

/** ", did you mean 'NAME'?" for the name that ends in `wanted`, or differs from it least; nothing when none is near. */
[[nodiscard]] std::string suggestion(const lora::model_contract& contract, const std::string& wanted) {
  std::string best;
  std::size_t least = 4;  // letters: further away it is another name
  for (std::size_t i = 0; i < contract.size(); ++i) {
    const std::string& name = contract[i].name;
    if (name.ends_with("." + wanted)) return ", did you mean '" + name + "'?";
    if (std::max(name.size(), wanted.size()) - std::min(name.size(), wanted.size()) >= least) continue;
    std::vector<std::size_t> row(wanted.size() + 1);  // of Levenshtein's table
    for (std::size_t j = 0; j < row.size(); ++j) row[j] = j;
    for (const char c : name) {
      std::size_t diagonal = row[0]++;
      for (std::size_t j = 1; j < row.size(); ++j) {
        const std::size_t changed = diagonal + (wanted[j - 1] != c);
        diagonal = row[j];
        row[j] = std::min({changed, row[j] + 1, row[j - 1] + 1});
      }
    }
    if (row.back() >= least) continue;
    least = row.back();
    best = name;
  }
  return best.empty() ? "" : ", did you mean '" + best + "'?";
}

[[noreturn]] void refuse_input(const std::string& path, const lora::any_view& x, const std::string& wanted) {
  lora::detail::text t;
  t << lora::detail::quote(path) << ": it holds " << lora::name_of(x.type()) << " " << lora::detail::shape_text{x.shape(), x.rank()}
    << "; the input of this module is " << wanted.c_str();
  lora::detail::raise<lora::io_error>(t);
}

/** y [n, out] = x W' + bias + what the adapters add. */
void apply_linear(const apply_options& o, const lora::any_view& weight, const lora::low_rank_update& update,
                  const lora::float_view<1>& bias, const lora::any_view& input, lora::ndarray<float, 2>& y) {
  const index_t out = weight.extent(0);
  const index_t in = weight.extent(1);
  const auto x = input.as<const float, 2>();
  lora::thread_pool pool(o.threads);
  lora::workspace scratch;
  const index_t most = 1024;  // rows a call: enough that a further row costs no less in a larger one
  progress shown("apply", static_cast<std::uint64_t>(x.extent(0)));
  lora::dispatch<2, float, float16, bfloat16>(weight, [&](auto w) {
    for (index_t begin = 0; begin < x.extent(0); begin += most) {
      const index_t rows = std::min(most, x.extent(0) - begin);
      const lora::ndview<float, 2> to(y.data() + begin * out, lora::extents{rows, out});
      const lora::ndview<const float, 2> from(x.data() + begin * x.stride(0), lora::extents{rows, in}, x.stride());
      lora::forward(to, from, w, update, bias, scratch, pool);
      shown.advance(static_cast<std::uint64_t>(rows));
    }
  });
}

/** y_t [width] = row_factor * (W e_id + sum of s B (A e_id)), f32 sums; W is [width, tokens] and rows of its table may be replaced. */
void apply_embedding(const std::string& path, const lora::any_view& weight, const lora::low_rank_update& update,
                     std::span<const given_module> given, const lora::any_view& input, lora::ndarray<float, 2>& y) {
  const auto ids = input.as<const std::int64_t, 1>();
  for (index_t t = 0; t < ids.extent(0); ++t)
    if (ids(t) < 0 || ids(t) >= weight.extent(1)) {
      lora::detail::text problem;
      problem << lora::detail::quote(path) << ": element " << t << " is " << ids(t) << ", and the table has " << weight.extent(1)
              << " rows";
      lora::detail::raise<lora::index_error>(problem);
    }
  lora::dispatch<2, float, float16, bfloat16>(weight, [&](auto w) {
    for (index_t t = 0; t < ids.extent(0); ++t) {
      float* const row = y.data() + t * w.extent(0);
      for (index_t k = 0; k < w.extent(0); ++k) row[k] = static_cast<float>(w(k, ids(t)));
      for (const given_module& g : given)
        for (std::size_t i = 0; i < g.module->weights.row_indices.size(); ++i)
          if (g.module->weights.row_indices[i] == ids(t))
            lora::dispatch<2, float, float16, bfloat16>(g.module->weights.rows, [&](auto rows) {
              for (index_t k = 0; k < w.extent(0); ++k) row[k] = static_cast<float>(rows(static_cast<index_t>(i), k));
            });
      for (const lora::low_rank_term& term : update.terms)
        for (index_t r = 0; r < term.a.extent(0); ++r) {
          const float a = term.scale * term.a(r, ids(t));
          for (index_t k = 0; k < w.extent(0) && term.scale != 0.0f; ++k) row[k] += a * term.b(k, r);
        }
      for (index_t k = 0; k < w.extent(0) && !update.row_factor.empty(); ++k) row[k] *= update.row_factor[static_cast<std::size_t>(k)];
    }
  });
}

}  // namespace

void apply(const apply_options& o) {
  require_file_output(o.output, o.adapters);
  const base_model base = open_base(o.base);
  const adapted_base model(base, load_all(o.adapters, base, o.module), weights_of(o.adapters));
  const std::size_t index = model.contract().find(o.module);
  if (index == lora::model_contract::not_found)
    throw lora::bind_error(("'" + o.base + "': there is no module '" + o.module + "': no tensor of two axes is called '" + o.module +
                            ".weight'" + suggestion(model.contract(), o.module))
                               .c_str());
  const lora::module_contract& m = model.contract()[index];
  if (model.given(index).empty())
    throw lora::bind_error(("'" + o.adapters.front().path +
                            "': " + (o.adapters.size() == 1 ? "it does not adapt" : "none of the adapters adapts") + " the module '" +
                            o.module + "'")
                               .c_str());
  const lora::any_view weight = model.weight(index);
  if (weight.data() == nullptr && m.in == 0)
    throw lora::bind_error(("'" + o.base + "': module '" + o.module +
                            "' has a trained bias and no weight of two axes: it is no linear layer, and cannot be applied")
                               .c_str());
  if (weight.type() != lora::dtype::f32 && weight.type() != lora::dtype::f16 && weight.type() != lora::dtype::bf16)
    throw lora::dtype_error(("'" + o.base + "': tensor '" + weight_tensor_of(m) + "' has dtype " + lora::name_of(weight.type()) +
                             "; a product needs f32, f16 or bf16")
                                .c_str());

  const auto input = lora::io::npy::open(o.input);
  const lora::any_view x = input.view();
  const bool embedding = m.kind == lora::module_kind::embedding;
  if (embedding && (x.type() != lora::dtype::i64 || x.rank() != 1)) refuse_input(o.input, x, "int64 [n], rows of its table");
  if (!embedding && (x.type() != lora::dtype::f32 || x.rank() != 2 || x.extent(1) != m.in))
    refuse_input(o.input, x,
                 "f32 [n, " + std::to_string(m.in) + "]" + (m.kind == lora::module_kind::conv2d ? ", patches of a convolution" : ""));
  const lora::adapter_set set = model.set_of(index);
  lora::ndarray<float, 2> y(lora::extents{x.extent(0), m.out});
  if (embedding)
    apply_embedding(o.input, weight, set[index], model.given(index), x, y);
  else
    apply_linear(o, weight, set[index], model.bias(index), x, y);
  lora::io::save_npy(o.output, y);
}

}  // namespace program
