// SPDX-License-Identifier: Apache-2.0
//
// Embeddings, tied lm_heads and trained token rows: PEFT's own answers for tables and heads, merged and not, against an oracle in float64 that is
// written from the formulas; and what is refused, with PEFT's reason.
#include "elements.hpp"
#include "files.hpp"
#include "support/oracle.hpp"

#include <lora/adapter/adapter_set.hpp>
#include <lora/adapter/compose.hpp>
#include <lora/io/contract.hpp>
#include <lora/io/kohya_writer.hpp>
#include <lora/io/npy.hpp>
#include <lora/io/peft.hpp>
#include <lora/io/peft_writer.hpp>
#include <lora/linalg/embedding.hpp>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <memory>
#include <string>

using lora::index_t;
using lora::io::load_peft;
using test::element;

namespace {

const std::string data = LORA_TEST_DATA_DIR "/peft/";
const std::string prefix = "base_model.model.";
const lora::io::contract_options tied_head{.tied = {{"lm_head", "model.embed_tokens"}}};

struct fixture {
  explicit fixture(const std::string& name)
      : folder(data + name + "/"),
        expect(nlohmann::json::parse(test::read_file(folder + "expect.json"))),
        base(lora::io::safetensors::open(folder + "base.safetensors")),
        file(load_peft(folder)),
        model(lora::io::contract_of(base, file.adapter, expect["tied"].get<bool>() ? tied_head : lora::io::contract_options{})),
        weight(expect.value("weight", 1.0f)),
        embed_scale(expect.value("embed_scale", 1.0f)),
        weights(lora::io::weights_of(base, model)),
        set(model, {{lora::bind(file.adapter, model, {.require_finite = true}), weight}}, weights) {}

  [[nodiscard]] const lora::low_rank* low_rank_of(const std::string& module) const {
    for (const auto& m : file.adapter.modules)
      if (m.name == module) return &m.weights;
    return nullptr;
  }

  std::string folder;
  nlohmann::json expect;
  lora::io::safetensors base;
  lora::io::peft_adapter file;
  lora::model_contract model;
  float weight;
  float embed_scale;
  std::vector<lora::float_view<2>> weights;
  lora::adapter_set set;
};

/** A module's merged matrix in float64, as its tensor lies, with the sum of the magnitudes of what was added up for each element. */
struct oracle {
  oracle(const fixture& f, const std::string& module) {
    const lora::module_contract& m = f.model[f.model.find(module)];
    const bool table = m.kind == lora::module_kind::embedding;
    const lora::any_view w = f.base[lora::weight_name(m)];
    rows = w.extent(0);
    columns = w.extent(1);
    value.resize(static_cast<std::size_t>(rows * columns));
    for (index_t i = 0; i < rows; ++i)
      for (index_t j = 0; j < columns; ++j) at(value, i, j) = element(w, i, j);
    // The rows of the module itself, else those of the embedding that it is tied to.
    const lora::low_rank* own = f.low_rank_of(module);
    const lora::low_rank* replaced = own != nullptr && own->rows.size() != 0 ? own : nullptr;
    if (replaced == nullptr && module == "lm_head") replaced = f.low_rank_of("model.embed_tokens");
    if (replaced != nullptr)
      for (std::size_t k = 0; k < replaced->row_indices.size(); ++k)
        for (index_t j = 0; j < columns; ++j) at(value, replaced->row_indices[k], j) = element(replaced->rows, static_cast<index_t>(k), j);
    size.resize(value.size());
    for (std::size_t i = 0; i < value.size(); ++i) size[i] = std::abs(value[i]);
    if (own == nullptr || own->a.data() == nullptr) return;
    rank = own->a.extent(0);
    const double scale = static_cast<double>(own->scale * f.weight);
    for (index_t i = 0; i < rows; ++i)
      for (index_t j = 0; j < columns; ++j)
        for (index_t r = 0; r < rank; ++r) {
          const double p = scale * element(own->b, table ? j : i, r) * element(own->a, r, table ? i : j);
          at(value, i, j) += p;
          at(size, i, j) += std::abs(p);
        }
    if (own->magnitude.size() == 0) return;
    // Norms over the inputs of an output: over the vocabulary for a table, along the row for a linear layer.
    const index_t outputs = table ? columns : rows;
    const index_t inputs = table ? rows : columns;
    for (index_t o = 0; o < outputs; ++o) {
      double squares = 0;
      double spread = 0;
      for (index_t k = 0; k < inputs; ++k) {
        const double e = table ? at(value, k, o) : at(value, o, k);
        const double s = table ? at(size, k, o) : at(size, o, k);
        squares += e * e;
        spread += s * s;
      }
      const double factor = element(own->magnitude, o) / std::sqrt(squares);
      norm_error = std::max(norm_error, test::gamma(static_cast<double>(rank) + 3) * std::sqrt(spread / squares) +
                                            test::gamma(static_cast<double>(inputs) + 4));
      for (index_t k = 0; k < inputs; ++k)
        for (auto* m2 : {&value, &size}) (table ? at(*m2, k, o) : at(*m2, o, k)) *= m2 == &value ? factor : std::abs(factor);
    }
  }
  [[nodiscard]] double& at(std::vector<double>& m, index_t i, index_t j) const { return m[static_cast<std::size_t>(i * columns + j)]; }

