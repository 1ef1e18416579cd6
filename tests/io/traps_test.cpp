// SPDX-License-Identifier: Apache-2.0
//
// The traps that other readers of adapters fell into, each in the smallest example that tells right from wrong by a factor, not by a rounding.
// docs/compatibility.md lists all of them with the test of each; here are those that no other test is about.
#include "files.hpp"

#include <lora/adapter/adapter_set.hpp>
#include <lora/io/diffusers.hpp>
#include <lora/io/gguf_adapter.hpp>
#include <lora/io/gguf_adapter_writer.hpp>
#include <lora/io/json_adapter.hpp>
#include <lora/io/kohya.hpp>
#include <lora/io/kohya_writer.hpp>
#include <lora/io/peft.hpp>
#include <lora/linalg/merge.hpp>

#include <doctest/doctest.h>

namespace {

using lora::index_t;

const std::string peft_data = LORA_TEST_DATA_DIR "/peft/";
const std::string prefix = "base_model.model.";

std::string config(const std::string& more, const std::string& alpha = "4", const std::string& r = "2") {
  return R"({"peft_type":"LORA","r":)" + r + R"(,"lora_alpha":)" + alpha + (more.empty() ? "" : ",") + more + "}";
}

/** A folder of PEFT: each module has A [rank, 3] and B [5, rank], all ones. */
class peft_folder {
 public:
  peft_folder(const std::string& json, const std::vector<std::string>& modules, std::size_t rank = 2,
              const std::vector<std::pair<std::string, std::vector<float>>>& vectors = {}) {
    test::safetensors_builder b;
    for (const std::string& m : modules) {
      b.add(prefix + m + ".lora_A.weight", "F32", {rank, 3}, test::bytes_from(std::vector<float>(rank * 3, 1.0f)));
      b.add(prefix + m + ".lora_B.weight", "F32", {5, rank}, test::bytes_from(std::vector<float>(5 * rank, 1.0f)));
    }
    for (const auto& [name, values] : vectors) b.add(prefix + name, "F32", {values.size()}, test::bytes_from(values));
    folder_.write("adapter_config.json", json);
    folder_.write("adapter_model.safetensors", b.bytes());
  }
  [[nodiscard]] lora::adapter load() const { return lora::io::load_peft(folder_.path()).adapter; }

 private:
  test::temporary_folder folder_;
};

float scale_of(const lora::adapter& a, std::string_view module) {
  for (const lora::adapted_module& m : a.modules)
    if (m.name == module) return m.weights.scale;
  FAIL("no module " << module);
  return 0;
}

lora::model_contract contract(const std::vector<std::string>& names) {
  lora::model_contract model;
  for (const std::string& n : names) (void)model.add(n, 5, 3);
  return model;
}

}  // namespace

TEST_CASE("io/traps: an alpha of 0, and none, mean in each format what that format's own program makes of them") {
  // PEFT: 0. kohya and llama.cpp: 1, and so for a file that says nothing. JSON: as it stands.
  CHECK(scale_of(peft_folder(config("", "0"), {"m"}).load(), "m") == 0.0f);
  CHECK(scale_of(peft_folder(config(R"("alpha_pattern":{"m":0})"), {"m"}).load(), "m") == 0.0f);
  const test::temporary_folder folder;
  const auto kohya = [&](bool has, float alpha) {
    test::safetensors_builder b;
    b.zeros("lora_unet_m.lora_down.weight", {2, 3}).zeros("lora_unet_m.lora_up.weight", {5, 2});
    if (has) b.add("lora_unet_m.alpha", "F32", {}, test::bytes_from<float>({alpha}));
    return scale_of(lora::io::load_kohya(folder.write("k.safetensors", b.bytes()), contract({"m"})).adapter, "m");
  };
  CHECK(kohya(true, 0.0f) == 1.0f);
  CHECK(kohya(false, 0.0f) == 1.0f);
  CHECK(kohya(true, 4.0f) == 2.0f);
  test::safetensors_builder d;
  d.zeros("unet.m.lora_A.weight", {2, 3}).zeros("unet.m.lora_B.weight", {5, 2});
  CHECK(scale_of(lora::io::load_diffusers(folder.write("d.safetensors", d.bytes())).adapter, "unet.m") == 1.0f);
  const auto json = [&](const std::string& alpha) {
    const std::string text = R"({"rank":1,"in_dim":1,"out_dim":1,"a":[1],"b":[1],"module":"m")" + alpha + "}";
    return lora::io::json_adapter::parse(test::bytes_of(text), "j").adapter.modules[0].weights.scale;
  };
  CHECK(json(R"(,"alpha":0)") == 0.0f);
  CHECK(json("") == 1.0f);
  CHECK(json(R"(,"alpha":3)") == 3.0f);
}

