// SPDX-License-Identifier: Apache-2.0
//
// The hash behind sticky routing. It is part of the contract: the same key, salt and weights choose the same version in every process, on every
// machine and in every later release of lora 0.x, so a fleet needs no coordination. Not for security: keys of an attacker can be aimed.
//
//   const std::uint64_t key = lora::stable_hash("user 4711", salt);   // once a request
#ifndef LORA_SNAPSHOT_STABLE_HASH_HPP
#define LORA_SNAPSHOT_STABLE_HASH_HPP

#include <lora/config.hpp>

#include <bit>
#include <cstdint>
#include <string_view>

namespace lora::inline v0 {

/** The finaliser of splitmix64 (Steele, Lea, Flood 2014; constants of Stafford's "mix 13"): a bijection that spreads every bit. */
[[nodiscard]] constexpr std::uint64_t mix64(std::uint64_t x) noexcept {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

/** mix64 of (FNV-1a, 64 bits, of the bytes of `key`) xor mix64(salt). */
[[nodiscard]] constexpr std::uint64_t stable_hash(std::string_view key, std::uint64_t salt = 0) noexcept {
  std::uint64_t h = 0xcbf29ce484222325u;
  for (const char c : key) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return mix64(h ^ mix64(salt));
}

namespace detail {

/**
 * -log2(h / 2^64) with 26 fractional bits, in integers, so that every machine gives the same; h = 0 counts as 1. One squaring of the
 * mantissa per bit; cutting it to 32 bits costs at most 2^-30 in all, less than the last bit.
 */
[[nodiscard]] constexpr std::uint64_t minus_log2(std::uint64_t h) noexcept {
  if (h == 0) h = 1;
  const int zeros = std::countl_zero(h);
  std::uint64_t mantissa = (h << zeros) >> 32;  // in [2^31, 2^32): 1 <= mantissa / 2^31 < 2
  std::uint64_t fraction = 0;
  for (int bit = 0; bit < 26; ++bit) {
    mantissa = (mantissa * mantissa) >> 31;
    const std::uint64_t one = mantissa >> 32;
    mantissa >>= one;
    fraction = 2 * fraction + one;
  }
  return (static_cast<std::uint64_t>(zeros + 1) << 26) - fraction;
}

}  // namespace detail
}  // namespace lora::inline v0

#endif
