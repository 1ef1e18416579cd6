// SPDX-License-Identifier: Apache-2.0
//
// npz: a strict reader of NumPy's .npz archives: named arrays, each as an any_view. Stored members (np.savez) are views into the file's
// mapping; deflated ones (np.savez_compressed) are inflated into memory of their own when the file is opened. Needs zlib: lora::npz.
//
//   auto file = lora::io::npz::open("weights.npz");
//   auto w = file["w"].as<const float, 2>();
//   for (const auto& m : file.members()) use(m.name(), m.view());
//
// What a member may hold is said in npy.hpp; how the archive is checked, in detail/zip_directory.hpp: no byte of it goes unexplained.
// A member that claims to inflate to more than deflate can, or to more than npz_options allow, is refused before memory is taken for it.
#ifndef LORA_IO_NPZ_HPP
#define LORA_IO_NPZ_HPP

#include <lora/io/detail/zip_directory.hpp>
#include <lora/io/npy.hpp>

#include <algorithm>
#include <vector>

#include <zlib.h>

namespace lora::inline v0 {

namespace detail {

[[nodiscard]] inline std::uint32_t crc32_of(const void* data, std::size_t size, std::uint32_t before = 0) noexcept {
  if (size == 0) return before;  // zlib reads a null pointer as a request for the first value
  return static_cast<std::uint32_t>(::crc32_z(before, static_cast<const Bytef*>(data), size));
}

/** Inflates all of `in` to exactly `size` bytes at `out`; null, or what is wrong. */
[[nodiscard]] inline const char* inflate_exactly(std::span<const std::byte> in, std::byte* out, std::size_t size) noexcept {
  z_stream s{};
  if (::inflateInit2(&s, -MAX_WBITS) != Z_OK) return "zlib cannot start (memory)";
  constexpr std::size_t piece = std::size_t{1} << 30;  // zlib counts in 32 bits
  std::size_t in_left = in.size();
  std::size_t out_left = size;
  // zlib's pointer is not const; it does not write through it.
  s.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(in.data()));
  s.next_out = reinterpret_cast<Bytef*>(out);
  const char* problem = nullptr;
  Bytef beyond = 0;
  for (bool beyond_end = false;;) {
    if (s.avail_in == 0) {
      s.avail_in = static_cast<uInt>(std::min(in_left, piece));
      in_left -= s.avail_in;
    }
    if (s.avail_out == 0) {
      if (beyond_end) {
        problem = "inflates to more than its size in the directory";
        break;
      }
      if (out_left == 0) {  // the end mark may still be to come; a byte of content may not
        s.next_out = &beyond;
        s.avail_out = 1;
        beyond_end = true;
      } else {
        s.avail_out = static_cast<uInt>(std::min(out_left, piece));
        out_left -= s.avail_out;
      }
    }
    const int result = ::inflate(&s, Z_NO_FLUSH);
    if (result == Z_STREAM_END) {
      if (beyond_end && s.avail_out == 0)
        problem = "inflates to more than its size in the directory";
      else if (!beyond_end && (out_left != 0 || s.avail_out != 0))
        problem = "inflates to less than its size in the directory";
      else if (s.avail_in != 0 || in_left != 0)
        problem = "bytes follow its deflate stream";
      break;
    }
    if (result == Z_BUF_ERROR || (result == Z_OK && s.avail_in == 0 && in_left == 0 && s.avail_out != 0)) {
      problem = "its deflate stream is cut off";
      break;
    }
    if (result != Z_OK) {
      problem = result == Z_MEM_ERROR ? "zlib ran out of memory" : "is not a valid deflate stream";
      break;
    }
  }
  (void)::inflateEnd(&s);
  return problem;
}

}  // namespace detail

namespace io {

struct npz_options {
  bool swap = false;                                 // as npy_options::swap
  std::size_t inflate_limit = std::size_t{1} << 32;  // bytes that the deflated members may inflate to, all together
};

/**
 * The arrays of one .npz file.
 *
 * @par Lifetime   Views and names are valid as long as this object; a member's view also as long as a copy of its owner(), and of bytes
 *                 passed to parse() without an owner only as long as those.
 * @par Threads    Any number of readers.
 */
class npz {
 public:
  class member {
   public:
    /** Without the ".npy" at its end, as np.load's keys are. */
    [[nodiscard]] const std::string& name() const noexcept LORA_LIFETIMEBOUND { return name_; }
    /** Read-only, aligned; C or F strides as the member says. */
    [[nodiscard]] const any_view& view() const noexcept LORA_LIFETIMEBOUND { return array_.view(); }
    [[nodiscard]] std::shared_ptr<const void> owner() const noexcept { return array_.owner(); }
    /** Whether it was inflated; otherwise it is a view into the file, unless npy copied it. */
    [[nodiscard]] bool deflated() const noexcept { return deflated_; }
    /** Bytes that had to be copied because they were not aligned, or were swapped. */
    [[nodiscard]] std::size_t bytes_copied() const noexcept { return array_.bytes_copied(); }

   private:
    friend class npz;
    member(std::string name, npy array, std::span<const std::byte> content, std::uint32_t crc, bool deflated)
        : name_(std::move(name)), array_(std::move(array)), content_(content), crc_(crc), deflated_(deflated) {}
    std::string name_;
    npy array_;
    std::span<const std::byte> content_;  // of stored members, for verify()
    std::uint32_t crc_;
    bool deflated_;
  };