  index_t rows = 0;
  index_t columns = 0;
  index_t rank = 0;
  double norm_error = 0;  // what PEFT's norms may err by, relative
  std::vector<double> value;
  std::vector<double> size;
};

const char* const cases[] = {"embedding",    "embedding_pattern", "embedding_dora", "embedding_scaled", "embedding_scaled_dora",
                             "tied_head",    "tied_both",         "tied_ensured",   "tied_dora",        "tokens",
                             "tokens_named", "tokens_apart",      "tokens_head"};

}  // namespace

TEST_CASE("io/peft_embedding: tables, tied heads and token rows have PEFT's outputs, for every tier, merged and not") {
  double worst = 0;
  double worst_peft = 0;
  int tables = 0;
  int layers = 0;
  int merges = 0;
  lora::workspace scratch;
  for (const char* name : cases) {
    CAPTURE(name);
    const fixture f(name);
    CHECK(f.file.report.unused_patterns.empty());
    for (const auto& item : f.expect["modules"].items()) {
      const std::string module = item.key();
      const nlohmann::json& info = item.value();
      CAPTURE(module);
      const std::size_t at = f.model.find(module);
      REQUIRE(at != lora::model_contract::not_found);
      const bool table = info["embedding"].get<bool>();
      CHECK((f.model[at].kind == lora::module_kind::embedding) == table);
      if (info.contains("scaling")) {
        CHECK(f.low_rank_of(module)->scale * f.weight == doctest::Approx(info["scaling"].get<double>()).epsilon(1e-7));
        CHECK(f.low_rank_of(module)->a.extent(0) == info["r"].get<index_t>());
      }
      oracle want(f, module);
      const auto x_file = lora::io::npy::open(f.folder + "x_" + module + ".npy");
      const auto y_file = lora::io::npy::open(f.folder + "y_" + module + ".npy");
      const auto answer = y_file.view().as<const float, 2>();
      const auto tensor = f.base[lora::weight_name(f.model[at])].as<const float, 2>();
      const auto rank = static_cast<double>(want.rank);
      const auto merged_file = f.expect.contains("tied") && name != std::string("tokens_head")
                                   ? std::make_unique<lora::io::safetensors>(lora::io::safetensors::open(f.folder + "merged.safetensors"))
                                   : nullptr;
      for (unsigned t = 0; t < lora::simd::tier_count; ++t) {
        const auto tier = static_cast<lora::simd::tier>(t);
        lora::ndarray<float, 2> y({answer.extent(0), answer.extent(1)});
        lora::ndarray<float, 2> merged;
        if (table) {
          const auto ids = x_file.view().as<const std::int64_t, 1>();
          lora::embed(y, ids, tensor, f.set[at], scratch, {.embed_scale = f.embed_scale, .tier = tier});
          merged = lora::merged_table(tensor, f.set[at], tier);
          ++tables;
          for (index_t i = 0; i < y.extent(0); ++i)
            for (index_t j = 0; j < y.extent(1); ++j) {
              const double scale = static_cast<double>(f.embed_scale);
              const double exact = scale * want.at(want.value, ids(i), j);
              const double size = scale * want.at(want.size, ids(i), j);
              const double ours = test::gamma(rank + 4 + (want.norm_error > 0 ? 1 : 0)) * size;
              // A B' beside the base, the scales, the sum, and with DoRA both parts times m / n.
              const double theirs = (test::gamma(rank + 8) + 2 * want.norm_error) * 2 * size;
              REQUIRE(std::abs(static_cast<double>(y(i, j)) - exact) <= ours);
              REQUIRE(std::abs(static_cast<double>(y(i, j) - answer(i, j))) <= ours + theirs);
              if (size > 0) worst = std::max(worst, std::abs(static_cast<double>(y(i, j)) - exact) / ours);
              if (size > 0) worst_peft = std::max(worst_peft, std::abs(static_cast<double>(y(i, j) - answer(i, j))) / (ours + theirs));
            }
        } else {
          const auto x = x_file.view().as<const float, 2>();
          lora::forward(y, x, tensor, f.set[at],
                        f.base.find(module + ".bias") != nullptr ? lora::float_view<1>(f.base[module + ".bias"].as<const float, 1>())
                                                                 : lora::float_view<1>{},
                        scratch, {tier});
          merged = lora::merged(tensor, f.set[at], {tier});
          ++layers;
          for (index_t i = 0; i < y.extent(0); ++i)
            for (index_t o = 0; o < y.extent(1); ++o) {
              double exact = 0;
              double size = 0;
              for (index_t k = 0; k < want.columns; ++k) {
                exact += want.at(want.value, o, k) * static_cast<double>(x(i, k));
                size += want.at(want.size, o, k) * std::abs(static_cast<double>(x(i, k)));
              }
              if (const auto* b = f.base.find(module + ".bias")) {
                exact += element(b->view(), o);
                size += std::abs(element(b->view(), o));
              }
              const double steps = static_cast<double>(want.columns) + rank;
              const double ours = test::gamma(steps + 8) * size;
              const double theirs = (test::gamma(2 * steps + 8) + want.norm_error) * 4 * size;
              REQUIRE(std::abs(static_cast<double>(y(i, o)) - exact) <= ours);
              REQUIRE(std::abs(static_cast<double>(y(i, o) - answer(i, o))) <= ours + theirs);
              worst = std::max(worst, std::abs(static_cast<double>(y(i, o)) - exact) / ours);
              worst_peft = std::max(worst_peft, std::abs(static_cast<double>(y(i, o) - answer(i, o))) / (ours + theirs));
            }
        }
        for (index_t i = 0; i < want.rows; ++i)
          for (index_t j = 0; j < want.columns; ++j) {
            const double ours = test::gamma(rank + 4) * want.at(want.size, i, j);
            REQUIRE(std::abs(static_cast<double>(merged(i, j)) - want.at(want.value, i, j)) <= ours);
            if (merged_file == nullptr) continue;
            const double theirs = (test::gamma(rank + 8) + 2 * want.norm_error) * 2 * want.at(want.size, i, j);
            REQUIRE(std::abs(static_cast<double>(merged(i, j)) - element((*merged_file)[module + ".weight"], i, j)) <= ours + theirs);
          }
        merges += merged_file != nullptr;
      }
    }
  }
  CHECK(tables == 15 * static_cast<int>(lora::simd::tier_count));
  CHECK(layers == 14 * static_cast<int>(lora::simd::tier_count));
  CHECK(merges == 27 * static_cast<int>(lora::simd::tier_count));
  CHECK(worst < 0.5);
  CHECK(worst_peft < 0.1);  // a rounding to 16 bits anywhere on the way would be a hundred times outside
  MESSAGE("largest error " << worst << " of the bound; from PEFT " << worst_peft << " of both sides' bounds");
}

