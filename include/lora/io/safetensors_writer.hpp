// SPDX-License-Identifier: Apache-2.0
//
// save_safetensors: named arrays as a .safetensors file, byte for byte what the reference's writer (safetensors 0.8) makes of them.
//
//   lora::io::save_safetensors("out.safetensors", {{"fc1.weight", w}, {"fc1.bias", bias}}, {{"format", "pt"}});
//
// Tensors lie sorted by type (the widest first) and name, so that each is aligned for its elements; equal arguments give equal bytes in
// any order of the list. The file appears whole under its name or not at all.
#ifndef LORA_IO_SAFETENSORS_WRITER_HPP
#define LORA_IO_SAFETENSORS_WRITER_HPP

#include <lora/core/checked.hpp>
#include <lora/io/detail/atomic_file.hpp>
#include <lora/io/detail/elements.hpp>
#include <lora/io/detail/json_writer.hpp>

#include <algorithm>
#include <vector>

namespace lora::inline v0::io {

/** An array and the name it is saved under. */
struct named_view {
  std::string name;
  any_view view;
};

struct metadata_pair {
  std::string key;
  std::string value;
};

}  // namespace lora::inline v0::io

namespace lora::inline v0::detail {

[[noreturn, gnu::cold, gnu::noinline]] inline void raise_unwritable(const std::string& path, const io::named_view& t, const char* problem) {
  raise<value_error>(text() << "save_safetensors: " << quote(path) << ": tensor " << quote(t.name) << ": " << problem);
}

/** Length and JSON, padded with spaces to a multiple of 8. Sorts both lists. */
[[nodiscard]] inline std::string safetensors_header_text(const std::string& path, std::vector<io::named_view>& tensors,
                                                         std::vector<io::metadata_pair>& metadata) {
  std::sort(metadata.begin(), metadata.end(), [](const auto& x, const auto& y) { return x.key < y.key; });
  std::sort(tensors.begin(), tensors.end(),
            [](const auto& x, const auto& y) { return x.view.type() != y.view.type() ? x.view.type() > y.view.type() : x.name < y.name; });
  std::string out(8, '\0');
  out += '{';
  for (std::size_t i = 0; i < metadata.size(); ++i) {
    if (!is_utf8(metadata[i].key) || !is_utf8(metadata[i].value) || (i != 0 && metadata[i].key == metadata[i - 1].key))
      raise<value_error>(text() << "save_safetensors: " << quote(path) << ": the metadata key " << quote(metadata[i].key)
                                << " is not UTF-8, like its value, or occurs twice");
    out += i == 0 ? "\"__metadata__\":{" : ",";
    append_string(out, metadata[i].key);
    out += ':';
    append_string(out, metadata[i].value);
  }
  if (!metadata.empty()) out += '}';
  bool first = metadata.empty();
  std::vector<std::string_view> names;
  std::uint64_t offset = 0;
  for (const io::named_view& t : tensors) {
    if (t.name == "__metadata__" || t.name.find('\0') != std::string::npos || !is_utf8(t.name))
      raise_unwritable(path, t, "a tensor cannot have this name");
    const std::size_t size = t.view.size_bytes();
    if (size_of(t.view.type()) == 0 && !t.view.is_contiguous()) raise_unwritable(path, t, "its packed elements have gaps between them");
    if (size_of(t.view.type()) == 0 && static_cast<std::uint64_t>(t.view.size()) % 8 * bits_of(t.view.type()) % 8 != 0)
      raise_unwritable(path, t, "its packed elements do not fill whole bytes");
    names.push_back(t.name);
    if (!first) out += ',';
    first = false;
    append_string(out, t.name);
    out += ":{\"dtype\":\"";
    out += info_of(t.view.type()).safetensors_name;
    out += "\",\"shape\":[";
    for (std::size_t i = 0; i < t.view.rank(); ++i) {
      if (i != 0) out += ',';
      append_number(out, t.view.extent(i));
    }
    out += "],\"data_offsets\":[";
    append_number(out, offset);
    out += ',';
    if (!checked_add(offset, std::uint64_t{size}, offset)) raise_unwritable(path, t, "the file would not fit the address space");
    append_number(out, offset);
    out += "]}";
  }
  std::sort(names.begin(), names.end());
  for (std::size_t i = 1; i < names.size(); ++i)
    if (names[i] == names[i - 1])
      raise<value_error>(text() << "save_safetensors: " << quote(path) << ": the name " << quote(names[i]) << " occurs twice");
  out += '}';
  out.append((8 - out.size() % 8) % 8, ' ');
  const std::uint64_t length = out.size() - 8;
  if (length > 100'000'000)
    raise<value_error>(text() << "save_safetensors: " << quote(path) << ": the header would have " << length
                              << " bytes; readers take at most 100000000");
  std::memcpy(out.data(), &length, sizeof length);
  return out;
}

/** A checked file in waiting: all that can be refused is refused when it is made, before there is anything on the disk. */
class safetensors_layout {
 public:
  safetensors_layout(const std::string& path, std::vector<io::named_view> tensors, std::vector<io::metadata_pair> metadata)
      : tensors_(std::move(tensors)), header_(safetensors_header_text(path, tensors_, metadata)) {}

  void write(atomic_file& file) const {
    file.write(header_.data(), header_.size());
    for (const io::named_view& t : tensors_) write_elements(t.view, [&](const void* data, std::size_t size) { file.write(data, size); });
  }

 private:
  std::vector<io::named_view> tensors_;
  std::string header_;
};

}  // namespace lora::inline v0::detail

namespace lora::inline v0::io {

/**
 * Writes all tensors, of any of the 22 types and any strides, in C order.
 *
 * @throws value_error naming path and tensor, when a name occurs twice, is no UTF-8 or is "__metadata__", or when 4- or 6-bit elements
 *         have gaps; io_error naming the path and the system's words. The old file, if any, is then still there.
 * @par Cost     One write of the elements, and two fsync. Memory: the header, and 64 KiB for arrays with gaps.
 * @par Threads  The elements are read.
 */
inline void save_safetensors(const std::string& path, std::vector<named_view> tensors, std::vector<metadata_pair> metadata = {}) {
  const detail::safetensors_layout layout(path, std::move(tensors), std::move(metadata));
  detail::atomic_file file(path);
  layout.write(file);
  file.commit();
}

}  // namespace lora::inline v0::io

#endif
