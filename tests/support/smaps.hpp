// SPDX-License-Identifier: Apache-2.0
//
// Which pages a piece of memory lies in, as the system tells it in /proc/self/smaps: for tests and benchmarks only (it takes milliseconds
// and counts whole mappings). Everything is 0 where there is no such file.
//
//   std::size_t got = test::huge_bytes_of(block.data(), block.size());
#ifndef LORA_TESTS_SUPPORT_SMAPS_HPP
#define LORA_TESTS_SUPPORT_SMAPS_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <string>
#include <string_view>

namespace test {

struct mapping {
  std::uintptr_t begin = 0;
  std::uintptr_t end = 0;
  std::size_t huge_bytes = 0;  // anonymous and file-backed
  std::string flags;           // "rd wr mr mw me ac hg "
  std::string path;
};

/** Calls f with every mapping of this process. */
template <class F>
void for_each_mapping(F f) {
  std::ifstream in("/proc/self/smaps");
  std::string line;
  mapping m;
  while (std::getline(in, line)) {
    unsigned long begin = 0;
    unsigned long end = 0;
    unsigned long kilobytes = 0;
    int path_at = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx %*s %*s %*s %*s %n", &begin, &end, &path_at) == 2) {
      m = {begin, end, 0, "", line.substr(static_cast<std::size_t>(path_at))};
    } else if (std::sscanf(line.c_str(), "AnonHugePages: %lu", &kilobytes) == 1 ||
               std::sscanf(line.c_str(), "FilePmdMapped: %lu", &kilobytes) == 1) {
      m.huge_bytes += std::size_t{kilobytes} * 1024;
    } else if (line.rfind("VmFlags: ", 0) == 0) {  // the last line of each
      m.flags = line.substr(9);
      f(m);
    }
  }
}

[[nodiscard]] inline std::size_t overlap(const mapping& m, const void* p, std::size_t size) {
  const auto begin = reinterpret_cast<std::uintptr_t>(p);
  const std::uintptr_t low = std::max(begin, m.begin);
  const std::uintptr_t high = std::min(begin + size, m.end);
  return high > low ? high - low : 0;
}

/** Bytes of [p, p + size) in huge pages; where a mapping reaches beyond it, at most that many. */
[[nodiscard]] inline std::size_t huge_bytes_of(const void* p, std::size_t size) {
  std::size_t sum = 0;
  for_each_mapping([&](const mapping& m) { sum += std::min(overlap(m, p, size), m.huge_bytes); });
  return sum;
}

/** Bytes of [p, p + size) in mappings with a flag: "hg" is advised huge, "nh" advised not. */
[[nodiscard]] inline std::size_t flagged_bytes_of(const void* p, std::size_t size, std::string_view flag) {
  std::size_t sum = 0;
  for_each_mapping([&](const mapping& m) {
    if (m.flags.find(std::string(flag) + " ") != std::string::npos) sum += overlap(m, p, size);
  });
  return sum;
}

/** Whether a file of this path is mapped. */
[[nodiscard]] inline bool is_mapped(std::string_view path) {
  bool found = false;
  for_each_mapping([&](const mapping& m) { found = found || m.path == path; });
  return found;
}

}  // namespace test

#endif
