// SPDX-License-Identifier: Apache-2.0
//
// Any bytes as a GGUF file, and as an adapter in one: refused by io_error, or a table whose every byte can be read and every name found.
#include <lora/core/bytes.hpp>
#include <lora/io/gguf_adapter.hpp>

#include <cstdlib>

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  // A block of exactly this size, aligned as a mapping is.
  lora::aligned_bytes memory(size);
  if (size != 0) std::memcpy(memory.data(), data, size);
  try {
    const auto file = lora::io::gguf::parse({static_cast<const std::byte*>(memory.data()), size}, "fuzz");
    unsigned sum = 0;
    std::size_t total = 0;
    for (const auto& v : file.values()) {
      require(file.find(v.key) == &v && v.offset < size);
      for (const char c : v.text) sum += static_cast<unsigned char>(c);
    }
    for (const auto& t : file.tensors()) {
      require(file.find_tensor(t.name) == &t && t.view.is_aligned());
      for (std::size_t i = 0; i < t.view.size_bytes(); ++i) sum += static_cast<const unsigned char*>(t.view.data())[i];
      total += t.view.size_bytes();
    }
    require(total < size);
    [[maybe_unused]] static volatile unsigned sink = 0;
    sink = sum;
    lora::io::gguf_adapter a;
    lora::detail::assemble_gguf(a, file, {});
    require(!a.adapter.modules.empty());
    for (const auto& m : a.adapter.modules) require(std::isfinite(m.weights.scale) && m.weights.a.extent(0) == m.weights.b.extent(1));
  } catch (const lora::io_error& e) {
    require(e.what()[0] == '\'');
  }
  return 0;
}