TEST_CASE("io/contract: an adapted embedding is of that kind, square or not, and says nothing of how linear weights lie") {
  const fixture f("embedding");
  const auto& table = f.model[f.model.find("model.embed_tokens")];
  CHECK(table.kind == lora::module_kind::embedding);
  CHECK(table.layout == lora::weight_layout::in_out);
  CHECK(table.out == 12);
  CHECK(table.in == 19);
  const auto& square = f.model[f.model.find("model.positions")];
  CHECK(square.kind == lora::module_kind::embedding);
  CHECK(square.layout == lora::weight_layout::in_out);
  const auto& linear = f.model[f.model.find("model.proj")];  // square, beside a table that is not: no contradiction
  CHECK(linear.kind == lora::module_kind::linear);
  CHECK(linear.layout == lora::weight_layout::out_in);
  CHECK(f.weights[f.model.find("model.embed_tokens")].extent(0) == 12);
}

TEST_CASE("io/contract: a tied lm_head is one when the caller says so; the error of one who did not names the option") {
  const std::string folder = data + "tied_both/";
  const auto base = lora::io::safetensors::open(folder + "base.safetensors");
  const auto file = load_peft(folder);
  const auto refused = [](auto&& f) { return test::refusal<lora::error>(f); };
  const lora::model_contract untold = lora::io::contract_of(base, file.adapter);
  CHECK(
      test::contains(refused([&] { (void)lora::bind(file.adapter, untold); }),
                     "module 'lm_head': the model has no module of this name; if its weight is that of 'model.embed_tokens', as of a tied "
                     "lm_head, say so by io::contract_options::tied"));
  const lora::model_contract told = lora::io::contract_of(base, file.adapter, tied_head);
  CHECK(told[told.find("lm_head")].tensor == "model.embed_tokens.weight");
  CHECK(lora::weight_name(told[told.find("model.embed_tokens")]) == "model.embed_tokens.weight");
  CHECK(told.find("lm_head") == untold.size());  // the last
  const auto with = [&](const char* module, const char* to) {
    return refused([&] { (void)lora::io::contract_of(base, file.adapter, {.tied = {{module, to}}}); });
  };
  CHECK(test::contains(with("lm_head", "embed_tokens"), "but there is no tensor 'embed_tokens.weight' of two axes"));
  CHECK(test::contains(with("model.embed_tokens", "model.embed_tokens"), "but there is a tensor 'model.embed_tokens.weight' of its own"));
  CHECK(test::contains(
      refused([&] {
        (void)lora::io::contract_of(base, file.adapter, {.tied = {{"lm_head", "model.embed_tokens"}, {"lm_head", "model.embed_tokens"}}});
      }),
      "module 'lm_head' is already in the contract"));
}

