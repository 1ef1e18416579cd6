// SPDX-License-Identifier: Apache-2.0
//
// Any names, types and shapes of tensors beside one of several configurations, bound to a base that has a module of every kind: refused by an
// error of the library with a sentence, or an adapter whose every element can be read. The input is text, so that mutations stay close to files:
//
//   <digit of the configuration>
//   <type f|h|b|i> <extent>x<extent>... <name>           a tensor, filled with small numbers; further lines likewise
#include <lora/adapter/adapter_set.hpp>
#include <lora/adapter/bind.hpp>
#include <lora/io/contract.hpp>
#include <lora/io/peft.hpp>

#include <nlohmann/json.hpp>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

struct described {
  std::string name;
  char type = 'f';
  std::vector<std::size_t> shape;
};

constexpr std::size_t most_elements = 4096;

/** The tensor of a line; false where it is none. */
bool read_line(std::string_view line, described& out) {
  if (line.size() < 4 || line[1] != ' ') return false;
  out = {};
  out.type = line[0];
  std::size_t at = 2;
  std::size_t elements = 1;
  for (;;) {
    std::size_t extent = 0;
    for (; at < line.size() && line[at] >= '0' && line[at] <= '9'; ++at) {
      extent = extent * 10 + static_cast<std::size_t>(line[at] - '0');
      if (extent > most_elements) return false;
    }
    if (out.shape.size() > 5) return false;
    elements *= extent;
    if (elements > most_elements) return false;
    out.shape.push_back(extent);
    if (at >= line.size() || line[at] != 'x') break;
    ++at;
  }
  if (at >= line.size() || line[at] != ' ') return false;
  out.name = std::string(line.substr(at + 1));
  for (const char c : out.name)
    if (c < ' ' || c > '~') return false;
  return !out.name.empty() && out.name.size() < 200;
}

/** The bytes of a safetensors file of these, which may have names twice. */
std::string file_of(const std::vector<described>& tensors) {
  std::string header = "{";
  std::string data;
  for (const described& t : tensors) {
    const bool wide = t.type == 'f' || t.type == 'i';
    const char* const dtype = t.type == 'f' ? "F32" : t.type == 'h' ? "F16" : t.type == 'b' ? "BF16" : "I32";
    std::size_t elements = 1;
    for (const std::size_t n : t.shape) elements *= n;
    const std::size_t begin = data.size();
    for (std::size_t i = 0; i < elements; ++i)
      data += wide ? std::string("\0\0\x20\x3e", 4) : std::string("\x20\x3e", 2);  // 0.16 as a float
    header += (header.size() == 1 ? "" : ",") + nlohmann::json(t.name).dump() + ":{\"dtype\":\"" + dtype +
              "\",\"shape\":" + nlohmann::json(t.shape).dump() + ",\"data_offsets\":[" + std::to_string(begin) + "," +
              std::to_string(data.size()) + "]}";
  }
  header += "}";
  while (header.size() % 8 != 0) header += ' ';
  std::string out(8, '\0');
  const std::uint64_t n = header.size();
  std::memcpy(out.data(), &n, 8);
  return out + header + data;
}

lora::io::safetensors parsed(const std::string& bytes, const char* name) {
  return lora::io::safetensors::parse({reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()}, name);
}

const char* const configurations[] = {
    R"({"peft_type":"LORA","r":2,"lora_alpha":4})",
    R"({"peft_type":"LORA","r":2,"lora_alpha":4,"use_dora":true})",
    R"({"peft_type":"LORA","r":2,"lora_alpha":4,"lora_bias":true})",
    R"({"peft_type":"LORA","r":2,"lora_alpha":4,"bias":"all","fan_in_fan_out":true})",
    R"({"peft_type":"LORA","r":2,"lora_alpha":4,"modules_to_save":["head","cls"]})",
    R"({"peft_type":"LORA","r":2,"lora_alpha":4,"trainable_token_indices":{"e":[1,3]}})",
    R"({"peft_type":"LORA","r":2,"lora_alpha":4,"target_parameters":["mlp.up","mlp.down"]})",
    R"({"peft_type":"LORA","r":2,"lora_alpha":4,"use_rslora":true,"rank_pattern":{"q":3},"bias":"lora_only"})",
};

