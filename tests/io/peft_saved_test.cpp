// SPDX-License-Identifier: Apache-2.0
//
// What PEFT adapters replace whole, and adapters that only look like plain LoRA: fixtures of tests/data/peft_saved, made and answered by PEFT,
// against an oracle in float64 that reads the files itself.
#include "files.hpp"
#include "support/oracle.hpp"

#include <lora/adapter/linear.hpp>
#include <lora/io/contract.hpp>
#include <lora/io/peft.hpp>
#include <lora/io/sharded.hpp>
#include <lora/linalg/merge.hpp>

#include <doctest/doctest.h>

#include <cfloat>
#include <filesystem>

using lora::index_t;
using lora::io::safetensors;

namespace {

const std::string data = LORA_TEST_DATA_DIR "/peft_saved/";

struct fixture {
  explicit fixture(const std::string& name)
      : base(safetensors::open(data + name + "/base.safetensors")),
        tensors(safetensors::open(data + name + "/adapter_model.safetensors")),
        answers(safetensors::open(data + name + "/answers.safetensors")),
        file(lora::io::load_peft(data + name)),
        model(lora::io::contract_of(base, file.adapter)),
        bound(std::make_shared<const lora::bound_adapter>(lora::bind(file.adapter, model, {.require_finite = true}))) {}

  /** A tensor of the adapter's file, or an empty view. */
  [[nodiscard]] lora::any_view saved(const std::string& name) const {
    const auto* const t = tensors.find("base_model.model." + name);
    return t != nullptr ? t->view() : lora::any_view();
  }
  /** What PEFT has for a parameter once the adapter is loaded. */
  [[nodiscard]] lora::any_view effective(const std::string& module, const std::string& parameter) const {
    for (const char* between : {".base_layer.", "."})
      if (const lora::any_view v = saved(module + between + parameter); v.data() != nullptr) return v;
    const auto* const t = base.find(module + "." + parameter);
    return t != nullptr ? t->view() : lora::any_view();
  }
  [[nodiscard]] const lora::low_rank& module(const std::string& name) const {
    for (const lora::adapted_module& m : file.adapter.modules)
      if (m.name == name) return m.weights;
    FAIL("no module " << name);
    std::abort();
  }

  safetensors base, tensors, answers;
  lora::io::peft_adapter file;
  lora::model_contract model;
  std::shared_ptr<const lora::bound_adapter> bound;
};

double at(const lora::any_view& v, index_t i) { return static_cast<double>(v.as<const float, 1>()(i)); }
double at(const lora::any_view& v, index_t i, index_t j) { return static_cast<double>(v.as<const float, 2>()(i, j)); }

/** y(n, o) in float64, and the magnitude of what was added up. */
std::pair<double, double> linear_oracle(const fixture& f, const std::string& name, const lora::any_view& x, index_t n, index_t o) {
  const lora::any_view w = f.effective(name, "weight");
  const lora::any_view bias = f.effective(name, "bias");
  const lora::any_view a = f.saved(name + ".lora_A.weight");
  const lora::any_view b = f.saved(name + ".lora_B.weight");
  const lora::any_view m = f.saved(name + ".lora_magnitude_vector");
  const double scale = a.data() == nullptr ? 0 : static_cast<double>(f.file.config.alpha) / static_cast<double>(f.file.config.rank);
  double sum = 0;
  double size = 0;
  double squares = 0;
  for (index_t k = 0; k < w.extent(1); ++k) {
    double e = at(w, o, k);
    double magnitude = std::abs(e);
    for (index_t r = 0; a.data() != nullptr && r < a.extent(0); ++r) {
      const double p = scale * at(b, o, r) * at(a, r, k);
      e += p;
      magnitude += std::abs(p);
    }
    sum += e * at(x, n, k);
    size += magnitude * std::abs(at(x, n, k));
    squares += e * e;
  }
  const double factor = m.data() == nullptr ? 1 : at(m, o) / std::sqrt(squares);
  const double shift = bias.data() == nullptr ? 0 : at(bias, o);
  return {factor * sum + shift, std::abs(factor) * size + std::abs(shift)};
}

lora::any_view base_bias(const fixture& f, const std::string& name) {
  const auto* const t = f.base.find(name + ".bias");
  return t != nullptr ? t->view() : lora::any_view();
}

}  // namespace