TEST_CASE("adapter/adapter_set: a copy of a tied table is the head's weight too, resized or not; a trained one (modules_to_save) is not") {
  const auto base = lora::io::safetensors::open(data + "tied_both/base.safetensors");
  for (const index_t tokens : {19, 23}) {  // 23: the vocabulary has grown, which PEFT saves along
    CAPTURE(tokens);
    lora::ndarray<float, 2> copy(lora::extents{tokens, 12});
    for (index_t i = 0; i < copy.size(); ++i) copy.data()[i] = static_cast<float>(i % 101) - 50.0f;
    lora::adapter a;
    a.source = "copy";
    a.modules.push_back({"model.embed_tokens", {}, lora::module_kind::embedding});
    lora::low_rank& weights = a.modules.front().weights;
    weights.weight = lora::any_view(copy.view());
    const lora::model_contract model = lora::io::contract_of(base, a, tied_head);
    const std::size_t table = model.find("model.embed_tokens");
    const std::size_t head = model.find("lm_head");
    const lora::adapter_set set(model, {{lora::bind(a, model)}});
    REQUIRE(set.weight(head).extent(0) == tokens);
    REQUIRE(set.weight(table).extent(1) == tokens);
    lora::ndarray<float, 2> x(lora::extents{1, 12});
    lora::ndarray<float, 2> y(lora::extents{index_t{1}, tokens});
    for (index_t k = 0; k < 12; ++k) x(0, k) = static_cast<float>(k - 5);  // small integers: every order of summation is exact
    lora::workspace scratch;
    set.weight(head).visit([&](const auto& w) { lora::forward(y, x, w, set[head], {}, scratch); });
    for (index_t o = 0; o < tokens; ++o) {
      float want = 0;
      for (index_t k = 0; k < 12; ++k) want += copy(o, k) * x(0, k);
      REQUIRE(y(0, o) == want);
    }
    weights.weight_is_own = true;
    const lora::model_contract apart = lora::io::contract_of(base, a, tied_head);
    CHECK(apart[apart.find("lm_head")].out == 19);
    const lora::adapter_set trained(apart, {{lora::bind(a, apart)}});
    CHECK(trained.weight(apart.find("lm_head")).data() == nullptr);
    CHECK(trained.weight(apart.find("model.embed_tokens")).data() == copy.data());
  }
}

