// SPDX-License-Identifier: Apache-2.0
//
// What the library computes with adapters that PEFT wrote, for differential_test.py: many jobs in one process. A job is a line
//
//   FOLDER WEIGHT [WEIGHT ...]
//
// where FOLDER holds base.safetensors, x.safetensors (one f32 [n, in] a module, under the module's name), and a0, a1, ... as
// PeftModel.save_pretrained left them, one for each weight. The answer is "done" or "refused SENTENCE", after a line "note MODULE SENTENCE" for
// each module that cannot be merged; and FOLDER/ours.safetensors: for each input `<module>.y` f32 [n, out], `<module>.merged` [out, in]
// of W's type, `<module>.bias` f32 [out] where the base has one, and whatever tensors the adapters replace as a whole.
#include <lora/adapter/adapter_set.hpp>
#include <lora/io/contract.hpp>
#include <lora/io/peft.hpp>
#include <lora/io/safetensors_writer.hpp>
#include <lora/linalg/merge.hpp>

#include <algorithm>
#include <array>
#include <cstdio>
#include <sstream>

namespace {

using lora::bfloat16;
using lora::float16;
using lora::index_t;

/** The tensors of a file to be written, with the memory that they point into. */
class answers {
 public:
  template <class Array>
  void add(std::string name, Array&& array) {
    const auto kept = std::make_shared<std::decay_t<Array>>(std::forward<Array>(array));
    tensors_.push_back({std::move(name), lora::any_view(kept->view())});
    owners_.push_back(kept);
  }
  void add_view(std::string name, const lora::any_view& view) { tensors_.push_back({std::move(name), view}); }
  void save(const std::string& path) const { lora::io::save_safetensors(path, tensors_); }