TEST_CASE("io/peft_saved: linear modules with replaced weights and biases compute what PEFT computes") {
  double worst = 0;
  double worst_peft = 0;
  int modules = 0;
  lora::workspace scratch;
  for (const char* name : {"saved", "saved_bias_all", "base_copy", "resized", "pissa_converted", "olora_converted"}) {
    CAPTURE(name);
    const fixture f(name);
    const std::vector<lora::float_view<2>> base = lora::io::weights_of(f.base, f.model);
    const lora::adapter_set set(f.model, {{f.bound, 1.0f}}, base);
    const std::vector<lora::float_view<2>> weights = set.weights(base);
    for (const lora::adapted_module& m : f.file.adapter.modules)  // only modules_to_save unties
      CHECK(m.weights.weight_is_own == (m.weights.weight.size() != 0 && std::string_view(name).starts_with("saved")));
    for (const char* module : {"q", "v", "cls.dense", "cls.out", "head"}) {
      const auto* const x = f.answers.find(std::string("x.") + module);
      if (x == nullptr) continue;
      CAPTURE(module);
      ++modules;
      const lora::any_view y_peft = f.answers[std::string("y.") + module];
      const std::size_t i = f.model.find(module);
      REQUIRE(i != lora::model_contract::not_found);
      const lora::any_view replaced = f.effective(module, "weight");
      CHECK(weights[i].data() == (set.weight(i).data() != nullptr ? f.module(module).weight.data() : base[i].data()));
      CHECK((set.weight(i).data() != nullptr) == (f.base.find(std::string(module) + ".weight")->view().data() != replaced.data()));
      lora::float_view<1> bias;
      if (const lora::any_view b = base_bias(f, module); b.data() != nullptr) bias = b.as<const float, 1>();
      const auto w = weights[i].as<float>();
      lora::ndarray<float, 2> y({x->shape()[0], w.extent(0)});
      lora::forward(y, x->view().as<const float, 2>(), w, set[i], bias, scratch);
      const lora::ndarray<float, 2> w_merged = lora::merged(w, set[i]);
      lora::ndarray<float, 1> b_merged;
      if (bias.data() != nullptr) b_merged = lora::merged_bias(bias, set[i]);
      lora::ndarray<float, 2> z({x->shape()[0], w.extent(0)});
      lora::forward(z, x->view().as<const float, 2>(), w_merged, {}, bias.data() == nullptr ? lora::float_view<1>{} : b_merged.view(),
                    scratch);
      REQUIRE(y_peft.extent(1) == y.extent(1));
      for (index_t n = 0; n < y.extent(0); ++n)
        for (index_t o = 0; o < y.extent(1); ++o) {
          const auto [exact, size] = linear_oracle(f, module, x->view(), n, o);
          const double bound = 4 * static_cast<double>(w.extent(1) + set.rank(i) + 8) * static_cast<double>(FLT_EPSILON) * size;
          const double error = std::abs(static_cast<double>(y(n, o)) - exact);
          const double apart = std::abs(at(y_peft, n, o) - exact);
          CAPTURE(o);
          REQUIRE(error <= bound);
          REQUIRE(apart <= bound);
          REQUIRE(std::abs(static_cast<double>(z(n, o)) - exact) <= 2 * bound);
          worst = std::max(worst, error / bound);
          worst_peft = std::max(worst_peft, apart / bound);
        }
    }
  }
  CHECK(modules == 14);
  CHECK(worst < 0.1);  // a rounding to 16 bits anywhere on the way would be far outside
  MESSAGE("largest error " << worst << " of the bound, PEFT's " << worst_peft);
}

