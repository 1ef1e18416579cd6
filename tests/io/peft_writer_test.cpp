// SPDX-License-Identifier: Apache-2.0
//
// save_peft: whatever load_peft reads comes back bit for bit; the names, shapes and configuration of what it writes (tests/lora_program/
// peft_writer_test.py loads the same with PEFT); and what one configuration of PEFT cannot say.
#include "files.hpp"

#include <lora/adapter/adapter_set.hpp>
#include <lora/adapter/compose.hpp>
#include <lora/io/contract.hpp>
#include <lora/io/peft.hpp>
#include <lora/io/peft_writer.hpp>

#include <doctest/doctest.h>

#include <filesystem>

using lora::index_t;

namespace {

const std::string fixtures = LORA_TEST_DATA_DIR;

/** Same type, shape and bits. */
bool same(const lora::any_view& a, const lora::any_view& b) {
  if (a.size() == 0 || b.size() == 0) return a.size() == b.size();
  if (a.type() != b.type() || a.rank() != b.rank()) return false;
  for (std::size_t i = 0; i < a.rank(); ++i)
    if (a.extent(i) != b.extent(i)) return false;
  return a.is_contiguous() && b.is_contiguous() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

const lora::adapted_module* find(const lora::adapter& a, const std::string& name) {
  for (const auto& m : a.modules)
    if (m.name == name) return &m;
  return nullptr;
}

void check_same(const lora::adapter& a, const lora::adapter& b) {
  REQUIRE(a.modules.size() == b.modules.size());
  CHECK(a.fan_in_fan_out == b.fan_in_fan_out);
  for (const lora::adapted_module& m : a.modules) {
    CAPTURE(m.name);
    const lora::adapted_module* const other = find(b, m.name);
    REQUIRE(other != nullptr);
    const lora::low_rank& x = m.weights;
    const lora::low_rank& y = other->weights;
    CHECK(x.scale == y.scale);
    CHECK(m.kind == other->kind);
    CHECK(m.kernel[0] == other->kernel[0]);
    CHECK(m.kernel[1] == other->kernel[1]);
    CHECK(same(x.a, y.a));
    CHECK(same(x.b, y.b));
    CHECK(same(x.bias, y.bias));
    CHECK(same(x.magnitude, y.magnitude));
    CHECK(same(x.trained_bias, y.trained_bias));
    CHECK(same(x.weight, y.weight));
    CHECK(same(x.rows, y.rows));
    CHECK(x.row_indices == y.row_indices);
  }
  REQUIRE(a.tensors.size() == b.tensors.size());
  for (std::size_t i = 0; i < a.tensors.size(); ++i) {
    CHECK(a.tensors[i].name == b.tensors[i].name);
    CHECK(same(a.tensors[i].value, b.tensors[i].value));
  }
}

/** Arrays of random floats that live as long as the adapter. */
struct maker {
  lora::any_view array(std::initializer_list<index_t> shape) {
    std::size_t size = 1;
    for (const index_t e : shape) size *= static_cast<std::size_t>(e);
    auto& v = kept.emplace_back(std::make_unique<std::vector<float>>(size));
    for (float& f : *v) f = static_cast<float>((state = state * 1664525u + 1013904223u) >> 8) * 0x1p-24f - 0.5f;
    return lora::any_view(v->data(), lora::dtype::f32, shape.begin(), shape.size());
  }
  lora::adapted_module& pair(const std::string& name, index_t out = 5, index_t rank = 2, index_t in = 3) {
    lora::adapted_module m;
    m.name = name;
    m.weights.a = array({rank, in});
    m.weights.b = array({out, rank});
    m.weights.scale = 0.3f;
    made.modules.push_back(m);
    return made.modules.back();
  }
  lora::adapter made;
  std::vector<std::unique_ptr<std::vector<float>>> kept;
  unsigned state = 1;
};

struct written {
  explicit written(const lora::adapter& a) {
    lora::io::save_peft(folder.path() + "/a", a);
    config = nlohmann::json::parse(test::read_file(folder.path() + "/a/adapter_config.json"));
    file.emplace(lora::io::safetensors::open(folder.path() + "/a/adapter_model.safetensors"));
  }
  [[nodiscard]] lora::any_view operator[](const std::string& name) const { return (*file)["base_model.model." + name]; }
  [[nodiscard]] std::vector<index_t> shape(const std::string& name) const {
    const lora::any_view v = (*this)[name];
    return {v.shape(), v.shape() + v.rank()};
  }
  test::temporary_folder folder;
  nlohmann::json config;
  std::optional<lora::io::safetensors> file;
};

std::string refused(const lora::adapter& a) {
  const test::temporary_folder folder;
  const std::string what = test::refusal<lora::value_error>([&] { lora::io::save_peft(folder.path() + "/a", a); });
  CHECK_FALSE(std::filesystem::exists(folder.path() + "/a"));
  return what;
}

}  // namespace

TEST_CASE("io/peft_writer: what load_peft reads of PEFT's files is saved and read again bit for bit") {
  int cases = 0;
  for (const char* room : {"/peft/", "/peft_saved/"})
    for (const auto& entry : std::filesystem::directory_iterator(fixtures + room)) {
      const std::string folder = entry.path().string();
      if (!std::filesystem::exists(folder + "/adapter_config.json")) continue;
      lora::io::peft_adapter first;
      if (!test::refusal<lora::io_error>([&] { first = lora::io::load_peft(folder); }).empty()) continue;  // PiSSA and the like
      CAPTURE(folder);
      ++cases;
      const test::temporary_folder to;
      lora::io::save_peft(to.path() + "/x", first.adapter);
      const auto second = lora::io::load_peft(to.path() + "/x");
      check_same(first.adapter, second.adapter);
      CHECK(second.config.use_dora == first.config.use_dora);
      CHECK(second.config.lora_bias == first.config.lora_bias);
      CHECK(second.report.unused_patterns.empty());
      lora::io::save_peft(to.path() + "/y", second.adapter);
      for (const char* file : {"/adapter_config.json", "/adapter_model.safetensors"})
        CHECK(test::read_file(to.path() + "/x" + file).size() == test::read_file(to.path() + "/y" + file).size());
    }
  CHECK(cases >= 23);
}

TEST_CASE("io/peft_writer: embeddings, convolutions and token rows have PEFT's names and axes") {
  maker m;
  lora::adapted_module& emb = m.pair("emb", 6, 2, 9);
  emb.kind = lora::module_kind::embedding;
  emb.weights.magnitude = m.array({6});
  lora::adapted_module& conv = m.pair("conv", 4, 3, 2 * 3 * 5);
  conv.kind = lora::module_kind::conv2d;
  conv.kernel[0] = 3;
  conv.kernel[1] = 5;
  conv.weights.magnitude = m.array({4});
  lora::adapted_module rows;
  rows.name = "model.words";
  rows.weights.rows = m.array({2, 6});
  rows.weights.row_indices = {7, 3};
  m.made.modules.push_back(rows);
  const written w(m.made);
  using shape = std::vector<index_t>;
  CHECK(w.file->tensors().size() == 7);
  CHECK(w.shape("emb.lora_embedding_A") == shape{2, 9});
  CHECK(w.shape("emb.lora_embedding_B") == shape{6, 2});
  CHECK(w.shape("emb.lora_magnitude_vector") == shape{6});
  CHECK(w.shape("conv.lora_A.weight") == shape{3, 2, 3, 5});
  CHECK(w.shape("conv.lora_B.weight") == shape{4, 3, 1, 1});
  CHECK(w.shape("conv.lora_magnitude_vector") == shape{1, 4, 1, 1});
  CHECK(w.shape("model.words.token_adapter.trainable_tokens_delta") == shape{2, 6});
  CHECK(std::memcmp(w["conv.lora_A.weight"].data(), m.made.modules[1].weights.a.data(), sizeof(float) * 90) == 0);
  CHECK(w.config["trainable_token_indices"] == nlohmann::json::parse(R"({"model.words":[7,3]})"));
  CHECK(w.config["target_modules"] == nlohmann::json::parse(R"(["emb","conv"])"));
  CHECK(w.config["rank_pattern"] == nlohmann::json::parse(R"({"^conv":3})"));
  CHECK(w.config["use_dora"] == true);
  CHECK(w.config["bias"] == "none");
  CHECK(w.config["modules_to_save"] == nullptr);
  // A kernel whose elements do not lie in one piece.
  maker s;
  lora::adapted_module& spread = s.pair("conv", 4, 3, 6);
  spread.kind = lora::module_kind::conv2d;
  spread.kernel[0] = 2;
  spread.weights.a = s.array({6, 3}).transpose();
  const written t(s.made);
  const auto a = t["conv.lora_A.weight"].as<const float, 4>();
  const auto given = spread.weights.a.as<const float, 2>();
  for (index_t r = 0; r < 3; ++r)
    for (index_t c = 0; c < 3; ++c)
      for (index_t h = 0; h < 2; ++h) CHECK(a(r, c, h, 0) == given(r, c * 2 + h));
}

TEST_CASE("io/peft_writer: replaced weights, tensors and biases go under the names that PEFT reads, and come back") {
  maker m;
  m.pair("q").weights.weight = m.array({5, 3});
  m.made.modules.back().weights.trained_bias = m.array({5});
  lora::adapted_module head;
  head.name = "head";
  head.weights.weight = m.array({7, 3});
  head.weights.trained_bias = m.array({7});
  m.made.modules.push_back(head);
  m.made.tensors.push_back({"norm.weight", m.array({3})});
  m.made.tensors.push_back({"norm.bias", m.array({3})});
  m.made.fan_in_fan_out = true;
  const written w(m.made);
  CHECK(w.config["modules_to_save"] == nlohmann::json::parse(R"(["head","norm"])"));
  CHECK(w.config["bias"] == "none");  // both come with weights
  CHECK(w.config["fan_in_fan_out"] == true);
  CHECK(w["q.base_layer.weight"].size() == 15);
  CHECK(w["q.base_layer.bias"].size() == 5);
  CHECK(w["head.weight"].size() == 21);
  lora::adapter back = lora::io::load_peft(w.folder.path() + "/a").adapter;
  std::swap(back.tensors[0], back.tensors[1]);  // the file sorts them by name
  check_same(m.made, back);
  lora::adapted_module norm;
  norm.name = "other.norm";
  norm.weights.trained_bias = m.array({4});
  m.made.modules.push_back(norm);
  CHECK(written(m.made).config["bias"] == "all");
}

TEST_CASE("io/peft_writer: lora_bias holds for all modules: those without get zeros") {
  maker m;
  m.pair("q").weights.bias = m.array({5});
  m.pair("v");
  const written w(m.made);
  CHECK(w.config["lora_bias"] == true);
  const auto zeros = w["v.lora_B.bias"].as<const float, 1>();
  for (index_t i = 0; i < 5; ++i) CHECK(zeros(i) == 0.0f);
  CHECK(same(lora::io::load_peft(w.folder.path() + "/a").adapter.modules[0].weights.bias, m.made.modules[0].weights.bias));
}

TEST_CASE("io/peft_writer: what PEFT cannot say in one configuration is refused by name, and nothing is written") {
  const auto with = [](auto change) {
    maker m;
    m.pair("q");
    m.pair("v");
    change(m, m.made.modules[0].weights, m.made.modules[1]);
    return refused(m.made);
  };
  using module = lora::adapted_module;
  using pair = lora::low_rank;
  CHECK(refused({}) == "save_peft: the adapter has no modules");
  CHECK(with([](maker& m, pair& q, module&) { q.magnitude = m.array({5}); }) ==
        "save_peft: module 'q' has a magnitude of DoRA and module 'v' has none; PEFT's use_dora holds for all modules of an adapter");
  CHECK(with([](maker& m, pair& q, module& v) {
          q.magnitude = v.weights.magnitude = m.array({5});
          q.bias = m.array({5});
        }) == "save_peft: module 'v' has a magnitude of DoRA and another one a bias of B: PEFT does not define lora_bias with DoRA");
  CHECK(with([](maker& m, pair& q, module& v) {
          q.bias = m.array({5});
          v.kind = lora::module_kind::embedding;
        }) == "save_peft: module 'v': is an embedding, for which PEFT has no lora_bias, and another module has a bias of B");
  CHECK(with([](maker& m, pair& q, module&) { q.bias = m.array({4}); }) == "save_peft: module 'q': the bias of B has shape [4], not [5]");
  CHECK(with([](maker& m, pair& q, module&) {
          q.trained_bias = m.array({5, 1});
        }) == "save_peft: module 'q': the trained bias has shape [5, 1], not [5]");
  CHECK(with([](maker& m, pair& q, module&) { q.weight = m.array({5}); }) ==
        "save_peft: module 'q': the replaced weight has shape [5], not two axes or four");
  CHECK(with([](maker& m, pair& q, module&) {
          q.rows = m.array({2, 3});
          q.row_indices = {1, 2};
        }) ==
        "save_peft: module 'q': it has trained rows and is adapted or replaced whole too, which PEFT does not save for one embedding");
  CHECK(with([](maker& m, pair& q, module&) {
          q.rows = m.array({2, 3});
          q.row_indices = {1};
        }) == "save_peft: module 'q': its 1 row_indices are not those of the trained rows [2, 3]");
  CHECK(with([](maker&, pair&, module& v) {
          v.kind = lora::module_kind::conv2d;
          v.kernel[0] = 2;
        }) == "save_peft: module 'v': the columns of A [2, 3] are no channels of a kernel [2, 1]");
  CHECK(with([](maker& m, pair&, module& v) {
          v.name = "x.v";
          v.weights = {};
          v.weights.weight = m.array({2, 2});
          v.name = "q";
        }).find("is adapted, but PEFT's modules_to_save would take it for the replaced module 'q'") != std::string::npos);
  CHECK(with([](maker& m, pair&, module& v) {
          v.name = "lm_head";
          lora::adapted_module head;
          head.name = "head";
          head.weights.weight = m.array({2, 2});
          m.made.modules.push_back(head);
        }) == "save_peft: module 'lm_head': is adapted, but PEFT's modules_to_save would take it for the replaced module 'head'");
  CHECK(with([](maker& m, pair&, module&) {
          m.made.tensors.push_back({"token", m.array({2})});
        }) == "save_peft: tensor 'token': belongs to no module, and PEFT's modules_to_save names modules");
  CHECK(with([](maker& m, pair&, module&) {
          m.made.tensors.push_back({"x.weight", m.array({2, 2})});
        }) == "save_peft: tensor 'x.weight': is the weight of a module, which low_rank::weight replaces");
  CHECK(with([](maker&, pair&, module& v) { v.weights = {}; }) == "save_peft: module 'v': it has nothing to save");
  CHECK(with([](maker& m, pair&, module&) {
          m.made.tensors.push_back({"norm.bias", m.array({2})});
        }) == "save_peft: tensor 'norm.bias': is a bias whose weight is not replaced, which low_rank::trained_bias is for");
  // Names that load_peft, as PEFT, would take for something else: what is written must be read again.
  for (const char* mark : {"lora_A", "lora_diag", "base_layer", "token_adapter", "original_module", "modules_to_save"})
    for (const std::string& name :
         {std::string(mark), std::string("x.") + mark, std::string(mark) + ".v", std::string("x.") + mark + ".v"}) {
      CAPTURE(name);
      CHECK(with([&](maker&, pair&, module& v) { v.name = name; }) ==
            "save_peft: module '" + name + "': its name has '" + mark + "' in it, by which PEFT tells its own tensors");
      CHECK(with([&](maker& m, pair&, module&) {
              m.made.tensors.push_back({name + ".scale", m.array({2})});
            }).ends_with("has a part in its name by which PEFT tells its own tensors"));
    }
  for (const char* name : {"base_layers", "x.lora", "my_lora_A.v", "modules_to_save_v"}) {
    const test::temporary_folder folder;
    maker m;
    m.pair(name);
    lora::io::save_peft(folder.path() + "/a", m.made);
    CHECK(lora::io::load_peft(folder.path() + "/a").adapter.modules.front().name == name);
  }
  maker only;
  only.made.tensors.push_back({"norm.weight", only.array({2})});
  CHECK(refused(only.made) ==
        "save_peft: module 'norm.weight': neither it nor any other has A and B; PEFT has no LoRA that adapts nothing");
}

TEST_CASE("adapter/compose: biases of B add up to one, rounded once; what replaces something of the base is refused by name") {
  const auto biased = lora::io::load_peft(fixtures + "/peft/lora_bias");
  const auto plain = lora::io::load_peft(fixtures + "/peft/rslora");
  const lora::composed_part parts[] = {{&biased.adapter, 0.75f}, {&plain.adapter, 0.5f}, {&biased.adapter, 0.0f}};
  const lora::adapter sum = lora::composed(parts);
  for (const lora::adapted_module& m : biased.adapter.modules) {
    const lora::low_rank& got = find(sum, m.name)->weights;
    const auto b = got.bias.as<const float, 1>();
    const auto want = m.weights.bias.as<const float, 1>();
    for (index_t i = 0; i < want.extent(0); ++i) {
      const double exact = static_cast<double>(m.weights.scale * 0.75f) / static_cast<double>(got.scale) * static_cast<double>(want(i));
      CHECK(b(i) == static_cast<float>(exact));
    }
  }
  const lora::composed_part twice[] = {{&biased.adapter, 1.0f}, {&sum, -0.25f}};
  CHECK(lora::composed(twice).modules.size() == sum.modules.size());
  const lora::composed_part one[] = {{&biased.adapter, 2.0f}};
  const lora::adapter scaled = lora::composed(one);
  CHECK(same(scaled.modules[0].weights.bias, biased.adapter.modules[0].weights.bias));
  const test::temporary_folder folder;
  lora::io::save_peft(folder.path() + "/sum", sum);
  check_same(lora::io::load_peft(folder.path() + "/sum").adapter, sum);

  const auto why = [](const lora::adapter& a) {
    const lora::composed_part p[] = {{&a, 1.0f}};
    return test::refusal<lora::value_error>([&] { (void)lora::composed(p); });
  };
  const auto change = [](auto set) {
    maker m;
    m.made.source = "m";
    set(m, m.pair("q").weights);
    return m;
  };
  CHECK(why(change([](maker& m, lora::low_rank& q) { q.magnitude = m.array({5}); }).made) ==
        "composed: adapter 'm', module 'q': has a magnitude of DoRA; only sums of s (B A x + b) can be composed");
  CHECK(test::contains(why(change([](maker& m, lora::low_rank& q) { q.weight = m.array({5, 3}); }).made), "has a replaced weight; only"));
  CHECK(test::contains(why(change([](maker& m, lora::low_rank& q) { q.trained_bias = m.array({5}); }).made), "has a trained bias; only"));
  CHECK(test::contains(why(change([](maker& m, lora::low_rank& q) { q.rows = m.array({5, 3}); }).made), "has trained rows; only"));
  CHECK(why(change([](maker& m, lora::low_rank&) {
              m.made.tensors.push_back({"norm.weight", m.array({2})});
            }).made) == "composed: adapter 'm' replaces the tensor 'norm.weight'; only sums of s (B A x + b) can be composed");
  // Kinds and the way that square weights lie must agree.
  maker linear = change([](maker&, lora::low_rank&) {});
  maker embedding = change([](maker&, lora::low_rank&) {});
  embedding.made.modules[0].kind = lora::module_kind::embedding;
  const lora::composed_part kinds[] = {{&linear.made, 1.0f}, {&embedding.made, 1.0f}};
  CHECK(test::refusal<lora::value_error>([&] { (void)lora::composed(kinds); }) ==
        "composed: adapter 'm', module 'q': is another kind of module than in 'm'");
  const lora::composed_part same_kind[] = {{&embedding.made, 1.0f}, {&embedding.made, 1.0f}};
  CHECK(lora::composed(same_kind).modules[0].kind == lora::module_kind::embedding);
  maker turned;
  turned.made.source = "t";
  turned.pair("q", 3, 2, 3);
  turned.made.fan_in_fan_out = true;
  maker upright;
  upright.made.source = "u";
  upright.pair("q", 3, 2, 3);
  const lora::composed_part flags[] = {{&turned.made, 1.0f}, {&upright.made, 1.0f}};
  CHECK(test::refusal<lora::value_error>([&] { (void)lora::composed(flags); }) ==
        "composed: adapter 't', module 'q': has a square weight, and fan_in_fan_out of 't' and 'u' disagree on how it lies");
  const lora::composed_part alone[] = {{&turned.made, 1.0f}};
  CHECK(lora::composed(alone).fan_in_fan_out);
}