TEST_CASE("io/peft_embedding: what PEFT saved of tied layers holds both, one the transpose of the other") {
  const fixture f("tied_ensured");
  const lora::low_rank& table = *f.low_rank_of("model.embed_tokens");
  const lora::low_rank& head = *f.low_rank_of("lm_head");
  REQUIRE(head.a.extent(1) == table.b.extent(0));
  for (index_t r = 0; r < 3; ++r) {
    for (index_t j = 0; j < table.b.extent(0); ++j) CHECK(element(head.a, r, j) == element(table.b, j, r));
    for (index_t i = 0; i < table.a.extent(1); ++i) CHECK(element(head.b, i, r) == element(table.a, r, i));
  }
}

namespace {

std::string json(const std::string& more = "") {
  return R"({"peft_type":"LORA","r":2,"lora_alpha":4)" + (more.empty() ? "" : "," + more) + "}";
}

/** The sentence that a folder of these two files is refused with, without the folder's name; empty when it loads. */
std::string refused(const std::string& config, const test::safetensors_builder& tensors) {
  test::temporary_folder folder;
  folder.write("adapter_config.json", config);
  folder.write("adapter_model.safetensors", tensors.bytes());
  std::string what = test::refusal<lora::io_error>([&] { (void)load_peft(folder.path()); });
  for (std::size_t at = what.find(folder.path() + "/"); at != std::string::npos; at = what.find(folder.path() + "/"))
    what.erase(at, folder.path().size() + 1);
  return what;
}

test::safetensors_builder table(const std::string& module = "e", std::size_t rank = 2) {
  test::safetensors_builder b;
  b.zeros(prefix + module + ".lora_embedding_A", {rank, 5});
  b.zeros(prefix + module + ".lora_embedding_B", {3, rank});
  return b;
}
const std::string delta = ".token_adapter.trainable_tokens_delta";
test::safetensors_builder rows(const std::string& module = "e", std::size_t n = 2) {
  test::safetensors_builder b;
  b.zeros(prefix + module + delta, {n, 3});
  return b;
}

}  // namespace

TEST_CASE("io/peft_embedding: tensors that do not belong together are refused, with the reason") {
  const std::string file = "'adapter_model.safetensors': tensor '" + prefix;
  CHECK(refused(json(), table()) == "");
  CHECK(refused(json(), test::safetensors_builder().zeros(prefix + "e.lora_embedding_A", {2, 5})) ==
        file + "e.lora_embedding_A': has no lora_embedding_B beside it");
  CHECK(refused(json(), test::safetensors_builder().zeros(prefix + "e.lora_embedding_B", {5, 2})) ==
        file + "e.lora_embedding_B': has no lora_embedding_A beside it");
  CHECK(test::contains(refused(json(), table("e", 3)), "has rank 3, but r and rank_pattern of adapter_config.json say 2"));
  CHECK(test::contains(
      refused(json(),
              test::safetensors_builder().zeros(prefix + "e.lora_embedding_A", {2, 5}).zeros(prefix + "e.lora_embedding_B", {3, 1})),
      "[rank, tokens] and its lora_embedding_B [3, 1] [width, rank] have different ranks"));
  CHECK(test::contains(
      refused(json(),
              test::safetensors_builder().zeros(prefix + "e.lora_embedding_A", {2, 5, 1}).zeros(prefix + "e.lora_embedding_B", {3, 2})),
      "shape [2, 5, 1] is not that of a matrix [rank, tokens]"));
  CHECK(test::contains(
      refused(json(),
              test::safetensors_builder().zeros(prefix + "e.lora_embedding_A", {2, 5}, "I32").zeros(prefix + "e.lora_embedding_B", {3, 2})),
      "is not one of f32, f16 and bf16"));
  CHECK(test::contains(refused(json(R"("lora_bias":true)"), table()), "which PEFT does not define for embeddings"));
  CHECK(test::contains(refused(json(R"("use_dora":true)"), table()), "has no lora_magnitude_vector beside it"));
  CHECK(refused(json(R"("use_dora":true)"), table().zeros(prefix + "e.lora_magnitude_vector", {3})) == "");
  CHECK(
      test::contains(refused(json(R"("use_dora":true)"), table().zeros(prefix + "e.lora_magnitude_vector", {5})), "shape [5] is not [3]"));
  CHECK(
      test::contains(refused(json(), table().zeros(prefix + "e.lora_magnitude_vector", {3})), "use_dora of adapter_config.json is false"));
  CHECK(test::contains(refused(json(R"("lora_bias":true)"), test::safetensors_builder().zeros(prefix + "e.lora_B.bias", {3})),
                       "has no lora_A beside it"));
  CHECK(test::contains(refused(json(), table().zeros(prefix + "e.lora_embedding_A.default", {2, 5})), "does not end in .lora_embedding_A"));
}