TEST_CASE("io/peft_saved: embeddings, convolutions and norms are handed over as PEFT uses them") {
  const fixture f("saved");
  const lora::adapter_set set(f.model, {{f.bound, 1.0f}});
  const lora::any_view emb = f.module("emb").weight;
  const lora::any_view rows = f.answers["y.emb"];
  REQUIRE(emb.rank() == 2);
  for (index_t i = 0; i < rows.extent(0); ++i)
    for (index_t j = 0; j < rows.extent(1); ++j) CHECK(at(rows, i, j) == at(emb, i, j));

  // The convolution as a product over patches, with the view that the set gives.
  const lora::float_view<2> w = set.weight(f.model.find("conv"));
  const auto& conv = f.module("conv");
  REQUIRE(w.extent(1) == 2 * 3 * 2);
  const auto x = f.answers["x.conv"].as<const float, 4>();
  const auto y = f.answers["y.conv"].as<const float, 4>();
  for (index_t n = 0; n < y.extent(0); ++n)
    for (index_t o = 0; o < y.extent(1); ++o)
      for (index_t r = 0; r < y.extent(2); ++r)
        for (index_t s = 0; s < y.extent(3); ++s) {
          double sum = at(conv.trained_bias, o);
          double size = std::abs(sum);
          for (index_t c = 0; c < 2; ++c)
            for (index_t i = 0; i < 3; ++i)
              for (index_t j = 0; j < 2; ++j) {
                const double p = static_cast<double>(w(o, (c * 3 + i) * 2 + j)) * static_cast<double>(x(n, c, r + i, s + j));
                sum += p;
                size += std::abs(p);
              }
          REQUIRE(std::abs(static_cast<double>(y(n, o, r, s)) - sum) <= 20 * static_cast<double>(FLT_EPSILON) * size);
        }
  for (const lora::adapted_module& m : f.file.adapter.modules)
    if (m.name == "conv") {
      CHECK(m.kind == lora::module_kind::conv2d);
      CHECK(m.kernel[0] == 3);
      CHECK(m.kernel[1] == 2);
    }

  REQUIRE(set.tensors().size() == 2);
  const lora::any_view* const scale = set.tensor("norm.weight");
  const lora::any_view* const shift = set.tensor("norm.bias");
  REQUIRE((scale != nullptr && shift != nullptr));
  CHECK(set.tensor("norm.width") == nullptr);
  const lora::any_view in = f.answers["x.norm"];
  const lora::any_view out = f.answers["y.norm"];
  for (index_t n = 0; n < in.extent(0); ++n) {
    double mean = 0;
    double variance = 0;
    for (index_t k = 0; k < 6; ++k) mean += at(in, n, k) / 6;
    for (index_t k = 0; k < 6; ++k) variance += (at(in, n, k) - mean) * (at(in, n, k) - mean) / 6;
    for (index_t k = 0; k < 6; ++k)
      CHECK(at(out, n, k) ==
            doctest::Approx((at(in, n, k) - mean) / std::sqrt(variance + 1e-5) * at(*scale, k) + at(*shift, k)).epsilon(1e-5));
  }
}

TEST_CASE("io/peft_saved: what no field announces is reported, and so are entries of modules_to_save without tensors") {
  using strings = std::vector<std::string>;
  CHECK(fixture("saved").file.report.saved_along.empty());
  CHECK(fixture("saved").file.report.unused_patterns.empty());
  CHECK(fixture("saved_bias_all").file.report.saved_along.empty());
  CHECK(fixture("resized").file.report.saved_along == strings{"base_model.model.emb.weight", "base_model.model.head.weight"});
  CHECK(fixture("base_copy").file.report.saved_along == strings{"base_model.model.emb.weight", "base_model.model.head.base_layer.weight"});
  const fixture copy("base_copy");  // PEFT wants the base resized first; here the contract takes the adapter's shapes
  CHECK(copy.model[copy.model.find("head")].out == 11);
  CHECK(copy.model[copy.model.find("emb")].out == 11);
  CHECK(copy.base["head.weight"].extent(0) == 9);
}

namespace {

const std::string prefix = "base_model.model.";

test::safetensors_builder with_pair() {
  test::safetensors_builder b;
  b.zeros(prefix + "q.lora_A.weight", {2, 3}).zeros(prefix + "q.lora_B.weight", {5, 2});
  return b;
}

lora::io::peft_adapter load(const test::temporary_folder& folder, const std::string& fields, const test::safetensors_builder& b) {
  folder.write("adapter_config.json", R"({"peft_type":"LORA","r":2,"lora_alpha":4,)" + fields + "}");
  folder.write("adapter_model.safetensors", b.bytes());
  return lora::io::load_peft(folder.path());
}

std::string refused(const std::string& fields, const test::safetensors_builder& b) {
  const test::temporary_folder folder;
  std::string what = test::refusal<lora::io_error>([&] { (void)load(folder, fields, b); });
  const std::size_t cut = what.find(folder.path());
  return cut == std::string::npos ? what : what.erase(cut, folder.path().size() + 1);
}

}  // namespace

