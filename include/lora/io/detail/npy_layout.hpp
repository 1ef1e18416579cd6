// SPDX-License-Identifier: Apache-2.0
//
// What a .npy file of an array consists of: the header's bytes, and the elements' bytes in the order that the header names. The bytes
// are those that NumPy 2 writes for the same array. Where they go is the caller's business. Not API.
#ifndef LORA_IO_DETAIL_NPY_LAYOUT_HPP
#define LORA_IO_DETAIL_NPY_LAYOUT_HPP

#include <lora/io/detail/elements.hpp>
#include <lora/io/detail/npy_header.hpp>

#include <string>

namespace lora::inline v0::detail {

class npy_layout {
 public:
  /** @throws dtype_error naming `path` and the dtype, when .npy has no name for it. */
  npy_layout(const any_view& v, std::string_view path)
      : view_(v), f_order_(!v.is_contiguous(order::C) && v.is_contiguous(order::F)), header_(make_header(path)) {}

  [[nodiscard]] const std::string& header() const noexcept { return header_; }
  /** Header and elements. */
  [[nodiscard]] std::size_t size_bytes() const noexcept { return header_.size() + view_.size_bytes(); }

  /**
   * Calls sink(pointer, bytes) for the header, then for the elements, in pieces. Runs that are contiguous in memory are passed as they
   * lie; others are gathered in 64 KiB, so that no copy of the whole is ever made.
   */
  template <class Sink>
  void write(Sink&& sink) const {
    sink(header_.data(), header_.size());
    write_elements(f_order_ ? view_.transpose() : view_, sink);  // F order is the C order of the transpose
  }

 private:
  [[nodiscard]] std::string make_header(std::string_view path) const {
    std::string_view name;
    for (const npy_type& t : npy_types)
      if (t.type == view_.type()) name = t.name;
    if (name.empty()) {
      text t;
      t << quote(path) << ": the .npy format has no type " << name_of(view_.type())
        << "; cast to one that it has (f2 f4 f8 i1 i2 i4 i8 u1 u2 u4 u8 b1 c8), or write safetensors";
      raise<dtype_error>(t);
    }
    std::string shape = "(";
    for (std::size_t i = 0; i < view_.rank(); ++i) {
      if (i != 0) shape += ' ';
      shape += std::to_string(view_.extent(i));
      if (i + 1 < view_.rank() || view_.rank() == 1) shape += ',';
    }
    std::string out = "{'descr': '";
    out += size_of(view_.type()) == 1 ? '|' : '<';
    out += name;
    out += f_order_ ? "', 'fortran_order': True, 'shape': " : "', 'fortran_order': False, 'shape': ";
    out += shape;
    out += "), }";
    // NumPy leaves room for the axis that appending would grow: 21 places less what its extent takes now.
    if (view_.rank() != 0) out.append(21 - std::to_string(view_.extent(f_order_ ? view_.rank() - 1 : 0)).size(), ' ');
    constexpr std::size_t before = 10;                     // magic, version 1.0, two bytes of length
    out.append(64 - (before + out.size() + 1) % 64, ' ');  // as NumPy does: 64 spaces, not none, where it is a multiple already
    out += '\n';
    // At most 8 extents of 19 digits: version 1.0, whose length has two bytes, always suffices.
    const auto length = static_cast<unsigned>(out.size());
    std::string prefix = "\x93NUMPY\x01";
    prefix += '\0';
    prefix += static_cast<char>(length & 0xff);
    prefix += static_cast<char>(length >> 8);
    return prefix + out;
  }

  any_view view_;
  bool f_order_;
  std::string header_;
};

}  // namespace lora::inline v0::detail

#endif
