// SPDX-License-Identifier: Apache-2.0
#include "formats.hpp"

#include <lora/adapter/bind.hpp>
#include <lora/io/kohya.hpp>
#include <lora/io/kohya_writer.hpp>

namespace {

using lora::io::load_kohya;

lora::model_contract contract(const std::vector<std::string>& names, lora::index_t out = 5, lora::index_t in = 3) {
  lora::model_contract model;
  for (const std::string& n : names) model.add(n, out, in);
  return model;
}

test::safetensors_builder& pair(test::safetensors_builder& b, const std::string& key, std::size_t rank = 2) {
  b.zeros(key + ".lora_down.weight", {rank, 3});
  return b.zeros(key + ".lora_up.weight", {5, rank});
}

lora::io::kohya_adapter loaded(const test::safetensors_builder& b, const lora::model_contract& model,
                               const std::vector<std::string>& only = {}) {
  const test::temporary_folder folder;
  return load_kohya(folder.write("k", b.bytes()), model, {only, true});
}
std::string refused(const test::safetensors_builder& b, const lora::model_contract& model, const std::vector<std::string>& only = {}) {
  return test::refusal<lora::io_error>([&] { (void)loaded(b, model, only); });
}
/** With one more tensor beside a good pair of lora_unet_a. */
std::string refused_with(const std::string& name, const std::vector<std::size_t>& shape = {2, 3}) {
  test::safetensors_builder b;
  return refused(pair(b, "lora_unet_a").zeros(name, shape), contract({"a"}));
}

}  // namespace

TEST_CASE("io/kohya: a file with three types, a 1x1 convolution and every rule of alpha") {
  const auto model = contract({"down_blocks.0.attentions.0.to_q", "down_blocks.0.attentions.0.to_out.0", "mid_block.proj_in",
                               "mid_block.ff.net.0.proj", "mid_block.unused"});
  const auto k = load_kohya(test::formats_data + "kohya.safetensors", model);
  test::check_expected(k.adapter, "kohya.safetensors");
  CHECK(k.bytes_copied == 0);
  CHECK(k.skipped.empty());
}

TEST_CASE("io/kohya: names are undone by the contract's, bare or in the folder of their component") {
  const struct {
    const char* key;
    const char* module;
  } cases[] = {{"lora_unet_a_b_c", "a.b_c"},
               {"lora_unet_a_b_c", "unet.a_b.c"},
               {"lora_unet_a_b", "model.diffusion_model.a.b"},
               {"lora_unet_a_b", "transformer.a.b"},
               {"lora_te_a", "text_encoder.a"},
               {"lora_te_a", "cond_stage_model.transformer.a"},
               {"lora_te1_a", "text_encoder.a"},
               {"lora_te1_a", "conditioner.embedders.0.transformer.a"},
               {"lora_te2_a", "text_encoder_2.a"},
               {"lora_te3_a_", "text_encoder_3.a_"},
               {"lora_te_text_encoder_a", "text_encoder.a"}};
  for (const auto& c : cases) {
    CAPTURE(c.module);
    test::safetensors_builder b;
    const auto k = loaded(pair(b, c.key), contract({"other", c.module, "a.b.c.d"}));
    REQUIRE(k.adapter.modules.size() == 1);
    CHECK(k.adapter.modules[0].name == c.module);
    CHECK(k.adapter.modules[0].weights.scale == 1.0f);
  }
}

TEST_CASE("io/kohya: a name that fits two modules, or none, is refused") {
  test::safetensors_builder b;
  pair(b, "lora_unet_a_b");
  CHECK(test::contains(refused(b, contract({"a.b", "a_b"})),
                       "tensor 'lora_unet_a_b.lora_down.weight': its name can be that of 'a.b' and of 'a_b'"));
  CHECK(test::contains(refused(b, contract({"a.b", "unet.a.b"})), "can be that of 'a.b' and of 'unet.a.b'"));
  CHECK(test::contains(refused(b, contract({"a.c"})), "the model has no module that becomes 'a_b' with '_' for '.'"));
  // The underscore of "unet_" is a dot in the model, or it is not the folder.
  CHECK(test::contains(refused(b, contract({"unet_a.b"})), "the model has no module"));
  // Both text encoders of a pipeline cannot mean one module: bind() says so.
  test::safetensors_builder two;
  pair(pair(two, "lora_te1_a"), "lora_te2_a");
  const auto k = loaded(two, contract({"a"}));
  CHECK(test::contains(test::refusal<lora::bind_error>([&] { (void)lora::bind(k.adapter, contract({"a"})); }), "is adapted twice"));
}