TEST_CASE("io/traps: LyCORIS writes rsLoRA as alpha times the root of the rank, which kohya's rule undoes") {
  const test::temporary_folder folder;
  test::safetensors_builder b;
  b.zeros("lora_unet_m.lora_down.weight", {9, 3}).zeros("lora_unet_m.lora_up.weight", {5, 9});
  b.add("lora_unet_m.alpha", "F32", {}, test::bytes_from<float>({6.0f * 3.0f}));
  CHECK(scale_of(lora::io::load_kohya(folder.write("k.safetensors", b.bytes()), contract({"m"})).adapter, "m") == 6.0f / 3.0f);
}

TEST_CASE("io/traps: a scale survives the way through the other formats, rsLoRA and patterns too, or is refused") {
  const test::temporary_folder folder;
  for (const char* name : {"plain", "rslora", "pattern_regex_first", "pattern_specific_first", "f16", "big_rank"}) {
    CAPTURE(name);
    const lora::adapter from = lora::io::load_peft(peft_data + name).adapter;
    lora::model_contract model;
    bool one_alpha = true;
    for (const lora::adapted_module& m : from.modules) {
      (void)model.add(m.name, m.weights.b.extent(0), m.weights.a.extent(1));
      const auto alpha = [](const lora::low_rank& w) { return w.scale * static_cast<float>(w.a.extent(0)); };
      one_alpha = one_alpha && std::abs(alpha(m.weights) - alpha(from.modules[0].weights)) < 1e-4f;
    }
    lora::io::save_kohya(folder.path() + "/k.safetensors", from);
    const lora::adapter kohya = lora::io::load_kohya(folder.path() + "/k.safetensors", model).adapter;
    const std::string gguf = folder.path() + "/" + name + ".gguf";
    const std::string refusal =
        test::refusal<lora::value_error>([&] { lora::io::save_gguf(gguf, from, {.architecture = "llama", .name = ""}); });
    CHECK(refusal.empty() == one_alpha);  // patterns give several, and llama.cpp's format has one: its converter drops them without a word
    if (!one_alpha) CHECK(test::contains(refusal, "the format has one alpha for all modules"));
    for (const lora::adapted_module& m : from.modules) {
      CHECK(scale_of(kohya, m.name) == m.weights.scale);
      if (one_alpha) CHECK(scale_of(lora::io::load_gguf(gguf, {.architecture = "llama"}).adapter, m.name) == m.weights.scale);
    }
  }
}

TEST_CASE("io/traps: names in the file say what is adapted; target_modules, exclude_modules and layers_to_transform do not") {
  const std::string lies = R"("target_modules":["nothing"],"exclude_modules":["q_proj"],"layers_to_transform":[7],"layers_pattern":"h")";
  const lora::adapter a = peft_folder(config(lies), {"layers.0.q_proj", "layers.1.v_proj"}).load();
  CHECK(a.modules.size() == 2);
  CHECK(scale_of(a, "layers.0.q_proj") == 2.0f);
}

TEST_CASE("io/traps: a module's name is matched whole: neither its end, nor a part of it, nor another case of it will do") {
  const lora::adapter a = peft_folder(config(""), {"layers.1.q_proj"}).load();
  CHECK(lora::bind(a, contract({"layers.1.q_proj", "layers.11.q_proj", "layers.1.xq_proj"})).modules()[0].module == 0);
  for (const char* near :
       {"layers.11.q_proj", "model.layers.1.q_proj", "layers.1.q_proj.0", "layers.1.Q_proj", "layers.1.q-proj", "q_proj"})
    CHECK(test::contains(test::refusal<lora::bind_error>([&] { (void)lora::bind(a, contract({near})); }),
                         "the model has no module of this name"));
  // Of patterns the end alone matches, at a dot.
  const lora::adapter p =
      peft_folder(config(R"("alpha_pattern":{"q_proj":20})"), {"a.q_proj", "a.xq_proj", "q_proj", "a.q_proj.b", "a.q-proj"}).load();
  CHECK(scale_of(p, "a.q_proj") == 10.0f);
  CHECK(scale_of(p, "q_proj") == 10.0f);
  for (const char* other : {"a.xq_proj", "a.q_proj.b", "a.q-proj"}) CHECK(scale_of(p, other) == 2.0f);
}

