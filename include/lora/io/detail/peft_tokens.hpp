// SPDX-License-Identifier: Apache-2.0
//
// detail: trainable_token_indices of adapter_config.json: a list of token indices, of the input embedding, or an object of such lists by the
// ends of modules' names. Takes the JSON events inside the field from peft_config's reader.
#ifndef LORA_IO_DETAIL_PEFT_TOKENS_HPP
#define LORA_IO_DETAIL_PEFT_TOKENS_HPP

#include <lora/nd/shape.hpp>

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lora::inline v0::io {

/** One list of trainable_token_indices: the rows of a table that were trained, in the order of the tensor's rows. */
struct peft_token_list {
  std::string module;  ///< the end of the module's name; empty: the field is one list, for the input embedding
  std::vector<index_t> indices;
};

}  // namespace lora::inline v0::io

namespace lora::inline v0::detail {

/** Each function gives what is wrong, to stand behind the field's name, or null. `depth` is 1 at the field's value. */
class peft_token_reader {
 public:
  explicit peft_token_reader(std::vector<io::peft_token_list>& out) noexcept : out_(out) {}

  void key(std::string& name) { key_ = std::move(name); }

  [[nodiscard]] const char* open(std::size_t depth, bool object) {
    if (depth == 1) by_module_ = object;
    if (depth > (by_module_ ? 2u : 1u) || (depth == 2 && object)) return "holds something else than lists of token indices";
    if (depth == 2 && key_.empty()) return "has an empty name of a module";
    if (depth == 2 || !object) out_.push_back({depth == 2 ? std::move(key_) : std::string(), {}});
    return nullptr;
  }

  [[nodiscard]] const char* scalar(std::size_t depth, bool natural, std::uint64_t value) {
    if (depth != (by_module_ ? 3u : 2u)) return "holds something else than lists of token indices";
    if (!natural || value > static_cast<std::uint64_t>(PTRDIFF_MAX)) return "holds a token index that is not a natural number";
    out_.back().indices.push_back(static_cast<index_t>(value));
    return nullptr;
  }

  /** At the end of the field. An empty list trains nothing, and PEFT cannot load it: it is dropped. */
  [[nodiscard]] const char* finish() {
    std::erase_if(out_, [](const io::peft_token_list& l) { return l.indices.empty(); });
    if (out_.size() > 64) return "names more than 64 modules";  // each is compared with each tensor's module
    for (const io::peft_token_list& l : out_) {
      std::vector<index_t> sorted = l.indices;
      std::sort(sorted.begin(), sorted.end());
      if (std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end()) return "holds a token index twice";
    }
    std::vector<std::string_view> names;
    for (const io::peft_token_list& l : out_) names.push_back(l.module);
    std::sort(names.begin(), names.end());
    return std::adjacent_find(names.begin(), names.end()) != names.end() ? "names a module twice" : nullptr;
  }

 private:
  std::vector<io::peft_token_list>& out_;
  std::string key_;
  bool by_module_ = false;
};

}  // namespace lora::inline v0::detail

#endif