const std::string& base_bytes() {
  static const std::string bytes = file_of({{"q.weight", 'f', {4, 6}},
                                            {"q.bias", 'f', {4}},
                                            {"s.weight", 'h', {4, 4}},
                                            {"e.weight", 'b', {7, 4}},
                                            {"head.weight", 'f', {7, 4}},
                                            {"conv.weight", 'f', {3, 2, 3, 1}},
                                            {"cls.weight", 'f', {3, 2, 3, 1}},
                                            {"mlp.up", 'f', {2, 4, 6}},
                                            {"mlp.down", 'f', {2, 6, 4}},
                                            {"norm.weight", 'f', {4}},
                                            {"norm.bias", 'f', {4}}});
  return bytes;
}

/** Reads every element: what lies outside its tensor, a sanitizer sees. */
void touch(const lora::any_view& v) {
  double sum = 0;
  const auto add = [&](auto m) {
    for (lora::index_t i = 0; i < m.extent(0); ++i) sum += static_cast<double>(static_cast<float>(m[i]));
  };
  const auto add_rows = [&](auto m) {
    for (lora::index_t i = 0; i < m.extent(0); ++i)
      for (lora::index_t j = 0; j < m.extent(1); ++j) sum += static_cast<double>(static_cast<float>(m(i, j)));
  };
  if (v.rank() == 1 && v.size() != 0) lora::dispatch<1, float, lora::float16, lora::bfloat16>(v, add);
  if (v.rank() == 2 && v.size() != 0) lora::dispatch<2, float, lora::float16, lora::bfloat16>(v, add_rows);
  require(sum == sum);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0 || size > 4096) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto which = static_cast<std::size_t>(data[0]) % std::size(configurations);
  std::vector<described> tensors;
  for (std::size_t at = text.find('\n'); at != std::string_view::npos && tensors.size() < 24;) {
    const std::size_t end = text.find('\n', at + 1);
    described t;
    if (read_line(text.substr(at + 1, end == std::string_view::npos ? end : end - at - 1), t)) tensors.push_back(std::move(t));
    at = end;
  }
  const std::string bytes = file_of(tensors);
  try {
    const std::string json = configurations[which];
    lora::io::peft_adapter out;
    out.config = lora::io::peft_config::parse({reinterpret_cast<const std::byte*>(json.data()), json.size()}, "config");
    const lora::io::safetensors file = parsed(bytes, "fuzz");
    lora::detail::assemble_peft(out, file, "config", {"up", "down"});
    for (const lora::adapted_module& m : out.adapter.modules) {
      touch(m.weights.a);
      touch(m.weights.b);
      touch(m.weights.bias);
      touch(m.weights.trained_bias);
    }
    static const lora::io::safetensors base = parsed(base_bytes(), "base");
    const lora::model_contract model = lora::io::contract_of(base, out.adapter);
    const std::vector<lora::float_view<2>> weights = lora::io::weights_of(base, model);
    const lora::adapter_set set(model, {lora::bind(out.adapter, model)}, weights);
    for (std::size_t i = 0; i < model.size(); ++i) {
      const lora::low_rank_update update = set[i];
      for (const lora::low_rank_term& t : update.terms)
        require(t.a.extent(0) == t.b.extent(1) && t.a.extent(1) == model[i].in && t.b.extent(0) == model[i].out);
      require(update.bias.empty() || update.bias.size() == static_cast<std::size_t>(model[i].out));
      require(update.row_factor.empty() || update.row_factor.size() == static_cast<std::size_t>(model[i].out));
    }
  } catch (const lora::error& e) {
    require(e.what()[0] != '\0');
  }
  return 0;
}
