// SPDX-License-Identifier: Apache-2.0
#include <lora/core/bytes.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <type_traits>
#include <utility>

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
