// SPDX-License-Identifier: Apache-2.0
//
// load_gguf: a LoRA adapter as llama.cpp reads it: a GGUF file with pairs NAME.lora_a [rank, in] and NAME.lora_b [out, rank], where NAME is
// the base's tensor (blk.0.attn_q.weight), and one alpha for all of them.
//
//   auto loaded = lora::io::load_gguf("adapter.gguf", {.architecture = "llama"});
//   for (const auto& m : loaded.adapter.modules) use(m.name, m.weights);              // "blk.0.attn_q"
//
// Modules have llama.cpp's names, so the base's contract must too: that of a GGUF base, or one that the program makes. This is not only a
// matter of names: llama.cpp's converter permutes the rows of q and k of Llama-like models, in bases and adapters alike, so that an
// adapter from here over weights from a safetensors base of another layout would be wrong, not just misnamed.
//
// The scale is alpha / rank; without an alpha, or when it is 0, it is 1: llama.cpp's rule. Refused by name: another general.type or
// adapter.type, another architecture than the one asked for, quantised tensors, aLoRA, adapters of token_embd (stored the other way
// round), tensors that are no pair, keys "adapter.*" that are not known.
#ifndef LORA_IO_GGUF_ADAPTER_HPP
#define LORA_IO_GGUF_ADAPTER_HPP

#include <lora/core/bytes.hpp>
#include <lora/io/detail/factors.hpp>
#include <lora/io/gguf.hpp>
#include <lora/io/placement.hpp>

namespace lora::inline v0::io {

struct gguf_options {
  std::string architecture{};  ///< what general.architecture must be; empty: anything
  bool prefault = false;       ///< read the tensors from disk now instead of when they are first used
  /** As that of peft_options; a copy is of the whole file, whose tensors keep the alignment that the file gives them. */
  io::placement placement = io::placement::mapping;
};

struct gguf_adapter {
  lora::adapter adapter;     ///< in the order of the lora_a tensors in the file; `owner` keeps the mapping, or the copy
  std::string architecture;  ///< "llama", "qwen2", ...
  double alpha = 0;          ///< 0 when the file has none
  std::size_t bytes_copied = 0;
};

}  // namespace lora::inline v0::io

namespace lora::inline v0::detail {

inline constexpr std::string_view gguf_a = ".weight.lora_a";
inline constexpr std::string_view gguf_b = ".weight.lora_b";

[[nodiscard]] inline std::string_view gguf_text(const io::gguf& file, std::string_view key) {
  const io::gguf::value* const v = file.find(key);
  if (v == nullptr) raise<io_error>(text() << quote(file.path()) << ": there is no key " << quote(key) << ": it is no adapter");
  if (v->type != io::gguf_type::string)
    refuse_at(text() << quote(file.path()) << ": the key " << quote(key) << " is not a string", v->offset);
  return v->text;
}

inline void require_gguf_text(const io::gguf& file, std::string_view key, std::string_view wanted) {
  const std::string_view have = gguf_text(file, key);
  if (have != wanted)
    refuse_at(text() << quote(file.path()) << ": " << quote(key) << " is " << quote(have) << ", not " << quote(wanted),
              file.find(key)->offset);
}

inline void assemble_gguf(io::gguf_adapter& out, const io::gguf& file, const io::gguf_options& options) {
  require_gguf_text(file, "general.type", "adapter");
  require_gguf_text(file, "adapter.type", "lora");
  out.architecture = gguf_text(file, "general.architecture");
  if (!options.architecture.empty()) require_gguf_text(file, "general.architecture", options.architecture);
  for (const io::gguf::value& v : file.values()) {
    if (!v.key.starts_with("adapter.") || v.key == "adapter.type" || v.key == "adapter.lora.task_name" ||
        v.key == "adapter.lora.prompt_prefix")
      continue;
    const auto about = [&] { return text() << quote(file.path()) << ": the key " << quote(v.key) << " "; };
    if (v.key == "adapter.alora.invocation_tokens")
      refuse_at(about() << "makes it an activated LoRA, which applies to some rows only and is not supported", v.offset);
    if (v.key != "adapter.lora.alpha") refuse_at(about() << "is not known: it may change what the adapter computes", v.offset);
    if (v.type != io::gguf_type::f32 || !std::isfinite(v.number)) refuse_at(about() << "is not a finite f32", v.offset);
    out.alpha = v.number;
  }
  const auto partner = [&](std::string_view module, std::string_view suffix) {
    return file.find_tensor(std::string(module).append(suffix));
  };
  for (const io::gguf::tensor& t : file.tensors()) {
    const file_tensor a{t.name, t.view, t.offset};
    const auto module_in = [&](std::string_view suffix) {
      return t.name.size() > suffix.size() && t.name.ends_with(suffix) ? t.name.substr(0, t.name.size() - suffix.size())
                                                                       : std::string_view();
    };
    const std::string_view module = module_in(gguf_a);
    if (module.empty()) {
      const std::string_view of_b = module_in(gguf_b);
      if (of_b.empty()) refuse_tensor(file.path(), a, text() << "ends neither in .weight.lora_a nor in .weight.lora_b");
      if (partner(of_b, gguf_a) == nullptr) refuse_tensor(file.path(), a, text() << "has no lora_a beside it");
      continue;
    }
    if (module == "token_embd") refuse_tensor(file.path(), a, text() << "adapts an embedding, which is not supported");
    const io::gguf::tensor* const b = partner(module, gguf_b);
    if (b == nullptr) refuse_tensor(file.path(), a, text() << "has no lora_b beside it");
    const index_t rank = checked_rank(file.path(), a, {b->name, b->view, b->offset});
    const float scale = out.alpha == 0.0 ? 1.0f : checked_scale(file.path(), module, out.alpha, rank);
    out.adapter.modules.push_back({std::string(module), {t.view, b->view, scale}});
  }
  if (out.adapter.modules.empty()) raise<io_error>(text() << quote(file.path()) << ": the adapter adapts no module");
}

}  // namespace lora::inline v0::detail

namespace lora::inline v0::io {

/**
 * Loads one file.
 *
 * @throws io_error with one sentence that names the file, the key or tensor and its offset.
 * @par Cost   The header is read; tensors stay in the mapping, or are copied with the file (see gguf_adapter::bytes_copied).
 * @par Threads   Safe beside anything.
 */
[[nodiscard]] inline gguf_adapter load_gguf(const std::string& path, const gguf_options& options = {}) {
  auto mapping = std::make_shared<const mapped_file>(mapped_file::open(path));
  std::shared_ptr<const void> owner = mapping;
  std::span<const std::byte> bytes = mapping->bytes();
  gguf_adapter out;
  const bool copied = options.placement == placement::huge_pages && !bytes.empty();
  if (copied) {
    mapping->prefault();
    aligned_bytes block(bytes.size());
    std::memcpy(block.data(), bytes.data(), bytes.size());
    auto copy = std::make_shared<const aligned_bytes>(std::move(block));
    bytes = {static_cast<const std::byte*>(copy->data()), bytes.size()};
    out.bytes_copied = bytes.size();
    owner = std::move(copy);
    mapping.reset();
  }
  const gguf file = gguf::parse(bytes, path, owner);
  detail::assemble_gguf(out, file, options);
  if (options.prefault && mapping != nullptr) mapping->prefault();
  out.adapter.source = path;
  out.adapter.owner = std::move(owner);
  return out;
}

}  // namespace lora::inline v0::io

#endif
