// SPDX-License-Identifier: Apache-2.0
//
// placement: where the elements of a file's tensors are once it is open. An option of every reader that maps files.
//
//   auto base = lora::io::safetensors::open("model.safetensors", {.placement = lora::io::placement::huge_pages});
//   auto style = lora::io::load_gguf("style.gguf", {.placement = lora::io::placement::huge_pages});
#ifndef LORA_IO_PLACEMENT_HPP
#define LORA_IO_PLACEMENT_HPP

#include <lora/config.hpp>

namespace lora::inline v0::io {

/** Where the elements of a file's tensors are once it is open. Which to take, measured: docs/memory.md. */
enum class placement : unsigned char {
  mapping,     ///< in the mapped file: nothing is read before it is used, and processes share the pages, which are of 4 KiB
  huge_pages,  ///< in a copy of this process's own, which asks for pages of 2 MiB; every tensor begins on a cache line
};

}  // namespace lora::inline v0::io

#endif