TEST_CASE("io/peft_saved: entries of modules_to_save match ends of names, as text, and take what is below") {
  const test::temporary_folder folder;
  const auto file = load(folder, R"("modules_to_save":["head","block","nothing"])",
                         with_pair()
                             .zeros(prefix + "model.lm_head.weight", {7, 3})
                             .zeros(prefix + "a.block.gate.scale", {4}, "I64", 8)
                             .zeros(prefix + "a.block.fc.weight", {4, 4}, "BF16", 2)
                             .zeros(prefix + "a.block.fc.bias", {4})
                             .zeros(prefix + "a.block.norm.weight", {4}));
  REQUIRE(file.adapter.modules.size() == 3);
  CHECK(file.adapter.modules[1].name == "model.lm_head");
  CHECK(file.adapter.modules[2].name == "a.block.fc");
  CHECK(file.adapter.modules[2].weights.weight.type() == lora::dtype::bf16);
  CHECK(file.adapter.modules[2].weights.trained_bias.size() == 4);
  REQUIRE(file.adapter.tensors.size() == 2);
  CHECK(file.adapter.tensors[0].name == "a.block.gate.scale");
  CHECK(file.adapter.tensors[0].value.type() == lora::dtype::i64);
  CHECK(file.report.unused_patterns == std::vector<std::string>{"modules_to_save: nothing"});
  CHECK(file.report.saved_along.empty());
  CHECK(file.report.tensors_used == 7);
  // bias = "all" trains whatever has "bias" in its name.
  const auto t5 = load(folder, R"("bias":"all")",
                       with_pair().zeros(prefix + "attn.relative_attention_bias.weight", {8, 2}).zeros(prefix + "attn.bias", {1, 1, 4, 4}));
  CHECK(t5.adapter.modules[1].name == "attn.relative_attention_bias");
  CHECK(t5.adapter.tensors[0].name == "attn.bias");
  CHECK(t5.report.saved_along.empty());
}

TEST_CASE("io/peft_saved: a bias that is saved without its weight replaces the module's bias") {
  const test::temporary_folder folder;
  const auto file = load(folder, R"("modules_to_save":["head"])",
                         with_pair().add(prefix + "head.bias", "F32", {7}, test::bytes_from<float>({0, 1, 2, 3, 4, 5, 6})));
  CHECK(file.adapter.tensors.empty());
  folder.write("base.safetensors",
               test::safetensors_builder().zeros("q.weight", {5, 3}).zeros("head.weight", {7, 3}).zeros("head.bias", {7}).bytes());
  const safetensors base = safetensors::open(folder.path() + "/base.safetensors");
  const lora::model_contract model = lora::io::contract_of(base, file.adapter);
  const lora::adapter_set set(model, {lora::bind(file.adapter, model)});
  const lora::low_rank_update update = set[model.find("head")];
  CHECK(update.replaces_bias);
  REQUIRE(update.bias.size() == 7);
  CHECK(update.bias[6] == 6.0f);
}

