// SPDX-License-Identifier: Apache-2.0
//
// Any bytes as an .npz archive, with and without swapping, aligned and not: refused by io_error, or arrays whose every byte can be read.
// What is accepted has unique names, and stays within the limit on what it may inflate to.
#include <lora/io/npz.hpp>

#include <cstdlib>
#include <memory>

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

void read(const std::uint8_t* data, std::size_t size, std::size_t shift, bool swap) {
  // A block of exactly this size, so that the sanitizer sees the first byte beyond.
  const std::unique_ptr<std::byte[]> memory(new std::byte[size + shift]);
  if (size != 0) std::memcpy(memory.get() + shift, data, size);
  constexpr std::size_t limit = std::size_t{1} << 20;
  try {
    const auto file = lora::io::npz::parse({memory.get() + shift, size}, "fuzz", {}, {.swap = swap, .inflate_limit = limit});
    unsigned sum = 0;
    std::size_t inflated = 0;
    for (const auto& m : file.members()) {
      require(file.find(m.name()) == &m && m.view().is_aligned());
      for (std::size_t i = 0; i < m.view().size_bytes(); ++i) sum += static_cast<const unsigned char*>(m.view().data())[i];
      inflated += m.deflated() ? m.view().size_bytes() : 0;
    }
    require(inflated <= limit);
    [[maybe_unused]] static volatile unsigned sink = 0;
    sink = sum;
    file.verify();
  } catch (const lora::io_error& e) {
    require(e.what()[0] == '\'');
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  read(data, size, 0, false);
  read(data, size, 1, true);
  return 0;
}
