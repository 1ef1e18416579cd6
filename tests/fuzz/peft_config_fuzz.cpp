// SPDX-License-Identifier: Apache-2.0
//
// Any bytes as adapter_config.json, put together with a fixed set of tensors: refused by io_error, or an adapter whose scales are finite.
// Run with -max_len=2048: patterns may cost (their expanded size) x (length of the module names), which is much for a fuzzer.
#include <lora/io/peft.hpp>

#include <cstdlib>

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

/** Two modules of rank 2, with the shapes [2, 1] and [1, 2]. */
std::string tensors() {
  std::string json = "{";
  std::size_t at = 0;
  for (const char* name : {"a.b.q.lora_A", "a.b.q.lora_B", "v_proj.lora_A", "v_proj.lora_B"}) {
    const bool is_a = std::string_view(name).back() == 'A';
    json += std::string(at == 0 ? "" : ",") + "\"base_model.model." + name + R"(.weight":{"dtype":"F32","shape":)" +
            (is_a ? "[2,1]" : "[1,2]") + R"(,"data_offsets":[)" + std::to_string(at) + ',' + std::to_string(at + 8) + "]}";
    at += 8;
  }
  json += '}';
  std::string out(8, '\0');
  const std::uint64_t n = json.size();
  std::memcpy(out.data(), &n, 8);
  return out + json + std::string(at, '\0');
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const std::string bytes = tensors();
  static const auto file = lora::io::safetensors::parse({reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()}, "tensors");
  try {
    lora::io::peft_adapter out;
    out.config = lora::io::peft_config::parse({reinterpret_cast<const std::byte*>(data), size}, "fuzz");
    require(out.config.rank >= 1);
    lora::detail::assemble_peft(out, file, "fuzz");
    require(out.adapter.modules.size() == 2);
    for (const auto& m : out.adapter.modules) require(std::isfinite(m.weights.scale));
    require(out.report.unused_patterns.size() <= out.config.rank_pattern.size() + out.config.alpha_pattern.size());
  } catch (const lora::io_error& e) {
    require(e.what()[0] == '\'');
  }
  return 0;
}
