// SPDX-License-Identifier: Apache-2.0
//
// write FOLDER: one adapter in every format that is written, for check.py to read with the formats' own libraries. The numbers follow a
// rule that both sides know: element k of A (of B) of module m is ((7 k + 3 m) mod 23 - 11) / 8, which every type holds exactly.
#include <lora/io/gguf_adapter_writer.hpp>
#include <lora/io/json_adapter_writer.hpp>
#include <lora/io/kohya_writer.hpp>
#include <lora/io/peft_writer.hpp>
#include <lora/nd/array.hpp>

#include <cstdio>

namespace {

template <class T>
lora::ndarray<T, 2> made(lora::index_t rows, lora::index_t columns, lora::index_t module) {
  auto a = lora::uninit<T>(rows, columns);
  for (lora::index_t k = 0; k < a.size(); ++k) a.data()[k] = T(static_cast<float>((7 * k + 3 * module) % 23 - 11) / 8);
  return a;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const std::string folder = argv[1];
  auto a0 = made<float>(4, 12, 0);
  auto b0 = made<float>(20, 4, 0);
  auto a1 = made<lora::float16>(3, 12, 1);
  auto b1 = made<lora::float16>(7, 3, 1);
  auto a2 = made<lora::bfloat16>(2, 20, 2);
  auto b2 = made<lora::bfloat16>(2, 5, 2);  // written as its transpose, [5, 2]: a view with gaps
  lora::adapter adapter;
  adapter.modules.push_back({"model.layers.0.q_proj", {a0, b0, lora::scale_for(6, 4)}});
  adapter.modules.push_back({"model.layers.1.v_proj", {a1, b1, lora::scale_for(6, 3)}});
  adapter.modules.push_back({"lm.head", {a2, lora::any_view(b2).transpose(), lora::scale_for(6, 2)}});
  lora::io::save_gguf(folder + "/adapter.gguf", adapter, {"llama", "made"});
  adapter.modules[1].weights.scale = lora::scale_for(0.1, 3);
  lora::io::save_kohya(folder + "/kohya.safetensors", adapter);
  lora::io::save_peft(folder + "/peft", adapter, {"tiny", ""});
  adapter.modules.resize(1);
  lora::io::save_json(folder + "/adapter.json", adapter);
  std::puts("written");
}
