// SPDX-License-Identifier: Apache-2.0
//
// Any bytes as a .npy file, aligned and not: refused by io_error, or an array whose every byte can be read.
#include <lora/io/npy.hpp>

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
    const auto file = lora::io::npy::parse({memory.get() + shift, size}, "fuzz");
    const lora::any_view& v = file.view();
    require(v.is_aligned() && (v.is_contiguous(lora::order::C) || v.is_contiguous(lora::order::F)));
    unsigned sum = 0;
    for (std::size_t i = 0; i < v.size_bytes(); ++i) sum += static_cast<const unsigned char*>(v.data())[i];
    require(v.size_bytes() < size && (file.bytes_copied() == 0 || file.bytes_copied() == v.size_bytes()));
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
