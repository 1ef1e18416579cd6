// SPDX-License-Identifier: Apache-2.0
#include "formats.hpp"

#include <lora/io/diffusers.hpp>

namespace {

using lora::io::load_diffusers;

lora::io::diffusers_adapter loaded(const test::safetensors_builder& b, const std::string& component = "") {
  const test::temporary_folder folder;
  return load_diffusers(folder.write("d", b.bytes()), {component, true});
}
std::string refused(const test::safetensors_builder& b, const std::string& component = "") {
  return test::refusal<lora::io_error>([&] { (void)loaded(b, component); });
}
test::safetensors_builder& pair(test::safetensors_builder& b, const std::string& down, const std::string& up) {
  return b.zeros(down, {2, 3}).zeros(up, {5, 2});
}
std::string refused_with(const std::string& name, const std::vector<std::size_t>& shape = {2, 3}) {
  test::safetensors_builder b;
  return refused(pair(b, "unet.a.lora_A.weight", "unet.a.lora_B.weight").zeros(name, shape));
}
/** A pair unet.a beside this configuration. */
test::safetensors_builder configured(const std::string& json) {
  std::string escaped;
  for (const char c : json) escaped += c == '"' ? std::string("\\\"") : std::string(1, c);
  test::safetensors_builder b;
  b.raw("\"__metadata__\":{\"lora_adapter_metadata\":\"" + escaped + "\"}");
  pair(b, "unet.a.lora_A.weight", "unet.a.lora_B.weight");
  return b;
}
const std::string basic = R"("unet.peft_type":"LORA","unet.r":2,"unet.lora_alpha":6)";

}  // namespace

TEST_CASE("io/diffusers: files of every generation have the scales and outputs of NumPy and PEFT") {
  for (const char* file : {"diffusers_old.safetensors", "diffusers_new.safetensors", "diffusers_alpha.safetensors"}) {
    CAPTURE(file);
    const auto d = load_diffusers(test::formats_data + file);
    test::check_expected(d.adapter, file);
    CHECK(d.bytes_copied == 0);
    CHECK(d.skipped.empty());
    CHECK(d.report.unused_patterns.empty());
    CHECK(d.report.unknown_fields.empty());
  }
  const auto unet = load_diffusers(test::formats_data + "diffusers_new.safetensors", {.component = "unet"});
  test::check_expected(unet.adapter, "diffusers_new.safetensors", "unet.");
  CHECK(unet.skipped == std::vector<std::string>{"text_encoder"});
}

TEST_CASE("io/diffusers: every spelling means the module that diffusers takes it for") {
  const struct {
    const char* name;
    const char* module;
  } cases[] = {{"unet.x.attn1.processor.to_q_lora", "unet.x.attn1.to_q"},
               {"unet.x.attn1.processor.to_out_lora", "unet.x.attn1.to_out.0"},
               {"mid_block.x.processor.to_k_lora", "unet.mid_block.x.to_k"},
               {"unet.x.to_v.lora", "unet.x.to_v"},
               {"unet.x.processor.to_v.lora", "unet.x.to_v"},
               {"text_encoder.x.self_attn.to_q_lora", "text_encoder.x.self_attn.q_proj"},
               {"text_encoder_2.x.self_attn.to_out_lora", "text_encoder_2.x.self_attn.out_proj"},
               {"text_encoder.x.v_proj.lora_linear_layer", "text_encoder.x.v_proj"},
               {"text_encoder_2.text_projection.lora", "text_encoder_2.text_projection"},
               {"transformer.x.to_q.lora", "transformer.x.to_q"}};
  for (const auto& c : cases) {
    CAPTURE(c.name);
    test::safetensors_builder b;
    const auto d = loaded(pair(b, std::string(c.name) + ".down.weight", std::string(c.name) + ".up.weight"));
    REQUIRE(d.adapter.modules.size() == 1);
    CHECK(d.adapter.modules[0].name == c.module);
    CHECK(d.adapter.modules[0].weights.a.extent(0) == 2);
    CHECK(d.adapter.modules[0].weights.scale == 1.0f);
  }
}

