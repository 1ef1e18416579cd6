// SPDX-License-Identifier: Apache-2.0
//
// The directory of a ZIP archive, read strictly: the subset that .npz files use. An archive is accepted only if its members, its
// directory and its end records lie one behind the other from the first byte to the last, and if both descriptions of each member (the
// one before its data, the one in the directory) say the same. Then no two readers can see different members in it. Not API.
//
// Layout: member* directory [zip64 end record, zip64 locator] end record. No comments, no bytes in front, between or behind, one disk, no
// encryption, methods 0 (stored) and 8 (deflated). Zip64 sizes and data descriptors are understood.
#ifndef LORA_IO_DETAIL_ZIP_DIRECTORY_HPP
#define LORA_IO_DETAIL_ZIP_DIRECTORY_HPP

#include <lora/core/checked.hpp>
#include <lora/core/error.hpp>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

namespace lora::inline v0::detail {

inline constexpr std::uint32_t zip_local_signature = 0x04034b50;
inline constexpr std::uint32_t zip_central_signature = 0x02014b50;
inline constexpr std::uint32_t zip_descriptor_signature = 0x08074b50;
inline constexpr std::uint32_t zip_end_signature = 0x06054b50;
inline constexpr std::uint32_t zip64_end_signature = 0x06064b50;
inline constexpr std::uint32_t zip64_locator_signature = 0x07064b50;
inline constexpr std::uint64_t zip_in_zip64 = 0xffffffff;  // "the number is in the zip64 field"

struct zip_member {
  std::string_view name;
  std::uint64_t header_at = 0;  // of the local header
  std::uint64_t data_at = 0;
  std::uint64_t packed = 0;  // bytes in the archive
  std::uint64_t size = 0;    // bytes of the content
  std::uint32_t crc = 0;
  std::uint16_t flags = 0;
  bool deflated = false;
};

class zip_directory {
 public:
  /** @throws io_error naming the file, the rule and the byte. @par Cost  O(members * log(members)); member data are not read. */
  [[nodiscard]] static std::vector<zip_member> read(std::span<const std::byte> bytes, std::string_view file) {
    zip_directory d(bytes, file);
    d.read_end();
    d.read_entries();
    d.read_local_headers();
    d.require_unique_names();
    return std::move(d.members_);
  }

 private:
  static constexpr std::uint64_t end_size = 22;
  static constexpr std::uint64_t locator_size = 20;
  static constexpr std::uint64_t end64_size = 56;
  static constexpr std::uint64_t central_size = 46;
  static constexpr std::uint64_t local_size = 30;
  static constexpr std::uint16_t descriptor_flag = 0x0008;
  static constexpr std::uint16_t utf8_flag = 0x0800;

  zip_directory(std::span<const std::byte> bytes, std::string_view file) noexcept : bytes_(bytes), file_(file) {}

  [[noreturn]] void refuse(std::uint64_t byte, const char* sentence, std::string_view member = {}) const {
    text t;
    t << quote(file_) << ": ";
    if (!member.empty()) t << "member " << quote(member) << ": ";
    raise<io_error>(t << sentence << " (byte " << byte << ")");
  }

  template <class Integer>
  [[nodiscard]] Integer at(std::uint64_t byte) const noexcept {  // the caller has compared with the size
    Integer value;
    std::memcpy(&value, bytes_.data() + byte, sizeof value);
    return value;
  }
  [[nodiscard]] std::uint16_t u16(std::uint64_t byte) const noexcept { return at<std::uint16_t>(byte); }
  [[nodiscard]] std::uint32_t u32(std::uint64_t byte) const noexcept { return at<std::uint32_t>(byte); }
  [[nodiscard]] std::uint64_t u64(std::uint64_t byte) const noexcept { return at<std::uint64_t>(byte); }
  [[nodiscard]] std::string_view chars(std::uint64_t byte, std::size_t size) const noexcept {
    return {reinterpret_cast<const char*>(bytes_.data()) + byte, size};
  }