TEST_CASE("io/traps: an adapter of which one module fits and one does not changes nothing") {
  const lora::adapter a = peft_folder(config(""), {"known", "unknown"}).load();
  CHECK(test::contains(test::refusal<lora::bind_error>([&] { (void)lora::bind(a, contract({"known"})); }),
                       "module 'unknown': the model has no module of this name"));
}

TEST_CASE("io/traps: the bias of B is scaled, by the scale and by the weight; a trained bias replaces, and is not") {
  const std::vector<float> own{1, 2, 3, 4, 5};
  const peft_folder lora_bias(config(R"("lora_bias":true)"), {"m"}, 2, {{"m.lora_B.bias", own}});
  const peft_folder trained(config(R"("bias":"lora_only")"), {"m"}, 2, {{"m.base_layer.bias", own}});
  const lora::model_contract model = contract({"m"});
  const float base[5] = {10, 10, 10, 10, 10};
  const lora::ndview<const float, 1> b(base, {5});
  const auto bias = [&](const peft_folder& folder, float weight) {
    const lora::adapter_set set(model, {{lora::bind(folder.load(), model), weight}});
    const auto sum = lora::merged_bias(b, set[0]);
    return std::vector<float>(sum.data(), sum.data() + 5);
  };
  CHECK(bias(lora_bias, 1.0f) == std::vector<float>{12, 14, 16, 18, 20});  // s = 2
  CHECK(bias(lora_bias, -0.5f) == std::vector<float>{9, 8, 7, 6, 5});
  CHECK(bias(lora_bias, 0.0f) == std::vector<float>{10, 10, 10, 10, 10});
  for (const float weight : {1.0f, -0.5f, 0.0f}) CHECK(bias(trained, weight) == own);
}

TEST_CASE("io/traps: two adapters in both orders: the sums have the order of the list, not that of addresses or of loading") {
  // 1 + 2^-24 - 1 in f32 is 0 in this order, and 2^-24 in the other.
  const auto one = [](float b) {
    test::safetensors_builder t;
    t.add(prefix + "m.lora_A.weight", "F32", {1, 3}, test::bytes_from<float>({1, 0, 0}));
    t.add(prefix + "m.lora_B.weight", "F32", {5, 1}, test::bytes_from<float>(std::vector<float>(5, b)));
    return t.bytes();
  };
  const test::temporary_folder folder;
  std::vector<std::shared_ptr<const lora::bound_adapter>> parts;
  const lora::model_contract model = contract({"m"});
  for (const float b : {1.0f, 0x1p-24f, -1.0f}) {
    const std::string name = std::to_string(parts.size());
    folder.write(name + "/adapter_config.json", config("", "1", "1"));
    folder.write(name + "/adapter_model.safetensors", one(b));
    parts.push_back(
        std::make_shared<const lora::bound_adapter>(lora::bind(lora::io::load_peft(folder.path() + "/" + name).adapter, model)));
  }
  const auto w = lora::zeros<float>(5, 3);
  const auto sum = [&](std::size_t i, std::size_t j, std::size_t k) {
    const lora::adapter_set set(model, {{parts[i], 1.0f}, {parts[j], 1.0f}, {parts[k], 1.0f}});
    const auto m = lora::merged(w, set[0]);
    return m(0, 0);
  };
  CHECK(sum(0, 1, 2) == 0.0f);
  CHECK(sum(1, 0, 2) == 0.0f);
  CHECK(sum(0, 2, 1) == 0x1p-24f);
  CHECK(sum(2, 0, 1) == 0x1p-24f);
}

TEST_CASE("io/traps: a merge into bf16 rounds once: neither B A nor its product with the scale is rounded before it is added") {
  // W = 1, s B A = 2^-8 + 2^-16: the sum is just above half way to the next bf16, 1 + 2^-7. Rounded first, it would be a tie, and even is 1.
  const lora::bfloat16 one(1.0f);
  const lora::ndview<const lora::bfloat16, 2> w(&one, {1, 1});
  const float a = 1.0f;
  const float b = 0x1p-9f + 0x1p-17f;
  const lora::low_rank_term term{lora::float_view<2>(&a, {1, 1}), lora::float_view<2>(&b, {1, 1}), 2.0f};
  CHECK(static_cast<float>(lora::bfloat16(0x1p-8f + 0x1p-16f)) == 0x1p-8f);
  CHECK(static_cast<float>(lora::bfloat16(1.0f + 0x1p-8f)) == 1.0f);
  const auto merged = lora::merged(w, {&term, 1});
  CHECK(static_cast<float>(merged(0, 0)) == 1.0f + 0x1p-7f);
}
