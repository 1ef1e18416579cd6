// SPDX-License-Identifier: Apache-2.0
#include "adapted.hpp"
#include "output.hpp"
#include "terminal.hpp"

#include <lora/io/npy.hpp>
#include <lora/io/npy_writer.hpp>
#include <lora/linalg/conv2d.hpp>
#include <lora/linalg/embedding.hpp>
#include <lora/parallel/thread_pool.hpp>

#include <algorithm>
#include <charconv>

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

/** "2,1", or "2" for both. @throws usage_error. */
void parse_pair(const char* option, const std::string& text, index_t least, index_t (&to)[2]) {
  const char* at = text.data();
  const char* const end = text.data() + text.size();
  const auto number = [&](index_t& value) {
    const auto read = std::from_chars(at, end, value);
    at = read.ptr;
    return read.ec == std::errc() && value >= least;
  };
  bool good = number(to[0]);
  to[1] = to[0];
  if (good && at != end) good = *at++ == ',' && number(to[1]);
  if (!good || at != end)
    throw usage_error(std::string(option) + " " + text + ": it is one number of at least " + std::to_string(least) + ", or two as H,W");
}

/** y [n, out, h, w] of images [n, channels, height, width]. */
[[nodiscard]] lora::ndarray<float, 4> apply_conv2d(const apply_options& o, const lora::module_contract& m, const lora::any_view& weight,
                                                   const lora::low_rank_update& update, const lora::float_view<1>& bias,
                                                   const lora::any_view& input) {
  lora::conv2d_geometry g;
  parse_pair("--stride", o.stride, 1, g.stride);
  parse_pair("--padding", o.padding, 0, g.padding);
  parse_pair("--dilation", o.dilation, 1, g.dilation);
  g.dilated_terms = true;  // as merge writes it
  const auto x = input.as<const float, 4>();
  const lora::detail::conv2d_extents e = lora::detail::conv2d_extents_of("apply", input.shape(), m.kernel, g);
  lora::ndarray<float, 4> y(lora::extents{e.n, m.out, e.output[0], e.output[1]});
  lora::thread_pool pool(o.threads);
  lora::conv2d_workspace scratch;
  lora::dispatch<2, float, float16, bfloat16>(weight, [&](auto w) {
    const auto kernels = lora::reshape(w, lora::extents{m.out, m.in / (m.kernel[0] * m.kernel[1]), m.kernel[0], m.kernel[1]});
    lora::conv2d(y, x, kernels, update, bias, scratch, pool, g);
  });
  return y;
}

/** y [n, width], the rows of a table [tokens, width]. */
[[nodiscard]] lora::ndarray<float, 2> apply_embedding(const apply_options& o, const lora::any_view& table,
                                                      const lora::low_rank_update& update, const lora::any_view& input) {
  lora::ndarray<float, 2> y(lora::extents{input.extent(0), table.extent(1)});
  lora::workspace scratch;
  lora::dispatch<2, float, float16, bfloat16>(table, [&](auto rows) {
    lora::embed_options options;
    options.embed_scale = o.embed_scale;
    lora::embed(y, input.as<const std::int64_t, 1>(), rows, update, scratch, options);
  });
  return y;
}

/** Whether the adapters do no more than put another weight into the place: the file does not say whether that is a layer or a table. */
[[nodiscard]] bool may_be_table(const adapted_base& model, std::size_t module) {
  const auto given = model.given(module);
  return model.contract()[module].kind == lora::module_kind::linear && std::all_of(given.begin(), given.end(), [](const given_module& g) {
           const lora::low_rank& w = g.module->weights;
           return w.weight.size() != 0 && w.a.size() == 0 && w.b.size() == 0 && w.trained_bias.size() == 0 && w.rows.size() == 0;
         });
}

}  // namespace

void apply(const apply_options& o) {
  require_file_output(o.output, o.adapters);
  const base_model base = open_base(o.base);
  const adapted_base model(base, load_all(o.adapters, base, o.module), weights_of(o.adapters));
  const std::size_t index = model.contract().find(o.module);
  if (index == lora::model_contract::not_found)
    throw lora::bind_error(("'" + o.base.path + "': there is no module '" + o.module + "': no tensor of two axes is called '" + o.module +
                            ".weight'" + suggestion(model.contract(), o.module))
                               .c_str());
  const lora::module_contract& m = model.contract()[index];
  if (!model.is_adapted(index))
    throw lora::bind_error(("'" + o.adapters.front().path +
                            "': " + (o.adapters.size() == 1 ? "it does not adapt" : "none of the adapters adapts") + " the module '" +
                            o.module + "'")
                               .c_str());
  const lora::any_view weight = model.weight(index);
  if (weight.data() == nullptr && m.in == 0)
    throw lora::bind_error(("'" + o.base.path + "': module '" + o.module +
                            "' has a trained bias and no weight of two axes: it is no linear layer, and cannot be applied")
                               .c_str());
  if (weight.type() != lora::dtype::f32 && weight.type() != lora::dtype::f16 && weight.type() != lora::dtype::bf16)
    throw lora::dtype_error(("'" + o.base.path + "': tensor '" + lora::weight_name(m) + "' has dtype " + lora::name_of(weight.type()) +
                             "; a product needs f32, f16 or bf16")
                                .c_str());

  const auto input = lora::io::npy::open(o.input);
  const lora::any_view x = input.view();
  const bool ids = x.type() == lora::dtype::i64 && x.rank() == 1;
  const bool embedding = m.kind == lora::module_kind::embedding || (ids && may_be_table(model, index));
  const bool images = m.kind == lora::module_kind::conv2d && x.type() == lora::dtype::f32 && x.rank() == 4;
  if (embedding && !ids) refuse_input(o.input, x, "int64 [n], rows of its table");
  if (!embedding && !images && (x.type() != lora::dtype::f32 || x.rank() != 2 || x.extent(1) != m.in))
    refuse_input(o.input, x,
                 (m.kind == lora::module_kind::conv2d ? "f32 [n, channels, height, width], or patches of it f32 [n, " : "f32 [n, ") +
                     std::to_string(m.in) + "]");
  if (!embedding && o.embed_scale != 1.0f) throw usage_error("--embed-scale: module '" + o.module + "' is applied as no embedding");
  if (!images && (o.stride != "1" || o.padding != "0" || o.dilation != "1"))
    throw usage_error("--stride, --padding and --dilation are those of a convolution over images f32 [n, channels, height, width]");
  const lora::adapter_set set = model.set_of(index);
  try {
    if (embedding)
      return lora::io::save_npy(o.output,
                                apply_embedding(o, m.kind == lora::module_kind::embedding ? weight.transpose() : weight, set[index], x));
    if (images) return lora::io::save_npy(o.output, apply_conv2d(o, m, weight, set[index], model.bias(index), x));
  } catch (const lora::index_error& e) {
    throw lora::index_error(("'" + o.input + "': " + e.what()).c_str());
  } catch (const lora::shape_error& e) {
    throw lora::shape_error(("'" + o.input + "': " + e.what()).c_str());
  }
  lora::ndarray<float, 2> y(lora::extents{x.extent(0), m.out});
  apply_linear(o, weight, set[index], model.bias(index), x, y);
  lora::io::save_npy(o.output, y);
}

}  // namespace program
