// SPDX-License-Identifier: Apache-2.0
//
// model_contract: what a base model promises to its adapters: the linear modules by name, with their shapes. An adapter is checked
// against it once; after that modules are known by their index in it and no name is looked up.
//
//   lora::model_contract model;
//   const std::size_t fc1 = model.add("fc1", 256, 64);    // name, out, in
#ifndef LORA_ADAPTER_CONTRACT_HPP
#define LORA_ADAPTER_CONTRACT_HPP

#include <lora/core/content_hash.hpp>
#include <lora/core/error.hpp>
#include <lora/nd/shape.hpp>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace lora::inline v0 {

/** How the elements of a weight lie in the base's file. */
enum class weight_layout : unsigned char {
  out_in,  ///< [out, in], row by row: torch's Linear
  in_out,  ///< [in, out]: GPT-2's Conv1D, PEFT's fan_in_fan_out; used in place through a transposed view
};

/** What a module does with its weight. Its matrix is [out, in] in each case, so that one set of formulas holds for all. */
enum class module_kind : unsigned char {
  linear,     ///< y = W x
  embedding,  ///< y = W e_id: in = tokens, out = width; the file holds [tokens, width], which is weight_layout::in_out
  conv2d,     ///< y = W patch: in = channels x kernel height x kernel width, in the order of the file's [out, channels, height, width]
};

/** A module of the base: matrix [out, in], whichever way it lies. */
struct module_contract {
  std::string name;
  index_t out = 0;
  index_t in = 0;
  weight_layout layout = weight_layout::out_in;
  module_kind kind = module_kind::linear;
  index_t kernel[2] = {1, 1};  ///< height and width, of conv2d
  std::string tensor{};        ///< that holds the weight, when it is not `<name>.weight`: a tied lm_head, a fused projection
  index_t first_row = 0;       ///< of the whole matrix [rows, in], when the module is a part of a fused one
  index_t matrix = 0;          ///< of a tensor with three axes, which holds one for each expert
};

/** The name of the tensor that holds the weight, in the base's file. Modules of one tensor are tied. @throws std::bad_alloc. */
[[nodiscard]] inline std::string weight_name(const module_contract& m) { return m.tensor.empty() ? m.name + ".weight" : m.tensor; }

class model_contract {
 public:
  static constexpr std::size_t not_found = static_cast<std::size_t>(-1);

  /** Adds a module and gives its index. @throws value_error when the name is taken; shape_error when an extent is negative. */
  std::size_t add(std::string name, index_t out, index_t in, weight_layout layout = weight_layout::out_in) {
    return add(module_contract{std::move(name), out, in, layout});
  }
  /**
   * The same with all that can be said of a module: what kind it is, and which tensor holds it. @throws shape_error also when first_row or
   * matrix is negative, or first_row + out does not fit an index.
   */
  std::size_t add(module_contract m) {
    if (m.out < 0 || m.in < 0)
      detail::raise<shape_error>(detail::text() << "module " << detail::quote(m.name) << ": extents must not be negative");
    if (m.first_row < 0 || m.matrix < 0 || m.first_row > PTRDIFF_MAX - m.out)
      detail::raise<shape_error>(detail::text() << "module " << detail::quote(m.name) << ": " << m.out << " rows from row " << m.first_row
                                                << " of matrix " << m.matrix << " on are no part of a tensor");
    const std::size_t at = lower_bound(m.name);
    if (at < by_name_.size() && modules_[by_name_[at]].name == m.name)
      detail::raise<value_error>(detail::text() << "module " << detail::quote(m.name) << " is already in the contract");
    const std::size_t index = modules_.size();
    if (by_name_.capacity() == index) by_name_.reserve(2 * index + 8);  // so that nothing can fail between the two insertions
    modules_.push_back(std::move(m));
    by_name_.insert(by_name_.begin() + static_cast<std::ptrdiff_t>(at), index);
    return index;
  }

  /** Which base this is. Adapters that say another one are refused by bind(); all zero (the default): not known, nothing is compared. */
  void set_identity(const content_hash& hash) noexcept { identity_ = hash; }
  [[nodiscard]] const content_hash& identity() const noexcept { return identity_; }

  [[nodiscard]] std::size_t size() const noexcept { return modules_.size(); }
  [[nodiscard]] const module_contract& operator[](std::size_t index) const noexcept { return modules_[index]; }

  /** Index of a module, or not_found. @par Cost  O(log size) comparisons of names. */
  [[nodiscard]] std::size_t find(std::string_view name) const noexcept {
    const std::size_t at = lower_bound(name);
    return at < by_name_.size() && modules_[by_name_[at]].name == name ? by_name_[at] : not_found;
  }

 private:
  [[nodiscard]] std::size_t lower_bound(std::string_view name) const noexcept {
    std::size_t low = 0;
    std::size_t high = by_name_.size();
    while (low < high) {
      const std::size_t middle = low + (high - low) / 2;
      if (std::string_view(modules_[by_name_[middle]].name) < name)
        low = middle + 1;
      else
        high = middle;
    }
    return low;
  }

  content_hash identity_{};
  std::vector<module_contract> modules_;
  std::vector<std::size_t> by_name_;  // indices into modules_, sorted by name; a hash table would cost each includer its header
};

}  // namespace lora::inline v0

#endif