TEST_CASE("io/peft_embedding: token rows are those that the configuration announces") {
  const auto list = [](const std::string& indices) { return json("\"trainable_token_indices\":" + indices); };
  CHECK(refused(list("[4,1]"), rows()) == "");
  CHECK(refused(list(R"({"e":[4,1]})"), rows()) == "");
  CHECK(refused(list(R"({"embed_tokens":[4,1],"lm_head":[4,1]})"), rows("model.embed_tokens")) == "");  // tied: saved once
  CHECK(test::contains(refused(list(R"({"embed_tokens":[4,1],"lm_head":[1,4]})"), rows("model.embed_tokens")),
                       "trainable_token_indices announces 2 token rows of 'lm_head', but no tensor"));
  CHECK(test::contains(refused(list("[4,1]"), table()), "trainable_token_indices announces 2 token rows, but no tensor"));
  CHECK(test::contains(refused(json(), rows()), "which trainable_token_indices of adapter_config.json does not announce"));
  CHECK(test::contains(refused(list("[]"), rows()), "does not announce"));
  CHECK(test::contains(refused(list(R"({"f":[4,1]})"), rows()), "does not announce"));
  CHECK(test::contains(refused(list(R"({"e":[4,1],"model.e":[4,1]})"), rows("model.e")), "fits two names of trainable_token_indices"));
  CHECK(test::contains(refused(list("[4,1,2]"), rows()),
                       "shape [2, 3] has 2 rows, but trainable_token_indices of adapter_config.json has 3"));
  CHECK(test::contains(refused(list("[4,1]"), rows().zeros(prefix + "f" + delta, {2, 3})), "is the second of trained token rows"));
  CHECK(test::contains(refused(list("[4,1]"), table().zeros(prefix + "e" + delta, {2, 3})),
                       "replaces rows of a module that is adapted too, which PEFT refuses to combine"));
  CHECK(test::contains(refused(list("[4]"), test::safetensors_builder().zeros(prefix + "e" + delta, {1, 0})), "is not that of token rows"));
  for (const std::pair<const char*, const char*>& c : std::vector<std::pair<const char*, const char*>>{
           {"[4,4]", "holds a token index twice"},
           {"[4,-1]", "holds a token index that is not a natural number"},
           {"[4,1.5]", "holds a token index that is not a natural number"},
           {"[\"a\"]", "holds a token index that is not a natural number"},
           {"[[4]]", "holds something else than lists of token indices"},
           {"[{}]", "holds something else than lists of token indices"},
           {"{\"e\":4}", "holds something else than lists of token indices"},
           {"{\"e\":{\"f\":[1]}}", "holds something else than lists of token indices"},
           {"{\"e\":[[1]]}", "holds something else than lists of token indices"},
           {"{\"e\":[1],\"e\":[2]}", "names a module twice"},
           {"{\"\":[1]}", "has an empty name of a module"},
           {"7", "is neither a list of token indices nor an object of lists"},
           {"true", "is neither a list of token indices nor an object of lists"},
       }) {
    CAPTURE(c.first);
    CHECK(test::contains(refused(list(c.first), rows()), std::string("the field 'trainable_token_indices' ") + c.second));
  }
}

