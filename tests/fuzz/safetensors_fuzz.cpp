// SPDX-License-Identifier: Apache-2.0
//
// Any bytes as a safetensors file, aligned and not: refused by io_error, or a table whose every byte can be read and every name found.
#include <lora/io/contract.hpp>
#include <lora/io/safetensors.hpp>

#include <cstdlib>
#include <memory>

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

void read(const std::uint8_t* data, std::size_t size, std::size_t shift) {
  // A block of exactly this size, so that the sanitizer sees the first byte beyond.
  const std::unique_ptr<std::byte[]> memory(new std::byte[size + shift]);
  if (size != 0) std::memcpy(memory.get() + shift, data, size);
  try {
    const auto file = lora::io::safetensors::parse({memory.get() + shift, size}, "fuzz");
    unsigned sum = 0;
    std::size_t total = 0;
    for (const auto& t : file.tensors()) {
      const lora::any_view v = t.view();
      require(v.is_aligned() && v.size_bytes() == t.size_bytes() && file.find(t.name()) == &t);
      for (std::size_t i = 0; i < v.size_bytes(); ++i) sum += static_cast<const unsigned char*>(v.data())[i];
      total += t.size_bytes();
    }
    for (const auto& m : file.metadata()) sum += static_cast<unsigned>(m.key.size() + m.value.size());
    require(total < size && file.bytes_copied() <= total);
    require(lora::io::contract_of(file).size() <= file.tensors().size());
    [[maybe_unused]] static volatile unsigned sink = 0;
    sink = sum;
  } catch (const lora::io_error& e) {
    require(e.what()[0] == '\'');
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  read(data, size, 0);
  read(data, size, 1);
  return 0;
}
