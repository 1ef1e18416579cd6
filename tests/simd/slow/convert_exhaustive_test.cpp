// SPDX-License-Identifier: Apache-2.0
//
// All 2^32 floats to both 16-bit formats, and all 2^16 of each back, in every tier this CPU has, against the conversion of one element,
// which core/slow proves against wider arithmetic.
#include <lora/simd/convert.hpp>

#include <doctest/doctest.h>

#include <bit>
#include <cstdint>
#include <vector>

using lora::simd::tier;

namespace {

constexpr std::uint32_t chunk = 1u << 12;

template <class Half>
void check() {
  std::vector<float> in(chunk);
  std::vector<std::uint16_t> want(chunk);
  std::vector<Half> out(chunk);
  std::uint64_t wrong[lora::simd::tier_count] = {};
  for (std::uint64_t first = 0; first < (std::uint64_t{1} << 32); first += chunk) {
    for (std::uint32_t i = 0; i < chunk; ++i) {
      in[i] = std::bit_cast<float>(static_cast<std::uint32_t>(first) + i);
      want[i] = Half(in[i]).bits;
    }
    for (unsigned t = 0; t < lora::simd::tier_count; ++t) {
      if (lora::simd::active_tier() < static_cast<tier>(t)) continue;
      lora::simd::converter<Half, float>(static_cast<tier>(t))(in.data(), 0, out.data(), 0, 1, chunk);
      for (std::uint32_t i = 0; i < chunk; ++i) wrong[t] += out[i].bits != want[i];
    }
  }
  for (unsigned t = 0; t < lora::simd::tier_count; ++t) {
    CAPTURE(lora::simd::name_of(static_cast<tier>(t)));
    if (lora::simd::active_tier() < static_cast<tier>(t)) {
      MESSAGE("skipped, not on this CPU: tier " << lora::simd::name_of(static_cast<tier>(t)));
      continue;
    }
    CHECK(wrong[t] == 0);
    std::vector<Half> all(0x10000);
    for (std::uint32_t bits = 0; bits < 0x10000u; ++bits) all[bits] = Half::from_bits(static_cast<std::uint16_t>(bits));
    std::vector<float> back(all.size());
    lora::simd::converter<float, Half>(static_cast<tier>(t))(all.data(), 0, back.data(), 0, 1, 0x10000);
    int unlike = 0;
    for (std::uint32_t bits = 0; bits < 0x10000u; ++bits)
      unlike += std::bit_cast<std::uint32_t>(back[bits]) != std::bit_cast<std::uint32_t>(static_cast<float>(all[bits]));
    CHECK(unlike == 0);
  }
}

}  // namespace

TEST_CASE("simd/convert: all 2^32 floats to float16 and all float16 back, in every tier") { check<lora::float16>(); }
TEST_CASE("simd/convert: all 2^32 floats to bfloat16 and all bfloat16 back, in every tier") { check<lora::bfloat16>(); }
