// SPDX-License-Identifier: Apache-2.0
//
// Any bytes as a kohya file over a small contract, and as a diffusers file: refused by io_error, or modules that fit together and whose
// elements can all be read.
#include <lora/io/diffusers.hpp>
#include <lora/io/kohya.hpp>

#include <cstdlib>

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

void look(const lora::adapter& a) {
  require(!a.modules.empty());
  for (const auto& m : a.modules) {
    require(!m.name.empty() && std::isfinite(m.weights.scale) && m.weights.a.extent(0) == m.weights.b.extent(1));
    unsigned sum = 0;
    for (const lora::any_view* v : {&m.weights.a, &m.weights.b})
      for (std::size_t i = 0; i < v->size_bytes(); ++i) sum += static_cast<const unsigned char*>(v->data())[i];
    [[maybe_unused]] static volatile unsigned sink = 0;
    sink = sum;
  }
}

template <class Action>
void refused_or(Action&& action) {
  try {
    action();
  } catch (const lora::io_error& e) {
    require(e.what()[0] == '\'');
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const lora::model_contract model = [] {
    lora::model_contract m;
    for (const char* name : {"a", "a.b", "a_b", "unet.c", "text_encoder.d", "down_blocks.0.attentions.0.to_q", "mid_block.proj_in"})
      m.add(name, 5, 3);
    return m;
  }();
  refused_or([&] {
    const auto file = lora::io::safetensors::parse({reinterpret_cast<const std::byte*>(data), size}, "fuzz");
    refused_or([&] {
      lora::io::kohya_adapter k;
      lora::detail::assemble_kohya(k, file, model, {});
      look(k.adapter);
    });
    refused_or([&] {
      lora::io::diffusers_adapter d;
      lora::detail::assemble_diffusers(d, file, {});
      look(d.adapter);
    });
  });
  return 0;
}
