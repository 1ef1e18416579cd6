// SPDX-License-Identifier: Apache-2.0
//
// Quick start: load a pretrained digit classifier, infer, argmax. Then the same digit turned by 90 degrees, which the base model cannot
// read, and an adapter that teaches it to. Usage: quickstart [DIR], from the source root or with the folder of the digits as argument.
#include <lora/io/contract.hpp>
#include <lora/io/npy.hpp>
#include <lora/io/peft.hpp>
#include <lora/lora.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <string>
#include <utility>

using image = lora::ndview<const std::uint8_t, 2>;  // [8, 8], pixels from 0 to 16

/** Three layers with a relu between them. `adapters` is what is added to the weights; the weights stay as they are. */
std::ptrdiff_t classify(const std::array<lora::linear, 3>& layers, const lora::adapter_set& adapters, image pixels) {
  const auto to_input = [](std::uint8_t pixel) { return static_cast<float>(pixel) / 16; };
  const auto relu = [](float v) { return std::max(v, 0.0f); };
  lora::workspace scratch;
  auto x = lora::uninit<float>(1, 64);  // a batch of one
  lora::apply(lora::reshape(x, 8, 8), to_input, pixels);
  for (std::size_t i = 0; i < layers.size(); ++i) {
    auto y = lora::uninit<float>(1, layers[i].out());
    layers[i].forward(y, x, adapters[i], scratch);
    if (i + 1 < layers.size()) lora::apply(y, relu, y);
    x = std::move(y);
  }
  return std::max_element(x.data(), x.data() + x.size()) - x.data();
}

void draw(image pixels) {
  for (lora::index_t row = 0; row < 8; ++row, std::putchar('\n'))
    for (lora::index_t column = 0; column < 8; ++column) {
      const char ink = ".:-=+*#%@"[pixels(row, column) / 2];
      std::printf("%c%c", ink, ink);  // a character is half as wide as it is high
    }
}

int main(int argc, char** argv) try {
  const std::string data = argc > 1 ? argv[1] : "examples/data/digits";

  const auto file = lora::io::safetensors::open(data + "/base.safetensors");  // mapped: nothing is copied, here or below
  const auto model = lora::io::contract_of(file);                             // its linear layers: fc1, fc2, fc3
  std::array<lora::linear, 3> layers;
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const auto& name = model[i].name;
    layers[i] = lora::linear(file[name + ".weight"].as<const float, 2>(), file[name + ".bias"].as<const float, 1>());
  }
  const auto peft = lora::io::load_peft(data + "/adapter_v2");  // as PEFT saved it
  const lora::adapter_set base(model);
  const lora::adapter_set adapted(model, {lora::bind(peft.adapter, model)});  // bind checks it against the model

  const auto images = lora::io::npy::open(data + "/test_images.npy");
  const image upright = images.view().as<const std::uint8_t, 3>()(3, lora::ellipsis);
  const image turned = upright.transpose()(lora::range(lora::_, lora::_, -1), lora::all);  // a view: turned(r, c) is upright(c, 7 - r)

  draw(upright);
  std::printf("the base model reads: %td\n\n", classify(layers, base, upright));
  draw(turned);
  std::printf("the base model reads: %td\n", classify(layers, base, turned));
  std::printf("base and adapter read: %td\n", classify(layers, adapted, turned));
} catch (const std::exception& e) {
  std::fprintf(stderr, "quickstart: %s\nRun it from the source root, or give the folder of the digits: quickstart DIR\n", e.what());
  return 1;
}
