// SPDX-License-Identifier: Apache-2.0
//
// Any bytes as adapter_config.json, put together with a fixed set of tensors (one with an embedding and token rows where the configuration
// announces some): refused by io_error, or an adapter whose scales are finite.
// Run with -max_len=2048: patterns may cost (their expanded size) x (length of the module names), which is much for a fuzzer.
#include <lora/adapter/bind.hpp>
#include <lora/io/peft.hpp>

#include <cstdlib>
#include <initializer_list>

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

struct entry {
  const char* name;
  std::size_t rows;
  std::size_t columns;  // 0: one axis
};

/** A safetensors file of zeros. */
std::string tensors(std::initializer_list<entry> entries) {
  std::string json = "{";
  std::size_t at = 0;
  for (const entry& e : entries) {
    const std::size_t size = 4 * e.rows * (e.columns == 0 ? 1 : e.columns);
    json += std::string(at == 0 ? "" : ",") + "\"base_model.model." + e.name + R"(":{"dtype":"F32","shape":[)" + std::to_string(e.rows) +
            (e.columns == 0 ? "" : "," + std::to_string(e.columns)) + R"(],"data_offsets":[)" + std::to_string(at) + ',' +
            std::to_string(at + size) + "]}";
    at += size;
  }
  json += '}';
  std::string out(8, '\0');
  const std::uint64_t n = json.size();
  std::memcpy(out.data(), &n, 8);
  return out + json + std::string(at, '\0');
}

lora::io::safetensors parsed(const std::string& bytes) {
  return lora::io::safetensors::parse({reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()}, "tensors");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const std::string linear = tensors(
      {{"a.b.q.lora_A.weight", 2, 1}, {"a.b.q.lora_B.weight", 1, 2}, {"v_proj.lora_A.weight", 2, 1}, {"v_proj.lora_B.weight", 1, 2}});
  static const std::string table = tensors({{"m.e.lora_embedding_A", 2, 5},
                                            {"m.e.lora_embedding_B", 3, 2},
                                            {"m.e.lora_magnitude_vector", 3, 0},
                                            {"t.token_adapter.trainable_tokens_delta", 2, 3}});
  static const auto of_layers = parsed(linear);
  static const auto of_tables = parsed(table);
  try {
    lora::io::peft_adapter out;
    out.config = lora::io::peft_config::parse({reinterpret_cast<const std::byte*>(data), size}, "fuzz");
    require(out.config.rank >= 1);
    const bool announced = !out.config.trainable_tokens.empty();
    lora::detail::assemble_peft(out, announced ? of_tables : of_layers, "fuzz");
    require(out.adapter.modules.size() == 2);
    for (const auto& m : out.adapter.modules) require(std::isfinite(m.weights.scale));
    if (announced) {
      require(out.adapter.modules[0].kind == lora::module_kind::embedding && out.adapter.modules[0].weights.magnitude.size() == 3);
      require(out.adapter.modules[1].weights.row_indices.size() == 2 && out.adapter.modules[1].weights.rows.extent(0) == 2);
      lora::model_contract model;
      model.add({"m.e", 3, 5, lora::weight_layout::in_out, lora::module_kind::embedding});
      model.add({"t", 3, 9, lora::weight_layout::in_out, lora::module_kind::embedding});
      for (const lora::index_t i : out.adapter.modules[1].weights.row_indices)
        if (i >= 9) return 0;
      require(lora::bind(out.adapter, model).modules().size() == 2);
    }
    require(out.report.unused_patterns.size() <= out.config.rank_pattern.size() + out.config.alpha_pattern.size());
  } catch (const lora::io_error& e) {
    require(e.what()[0] == '\'');
  }
  return 0;
}
