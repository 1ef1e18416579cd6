// SPDX-License-Identifier: Apache-2.0
//
// npy: a strict reader of NumPy's .npy files, versions 1.0, 2.0 and 3.0: one array, given as an any_view into the file's mapping.
// Writing is in npy_writer.hpp, archives of arrays are in npz.hpp.
//
//   auto file = lora::io::npy::open("x.npy");
//   auto x = file.view().as<const float, 2>();
//
// Types: f2 f4 f8 i1 i2 i4 i8 u1 u2 u4 u8 b1 c8, little-endian. Big-endian ones are refused by name, or swapped into a copy on request;
// object and structured arrays are always refused. An array in Fortran order is a view with Fortran strides, not a copy. The file must be
// exactly as long as header and shape say.
#ifndef LORA_IO_NPY_HPP
#define LORA_IO_NPY_HPP

#include <lora/core/bytes.hpp>
#include <lora/io/detail/npy_header.hpp>
#include <lora/io/mapped_file.hpp>

#include <bit>
#include <memory>

namespace lora::inline v0::io {

static_assert(std::endian::native == std::endian::little, "lora: the readers of io/ are written for little-endian machines");

struct npy_options {
  bool swap = false;  // big-endian elements: read them, as a copy in the machine's byte order, instead of refusing
};

/**
 * The array of one .npy file.
 *
 * @par Lifetime   The view is valid as long as this object or a copy of owner(); of bytes passed to parse() without an owner, as long as
 *                 those.
 * @par Threads    Any number of readers.
 */
class npy {
 public:
  /**
   * Maps and checks a file.
   * @throws io_error with one sentence that names the file and the byte, when a rule is broken; or what mapped_file::open throws.
   * @par Cost   The header; of the elements nothing is read, except that bool arrays are checked, and unaligned or swapped data copied.
   */
  [[nodiscard]] static npy open(std::string path, npy_options options = {}) {
    auto file = std::make_shared<const mapped_file>(mapped_file::open(std::move(path)));
    return parse(file->bytes(), file->path(), file, options);
  }

  /** Checks bytes that are in memory. `name` stands for the path in messages; `owner` keeps the bytes alive, or the caller does. */
  [[nodiscard]] static npy parse(std::span<const std::byte> bytes, std::string name, std::shared_ptr<const void> owner = {},
                                 npy_options options = {}) {
    npy file;
    file.path_ = std::move(name);
    file.owner_ = std::move(owner);
    file.read(bytes, options);
    return file;
  }

  /** Read-only, aligned; C or F strides as the file says. */
  [[nodiscard]] const any_view& view() const& noexcept LORA_LIFETIMEBOUND { return view_; }
  any_view view() && = delete;
  /** Keeps the elements alive. Empty after parse() without an owner and without a copy. */
  [[nodiscard]] std::shared_ptr<const void> owner() const noexcept { return owner_; }
  /** Bytes that had to be copied because they were not aligned, or were swapped; 0 for little-endian files of NumPy, whose data begin at a multiple of 64. */
  [[nodiscard]] std::size_t bytes_copied() const noexcept { return bytes_copied_; }
  [[nodiscard]] const std::string& path() const noexcept LORA_LIFETIMEBOUND { return path_; }

 private:
  npy() = default;

  [[nodiscard]] detail::text about_file() const noexcept { return detail::text() << detail::quote(path_) << ": "; }
  [[noreturn]] static void refuse(detail::text t, std::size_t byte) { detail::raise<io_error>(t << " (byte " << byte << ")"); }

  void read(std::span<const std::byte> bytes, npy_options options) {
    constexpr std::size_t fixed = 8;  // magic and version
    if (bytes.size() < fixed || std::memcmp(bytes.data(), "\x93NUMPY", 6) != 0)
      refuse(about_file() << "is not a .npy file: it does not begin with \\x93NUMPY", 0);
    const auto major = static_cast<unsigned>(bytes[6]);
    const auto minor = static_cast<unsigned>(bytes[7]);
    if (major < 1 || major > 3 || minor != 0)
      refuse(about_file() << "version " << major << "." << minor << " is not one of 1.0, 2.0 and 3.0", 6);

    const std::size_t length_size = major == 1 ? 2 : 4;
    if (bytes.size() < fixed + length_size) refuse(about_file() << "ends inside the length of its header", bytes.size());
    std::uint32_t length = 0;
    std::memcpy(&length, bytes.data() + fixed, length_size);
    const std::size_t header_at = fixed + length_size;
    if (length > bytes.size() - header_at)
      refuse(about_file() << "the header claims " << length << " bytes, but only " << bytes.size() - header_at << " follow", fixed);
    const std::string_view dictionary(reinterpret_cast<const char*>(bytes.data()) + header_at, length);
    const detail::npy_header h = detail::npy_header_parser(path_, dictionary, header_at, options.swap).parse();

    const detail::shape_text shape{h.shape, h.rank};
    std::size_t needed = size_of(h.type);
    bool fits = addressable(h.shape, h.rank, needed);
    for (std::size_t i = 0; i < h.rank && fits; ++i) fits = checked_mul(needed, static_cast<std::size_t>(h.shape[i]), needed);
    if (!fits) refuse(about_file() << "shape " << shape << " of " << name_of(h.type) << " does not fit the address space", header_at);
    const std::size_t data_at = header_at + length;
    const std::size_t available = bytes.size() - data_at;
    if (needed > available)
      refuse(about_file() << "shape " << shape << " of " << name_of(h.type) << " needs " << needed << " bytes, but only " << available
                          << " follow: truncated",
             bytes.size());
    if (needed < available) refuse(about_file() << available - needed << " bytes follow the array", data_at + needed);

    const std::byte* data = bytes.data() + data_at;
    // Reading any other byte as a C++ bool is undefined.
    for (std::size_t i = 0; h.type == dtype::boolean && i < needed; ++i)
      if (data[i] > std::byte{1})
        refuse(about_file() << "a bool byte is " << static_cast<unsigned>(data[i]) << ", neither 0 nor 1", data_at + i);
    const void* place = data;
    if (h.swapped || reinterpret_cast<std::uintptr_t>(data) % alignment_of(h.type) != 0) {
      auto block = std::make_shared<aligned_bytes>(needed);
      if (needed != 0) std::memcpy(block->data(), data, needed);
      if (h.swapped) swap_bytes(static_cast<unsigned char*>(block->data()), needed, alignment_of(h.type));
      place = block->data();
      owner_ = std::move(block);  // of the file nothing is needed any more
      bytes_copied_ = needed;
    }
    view_ = any_view(place, h.type, h.shape, h.rank, true, h.layout);
  }

  // The width is that of a number, which for c64 is half an element: its alignment.
  static void swap_bytes(unsigned char* bytes, std::size_t size, std::size_t width) noexcept {
    for (; size >= width; bytes += width, size -= width)
      for (std::size_t i = 0; i < width / 2; ++i) std::swap(bytes[i], bytes[width - 1 - i]);
  }

  std::string path_;
  std::shared_ptr<const void> owner_;
  any_view view_;
  std::size_t bytes_copied_ = 0;
};

}  // namespace lora::inline v0::io

#endif
