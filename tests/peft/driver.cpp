// SPDX-License-Identifier: Apache-2.0
//
// What the library computes with adapters that PEFT wrote, for differential_test.py: many jobs in one process. A job is a line
//
//   FOLDER WORD ...
//
// where FOLDER holds base.safetensors, x.safetensors (inputs under their modules' names) and a0, a1, ... as PeftModel.save_pretrained left them. A
// word is the weight of one of these, in order; or MODULE=OTHER, a module that is tied to the embedding OTHER; or MODULE:SH,SW,PH,PW, the stride
// and padding of a convolution. Inputs are f32 [n, in], of embeddings ids i64 [n], of convolutions f32 [n, channels, height, width].
//
// The answer is "done" or "refused SENTENCE", after a line "note MODULE SENTENCE" for each module whose bias cannot be merged; and
// FOLDER/ours.safetensors: for each input `<module>.y` f32, `<module>.merged` [out, in] of W's type, `<module>.table` [tokens, width] of an
// embedding, `<module>.bias` f32 [out] where there is one, and whatever tensors the adapters replace as a whole.
#include <lora/adapter/adapter_set.hpp>
#include <lora/io/contract.hpp>
#include <lora/io/peft.hpp>
#include <lora/io/safetensors_writer.hpp>
#include <lora/linalg/conv2d.hpp>
#include <lora/linalg/embedding.hpp>
#include <lora/linalg/merge.hpp>

#include <algorithm>
#include <cstdio>
#include <map>
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

/** What a line says. */
struct job {
  std::string folder;
  std::vector<float> weights;
  lora::io::contract_options options;
  std::map<std::string, lora::conv2d_geometry> convolutions;

  explicit job(const char* line) {
    std::istringstream words(line);
    words >> folder;
    for (std::string word; words >> word;) {
      if (const std::size_t tie = word.find('='); tie != word.npos) {
        options.tied.push_back({word.substr(0, tie), word.substr(tie + 1)});
      } else if (const std::size_t colon = word.find(':'); colon != word.npos) {
        std::istringstream numbers(word.substr(colon + 1));
        lora::conv2d_geometry g;
        char comma = 0;
        numbers >> g.stride[0] >> comma >> g.stride[1] >> comma >> g.padding[0] >> comma >> g.padding[1];
        convolutions.emplace(word.substr(0, colon), g);
      } else {
        weights.push_back(std::stof(word));
      }
    }
  }
};

/** The bias of a module, or none. */
lora::float_view<1> bias_of(const lora::io::safetensors& base, const std::string& module) {
  const auto* const t = base.find(module + ".bias");
  if (t == nullptr) return {};
  return lora::dispatch<1, float, float16, bfloat16>(t->view(), [](auto v) { return lora::float_view<1>(v); });
}

/** Each adapter's contract knows how the weights lie that it adapts, but not those of which it has only a copy; what several adapt, they must agree on. */
lora::model_contract contract_for(const lora::io::safetensors& base, const std::vector<lora::io::peft_adapter>& files,
                                  const lora::io::contract_options& options) {
  lora::model_contract all = lora::io::contract_of(base, files.front().adapter, options);
  for (const lora::io::peft_adapter& file : files) {
    const lora::model_contract own = lora::io::contract_of(base, file.adapter, options);
    lora::model_contract next;
    const auto adapted = [&](const lora::adapter& a, const std::string& name) {
      return std::any_of(a.modules.begin(), a.modules.end(), [&](const lora::adapted_module& m) {
        return m.name == name && (m.weights.a.size() != 0 || m.weights.rows.size() != 0 || m.weights.trained_bias.size() != 0);
      });
    };
    for (std::size_t i = 0; i < all.size(); ++i) {
      const std::size_t at = own.find(all[i].name);
      next.add(at != own.not_found && adapted(file.adapter, all[i].name) ? own[at] : all[i]);
    }
    for (std::size_t i = 0; i < own.size(); ++i)
      if (next.find(own[i].name) == next.not_found) next.add(own[i]);
    all = std::move(next);
  }
  return all;
}

void run(const job& task) {
  const std::string& folder = task.folder;
  const auto base = lora::io::safetensors::open(folder + "/base.safetensors");
  std::vector<lora::io::peft_adapter> files;
  for (std::size_t i = 0; i < task.weights.size(); ++i) files.push_back(lora::io::load_peft(folder + "/a" + std::to_string(i)));
  const lora::model_contract model = contract_for(base, files, task.options);
  std::vector<lora::weighted_adapter> list;
  for (std::size_t i = 0; i < files.size(); ++i) list.emplace_back(lora::bind(files[i].adapter, model), task.weights[i]);
  const std::vector<lora::float_view<2>> of_base = lora::io::weights_of(base, model);
  const lora::adapter_set set(model, std::move(list), of_base);
  const std::vector<lora::float_view<2>> weights = set.weights(of_base);

  const auto inputs = lora::io::safetensors::open(folder + "/x.safetensors");
  answers out;
  lora::workspace scratch;
  lora::conv2d_workspace conv_scratch;
  for (const auto& input : inputs.tensors()) {
    const std::string module(input.name());
    const std::size_t at = model.find(module);
    if (at == model.not_found || weights[at].data() == nullptr)
      lora::detail::raise<lora::bind_error>(lora::detail::text() << "driver: no weight of module " << lora::detail::quote(module));
    const lora::float_view<1> bias = bias_of(base, module);
    weights[at].visit([&](const auto& w) {
      if (model[at].kind == lora::module_kind::embedding) {
        const auto ids = input.view().as<const std::int64_t, 1>();
        lora::ndarray<float, 2> y(lora::extents{ids.extent(0), w.extent(0)});
        lora::embed(y, ids, w.transpose(), set[at], scratch);
        out.add(module + ".y", std::move(y));
        out.add(module + ".table", lora::merged_table(w.transpose(), set[at]));
      } else if (model[at].kind == lora::module_kind::conv2d) {
        const auto x = input.view().as<const float, 4>();
        const index_t* const kernel = model[at].kernel;
        const auto w4 = lora::reshape(w, lora::extents{w.extent(0), x.extent(1), kernel[0], kernel[1]});
        const lora::conv2d_geometry g = task.convolutions.at(module);
        const auto outputs = [&](std::size_t i) { return (x.extent(i + 2) + 2 * g.padding[i] - kernel[i]) / g.stride[i] + 1; };
        lora::ndarray<float, 4> y(lora::extents{x.extent(0), w.extent(0), outputs(0), outputs(1)});
        lora::conv2d(y, x, w4, set[at], bias, conv_scratch, g);
        out.add(module + ".y", std::move(y));
      } else {
        const auto x = input.view().as<const float, 2>();
        lora::ndarray<float, 2> y(lora::extents{x.extent(0), w.extent(0)});
        lora::forward(y, x, w, set[at], bias, scratch);
        out.add(module + ".y", std::move(y));
      }
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
  for (const lora::saved_tensor& t : set.tensors()) out.add_view(t.name, t.value);
  out.save(folder + "/ours.safetensors");
}

}  // namespace

int main() {
  char line[4096];
  while (std::fgets(line, sizeof line, stdin) != nullptr) {
    try {
      run(job(line));
      std::puts("done");
    } catch (const lora::error& e) {
      std::printf("refused %s\n", e.what());
    }
    std::fflush(stdout);
  }
}