TEST_CASE("adapter/bind: embeddings and token rows must fit the contract") {
  const fixture f("tokens");
  const fixture lora_on_table("tied_both");
  const auto refusal = [](const lora::adapter& a, const lora::model_contract& m) {
    return test::refusal<lora::bind_error>([&] { (void)lora::bind(a, m); });
  };
  lora::adapter a = f.file.adapter;
  lora::low_rank* w = nullptr;
  for (auto& m : a.modules)
    if (m.weights.rows.size() != 0) w = &m.weights;
  REQUIRE(w != nullptr);
  const std::vector<index_t> indices = w->row_indices;
  w->row_indices = {7, 3, 4, 19};
  CHECK(test::contains(refusal(a, f.model), "token index 19 is outside the 19 tokens"));
  w->row_indices = {7, 3, 4, -1};
  CHECK(test::contains(refusal(a, f.model), "token index -1 is outside the 19 tokens"));
  w->row_indices = {7, 3, 4, 7};
  CHECK(test::contains(refusal(a, f.model), "token index 7 occurs twice"));
  w->row_indices = {7, 3, 4};
  CHECK(test::contains(refusal(a, f.model), "the trained token rows [4, 12] come with 3 token indices"));
  w->row_indices = indices;
  w->a = lora_on_table.low_rank_of("model.embed_tokens")->a;
  CHECK(test::contains(refusal(a, f.model), "which PEFT refuses to combine in one module"));
  w->a = {};
  lora::model_contract narrow;
  for (std::size_t i = 0; i < f.model.size(); ++i) {
    lora::module_contract m = f.model[i];
    if (m.kind == lora::module_kind::embedding) m.out = 11;
    narrow.add(std::move(m));
  }
  CHECK(test::contains(refusal(a, narrow), "the trained token rows [4, 12] do not fit rows of 11 elements"));

  // Another kind in the contract: of a square table the shapes alone would not tell.
  const fixture square("embedding");
  const lora::model_contract plain = lora::io::contract_of(square.base);
  CHECK(test::contains(refusal(square.file.adapter, plain), "is an embedding in the adapter, but none in the contract"));
  lora::adapter other = square.file.adapter;
  for (auto& m : other.modules) m.kind = lora::module_kind::linear;
  CHECK(test::contains(refusal(other, square.model), "is no embedding in the adapter, but one in the contract"));
}

TEST_CASE("adapter/adapter_set: what PEFT refuses to combine with token rows is refused; updates go where they belong") {
  const fixture rows_of("tokens");
  const fixture lora_on_table("tied_both");
  const fixture dora("tied_dora");
  const lora::model_contract& model = lora_on_table.model;
  const auto bound = [&](const fixture& f) { return std::make_shared<const lora::bound_adapter>(lora::bind(f.file.adapter, model)); };
  lora::adapter only_head = lora_on_table.file.adapter;
  std::erase_if(only_head.modules, [](const lora::adapted_module& m) { return m.kind == lora::module_kind::embedding; });
  lora::adapter dora_head = dora.file.adapter;
  std::erase_if(dora_head.modules, [](const lora::adapted_module& m) { return m.kind == lora::module_kind::embedding; });
  const auto head = std::make_shared<const lora::bound_adapter>(lora::bind(only_head, model));
  const auto head_dora = std::make_shared<const lora::bound_adapter>(lora::bind(dora_head, model));
  const auto refusal = [&](std::vector<lora::weighted_adapter> list) {
    return test::refusal<lora::value_error>([&] { (void)lora::adapter_set(model, std::move(list), lora_on_table.weights); });
  };
  CHECK(test::contains(refusal({bound(rows_of), bound(lora_on_table)}),
                       "module 'model.embed_tokens' has trained token rows and also lora_A and lora_B, which PEFT refuses to combine"));
  CHECK(test::contains(refusal({bound(rows_of), bound(rows_of)}), "both bring token rows for module 'model.embed_tokens'"));
  CHECK(test::contains(refusal({head_dora, bound(rows_of)}), "module 'lm_head' has trained token rows and also DoRA"));
  CHECK(refusal({head, bound(rows_of)}) == "");

  auto set = std::make_unique<lora::adapter_set>(model, std::vector<lora::weighted_adapter>{head, bound(rows_of)});
  const lora::adapter_set copy = *set;
  set.reset();  // a copy holds its rows itself
  const auto table_update = copy[model.find("model.embed_tokens")];
  const auto head_update = copy[model.find("lm_head")];
  CHECK(table_update.rows.empty());
  REQUIRE(table_update.columns.size() == 3);  // 3 and 4 follow each other: 3..4, 7, 18
  CHECK(table_update.columns[0].first == 3);
  CHECK(table_update.columns[0].rows.extent(0) == 2);
  CHECK(table_update.columns[2].first == 18);
  CHECK(head_update.columns.empty());
  CHECK(head_update.rows.size() == 3);
  CHECK(head_update.rows[0].rows(1, 2) == table_update.columns[0].rows(1, 2));
  CHECK(copy[model.find("model.layers.0.self_attn.q_proj")].rows.empty());

  // An update of a table is none of a linear layer, and the other way round.
  lora::workspace scratch;
  lora::ndarray<float, 2> y({1, 12});
  const auto table = lora_on_table.base["model.embed_tokens.weight"].as<const float, 2>();
  const lora::ndarray<float, 2> x = lora::zeros<float>(1, 19);
  CHECK(test::contains(test::refusal<lora::value_error>([&] { lora::forward(y, x, table.transpose(), table_update, {}, scratch); }),
                       "pass it to embed()"));
  const std::int32_t id[] = {0};
  lora::low_rank_update rows_of_w;
  rows_of_w.rows = head_update.rows;
  CHECK(test::contains(
      test::refusal<lora::value_error>([&] { lora::embed(y, lora::ndview<const std::int32_t, 1>(id, {1}), table, rows_of_w, scratch); }),
      "it replaces rows of W [out, in]"));
}