TEST_CASE("io/kohya: components that are not asked for are skipped, and said") {
  test::safetensors_builder b;
  pair(pair(b, "lora_te_x"), "lora_unet_a");
  const auto model = contract({"a"});
  CHECK(test::contains(refused(b, model), "no module that becomes 'x'"));
  const auto k = loaded(b, model, {"lora_unet"});
  CHECK(k.adapter.modules.size() == 1);
  CHECK(k.skipped == std::vector<std::string>{"lora_te"});
  CHECK(test::contains(refused(b, model, {"lora_te2"}), "the adapter adapts no module"));
  CHECK(test::contains(test::refusal<lora::value_error>([&] { (void)loaded(b, model, {"unet"}); }), "there is no component 'unet'"));
}

TEST_CASE("io/kohya: alpha 0 and no alpha mean a scale of 1; its tensor has one number") {
  const auto scale = [](std::string_view dtype, const std::vector<std::size_t>& shape, const std::string& bytes) {
    test::safetensors_builder b;
    b.add("lora_unet_a.alpha", dtype, shape, bytes);
    return loaded(pair(b, "lora_unet_a", 4), contract({"a"})).adapter.modules[0].weights.scale;
  };
  CHECK(scale("F32", {}, test::bytes_from<float>({8})) == 2.0f);
  CHECK(scale("F32", {1}, test::bytes_from<float>({-2})) == -0.5f);
  CHECK(scale("F32", {}, test::bytes_from<float>({0})) == 1.0f);
  CHECK(scale("F32", {}, test::bytes_from<float>({-0.0f})) == 1.0f);
  CHECK(scale("F64", {}, test::bytes_from<double>({1})) == 0.25f);
  CHECK(scale("I64", {}, test::bytes_from<std::int64_t>({16})) == 4.0f);
  CHECK(scale("I32", {}, test::bytes_from<std::int32_t>({2})) == 0.5f);
  CHECK(scale("BF16", {}, test::bytes_from<std::uint16_t>({0x3f80})) == 0.25f);
  CHECK(scale("F16", {}, test::bytes_from<std::uint16_t>({0x3c00})) == 0.25f);
  const auto wrong = [](std::string_view dtype, const std::vector<std::size_t>& shape, const std::string& bytes) {
    test::safetensors_builder b;
    b.add("lora_unet_a.alpha", dtype, shape, bytes);
    return refused(pair(b, "lora_unet_a"), contract({"a"}));
  };
  CHECK(test::contains(wrong("F32", {2}, test::bytes_from<float>({1, 1})), "shape [2] is not that of one number"));
  CHECK(test::contains(wrong("F32", {1, 1}, test::bytes_from<float>({1})), "shape [1, 1] is not that of one number"));
  CHECK(test::contains(wrong("F32", {}, test::bytes_from<float>({NAN})), "is not finite"));
  CHECK(test::contains(wrong("F64", {}, test::bytes_from<double>({1e300})), "the alpha of module 'a' does not fit a float"));
  CHECK(test::contains(wrong("U8", {}, "x"), "dtype u8 is not one of"));
}