TEST_CASE("io/diffusers: a configuration is PEFT's, for each component") {
  const auto scale = [](const std::string& more) { return loaded(configured("{" + basic + more + "}")).adapter.modules[0].weights.scale; };
  CHECK(scale("") == 3.0f);
  CHECK(scale(R"(,"unet.use_rslora":true)") == lora::scale_for(6, 2, lora::scale_rule::alpha_over_sqrt_rank));
  CHECK(scale(R"(,"unet.alpha_pattern":{"a":1})") == 0.5f);
  CHECK(scale(R"(,"unet.alpha_pattern":{"unet.a":1})") == 3.0f);  // names inside the component
  CHECK(loaded(configured("{" + basic + R"(,"unet.alpha_pattern":{"b":1},"unet.later":null})")).report.unused_patterns ==
        std::vector<std::string>{"alpha_pattern: b"});
  CHECK(loaded(configured("{" + basic + R"(,"unet.later":null})")).report.unknown_fields == std::vector<std::string>{"unet.later"});
  const auto wrong = [](const std::string& more) { return refused(configured("{" + basic + more + "}")); };
  CHECK(
      test::contains(wrong(R"(,"unet.trainable_token_indices":[1])"), "the field 'trainable_token_indices' is set, which is supported in"));
  CHECK(test::contains(wrong(R"(,"unet.use_dora":true)"),
                       "lora_adapter_metadata, unet': the field 'use_dora' is set, which is supported in folders of PEFT only"));
  CHECK(test::contains(wrong(R"(,"unet.r":2)"), "the field 'r' occurs twice"));
  CHECK(test::contains(wrong(R"(,"unet.rank_pattern":{"a":3})"), "has rank 2, but r and rank_pattern in lora_adapter_metadata say 3"));
  CHECK(test::contains(wrong(R"(,"r":2)"), "the key 'r' names no component"));
  CHECK(test::contains(wrong(R"(,"text_encoder.r":2)"), "lora_adapter_metadata, text_encoder': the field 'peft_type' is missing"));
  CHECK(test::contains(wrong(R"(,"unet.lora_alpha)"), "lora_adapter_metadata is not valid JSON"));
  CHECK(test::contains(refused(configured("[]")), "lora_adapter_metadata is a JSON array, not an object"));
  CHECK(test::contains(refused(configured("3")), "lora_adapter_metadata is not a JSON object"));
  std::string many = "{";
  for (int i = 0; i < 17; ++i) many += (i == 0 ? "\"c" : ",\"c") + std::to_string(i) + ".r\":1";
  CHECK(test::contains(refused(configured(many + "}")), "more than 16 components"));
  // diffusers itself refuses an alpha beside a configuration.
  CHECK(test::contains(refused(configured("{" + basic + "}").zeros("unet.a.alpha", {})), "stands beside a configuration"));
}

TEST_CASE("io/diffusers: what is not plain LoRA, or said twice, is refused by name") {
  CHECK(test::contains(refused_with("unet.a.lora_magnitude_vector"), "is a magnitude vector of DoRA"));
  CHECK(test::contains(refused_with("unet.a.lora_B.bias"), "is a bias of B"));
  CHECK(test::contains(refused_with("unet.a.lokr_w1"), "belongs to LyCORIS"));
  CHECK(test::contains(refused_with("lora_unet_a.lora_down.weight"), "see load_kohya"));
  CHECK(test::contains(refused_with("base_model.model.a"), "see load_peft"));
  CHECK(test::contains(refused_with("unet.b.weight"), "is neither lora_A nor lora_B"));
  CHECK(test::contains(refused_with("unet.lora_A.weight"), "is neither lora_A nor lora_B"));
  CHECK(test::contains(refused_with("unet.b.lora_A.weight"), "has no B (lora.up) beside it"));
  CHECK(test::contains(refused_with("unet.b.lora_B.weight"), "has no A (lora.down) beside it"));
  CHECK(test::contains(refused_with("unet.b.alpha", {}), "has no A (lora.down) beside it"));
  CHECK(test::contains(refused_with("unet.a.alpha", {3}), "shape [3] is not that of one number"));
  CHECK(test::contains(refused_with("unet.a.lora.down.weight"), "means the same as"));
  CHECK(test::contains(refused_with("unet.processor.a.lora.down.weight"), "means the same as"));
  CHECK(test::contains(refused(test::safetensors_builder()), "the adapter adapts no module"));
  test::safetensors_builder b;
  pair(b, "unet.a.lora_A.weight", "unet.a.lora_B.weight");
  CHECK(test::contains(refused(b, "transformer"), "the adapter adapts no module"));
  // An alpha of 0 is 0 here: diffusers hands it to PEFT, which divides it.
  b.add("unet.a.alpha", "F32", {}, test::bytes_from<float>({0}));
  CHECK(loaded(b).adapter.modules[0].weights.scale == 0.0f);
}