TEST_CASE(
    "adapter/adapter_set: the base's table that comes with A and B is that of a tied lm_head too, a module of modules_to_save its own") {
  // PEFT 0.21.2 over transformers' tied Llama with 9 tokens after resize_token_embeddings: with embed_tokens in target_modules the file has
  // embed_tokens.base_layer.weight alone, and from_pretrained gives the same logits; without it, both tables.
  const test::temporary_folder folder;
  folder.write("base.safetensors", test::safetensors_builder().zeros("q.weight", {5, 3}).zeros("emb.weight", {7, 3}).bytes());
  const safetensors base = safetensors::open(folder.path() + "/base.safetensors");
  const lora::io::contract_options tied{.tied = {{"lm_head", "emb"}}};
  std::vector<float> rows(27);
  for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<float>(i);
  const std::string table = test::bytes_from<float>(rows);
  const auto set_of = [&](const lora::model_contract& model, const lora::adapter& a) {
    return lora::adapter_set(model, {lora::bind(a, model)}, lora::io::weights_of(base, model));
  };
  {
    const auto file = load(folder, R"("bias":"none")",
                           test::safetensors_builder()
                               .zeros(prefix + "emb.lora_embedding_A", {2, 9})
                               .zeros(prefix + "emb.lora_embedding_B", {3, 2})
                               .add(prefix + "emb.base_layer.weight", "F32", {9, 3}, table));
    const lora::model_contract model = lora::io::contract_of(base, file.adapter, tied);
    const std::size_t emb = model.find("emb");
    const std::size_t head = model.find("lm_head");
    const lora::adapter_set set = set_of(model, file.adapter);
    const auto e = set.weight(emb).as<float>();
    const auto h = set.weight(head).as<float>();
    CHECK(e.shape() == lora::extents{3, 9});
    REQUIRE(h.shape() == lora::extents{9, 3});
    CHECK(h.data() == e.data());
    CHECK(h(8, 1) == 25.0f);
    CHECK(e(1, 8) == 25.0f);
    CHECK(set[head].terms.empty());
    // A contract that has the base's rows still: said, not computed with.
    lora::model_contract old;
    old.add(model[emb]);
    lora::module_contract short_head = model[head];
    short_head.out = 7;
    old.add(short_head);
    CHECK(test::contains(test::refusal<lora::value_error>([&] { (void)set_of(old, file.adapter); }),
                         "which is tied to it, has another shape"));
  }
  {
    const auto file = load(folder, R"("modules_to_save":null)",
                           with_pair().add(prefix + "emb.weight", "F32", {9, 3}, table).zeros(prefix + "lm_head.weight", {9, 3}));
    const lora::model_contract model = lora::io::contract_of(base, file.adapter, tied);
    const lora::adapter_set set = set_of(model, file.adapter);
    CHECK(set.weight(model.find("lm_head")).shape() == lora::extents{9, 3});
    CHECK(set.weight(model.find("lm_head")).data() != set.weight(model.find("emb")).data());
  }
  {
    const auto file = load(folder, R"("modules_to_save":["emb"])", with_pair().zeros(prefix + "emb.weight", {7, 3}));
    const lora::model_contract model = lora::io::contract_of(base, file.adapter, tied);
    const lora::adapter_set set = set_of(model, file.adapter);
    CHECK(set.weight(model.find("emb")).data() != nullptr);
    CHECK(set.weight(model.find("lm_head")).data() == nullptr);
  }
  {  // a vocabulary is resized by rows; another width is a mistake
    const auto file = load(folder, R"("modules_to_save":["emb"])", with_pair().zeros(prefix + "emb.weight", {3, 7}));
    const lora::model_contract model = lora::io::contract_of(base, file.adapter);
    CHECK(test::contains(test::refusal<lora::bind_error>([&] { (void)lora::bind(file.adapter, model); }),
                         "the replaced weight [3, 7] is not that of the module, whose matrix is [7, 3]"));
  }
}

TEST_CASE("io/peft_saved: what cannot be replaced is refused by name") {
  const std::string file = "'adapter_model.safetensors': tensor '" + prefix;
  const std::string head = R"("modules_to_save":["head"])";
  const std::string none = R"("modules_to_save":null)";
  CHECK(refused(head, with_pair().zeros(prefix + "head.weight", {7, 3}, "F64", 8)) ==
        file + "head.weight': dtype f64 is not one of f32, f16 and bf16");
  CHECK(refused(head, with_pair().zeros(prefix + "head.weight", {7, 3}).zeros(prefix + "head.bias", {7, 1})) ==
        file + "head.bias': shape [7, 1] is not that of a bias");
  CHECK(refused(head, with_pair().zeros(prefix + "head.weight", {7, 0}).zeros(prefix + "head.bias", {7})) ==
        file + "head.weight': shape [7, 0] has no elements");
  CHECK(refused(none, with_pair().zeros(prefix + "head.bias", {7})) ==
        file + "head.bias': is a trained bias, but bias of adapter_config.json is \"none\"");
  CHECK(refused(none, with_pair().zeros(prefix + "norm.weight", {7})) ==
        file + "norm.weight': is not a lora_A or lora_B weight, and modules_to_save does not name its module");
  CHECK(refused(head, with_pair().zeros(prefix + "q.base_layer.scale", {7}))
            .ends_with("is a copy of a base tensor of a module that has no lora_A"));
  CHECK(refused(R"("use_dora":true)", with_pair()
                                          .add(prefix + "q.lora_magnitude_vector", "F32", {5}, test::bytes_from<float>({1, 1, 1, 1, 1}))
                                          .zeros(prefix + "q.lora_magnitude_vector.weight", {5})) ==
        file + "q.lora_magnitude_vector.weight': is another magnitude than '" + prefix + "q.lora_magnitude_vector'");
}

