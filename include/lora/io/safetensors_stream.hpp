// SPDX-License-Identifier: Apache-2.0
//
// safetensors_stream: a .safetensors file whose tensors are made one after the other while it is written, for models that do not fit into
// memory twice. Names, types and shapes are given first; then the tensors, in the order that the format's own writer puts them in.
//
//   lora::io::safetensors_stream out("merged.safetensors", {{"fc1.weight", lora::dtype::bf16, {64, 256}}, ...});
//   while (const auto* next = out.next()) out.write(make(next->name));
//   out.commit();
//
// Without commit() there is no file, and an old one of that name is untouched. The bytes are those of save_safetensors.
#ifndef LORA_IO_SAFETENSORS_STREAM_HPP
#define LORA_IO_SAFETENSORS_STREAM_HPP

#include <lora/io/safetensors_writer.hpp>

namespace lora::inline v0::io {

class safetensors_stream {
 public:
  struct entry {
    std::string name;
    dtype type = dtype::f32;
    std::vector<index_t> shape;
  };

  /**
   * Checks the table and writes it to a new file beside `path`.
   * @throws value_error, io_error as save_safetensors; shape_error when a shape has more than 8 axes or does not fit the address space.
   */
  safetensors_stream(const std::string& path, const std::vector<entry>& table, std::vector<metadata_pair> metadata = {})
      : tensors_(views_of(table)), header_(detail::safetensors_header_text(path, tensors_, metadata)), file_(path) {
    file_.write(header_.data(), header_.size());
    header_ = {};
  }

  /** The tensor that write() takes next: its name, type and shape (no elements). Null when all are written. */
  [[nodiscard]] const named_view* next() const noexcept { return written_ < tensors_.size() ? &tensors_[written_] : nullptr; }

  /** @throws value_error when it is not of the type and shape of next(), or nothing is left to write; io_error when the disk is full. */
  void write(const any_view& v) {
    const named_view* const t = next();
    bool fits = t != nullptr && v.type() == t->view.type() && v.rank() == t->view.rank() && (size_of(v.type()) != 0 || v.is_contiguous());
    for (std::size_t i = 0; fits && i < v.rank(); ++i) fits = v.extent(i) == t->view.extent(i);
    if (!fits)
      detail::raise<value_error>(detail::text() << "safetensors_stream: " << detail::quote(file_.path()) << ": "
                                                << detail::shape_text{v.shape(), v.rank()} << " of " << name_of(v.type())
                                                << " is not what comes next: " << (t == nullptr ? "nothing" : t->name.c_str()));
    detail::write_elements(v, [&](const void* data, std::size_t size) { file_.write(data, size); });
    ++written_;
  }

  /** Brings the file to the disk and under its name. @throws value_error when tensors are missing; io_error. The old file is then still there. */
  void commit() {
    if (next() != nullptr)
      detail::raise<value_error>(detail::text() << "safetensors_stream: " << detail::quote(file_.path()) << ": tensor "
                                                << detail::quote(next()->name) << " was not written");
    file_.commit();
  }

 private:
  [[nodiscard]] static std::vector<named_view> views_of(const std::vector<entry>& table) {
    std::vector<named_view> views;
    for (const entry& e : table) views.push_back({e.name, any_view(nullptr, e.type, e.shape.data(), e.shape.size())});
    return views;
  }

  std::vector<named_view> tensors_;  // sorted by the next line; without elements
  std::string header_;
  detail::atomic_file file_;
  std::size_t written_ = 0;
};

}  // namespace lora::inline v0::io

#endif
