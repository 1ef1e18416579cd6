// SPDX-License-Identifier: Apache-2.0
//
// content_hash: 32 bytes that name a content, as SHA-256 gives them. Adapters carry the hash of the base they were trained on, versions
// that of what they hold. Not here: computing one (interop/sha256.hpp, or the caller's own function).
//
//   if (loaded == expected) ...;  std::puts(loaded.hex().data());
#ifndef LORA_CORE_CONTENT_HASH_HPP
#define LORA_CORE_CONTENT_HASH_HPP

#include <lora/config.hpp>

#include <array>
#include <cstddef>
#include <cstdint>

namespace lora::inline v0 {

/** 32 bytes; all zero means "not known", which no hash function in use gives for any input that was ever found. */
struct content_hash {
  std::array<std::uint8_t, 32> bytes{};

  [[nodiscard]] constexpr bool known() const noexcept {
    for (const std::uint8_t b : bytes)
      if (b != 0) return true;
    return false;
  }

  /** 64 lower-case digits and a terminating zero. */
  [[nodiscard]] constexpr std::array<char, 65> hex() const noexcept {
    std::array<char, 65> digits{};
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      digits[2 * i] = "0123456789abcdef"[bytes[i] >> 4];
      digits[2 * i + 1] = "0123456789abcdef"[bytes[i] & 15];
    }
    return digits;
  }

  friend constexpr bool operator==(const content_hash&, const content_hash&) noexcept = default;
};

}  // namespace lora::inline v0

#endif