TEST_CASE("io/kohya: what is not plain LoRA is refused by name") {
  CHECK(test::contains(refused_with("lora_unet_a.dora_scale"), "is a magnitude vector of DoRA"));
  CHECK(test::contains(refused_with("lora_unet_a.lora_mid.weight", {2, 2, 3, 3}), "Tucker decomposition (LoCon)"));
  CHECK(test::contains(refused_with("lora_unet_b.hada_w1_a"), "belongs to LoHa"));
  CHECK(test::contains(refused_with("lora_unet_b.lokr_w1"), "belongs to LoKr"));
  CHECK(test::contains(refused_with("lora_unet_b.oft_blocks"), "belongs to OFT"));
  CHECK(test::contains(refused_with("lora_unet_b.lora_down.0.weight"), "split projections"));
  CHECK(test::contains(refused_with("lora_unet_b.diff"), "replaces weights of the base"));
  CHECK(test::contains(refused_with("lora_unet_b.scalar"), "trained scalar of LyCORIS"));
  CHECK(test::contains(refused_with("lora_unet_b.else"), "is none of lora_down.weight, lora_up.weight and alpha"));
  CHECK(test::contains(refused_with("lora_unet_b"), "is none of lora_down.weight"));
  CHECK(test::contains(refused_with("bundle_emb.x"), "does not begin with lora_unet_"));
  CHECK(test::contains(refused_with("lora_unet_b.alpha", {}), "tensor 'lora_unet_b.alpha': has no lora_down beside it (byte "));
  CHECK(test::contains(refused_with("lora_unet_b.lora_up.weight"), "has no lora_down beside it"));
  CHECK(test::contains(refused_with("lora_unet_b.lora_down.weight"), "has no lora_up beside it"));
  const auto shapes = [](const std::vector<std::size_t>& down, const std::vector<std::size_t>& up, std::string_view dtype = "F32") {
    test::safetensors_builder b;
    b.zeros("lora_unet_a.lora_down.weight", down, dtype).zeros("lora_unet_a.lora_up.weight", up);
    return refused(b, contract({"a"}));
  };
  CHECK(shapes({2, 3, 3, 3}, {5, 2, 1, 1}) == "");
  CHECK(
      test::contains(shapes({2, 3, 3}, {5, 2}), "shape [2, 3, 3] is that of a Conv1d or Conv3d; of convolutions only Conv2d is supported"));
  CHECK(test::contains(shapes({2, 3, 3, 3, 3}, {5, 2, 1, 1, 1}), "is that of a Conv1d or Conv3d"));
  CHECK(test::contains(shapes({2, 3, 3, 3}, {5, 2, 3, 3}), "shape [5, 2, 3, 3] is not [out, rank, 1, 1]"));
  CHECK(test::contains(shapes({2, 3, 3, 0}, {5, 2, 1, 1}), "has a kernel without elements"));
  CHECK(test::contains(shapes({3, 3, 3, 3}, {5, 2, 1, 1}), "have different ranks"));
  CHECK(test::contains(shapes({4, 3, 3, 3}, {5, 2, 1, 1}), "has 2 times the rank of"));
  CHECK(test::contains(shapes({2}, {5, 2}), "shape [2] is not that of a matrix"));
  CHECK(test::contains(shapes({2, 3}, {5, 4}), "have different ranks"));
  CHECK(test::contains(shapes({0, 3}, {5, 0}), "has rank 0"));
  CHECK(test::contains(shapes({2, 3}, {5, 2}, "I32"), "dtype i32 is not one of f32, f16 and bf16"));
  CHECK(test::contains(refused(test::safetensors_builder(), contract({"a"})), "the adapter adapts no module"));
}

TEST_CASE("io/kohya_writer: an adapter reads back the same, and twice gives the same bytes") {
  const test::temporary_folder folder;
  const std::string path = folder.path() + "/k";
  for (const double alpha : {8.0, 7.0, 0.1, -3.0, 1e-30}) {
    CAPTURE(alpha);
    test::made_adapter made(alpha);
    made.adapter.modules[1].name = "text_encoder.a.v_proj";
    made.adapter.modules[2].name = "unet.mid.q";
    const auto model = contract({"down.0.q", "text_encoder.a.v_proj", "unet.mid.q"});
    lora::io::save_kohya(path, made.adapter, {"lora_unet", {{"ss_network_module", "networks.lora"}}});
    const std::string bytes = test::read_file(path);
    CHECK(test::contains(bytes, "\"lora_te_a_v_proj.alpha\""));
    CHECK(test::contains(bytes, "\"lora_unet_mid_q.alpha\""));
    test::check_same(load_kohya(path, model).adapter, made.adapter);
    lora::io::save_kohya(path, made.adapter, {"lora_unet", {{"ss_network_module", "networks.lora"}}});
    CHECK(test::read_file(path) == bytes);
    made.adapter.modules[0].name = "text_encoder_2.q";  // beside a second text encoder the first is te1
    lora::io::save_kohya(path, made.adapter);
    CHECK(test::contains(test::read_file(path), "\"lora_te1_a_v_proj.alpha\""));
    CHECK(test::contains(test::read_file(path), "\"lora_te2_q.alpha\""));
  }
}

TEST_CASE("io/kohya_writer: what the format cannot say is refused, and the old file stays") {
  const test::temporary_folder folder;
  const std::string path = folder.write("k", "old");
  test::made_adapter made(8);
  const auto refused_to_save = [&](const std::string& component = "lora_unet") {
    const std::string what = test::refusal<lora::value_error>([&] { lora::io::save_kohya(path, made.adapter, {component, {}}); });
    CHECK(test::read_file(path) == "old");
    CHECK(test::files_in(folder.path()) == 1);
    return what;
  };
  CHECK(test::contains(refused_to_save("unet"), "'unet' is not lora_unet"));
  made.adapter.modules[1].name = "down_0.q";
  CHECK(test::contains(refused_to_save(), "two modules would both be called 'lora_unet_down_0_q'"));
  made.adapter.modules[1].weights.scale = 0;
  CHECK(test::contains(refused_to_save(), "module 'down_0.q': its scale cannot be written: it is 0"));
  made.adapter.modules.clear();
  CHECK(test::contains(refused_to_save(), "has no modules"));
}
