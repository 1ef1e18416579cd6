// SPDX-License-Identifier: Apache-2.0
#include "output.hpp"
#include "source.hpp"
#include "terminal.hpp"

#include <lora/io/npy.hpp>
#include <lora/io/npy_writer.hpp>
#include <lora/parallel/thread_pool.hpp>

namespace program {
namespace {

using lora::bfloat16;
using lora::float16;

[[nodiscard]] lora::float_view<1> bias_of(const base_model& base, const std::string& module, lora::index_t out) {
  const auto* const t = base.file.find(module + ".bias");
  if (t == nullptr) return {};
  if (t->rank() != 1 || t->shape()[0] != out)
    throw lora::io_error(
        ("'" + base.file.path() + "': tensor '" + module + ".bias' does not have one element for each row of the weight").c_str());
  return lora::dispatch<1, float, float16, bfloat16>(t->view(), [](auto v) { return lora::float_view<1>(v); });
}

}  // namespace

void apply(const apply_options& o) {
  require_file_output(o.output);
  const base_model base = open_base(o.base);
  const std::size_t index = base.contract.find(o.module);
  if (index == lora::model_contract::not_found)
    throw lora::bind_error(
        ("'" + o.base + "': there is no module '" + o.module + "': no tensor of two axes is called '" + o.module + ".weight'").c_str());
  const lora::adapter_set set = load_set(o.adapters, base, o.module);
  if (set[index].empty())
    throw lora::bind_error(("'" + o.adapters.front().path +
                            "': " + (o.adapters.size() == 1 ? "it does not adapt" : "none of the adapters adapts") + " the module '" +
                            o.module + "'")
                               .c_str());

  const lora::index_t out = base.contract[index].out;
  const lora::index_t in = base.contract[index].in;
  const auto input = lora::io::npy::open(o.input);
  if (input.view().type() != lora::dtype::f32 || input.view().rank() != 2 || input.view().extent(1) != in) {
    lora::detail::text t;
    t << lora::detail::quote(o.input) << ": it holds " << lora::name_of(input.view().type()) << " "
      << lora::detail::shape_text{input.view().shape(), input.view().rank()} << "; the input of this module is f32 [n, " << in << "]";
    lora::detail::raise<lora::io_error>(t);
  }
  const auto x = input.view().as<const float, 2>();
  const lora::float_view<1> bias = bias_of(base, o.module, out);
  const lora::any_view weight = base.file[o.module + ".weight"];
  if (weight.type() != lora::dtype::f32 && weight.type() != lora::dtype::f16 && weight.type() != lora::dtype::bf16)
    throw lora::dtype_error(("'" + o.base + "': tensor '" + o.module + ".weight' has dtype " + lora::name_of(weight.type()) +
                             "; a product needs f32, f16 or bf16")
                                .c_str());

  lora::ndarray<float, 2> y(lora::extents{x.extent(0), out});
  lora::thread_pool pool(o.threads);
  lora::workspace scratch;
  const lora::index_t most = 1024;  // rows a call: enough that a further row costs no less in a larger one
  progress shown("apply", static_cast<std::uint64_t>(x.extent(0)));
  lora::dispatch<2, float, float16, bfloat16>(weight, [&](auto w) {
    for (lora::index_t begin = 0; begin < x.extent(0); begin += most) {
      const lora::index_t rows = std::min(most, x.extent(0) - begin);
      const lora::ndview<float, 2> to(y.data() + begin * out, lora::extents{rows, out});
      const lora::ndview<const float, 2> from(x.data() + begin * x.stride(0), lora::extents{rows, in}, x.stride());
      lora::forward(to, from, w, set[index], bias, scratch, pool);
      shown.advance(static_cast<std::uint64_t>(rows));
    }
  });
  lora::io::save_npy(o.output, y);
}

}  // namespace program