 private:
  std::vector<lora::io::named_view> tensors_;
  std::vector<std::shared_ptr<const void>> owners_;
};

/** The bias of a module, or none. */
lora::float_view<1> bias_of(const lora::io::safetensors& base, const std::string& module) {
  const auto* const t = base.find(module + ".bias");
  if (t == nullptr) return {};
  return lora::dispatch<1, float, float16, bfloat16>(t->view(), [](auto v) { return lora::float_view<1>(v); });
}

/** Each adapter's contract knows how the weights lie that it adapts; what several adapt, they must agree on. */
lora::model_contract contract_for(const lora::io::safetensors& base, const std::vector<lora::io::peft_adapter>& files) {
  lora::model_contract all = lora::io::contract_of(base, files.front().adapter);
  for (const lora::io::peft_adapter& file : files) {
    const lora::model_contract own = lora::io::contract_of(base, file.adapter);
    lora::model_contract next;
    const auto adapted = [&](const lora::adapter& a, const std::string& name) {
      return std::any_of(a.modules.begin(), a.modules.end(), [&](const auto& m) { return m.name == name; });
    };
    const auto put = [&](const auto& m) {
      if constexpr (requires { next.add(m); })
        (void)next.add(m);
      else
        (void)next.add(m.name, m.out, m.in, m.layout);
    };
    for (std::size_t i = 0; i < all.size(); ++i) {
      const std::size_t at = own.find(all[i].name);
      put(at != own.not_found && adapted(file.adapter, all[i].name) ? own[at] : all[i]);
    }
    for (std::size_t i = 0; i < own.size(); ++i)
      if (next.find(own[i].name) == next.not_found) put(own[i]);
    all = std::move(next);
  }
  return all;
}

/**
 * The weights that the adapters work on: the base's, but for those that an adapter brings along whole, and for rows of a table that it has
 * trained; new matrices are kept in `made`.
 */
void replace_weights(std::vector<lora::float_view<2>>& weights, const lora::model_contract& model,
                     const std::vector<lora::io::peft_adapter>& files, std::vector<std::shared_ptr<const void>>& made) {
  for (const lora::io::peft_adapter& file : files)
    for (const lora::adapted_module& m : file.adapter.modules) {
      const std::size_t at = model.find(m.name);
      if (at == model.not_found) continue;
      if (const lora::any_view& v = m.weights.weight; v.size() != 0) {
        const bool turned = model[at].layout == lora::weight_layout::in_out;
        const lora::any_view matrix(v.data(), v.type(), std::array{v.extent(0), v.size() / v.extent(0)}.data(), 2);
        weights[at] = lora::dispatch<2, float, float16, bfloat16>(
            matrix, [&](auto w) { return turned ? lora::float_view<2>(w.transpose()) : lora::float_view<2>(w); });
      }
      if (m.weights.rows.size() == 0) continue;
      const lora::any_view& rows = m.weights.rows;
      weights[at].visit([&](const auto& w) {
        using type = std::remove_const_t<typename std::remove_cvref_t<decltype(w)>::element_type>;
        auto table = std::make_shared<lora::ndarray<type, 2>>(lora::extents{w.extent(0), w.extent(1)});
        for (index_t o = 0; o < w.extent(0); ++o)
          for (index_t k = 0; k < w.extent(1); ++k) (*table)(o, k) = w(o, k);
        lora::dispatch<2, float, float16, bfloat16>(rows, [&](auto trained) {
          for (std::size_t i = 0; i < m.weights.row_indices.size(); ++i)
            for (index_t o = 0; o < w.extent(0); ++o)
              (*table)(o, m.weights.row_indices[i]) = type(static_cast<float>(trained(static_cast<index_t>(i), o)));
        });
        weights[at] = table->view();
        made.push_back(table);
      });
    }
}

void run(const std::string& folder, const std::vector<float>& factors) {
  const auto base = lora::io::safetensors::open(folder + "/base.safetensors");
  std::vector<lora::io::peft_adapter> files;
  for (std::size_t i = 0; i < factors.size(); ++i) files.push_back(lora::io::load_peft(folder + "/a" + std::to_string(i)));
  const lora::model_contract model = contract_for(base, files);
  std::vector<lora::weighted_adapter> list;
  for (std::size_t i = 0; i < factors.size(); ++i) list.emplace_back(lora::bind(files[i].adapter, model), factors[i]);
  std::vector<lora::float_view<2>> weights = lora::io::weights_of(base, model);
  std::vector<std::shared_ptr<const void>> made;
  replace_weights(weights, model, files, made);
  const lora::adapter_set set(model, std::move(list), std::span<const lora::float_view<2>>(weights));

  const auto inputs = lora::io::safetensors::open(folder + "/x.safetensors");
  answers out;
  lora::workspace scratch;
  for (const auto& input : inputs.tensors()) {
    const std::string module(input.name());
    const std::size_t at = model.find(module);
    if (at == model.not_found || weights[at].data() == nullptr)
      lora::detail::raise<lora::bind_error>(lora::detail::text() << "driver: no weight of module " << lora::detail::quote(module));
    const lora::float_view<1> bias = bias_of(base, module);
    const auto x = input.view().as<const float, 2>();
    weights[at].visit([&](const auto& w) {
      lora::ndarray<float, 2> y(lora::extents{x.extent(0), w.extent(0)});
      lora::forward(y, x, w, set[at], bias, scratch);
      out.add(module + ".y", std::move(y));
      out.add(module + ".merged", lora::merged(w, set[at]));
    });
    try {
      auto b = lora::merged_bias(bias, set[at]);
      if (b.size() != 0) out.add(module + ".bias", std::move(b));
    } catch (const lora::value_error& e) {
      std::printf("note %s %s\n", module.c_str(), e.what());
    }
  }
  for (std::size_t i = 0; i < model.size(); ++i)  // norms of which a bias was trained
    if (model[i].in == 0) out.add(model[i].name + ".bias", lora::merged_bias(bias_of(base, model[i].name), set[i]));
  for (const lora::io::peft_adapter& file : files)
    for (const lora::saved_tensor& t : file.adapter.tensors) out.add_view(t.name, t.value);
  out.save(folder + "/ours.safetensors");
}

}  // namespace

int main() {
  char line[4096];
  while (std::fgets(line, sizeof line, stdin) != nullptr) {
    std::istringstream words(line);
    std::string folder;
    std::vector<float> factors;
    words >> folder;
    for (float f = 0; words >> f;) factors.push_back(f);
    try {
      run(folder, factors);
      std::puts("done");
    } catch (const lora::error& e) {
      std::printf("refused %s\n", e.what());
    }
    std::fflush(stdout);
  }
}