TEST_CASE("adapter/bind: a replaced weight has the shape of the module's, lies in the region, and replaces once") {
  const lora::ndarray<float, 2> w = lora::zeros<float>(5, 3);
  const lora::ndarray<float, 2> turned = lora::zeros<float>(3, 5);
  const lora::ndarray<float, 4> kernels({5, 1, 3, 1});
  const lora::ndarray<float, 1> norm = lora::zeros<float>(4);
  const lora::ndarray<double, 2> wide = lora::zeros<double>(5, 3);
  lora::model_contract model;
  model.add("m", 5, 3);
  model.add("t", 5, 3, lora::weight_layout::in_out);
  const auto one = [](const char* name, lora::any_view v) {
    lora::adapter a;
    a.source = "a";
    lora::adapted_module m;
    m.name = name;
    m.weights.weight = v;
    a.modules.push_back(m);
    return a;
  };
  const auto why = [&](const lora::adapter& a) { return test::refusal<lora::bind_error>([&] { (void)lora::bind(a, model); }); };
  CHECK(why(one("m", w)).empty());
  CHECK(why(one("m", kernels)).empty());
  CHECK(why(one("t", turned)).empty());
  CHECK(why(one("t", w)) ==
        "adapter 'a', module 't': the replaced weight [5, 3] is not that of the module, whose matrix is [5, 3]; where a vocabulary was "
        "resized, the contract is that of the resized base");
  CHECK(test::contains(why(one("m", turned)), "the replaced weight [3, 5] is not that of the module, whose matrix is [5, 3]"));
  CHECK(test::contains(why(one("m", wide)), "the replaced weight has dtype f64; supported: f32 f16 bf16"));
  CHECK(test::contains(why(one("m", norm)), "the replaced weight has shape [4], not two axes"));
  CHECK(why(one("m", lora::any_view(kernels).permute({0, 1, 3, 2}))).empty());
  const lora::ndarray<float, 4> two({5, 2, 3, 2});
  const lora::any_view gaps(two.view()(lora::all, lora::all, lora::all, lora::range(0, 1)));
  CHECK(test::contains(why(one("m", gaps.permute({0, 2, 1, 3}))), "the replaced weight [5, 3, 2, 1] has gaps between its channels"));
  lora::adapter outside = one("m", w);
  const std::byte elsewhere[4] = {};
  outside.region = elsewhere;
  CHECK(test::contains(why(outside), "the replaced weight [5, 3] takes 60 bytes, not all of them inside the 4 bytes"));
  lora::adapter nan = one("m", w);
  lora::ndarray<float, 2> holes = lora::zeros<float>(5, 3);
  holes(4, 2) = std::nanf("");
  CHECK(test::contains(test::refusal<lora::bind_error>([&] { (void)lora::bind(one("m", holes), model, {.require_finite = true}); }),
                       "the replaced weight holds a NaN or an infinity at [4, 2]"));

  lora::adapter tensors;
  tensors.source = "n";
  tensors.tensors.push_back({"norm.weight", norm});
  CHECK(why(tensors).empty());
  tensors.tensors.push_back({"norm.weight", norm});
  CHECK(why(tensors) == "adapter 'n', tensor 'norm.weight': is replaced twice");
  tensors.tensors[1].name = "m.weight";
  CHECK(why(tensors) == "adapter 'n', tensor 'm.weight': it is the weight of a module, which low_rank::weight replaces");
  tensors.tensors[1].name = "m.bias";
  CHECK(why(tensors) == "adapter 'n', tensor 'm.bias': it is the bias of a module, which low_rank::trained_bias replaces");
  tensors.tensors.pop_back();

  const auto shared = [&](const lora::adapter& a) { return std::make_shared<const lora::bound_adapter>(lora::bind(a, model)); };
  const auto set_refused = [&](const lora::adapter& a, const lora::adapter& b) {
    return test::refusal<lora::value_error>([&] { const lora::adapter_set set(model, {{shared(a), 1.0f}, {shared(b), 1.0f}}); });
  };
  CHECK(set_refused(one("m", w), one("m", w)) == "adapter_set: 'a' and another adapter both replace the weight of module 'm'");
  CHECK(set_refused(tensors, tensors) == "adapter_set: 'n' and another adapter both replace the tensor 'norm.weight'");
  const lora::adapter_set both(model, {{shared(one("m", w)), 0.0f}, {shared(one("t", turned)), 1.0f}, {shared(tensors), 1.0f}});
  CHECK(both.weight(0).data() == w.data());  // a weight of 0 switches low-rank terms off, nothing else
  CHECK(both.weight(1).stride(1) == 5);
  CHECK(both.tensors().size() == 1);
  CHECK(lora::adapter_set(model).weight(0).data() == nullptr);
  CHECK(lora::adapter_set(model).weight(0, w).data() == w.data());
}

