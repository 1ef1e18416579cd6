// SPDX-License-Identifier: Apache-2.0
//
// What the system did with a request for huge pages, as /proc tells it. Where it has none to give, or is told to give none, the figures are
// printed and nothing is demanded of them.
#include "support/smaps.hpp"

#include <lora/core/bytes.hpp>

#include <doctest/doctest.h>

#include <cstring>
#include <fstream>
#include <string>

#include <sys/mman.h>

#if defined(__linux__)
static_assert(lora::detail::advice_huge == MADV_HUGEPAGE && lora::detail::advice_small == MADV_NOHUGEPAGE);
#endif

namespace {

constexpr std::size_t mib = std::size_t{1} << 20;

/** The word in brackets: always, madvise or never; empty where there is no such file. */
std::string policy() {
  std::ifstream in("/sys/kernel/mm/transparent_hugepage/enabled");
  std::string word;
  while (in >> word)
    if (word.front() == '[') return word.substr(1, word.size() - 2);
  return "";
}

}  // namespace

TEST_CASE("core/pages: a touched block is in huge pages where the system gives them") {
  lora::aligned_bytes huge(16 * mib);
  lora::aligned_bytes small(16 * mib, lora::pages::small);
  std::memset(huge.data(), 1, huge.size());
  std::memset(small.data(), 1, small.size());
  const std::size_t got = test::huge_bytes_of(huge.data(), huge.size());
  MESSAGE("policy: " << policy() << ", of 16 MiB in huge pages: " << got / mib << " MiB");
  CHECK(got <= huge.size());
  CHECK(test::huge_bytes_of(small.data(), small.size()) == 0);
  if (policy() == "always" || policy() == "madvise") WARN(got == huge.size());
}

TEST_CASE("core/pages: the request is made for exactly the block") {
#if defined(__linux__) && !defined(LORA_TEST_EMULATED)  // an emulator's /proc/self/smaps does not tell
  if (policy().empty()) return;                         // a kernel without them answers no
  for (const std::size_t size : {4 * mib, 4 * mib + 1, 7 * mib}) {
    const lora::aligned_bytes huge(size);
    const lora::aligned_bytes small(size, lora::pages::small);
    const lora::aligned_bytes plain(size - size % 64, lora::pages::system);
    CHECK(test::flagged_bytes_of(huge.data(), lora::detail::round_up_to_huge_pages(size), "hg") ==
          lora::detail::round_up_to_huge_pages(size));
    CHECK(test::flagged_bytes_of(small.data(), lora::detail::round_up_to_huge_pages(size), "nh") ==
          lora::detail::round_up_to_huge_pages(size));
    CHECK(test::flagged_bytes_of(huge.data(), huge.size(), "nh") == 0);
  }
#endif
}