  void read_end() {
    if (bytes_.size() < end_size) refuse(bytes_.size(), "is not a ZIP archive: it is shorter than an end record");
    const std::uint64_t end = bytes_.size() - end_size;
    if (u32(end) != zip_end_signature)
      refuse(end, "does not end in the end record of a ZIP archive (comments, and bytes behind it, are refused)");
    if (u16(end + 20) != 0) refuse(end + 20, "the archive has a comment");
    if (u16(end + 4) != 0 || u16(end + 6) != 0) refuse(end + 4, "the archive is part of a set of several disks");
    if (u16(end + 8) != u16(end + 10)) refuse(end + 8, "the two counts of members differ");
    count_ = u16(end + 10);
    std::uint64_t size = u32(end + 12);
    directory_at_ = u32(end + 16);
    std::uint64_t directory_end = end;
    if (end >= locator_size + end64_size && u32(end - locator_size) == zip64_locator_signature) {
      const std::uint64_t locator = end - locator_size;
      const std::uint64_t record = locator - end64_size;
      if (u32(locator + 4) != 0 || u32(locator + 16) != 1) refuse(locator + 4, "the archive is part of a set of several disks");
      if (u64(locator + 8) != record || u32(record) != zip64_end_signature || u64(record + 4) != end64_size - 12)
        refuse(locator + 8, "the zip64 end record is not the 56 bytes before its locator");
      if (u32(record + 16) != 0 || u32(record + 20) != 0) refuse(record + 16, "the archive is part of a set of several disks");
      if (u64(record + 24) != u64(record + 32)) refuse(record + 24, "the two counts of members differ");
      const bool agree = (count_ == 0xffff || count_ == u64(record + 32)) && (size == zip_in_zip64 || size == u64(record + 40)) &&
                         (directory_at_ == zip_in_zip64 || directory_at_ == u64(record + 48));
      if (!agree) refuse(record + 24, "the end record and the zip64 end record differ");
      count_ = u64(record + 32);
      size = u64(record + 40);
      directory_at_ = u64(record + 48);
      directory_end = record;
    }
    if (directory_at_ > directory_end || size != directory_end - directory_at_)
      refuse(end + 12, "the directory is not where the end record says, directly before it");
    directory_end_ = directory_end;
    if (count_ > size / central_size) refuse(end + 10, "the directory is too short for the number of members");
  }

  void read_entries() {
    members_.reserve(static_cast<std::size_t>(count_));
    std::uint64_t p = directory_at_;
    for (std::uint64_t i = 0; i < count_; ++i) {
      if (directory_end_ - p < central_size || u32(p) != zip_central_signature) refuse(p, "an entry of the directory was expected");
      const std::uint64_t name_size = u16(p + 28);
      const std::uint64_t extra_size = u16(p + 30);
      if (directory_end_ - p - central_size < name_size + extra_size) refuse(p, "an entry of the directory is cut off");
      zip_member m;
      m.name = chars(p + central_size, name_size);
      require_name(m.name, u16(p + 8), p);
      require_features(m.name, u16(p + 6), u16(p + 8), u16(p + 10), p);
      if (u16(p + 32) != 0) refuse(p + 32, "has a comment", m.name);
      if (u16(p + 34) != 0) refuse(p + 34, "lies on another disk", m.name);
      m.flags = u16(p + 8);
      m.deflated = u16(p + 10) == 8;
      m.crc = u32(p + 16);
      m.packed = u32(p + 20);
      m.size = u32(p + 24);
      m.header_at = u32(p + 42);
      // Of the zip64 field only the numbers that do not fit are there, in this order.
      std::uint64_t* wanted[3] = {};
      std::size_t n = 0;
      for (std::uint64_t* number : {&m.size, &m.packed, &m.header_at})
        if (*number == zip_in_zip64) wanted[n++] = number;
      const zip64_field field = find_zip64(p + central_size + name_size, extra_size, m.name);
      if (field.size != 8 * n) refuse(p + central_size + name_size, "its zip64 field does not hold what the entry leaves to it", m.name);
      for (std::size_t k = 0; k < n; ++k) *wanted[k] = u64(field.at + 8 * k);
      if (!m.deflated && m.packed != m.size) refuse(p + 20, "is stored, but its two sizes differ", m.name);
      members_.push_back(m);
      p += central_size + name_size + extra_size;
    }
    if (p != directory_end_) refuse(p, "bytes follow the last entry of the directory");
  }