TEST_CASE("io/peft_saved: adapters that need another base, or another forward, are refused with the reason") {
  const auto why = [](const std::string& name) {
    const std::string what = test::refusal<lora::io_error>([&] { (void)lora::io::load_peft(data + name); });
    const std::size_t cut = what.find("': ");
    return cut == std::string::npos ? what : what.substr(cut + 3);
  };
  const std::string base =
      "only true, false, \"gaussian\", \"orthogonal\", \"eva\" and \"mica\" leave the base as it is; PiSSA, OLoRA, CorDA, LoftQ "
      "and LoRA-GA take the adapter out of the base's weights";
  CHECK(why("pissa").starts_with("the field 'init_lora_weights' is 'pissa': " + base));
  CHECK(why("olora").starts_with("the field 'init_lora_weights' is 'olora': " + base));
  CHECK(why("pissa_converted").empty());
  CHECK(why("olora_converted").empty());
  CHECK(
      why("refused/alora").starts_with("the field 'alora_invocation_tokens' is set: activated LoRA applies the adapter to some rows only"));
  CHECK(why("refused/kasa").starts_with("the field 'kasa_config' is set: KaSA truncates the base weights"));
  CHECK(why("refused/bdlora").starts_with("the field 'use_bdlora' is set: block-diagonal factors are not supported"));
  CHECK(why("refused/qalora").starts_with("the field 'use_qalora' is true: QALoRA pools the input before A"));
  CHECK(why("refused/layer_replication").starts_with("the field 'layer_replication' is set: it changes which layers the model has"));
  CHECK(why("refused/loha").starts_with("the field 'peft_type' is 'LOHA', not \"LORA\", the only type that is supported"));
  CHECK(why("refused/lokr").starts_with("the field 'peft_type' is 'LOKR', not \"LORA\", the only type that is supported"));
  // The bases differ from what was trained: y of the trained model is no W x + s B A x over base.safetensors.
  CHECK(lora::io::load_peft(data + "pissa_converted").adapter.modules[0].weights.a.extent(0) == 4);
}

TEST_CASE("io/contract: a base in shards has the contract and the weights of the same base in one file, layouts included") {
  const std::string conv1d = LORA_TEST_DATA_DIR "/peft/conv1d";
  const auto one = safetensors::open(conv1d + "/base.safetensors");
  const test::temporary_folder folder;
  std::string map;
  int shard = 0;
  for (const auto& t : one.tensors()) {
    const std::string file = "model-" + std::to_string(++shard) + ".safetensors";
    std::vector<std::size_t> shape(t.shape(), t.shape() + t.rank());
    const auto* const bytes = static_cast<const char*>(t.view().data());
    folder.write(file, test::safetensors_builder().add(t.name(), "F32", shape, std::string_view(bytes, t.size_bytes())).bytes());
    map += (map.empty() ? "\"" : ",\"") + std::string(t.name()) + "\":\"" + file + "\"";
  }
  folder.write("model.safetensors.index.json", "{\"weight_map\":{" + map + "}}");
  const auto many = lora::io::sharded::open(folder.path());
  const auto peft = lora::io::load_peft(conv1d);
  const lora::model_contract a = lora::io::contract_of(one, peft.adapter);
  const lora::model_contract b = lora::io::contract_of(many, peft.adapter);
  REQUIRE(a.size() == b.size());
  const auto wa = lora::io::weights_of(one, a);
  const auto wb = lora::io::weights_of(many, b);
  int turned = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const std::size_t j = b.find(a[i].name);
    REQUIRE(j != lora::model_contract::not_found);
    CHECK(a[i].out == b[j].out);
    CHECK(a[i].in == b[j].in);
    CHECK(a[i].layout == b[j].layout);
    turned += a[i].layout == lora::weight_layout::in_out;
    CHECK(wa[i].extent(0) == a[i].out);
    for (index_t r = 0; r < a[i].out; ++r)
      for (index_t c = 0; c < a[i].in; ++c) REQUIRE(wa[i](r, c) == wb[j](r, c));
  }
  CHECK(turned == 2);
}
