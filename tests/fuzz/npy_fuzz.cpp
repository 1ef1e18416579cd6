// SPDX-License-Identifier: Apache-2.0
//
// Any bytes as a .npy file, aligned and not, with and without swapping: refused by io_error, or an array whose every byte can be read; and
// what the writer makes of that array is accepted and is the same array.
#include <lora/io/detail/npy_layout.hpp>
#include <lora/io/npy.hpp>

#include <cstdlib>
#include <memory>

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

void require_round_trip(const lora::any_view& v) {
  std::string bytes;
  lora::detail::npy_layout(v, "fuzz").write([&](const void* p, std::size_t n) { bytes.append(static_cast<const char*>(p), n); });
  const auto again = lora::io::npy::parse({reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()}, "again");
  const lora::any_view& w = again.view();
  require(w.type() == v.type() && w.rank() == v.rank() && w.size_bytes() == v.size_bytes());
  for (std::size_t i = 0; i < v.rank(); ++i)
    require(w.extent(i) == v.extent(i) && (w.extent(i) < 2 || v.size() == 0 || w.stride(i) == v.stride(i)));
  require(v.size_bytes() == 0 || std::memcmp(w.data(), v.data(), v.size_bytes()) == 0);
}

void read(const std::uint8_t* data, std::size_t size, std::size_t shift, bool swap) {
  // A block of exactly this size, so that the sanitizer sees the first byte beyond.
  const std::unique_ptr<std::byte[]> memory(new std::byte[size + shift]);
  if (size != 0) std::memcpy(memory.get() + shift, data, size);
  try {
    const auto file = lora::io::npy::parse({memory.get() + shift, size}, "fuzz", {}, {.swap = swap});
    const lora::any_view& v = file.view();
    require(v.is_aligned() && (v.is_contiguous(lora::order::C) || v.is_contiguous(lora::order::F)));
    unsigned sum = 0;
    for (std::size_t i = 0; i < v.size_bytes(); ++i) sum += static_cast<const unsigned char*>(v.data())[i];
    require(v.size_bytes() < size && (file.bytes_copied() == 0 || file.bytes_copied() == v.size_bytes()));
    [[maybe_unused]] static volatile unsigned sink = 0;
    sink = sum;
    require_round_trip(v);
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