TEST_CASE("io/contract: rows of an lm_head with a tensor of its own, which the caller calls linear") {
  test::temporary_folder folder;
  folder.write("adapter_config.json", json(R"("trainable_token_indices":{"lm_head":[4,1]})"));
  folder.write("adapter_model.safetensors", rows("lm_head").bytes());
  const std::string base = folder.write("base.safetensors", test::safetensors_builder().zeros("lm_head.weight", {5, 3}).bytes());
  auto file = load_peft(folder.path());
  const auto weights = lora::io::safetensors::open(base);
  CHECK(lora::io::contract_of(weights, file.adapter)[0].kind == lora::module_kind::embedding);
  file.adapter.modules[0].kind = lora::module_kind::linear;
  const lora::model_contract model = lora::io::contract_of(weights, file.adapter);
  REQUIRE(model.size() == 1);
  CHECK(model[0].kind == lora::module_kind::linear);
  CHECK(model[0].out == 5);
  const lora::adapter_set set(model, {{lora::bind(file.adapter, model)}});
  CHECK(set[0].columns.empty());
  CHECK(set[0].rows.size() == 2);
}

TEST_CASE("io/peft_embedding: compose keeps the kind, and so does PEFT's format; others refuse what they have no names for") {
  const fixture f("embedding");
  const lora::composed_part parts[] = {{&f.file.adapter, 1.0f}, {&f.file.adapter, -0.5f}};
  const lora::adapter sum = lora::composed(parts);
  REQUIRE(sum.modules.size() == 3);
  for (const auto& m : sum.modules) CHECK((m.kind == lora::module_kind::embedding) == (m.name != "model.proj"));
  CHECK(lora::bind(sum, f.model).modules().size() == 3);
  const test::temporary_folder folder;
  lora::io::save_peft(folder.path() + "/out", sum);
  const lora::io::peft_adapter back = load_peft(folder.path() + "/out");
  REQUIRE(back.adapter.modules.size() == 3);
  for (const auto& m : back.adapter.modules) CHECK((m.kind == lora::module_kind::embedding) == (m.name != "model.proj"));
  const std::string kohya = folder.path() + "/out.safetensors";
  CHECK(test::contains(test::refusal<lora::value_error>([&] { lora::io::save_kohya(kohya, sum); }),
                       "it is an embedding, which is not written in this format"));
  CHECK_FALSE(std::filesystem::exists(kohya));
  CHECK(lora::bind(back.adapter, f.model).modules().size() == 3);
}