  /** The members in the order of their bytes; they must fill the archive from its first byte to the directory. */
  void read_local_headers() {
    std::sort(members_.begin(), members_.end(), [](const zip_member& a, const zip_member& b) { return a.header_at < b.header_at; });
    std::uint64_t p = 0;
    for (std::size_t i = 0; i < members_.size(); ++i) {
      zip_member& m = members_[i];
      if (m.header_at < p) refuse(m.header_at, "overlaps the member before it", m.name);
      if (m.header_at > p) refuse(p, "bytes that belong to no member lie before it", m.name);
      const std::uint64_t end = i + 1 < members_.size() ? members_[i + 1].header_at : directory_at_;
      p = read_local(m, end);
    }
    if (p != directory_at_) refuse(p, "bytes that belong to no member lie before the directory");
  }

  /** Where the member ends. `end`: where the next one, or the directory, begins. */
  [[nodiscard]] std::uint64_t read_local(zip_member& m, std::uint64_t end) const {
    const std::uint64_t p = m.header_at;
    if (end < p || end > directory_at_ || end - p < local_size || u32(p) != zip_local_signature)
      refuse(p, "its local header is not where the directory says", m.name);
    const std::uint64_t name_size = u16(p + 26);
    const std::uint64_t extra_size = u16(p + 28);
    std::uint64_t left = end - p - local_size;
    if (left < name_size + extra_size) refuse(p, "its local header is cut off", m.name);
    left -= name_size + extra_size;
    if (chars(p + local_size, name_size) != m.name) refuse(p + local_size, "its local header has another name", m.name);
    if (u16(p + 6) != m.flags || u16(p + 8) != (m.deflated ? 8 : 0))
      refuse(p + 6, "its local header has other flags or another method", m.name);
    require_features(m.name, u16(p + 4), u16(p + 6), u16(p + 8), p);
    const bool described_behind = (m.flags & descriptor_flag) != 0;
    const zip64_field field = find_zip64(p + local_size + name_size, extra_size, m.name);
    if (field.size != 0 && field.size != 16)
      refuse(p + local_size + name_size, "the zip64 field of its local header is not 16 bytes long", m.name);
    const auto same = [&](std::uint64_t number, std::uint64_t wide, std::uint64_t wanted) {
      if (number == zip_in_zip64 && field.size == 0 && wanted != zip_in_zip64) return false;
      const bool here = number == wanted || number == zip_in_zip64 || (described_behind && number == 0);
      return here && (field.size == 0 || wide == wanted || (described_behind && wide == 0));
    };
    if (!same(u32(p + 22), field.size == 0 ? 0 : u64(field.at), m.size) ||
        !same(u32(p + 18), field.size == 0 ? 0 : u64(field.at + 8), m.packed))
      refuse(p + 18, "its local header has other sizes", m.name);
    if (u32(p + 14) != m.crc && !(described_behind && u32(p + 14) == 0)) refuse(p + 14, "its local header has another checksum", m.name);
    m.data_at = p + local_size + name_size + extra_size;
    if (m.packed > left) refuse(m.data_at, "its data reach beyond its place", m.name);
    const std::uint64_t data_end = m.data_at + m.packed;
    return described_behind ? data_end + descriptor(m, data_end, end - data_end) : data_end;
  }

  /** Length of the data descriptor behind a member: checksum and two sizes of 4 or 8 bytes, with or without a signature. */
  [[nodiscard]] std::uint64_t descriptor(const zip_member& m, std::uint64_t p, std::uint64_t room) const {
    if (room != 12 && room != 16 && room != 20 && room != 24) refuse(p, "a data descriptor was expected behind it", m.name);
    const std::uint64_t signature = room == 16 || room == 24 ? 4 : 0;
    const bool wide = room >= 20;
    const std::uint64_t sizes = p + signature + 4;
    const bool agrees = (signature == 0 || u32(p) == zip_descriptor_signature) && u32(p + signature) == m.crc &&
                        (wide ? u64(sizes) : u32(sizes)) == m.packed && (wide ? u64(sizes + 8) : u32(sizes + 4)) == m.size;
    if (!agrees) refuse(p, "its data descriptor differs from the directory", m.name);
    return room;
  }