  /**
   * Maps and checks a file.
   * @throws io_error with one sentence that names the file, the member and the byte (of the member, where its own bytes are meant);
   *         or what mapped_file::open throws.
   * @par Cost   The directory and the members' headers. Of stored elements nothing is read, except as npy::open says; deflated members
   *             are inflated and their checksums compared.
   */
  [[nodiscard]] static npz open(std::string path, npz_options options = {}) {
    auto file = std::make_shared<const mapped_file>(mapped_file::open(std::move(path)));
    return parse(file->bytes(), file->path(), file, options);
  }

  /** Checks bytes that are in memory. `name` stands for the path in messages; `owner` keeps the bytes alive, or the caller does. */
  [[nodiscard]] static npz parse(std::span<const std::byte> bytes, std::string name, std::shared_ptr<const void> owner = {},
                                 npz_options options = {}) {
    npz file;
    file.path_ = std::move(name);
    file.owner_ = std::move(owner);
    file.read(bytes, options);
    return file;
  }

  npz(npz&&) noexcept = default;
  npz& operator=(npz&&) noexcept = default;

  /** In the order of their bytes in the file. */
  [[nodiscard]] std::span<const member> members() const& noexcept LORA_LIFETIMEBOUND { return members_; }
  std::span<const member> members() && = delete;

  /** The member of that name, or null. @par Cost  O(log n). */
  [[nodiscard]] const member* find(std::string_view name) const& noexcept LORA_LIFETIMEBOUND {
    const auto at = std::lower_bound(index_.begin(), index_.end(), name,
                                     [&](std::size_t i, std::string_view wanted) { return members_[i].name_ < wanted; });
    return at != index_.end() && members_[*at].name_ == name ? &members_[*at] : nullptr;
  }
  const member* find(std::string_view name) && = delete;

  /** @throws io_error naming the file and the array when there is none of that name. */
  [[nodiscard]] const any_view& operator[](std::string_view name) const& LORA_LIFETIMEBOUND {
    const member* const m = find(name);
    if (m == nullptr) detail::raise<io_error>(detail::text() << detail::quote(path_) << ": has no array " << detail::quote(name));
    return m->view();
  }
  const any_view& operator[](std::string_view name) && = delete;  // lora: an array of a temporary archive would dangle; name the archive

  /**
   * Compares the checksums of the stored members, which open() does not read. (Those of deflated ones it has compared.)
   * @throws io_error naming the member that differs.  @par Cost  reads the file once.
   */
  void verify() const {
    for (const member& m : members_)
      if (!m.deflated_ && detail::crc32_of(m.content_.data(), m.content_.size()) != m.crc_) refuse(m.name_, "its checksum differs");
  }

  /** Bytes of all members that had to be copied. */
  [[nodiscard]] std::size_t bytes_copied() const noexcept {
    std::size_t n = 0;
    for (const member& m : members_) n += m.bytes_copied();
    return n;
  }
  [[nodiscard]] const std::string& path() const noexcept LORA_LIFETIMEBOUND { return path_; }

 private:
  npz() = default;

  [[noreturn]] void refuse(std::string_view name, const char* sentence) const {
    detail::raise<io_error>(detail::text() << detail::quote(path_) << ": member " << detail::quote(name) << ": " << sentence);
  }

  void read(std::span<const std::byte> bytes, npz_options options) {
    // Deflate cannot do better than 258 bytes for 2 bits; what claims more is refused before memory is taken for it.
    constexpr std::uint64_t best_ratio = 1032;
    const std::vector<detail::zip_member> directory = detail::zip_directory::read(bytes, path_);
    std::uint64_t inflated = 0;
    for (const detail::zip_member& m : directory) {
      if (!m.name.ends_with(".npy")) refuse(m.name, "is not a .npy file; an .npz archive holds nothing else");
      if (!m.deflated) continue;
      if (m.size / best_ratio > m.packed) refuse(m.name, "claims to inflate to more than deflate can pack into its bytes");
      if (!checked_add(inflated, m.size, inflated) || inflated > options.inflate_limit)
        refuse(m.name, "would inflate to more than npz_options::inflate_limit allows");
    }
    members_.reserve(directory.size());
    for (const detail::zip_member& m : directory) {
      std::span<const std::byte> content = bytes.subspan(static_cast<std::size_t>(m.data_at), static_cast<std::size_t>(m.packed));
      std::shared_ptr<const void> owner = owner_;
      if (m.deflated) {
        auto block = std::make_shared<aligned_bytes>(static_cast<std::size_t>(m.size));
        auto* const to = static_cast<std::byte*>(block->data());
        if (const char* problem = detail::inflate_exactly(content, to, block->size())) refuse(m.name, problem);
        content = {to, block->size()};
        if (detail::crc32_of(to, block->size()) != m.crc) refuse(m.name, "its checksum differs");
        owner = std::move(block);
      }
      std::string place = path_;
      place.append(": member ").append(m.name);
      npy array = npy::parse(content, std::move(place), std::move(owner), {.swap = options.swap});
      members_.push_back(member(std::string(m.name.substr(0, m.name.size() - 4)), std::move(array), content, m.crc, m.deflated));
    }
    index_.resize(members_.size());
    for (std::size_t i = 0; i < index_.size(); ++i) index_[i] = i;
    std::sort(index_.begin(), index_.end(), [&](std::size_t a, std::size_t b) { return members_[a].name_ < members_[b].name_; });
  }

  std::string path_;
  std::shared_ptr<const void> owner_;
  std::vector<member> members_;
  std::vector<std::size_t> index_;  // by name
};

}  // namespace io
}  // namespace lora::inline v0

#endif
