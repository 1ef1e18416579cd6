// SPDX-License-Identifier: Apache-2.0
//
// Any bytes as the index of a sharded model: refused by io_error, or tensors in order, each once, each in a file beside the index.
#include <lora/io/sharded.hpp>

#include <cstdlib>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto require = [](bool condition) {
    if (!condition) std::abort();
  };
  try {
    const auto entries = lora::detail::parse_shard_index({reinterpret_cast<const std::byte*>(data), size}, "fuzz");
    require(!entries.empty());
    for (std::size_t i = 0; i < entries.size(); ++i) {
      require(i == 0 || entries[i - 1].tensor < entries[i].tensor);
      require(!entries[i].file.empty() && entries[i].file.find('/') == std::string::npos && entries[i].file != "..");
    }
  } catch (const lora::io_error& e) {
    require(e.what()[0] == '\'');
  }
  return 0;
}
