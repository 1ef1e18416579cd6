// SPDX-License-Identifier: Apache-2.0
//
// npz_writer: arrays into one .npz archive that np.load reads, and that npz.hpp maps without a copy: members are stored, and the data of
// each begin at a multiple of 64. The same arrays give the same bytes: no time, no user, no chance goes into the file. Needs zlib, for its
// checksums: lora::npz.
//
//   lora::io::npz_writer file("weights.npz");
//   file.add("w", w);  file.add("bias", bias);
//   file.commit();                                           // without it the destructor leaves nothing behind
#ifndef LORA_IO_NPZ_WRITER_HPP
#define LORA_IO_NPZ_WRITER_HPP

#include <lora/io/npy_writer.hpp>
#include <lora/io/npz.hpp>

#include <string>
#include <vector>

namespace lora::inline v0::io {

/** @par Threads  One at a time. */
class npz_writer {
 public:
  /** Makes a file beside `path`. @throws io_error when it cannot. */
  explicit npz_writer(std::string path) : npz_writer(std::move(path), detail::zip_in_zip64) {}

  /**
   * Writes one array, under NumPy's name for it: `name` + ".npy".
   *
   * @param name  UTF-8 without NUL, at most 65531 bytes, not added before
   * @param v     any strides; C order is written as C, F order as F, what is neither in C order
   * @throws value_error for a name that does not do; dtype_error when .npy has no such type; io_error. The first two leave the writer as
   *         it was; after an io_error it must not be used.
   */
  void add(std::string_view name, const any_view& v) {
    entry e;
    e.name.assign(name).append(".npy");
    if (e.name.size() > 0xffff || name.find('\0') != std::string_view::npos || !detail::zip_directory::is_utf8(name))
      refuse(name, "is not a name for an array: it must be UTF-8 without NUL bytes, and shorter than 64 KiB");
    const auto place = std::lower_bound(names_.begin(), names_.end(), e.name);
    if (place != names_.end() && *place == e.name) refuse(name, "was added before");
    const detail::npy_layout layout(v, file_.path());
    e.size = layout.size_bytes();
    e.header_at = file_.size();
    names_.insert(place, e.name);

    const std::string header = local_header(e);
    file_.write(header.data(), header.size());
    layout.write([&](const void* data, std::size_t size) {
      e.crc = detail::crc32_of(data, size, e.crc);
      file_.write(data, size);
    });
    file_.write_at(&e.crc, sizeof e.crc, static_cast<std::size_t>(e.header_at) + 14);
    entries_.push_back(std::move(e));
  }
  template <detail::gives_view Owner>
  void add(std::string_view name, const Owner& owner) {
    add(name, any_view(owner.view()));
  }

  /** Writes the directory, brings the file to the disk and under its name. Nothing can be added afterwards. @throws io_error. */
  void commit() {
    const std::uint64_t at = file_.size();
    std::string out;
    for (const entry& e : entries_) append_central(out, e);
    const std::uint64_t size = out.size();
    const std::uint64_t count = entries_.size();
    const bool wide = at >= zip64_from_ || size >= zip64_from_ || count >= 0xffff;
    if (wide) {
      put(out, detail::zip64_end_signature, std::uint64_t{44}, version_of(true), version_of(true), std::uint32_t{0}, std::uint32_t{0},
          count, count, size, at);
      put(out, detail::zip64_locator_signature, std::uint32_t{0}, at + size, std::uint32_t{1});
    }
    const auto n = static_cast<std::uint16_t>(wide ? 0xffff : count);
    put(out, detail::zip_end_signature, std::uint32_t{0}, n, n, narrow(size, wide), narrow(at, wide), std::uint16_t{0});
    file_.write(out.data(), out.size());
    file_.commit();
  }

 protected:
  /** Numbers from `zip64_from` on go into zip64 fields. Only tests choose another limit than the format's, 2^32 - 1. */
  npz_writer(std::string path, std::uint64_t zip64_from) : file_(std::move(path)), zip64_from_(zip64_from) {}

 private:
  struct entry {
    std::string name;
    std::uint64_t header_at = 0;
    std::uint64_t size = 0;
    std::uint32_t crc = 0;
  };

  [[noreturn]] void refuse(std::string_view name, const char* sentence) const {
    detail::raise<value_error>(detail::text() << detail::quote(file_.path()) << ": " << detail::quote(name) << " " << sentence);
  }

  template <class... Integers>
  static void put(std::string& out, Integers... values) {
    (out.append(reinterpret_cast<const char*>(&values), sizeof values), ...);
  }
  [[nodiscard]] static std::uint32_t narrow(std::uint64_t value, bool wide) noexcept {
    return static_cast<std::uint32_t>(wide ? detail::zip_in_zip64 : value);
  }
  // 2.0, or 4.5 with zip64.
  [[nodiscard]] static std::uint16_t version_of(bool wide) noexcept { return wide ? 45 : 20; }

  // version, flags (the name is UTF-8, unless ASCII), stored, 1980-01-01 00:00: the first moment that ZIP knows
  void put_common(std::string& out, const entry& e, bool wide) const {
    bool ascii = true;
    for (const char c : e.name) ascii = ascii && static_cast<unsigned char>(c) < 0x80;
    put(out, version_of(wide), static_cast<std::uint16_t>(ascii ? 0 : 0x0800), std::uint16_t{0}, std::uint16_t{0}, std::uint16_t{0x0021});
  }

  /** The checksum is filled in later. An extra field of zeros, with the id that Android's zipalign uses, moves the data to a multiple of 64. */
  [[nodiscard]] std::string local_header(const entry& e) const {
    const bool wide = e.size >= zip64_from_;
    std::string extra;
    if (wide) put(extra, std::uint16_t{1}, std::uint16_t{16}, e.size, e.size);
    const std::uint64_t before = e.header_at + 30 + e.name.size() + extra.size() + 6;
    const auto padding = static_cast<std::uint16_t>((64 - before % 64) % 64);
    put(extra, std::uint16_t{0xd935}, static_cast<std::uint16_t>(padding + 2), std::uint16_t{64});
    extra.append(padding, '\0');
    std::string out;
    put(out, detail::zip_local_signature);
    put_common(out, e, wide);
    put(out, e.crc, narrow(e.size, wide), narrow(e.size, wide), static_cast<std::uint16_t>(e.name.size()),
        static_cast<std::uint16_t>(extra.size()));
    return out.append(e.name).append(extra);
  }

  void append_central(std::string& out, const entry& e) const {
    const bool wide_size = e.size >= zip64_from_;
    const bool wide_at = e.header_at >= zip64_from_;
    std::string extra;
    if (wide_size || wide_at) {
      put(extra, std::uint16_t{1}, static_cast<std::uint16_t>((wide_size ? 16 : 0) + (wide_at ? 8 : 0)));
      if (wide_size) put(extra, e.size, e.size);
      if (wide_at) put(extra, e.header_at);
    }
    put(out, detail::zip_central_signature, version_of(true));
    put_common(out, e, wide_size || wide_at);
    put(out, e.crc, narrow(e.size, wide_size), narrow(e.size, wide_size), static_cast<std::uint16_t>(e.name.size()),
        static_cast<std::uint16_t>(extra.size()), std::uint16_t{0}, std::uint16_t{0}, std::uint16_t{0}, std::uint32_t{0},
        narrow(e.header_at, wide_at));
    out.append(e.name).append(extra);
  }

  detail::atomic_file file_;
  std::uint64_t zip64_from_;
  std::vector<entry> entries_;
  std::vector<std::string> names_;  // sorted
};

}  // namespace lora::inline v0::io

#endif