  struct zip64_field {
    std::uint64_t at = 0;
    std::uint64_t size = 0;
  };
  /** Extra fields are (id, length, content); all but zip64's, id 1, are skipped. They must fill their place. */
  [[nodiscard]] zip64_field find_zip64(std::uint64_t p, std::uint64_t size, std::string_view member) const {
    zip64_field found;
    bool seen = false;
    const std::uint64_t end = p + size;
    while (p != end) {
      if (end - p < 4 || u16(p + 2) > end - p - 4) refuse(p, "an extra field is cut off", member);
      if (u16(p) == 1) {
        if (seen) refuse(p, "has two zip64 fields", member);
        seen = true;
        found = {p + 4, u16(p + 2)};
      }
      p += 4 + std::uint64_t{u16(p + 2)};
    }
    return found;
  }

  void require_features(std::string_view member, std::uint16_t version, std::uint16_t flags, std::uint16_t method,
                        std::uint64_t byte) const {
    if ((flags & 0x2041) != 0) refuse(byte, "is encrypted", member);
    // 1 and 2: how hard deflate tried. 3: sizes behind the data. 11: the name is UTF-8.
    if ((flags & ~unsigned{0x0006 | descriptor_flag | utf8_flag}) != 0) refuse(byte, "has flags that are not supported", member);
    if ((version & 0xff) > 45) refuse(byte, "needs a newer version of the ZIP format than 4.5", member);
    if (method != 0 && method != 8) refuse(byte, "is neither stored nor deflated", member);
  }

  void require_name(std::string_view name, std::uint16_t flags, std::uint64_t byte) const {
    if (name.find('\0') != std::string_view::npos) refuse(byte, "a member's name contains a NUL byte");
    const bool ascii = std::all_of(name.begin(), name.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
    if (!ascii && (flags & utf8_flag) == 0) refuse(byte, "its name is neither ASCII nor marked as UTF-8", name);
    if (!ascii && !is_utf8(name)) refuse(byte, "its name is not valid UTF-8", name);
  }

  void require_unique_names() const {
    std::vector<const zip_member*> sorted;
    sorted.reserve(members_.size());
    for (const zip_member& m : members_) sorted.push_back(&m);
    std::sort(sorted.begin(), sorted.end(), [](const zip_member* a, const zip_member* b) { return a->name < b->name; });
    for (std::size_t i = 1; i < sorted.size(); ++i)
      if (sorted[i - 1]->name == sorted[i]->name) refuse(sorted[i]->header_at, "occurs twice", sorted[i]->name);
  }

 public:
  [[nodiscard]] static bool is_utf8(std::string_view s) noexcept {
    for (std::size_t i = 0; i < s.size();) {
      const auto lead = static_cast<unsigned char>(s[i++]);
      if (lead < 0x80) continue;
      const std::size_t more = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : 1;
      if (lead < 0xc2 || lead > 0xf4 || s.size() - i < more) return false;
      unsigned code = lead & (0x3fu >> more);
      for (std::size_t k = 0; k < more; ++k, ++i) {
        const auto c = static_cast<unsigned char>(s[i]);
        if ((c & 0xc0) != 0x80) return false;
        code = code << 6 | (c & 0x3fu);
      }
      // Overlong forms, surrogates, beyond Unicode.
      if ((more == 2 && code < 0x800) || (more == 3 && (code < 0x10000 || code > 0x10ffff)) || (code >= 0xd800 && code <= 0xdfff))
        return false;
    }
    return true;
  }

 private:
  std::span<const std::byte> bytes_;
  std::string_view file_;
  std::vector<zip_member> members_;
  std::uint64_t count_ = 0;
  std::uint64_t directory_at_ = 0;
  std::uint64_t directory_end_ = 0;
};

}  // namespace lora::inline v0::detail

#endif
