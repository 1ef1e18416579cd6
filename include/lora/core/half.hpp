// SPDX-License-Identifier: Apache-2.0
//
// float16 (IEEE binary16) and bfloat16 as 2-byte storage types with exact conversions. They have no arithmetic: every computation
// of the library widens to float first, and rounds once at the end. g++ 12 and clang 14 do not both have native types for them.
//
//   lora::bfloat16 b{1.5f};  float f = static_cast<float>(b);  auto h = lora::float16::from_bits(0x3c00);
//
// Narrowing rounds to nearest, ties to even; overflow gives infinity; NaN stays NaN, made quiet, with sign and upper payload kept.
// Widening is exact, subnormals included. It makes a float16 NaN quiet, as the hardware does, and takes a bfloat16 NaN bit by bit. The
// constructors take float: a double converted to it first rounds twice; cast (ops/cast.hpp) rounds a double once.
#ifndef LORA_CORE_HALF_HPP
#define LORA_CORE_HALF_HPP

#include <lora/config.hpp>

#include <bit>
#include <cstdint>

namespace lora::inline v0 {

namespace detail {

[[nodiscard]] constexpr float bfloat16_to_float(std::uint16_t bits) noexcept {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

[[nodiscard]] constexpr std::uint16_t float_to_bfloat16(float value) noexcept {
  const auto u = std::bit_cast<std::uint32_t>(value);
  // A NaN whose payload sits only in the lower half would round to infinity: set the quiet bit instead.
  if ((u & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>((u >> 16) | 0x0040u);
  // Adding just under half an ulp, plus one if the kept part is odd, is round to nearest even; a carry into the exponent is right.
  return static_cast<std::uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

[[nodiscard]] constexpr float float16_to_float(std::uint16_t bits) noexcept {
  const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000u) << 16;
  const std::uint32_t magnitude = bits & 0x7fffu;
  if (magnitude >= 0x7c00u) {  // infinity or NaN; the quiet bit is set as the hardware's conversion does
    const std::uint32_t quiet = magnitude > 0x7c00u ? 0x00400000u : 0u;
    return std::bit_cast<float>(sign | 0x7f800000u | ((magnitude & 0x3ffu) << 13) | quiet);
  }
  if (magnitude >= 0x0400u) return std::bit_cast<float>(sign | ((magnitude << 13) + ((127u - 15u) << 23)));
  // Subnormal: an integer multiple of 2^-24. The product is exact in float.
  const float value = static_cast<float>(magnitude) * 0x1p-24f;
  return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(value));
}

[[nodiscard]] constexpr std::uint16_t float_to_float16(float value) noexcept {
  const auto u = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint16_t>((u >> 16) & 0x8000u);
  const std::uint32_t magnitude = u & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<std::uint16_t>(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu));
  if (magnitude >= 0x477ff000u) return static_cast<std::uint16_t>(sign | 0x7c00u);  // 65520 and above round to infinity
  if (magnitude >= 0x38800000u) {                                                   // 2^-14: normal in binary16
    const std::uint32_t rebased = magnitude - ((127u - 15u) << 23);
    return static_cast<std::uint16_t>(sign | ((rebased + 0xfffu + ((rebased >> 13) & 1u)) >> 13));
  }
  // Subnormal or zero: the exponent says how far the 24-bit significand is shifted to count in units of 2^-24.
  const std::uint32_t exponent = magnitude >> 23;
  if (exponent < 102u) return sign;  // below 2^-25: to zero (2^-25 itself ties to even, also zero, and is handled below)
  const std::uint32_t significand = (magnitude & 0x7fffffu) | 0x800000u;
  const std::uint32_t shift = 126u - exponent;
  const std::uint32_t kept = significand >> shift;
  const std::uint32_t rest = significand & ((1u << shift) - 1u);
  const std::uint32_t half = 1u << (shift - 1u);
  const std::uint32_t up = (rest > half || (rest == half && (kept & 1u) != 0u)) ? 1u : 0u;
  return static_cast<std::uint16_t>(sign | (kept + up));
}

}  // namespace detail

/** The upper half of a float: 8 exponent bits, 7 + 1 significand bits. */
struct bfloat16 {
  std::uint16_t bits;

  bfloat16() = default;
  explicit constexpr bfloat16(float value) noexcept : bits(detail::float_to_bfloat16(value)) {}
  explicit constexpr operator float() const noexcept { return detail::bfloat16_to_float(bits); }

  [[nodiscard]] static constexpr bfloat16 from_bits(std::uint16_t bits) noexcept {
    bfloat16 b;
    b.bits = bits;
    return b;
  }
  /** Compares bits, not values: -0 differs from +0, and a NaN equals itself. For value comparison convert to float. */
  friend constexpr bool operator==(bfloat16, bfloat16) noexcept = default;
};

/** IEEE 754 binary16: 5 exponent bits, 10 + 1 significand bits. */
struct float16 {
  std::uint16_t bits;

  float16() = default;
  explicit constexpr float16(float value) noexcept : bits(detail::float_to_float16(value)) {}
  explicit constexpr operator float() const noexcept { return detail::float16_to_float(bits); }

  [[nodiscard]] static constexpr float16 from_bits(std::uint16_t bits) noexcept {
    float16 h;
    h.bits = bits;
    return h;
  }
  /** Compares bits, not values: -0 differs from +0, and a NaN equals itself. For value comparison convert to float. */
  friend constexpr bool operator==(float16, float16) noexcept = default;
};

static_assert(sizeof(bfloat16) == 2 && sizeof(float16) == 2);

}  // namespace lora::inline v0

#endif
