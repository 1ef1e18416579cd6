// SPDX-License-Identifier: Apache-2.0
//
// Any bytes as an adapter of the JSON protocol: refused by io_error or value_error, or one module whose numbers are finite and as many as
// its dimensions say.
#include <lora/io/json_adapter.hpp>

#include <cstdlib>

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const auto j = lora::io::json_adapter::parse({reinterpret_cast<const std::byte*>(data), size}, "fuzz", {"m"});
    require(j.adapter.modules.size() == 1);
    const lora::low_rank& w = j.adapter.modules[0].weights;
    require(w.a.extent(0) == w.b.extent(1) && std::isfinite(w.scale));
    for (const lora::any_view* v : {&w.a, &w.b})
      for (lora::index_t i = 0; i < v->size(); ++i) require(std::isfinite(static_cast<const float*>(v->data())[i]));
    require(static_cast<std::size_t>(w.a.size() + w.b.size()) <= size);
  } catch (const lora::io_error& e) {
    require(e.what()[0] == '\'');
  }
  return 0;
}
