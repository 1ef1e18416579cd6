// SPDX-License-Identifier: Apache-2.0
//
// All 2^32 floats to both 16-bit formats. The oracle walks the floats upwards beside the halves: a float belongs to a half until it passes
// the tie with the next one. On a CPU with F16C its conversion is a second oracle, NaN included.
#include <lora/core/half.hpp>

#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstdint>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

namespace {

// Value of half `bits` >= 0 with `significand` stored bits; infinity counts as the next power of two, which makes its tie right.
double value_of(int significand, int lowest, std::uint32_t bits) {
  const int exponent = static_cast<int>(bits >> significand);
  const double fraction = static_cast<double>(bits & ((1u << significand) - 1u));
  return exponent == 0 ? std::ldexp(fraction, lowest - significand)
                       : std::ldexp(fraction + std::ldexp(1.0, significand), lowest - 1 + exponent - significand);
}

template <class Half>
std::uint64_t count_wrong(int significand, int lowest, std::uint32_t infinity) {
  std::uint64_t wrong = 0;
  std::uint32_t half = 0;
  double tie = value_of(significand, lowest, 1) / 2;
  for (std::uint32_t u = 0; u <= 0x7f800000u; ++u) {
    const double v = static_cast<double>(std::bit_cast<float>(u));
    while (half != infinity && (v > tie || (v == tie && (half & 1u) != 0))) {
      ++half;
      tie = (value_of(significand, lowest, half) + value_of(significand, lowest, half + 1u)) / 2;
    }
    wrong += Half(std::bit_cast<float>(u)).bits != half;
    wrong += Half(std::bit_cast<float>(u | 0x80000000u)).bits != (half | 0x8000u);
  }
  for (std::uint32_t u = 0x7f800001u; u <= 0x7fffffffu; ++u) {
    const std::uint32_t quiet = infinity | (1u << (significand - 1));
    const std::uint32_t want = quiet | ((u & 0x7fffffu) >> (23 - significand));
    wrong += Half(std::bit_cast<float>(u)).bits != want;
    wrong += Half(std::bit_cast<float>(u | 0x80000000u)).bits != (want | 0x8000u);
  }
  return wrong;
}

#if defined(__x86_64__)
// clang 14 does not know "f16c" in __builtin_cpu_supports. "avx" covers the operating system's part.
bool has_f16c() {
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  return __builtin_cpu_supports("avx") && __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & (1u << 29)) != 0;
}

[[gnu::target("avx,f16c")]] std::uint64_t count_unlike_f16c() {
  std::uint64_t wrong = 0;
  alignas(16) std::uint16_t hardware[8];
  alignas(32) float floats[8];
  for (std::uint64_t u = 0; u < (std::uint64_t{1} << 32); u += 8) {
    for (std::uint32_t i = 0; i < 8; ++i) floats[i] = std::bit_cast<float>(static_cast<std::uint32_t>(u) + i);
    _mm_store_si128(reinterpret_cast<__m128i*>(hardware), _mm256_cvtps_ph(_mm256_load_ps(floats), _MM_FROUND_TO_NEAREST_INT));
    for (std::uint32_t i = 0; i < 8; ++i) wrong += hardware[i] != lora::float16(floats[i]).bits;
  }
  return wrong;
}
#endif

}  // namespace

TEST_CASE("core/half: all 2^32 floats to float16") { CHECK(count_wrong<lora::float16>(10, -14, 0x7c00) == 0); }

TEST_CASE("core/half: all 2^32 floats to bfloat16") { CHECK(count_wrong<lora::bfloat16>(7, -126, 0x7f80) == 0); }

#if defined(__x86_64__)
TEST_CASE("core/half: all 2^32 floats to float16 as F16C does it") {
  if (!has_f16c()) {
    MESSAGE("skipped: this CPU has no F16C");
    return;
  }
  CHECK(count_unlike_f16c() == 0);
}
#endif
