// SPDX-License-Identifier: Apache-2.0
//
// A builder of ZIP archives that checks nothing, so that wrong ones can be made: each field of each record can be set.
#ifndef LORA_TESTS_IO_ZIP_BYTES_HPP
#define LORA_TESTS_IO_ZIP_BYTES_HPP

#include <cstdint>
#include <string>
#include <vector>

#include <zlib.h>

namespace test {

template <class... Integers>
void put(std::string& out, Integers... values) {
  (out.append(reinterpret_cast<const char*>(&values), sizeof values), ...);
}

inline std::string deflated(const std::string& content) {
  z_stream s{};
  (void)deflateInit2(&s, 9, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY);
  std::string out(deflateBound(&s, static_cast<uLong>(content.size())), '\0');
  s.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(content.data()));
  s.avail_in = static_cast<uInt>(content.size());
  s.next_out = reinterpret_cast<Bytef*>(out.data());
  s.avail_out = static_cast<uInt>(out.size());
  (void)deflate(&s, Z_FINISH);
  out.resize(s.total_out);
  (void)deflateEnd(&s);
  return out;
}

struct zip_entry {
  std::string name;
  std::string data;  // as it lies in the archive
  std::uint16_t method = 0;
  std::uint32_t size = 0;  // of the content
  std::uint32_t crc = 0;
  std::uint16_t flags = 0;
  std::uint16_t version = 20;
  // What the local header says, where it differs.
  std::string local_name = {};
  std::string local_extra = {};
  std::uint32_t local_sizes_xor = 0;
  std::uint32_t local_crc_xor = 0;
  std::uint16_t local_flags_xor = 0;
  std::string central_extra = {};
  std::string comment = {};
  std::string behind = {};  // a data descriptor, or what should not be there
  std::uint32_t at_xor = 0;
};

inline zip_entry stored(std::string name, std::string content) {
  zip_entry e;
  e.name = std::move(name);
  e.size = static_cast<std::uint32_t>(content.size());
  e.crc = static_cast<std::uint32_t>(crc32(0, reinterpret_cast<const Bytef*>(content.data()), static_cast<uInt>(content.size())));
  e.data = std::move(content);
  return e;
}
inline zip_entry packed(std::string name, const std::string& content) {
  zip_entry e = stored(std::move(name), content);
  e.data = deflated(content);
  e.method = 8;
  return e;
}

inline std::string zip_bytes(const std::vector<zip_entry>& entries) {
  std::string out;
  std::string directory;
  for (const zip_entry& e : entries) {
    const auto at = static_cast<std::uint32_t>(out.size()) ^ e.at_xor;
    const auto size = static_cast<std::uint32_t>(e.data.size());
    const std::string& local_name = e.local_name.empty() ? e.name : e.local_name;
    put(out, std::uint32_t{0x04034b50}, e.version, static_cast<std::uint16_t>(e.flags ^ e.local_flags_xor), e.method,
        std::uint32_t{0x00210000}, e.crc ^ e.local_crc_xor, size ^ e.local_sizes_xor, e.size ^ e.local_sizes_xor,
        static_cast<std::uint16_t>(local_name.size()), static_cast<std::uint16_t>(e.local_extra.size()));
    out += local_name + e.local_extra + e.data + e.behind;
    put(directory, std::uint32_t{0x02014b50}, std::uint16_t{20}, e.version, e.flags, e.method, std::uint32_t{0x00210000}, e.crc, size,
        e.size, static_cast<std::uint16_t>(e.name.size()), static_cast<std::uint16_t>(e.central_extra.size()),
        static_cast<std::uint16_t>(e.comment.size()), std::uint32_t{0}, std::uint32_t{0}, at);
    directory += e.name + e.central_extra + e.comment;
  }
  const auto at = static_cast<std::uint32_t>(out.size());
  const auto count = static_cast<std::uint16_t>(entries.size());
  out += directory;
  put(out, std::uint32_t{0x06054b50}, std::uint32_t{0}, count, count, static_cast<std::uint32_t>(directory.size()), at, std::uint16_t{0});
  return out;
}

}  // namespace test

#endif
