// SPDX-License-Identifier: Apache-2.0
#include <lora/core/bytes.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <new>
#include <type_traits>
#include <utility>
#include <vector>

TEST_CASE("core/bytes: blocks are aligned to 64, whatever their size") {
  for (const std::size_t size : {1u, 63u, 64u, 65u, 4096u}) {
    lora::aligned_bytes b(size);
    CHECK(reinterpret_cast<std::uintptr_t>(b.data()) % lora::allocation_alignment == 0);
    CHECK(b.size() == size);
    std::memset(b.data(), 0xab, size);  // ASan sees a block that is too small
  }
}

TEST_CASE("core/bytes: a block of size 0 is null") {
  lora::aligned_bytes none(0);
  CHECK(none.data() == nullptr);
  CHECK(none.size() == 0);
  CHECK(lora::aligned_bytes().data() == nullptr);
}

TEST_CASE("core/bytes: moving hands the block over and leaves nothing behind") {
  lora::aligned_bytes a(100);
  void* const p = a.data();
  lora::aligned_bytes b(std::move(a));
  CHECK(b.data() == p);
  CHECK(b.size() == 100);
  CHECK(a.data() == nullptr);
  CHECK(a.size() == 0);
  lora::aligned_bytes c(8);
  c = std::move(b);
  CHECK(c.data() == p);
  CHECK(b.data() == nullptr);
  lora::aligned_bytes& same = c;
  c = std::move(same);
  CHECK(c.data() == p);
  CHECK(c.size() == 100);
  CHECK_FALSE(std::is_copy_constructible_v<lora::aligned_bytes>);
  CHECK_FALSE(std::is_copy_assignable_v<lora::aligned_bytes>);
}

namespace {

constexpr std::size_t mib = std::size_t{1} << 20;

std::uintptr_t address_of(const lora::aligned_bytes& b) { return reinterpret_cast<std::uintptr_t>(b.data()); }

}  // namespace

TEST_CASE("core/bytes: blocks of 4 MiB and more begin on a huge page, and only they") {
  for (const lora::pages wanted : {lora::pages::huge, lora::pages::small}) {
    for (const std::size_t size : {4 * mib, 4 * mib + 1, 5 * mib, 6 * mib - 1, 6 * mib, 9 * mib + 12345}) {
      lora::aligned_bytes b(size, wanted);
      CHECK(address_of(b) % lora::huge_page_size == 0);
      CHECK(b.size() == size);
      CHECK(b.wanted_pages() == wanted);
      std::memset(b.data(), 0xab, size);
      CHECK(static_cast<unsigned char*>(b.data())[size - 1] == 0xab);
    }
  }
  // Smaller ones are allocated as ever: with 64 of them at once, all on huge pages would be no accident.
  std::vector<lora::aligned_bytes> blocks;
  bool all = true;
  for (int i = 0; i < 64; ++i) {
    blocks.emplace_back(4 * mib - 1);
    CHECK(address_of(blocks.back()) % lora::allocation_alignment == 0);
    all = all && address_of(blocks.back()) % lora::huge_page_size == 0;
  }
  CHECK_FALSE(all);
}

TEST_CASE("core/bytes: pages::system asks for nothing and rounds nothing") {
  std::vector<lora::aligned_bytes> blocks;
  bool all = true;
  for (int i = 0; i < 64; ++i) {
    blocks.emplace_back(4 * mib, lora::pages::system);
    CHECK(address_of(blocks.back()) % lora::allocation_alignment == 0);
    all = all && address_of(blocks.back()) % lora::huge_page_size == 0;
  }
  CHECK_FALSE(all);
}

TEST_CASE("core/bytes: no two blocks share a huge page") {
  std::vector<lora::aligned_bytes> blocks;
  for (int i = 0; i < 8; ++i) blocks.emplace_back(4 * mib + 1);
  for (const auto& a : blocks)
    for (const auto& b : blocks)
      if (&a != &b && address_of(a) < address_of(b)) CHECK(address_of(a) + 6 * mib <= address_of(b));
}

TEST_CASE("core/bytes: a block remembers its pages when it moves") {
  lora::aligned_bytes a(4 * mib, lora::pages::small);
  const std::uintptr_t at = address_of(a);
  lora::aligned_bytes b(100);
  b = std::move(a);
  CHECK(address_of(b) == at);
  CHECK(b.wanted_pages() == lora::pages::small);
  lora::aligned_bytes c(5 * mib, lora::pages::system);
  c = std::move(b);
  CHECK(address_of(c) == at);
  CHECK(b.data() == nullptr);
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // their operator new ends the program instead
TEST_CASE("core/bytes: what cannot be allocated throws, sizes that rounding up would overflow included") {
  const auto top = static_cast<std::size_t>(-1);
  const auto most = static_cast<std::size_t>(PTRDIFF_MAX);
  for (const lora::pages wanted : {lora::pages::huge, lora::pages::system, lora::pages::small})
    for (const std::size_t size : {top, top - 63, top - lora::huge_page_size, most, most - lora::huge_page_size, most / 2})
      CHECK_THROWS_AS(lora::aligned_bytes(size, wanted), std::bad_alloc);
}
#endif
