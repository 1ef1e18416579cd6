// SPDX-License-Identifier: Apache-2.0
//
// The pieces that differ between the tiers: which lane holds which element after spread and spread_part, and which lanes fold adds up for
// which token. Compiled with the target attributes of the kernels, and called only where the CPU has the instructions.
#include <lora/simd/dispatch.hpp>

#include <doctest/doctest.h>

#include <vector>

using lora::simd::tier;

namespace {

constexpr float sentinel = -123456.0f;

struct lanes_seen {
  std::vector<float> spread;
  std::vector<std::vector<float>> parts;  // of 1 .. P - 1 elements
  std::vector<float> apart;               // a group of registers, by fold
  std::vector<float> together;            // and by fold_together
  std::vector<float> folded;              // of the lanes 1, 2, 4, 8, ...: a sum tells which were added
};

void expect(const lanes_seen& seen, int lanes, int T) {
  const int P = lanes / T;
  CAPTURE(lanes);
  CAPTURE(T);
  for (int lane = 0; lane < lanes; ++lane) {
    const auto at = static_cast<std::size_t>(lane);
    CHECK(seen.spread[at] == static_cast<float>(1 + lane % P));
    for (int n = 1; n < P; ++n)
      CHECK(seen.parts[static_cast<std::size_t>(n - 1)][at] == (lane % P < n ? static_cast<float>(1 + lane % P) : 0.0f));
  }
  REQUIRE(seen.folded.size() == static_cast<std::size_t>(T + 1));
  for (int t = 0; t < T; ++t) {
    float want = 0;
    for (int p = 0; p < P; ++p) want += static_cast<float>(1 << (t * P + p));
    CHECK(seen.folded[static_cast<std::size_t>(t)] == want);
  }
  CHECK(seen.folded.back() == sentinel);
  // Of numbers whose sum depends on the order of the additions.
  CHECK(seen.together.back() == sentinel);
  REQUIRE(seen.together.size() == seen.apart.size() + 1);
  CHECK(std::memcmp(seen.together.data(), seen.apart.data(), seen.apart.size() * sizeof(float)) == 0);
}

// `elements` is exactly P long: a sanitizer sees a read behind it.
#define LORA_TEST_LANES(NAME, TARGET)                                                                    \
  template <int T>                                                                                       \
  TARGET lanes_seen look_##NAME() {                                                                      \
    namespace k = lora::simd::NAME;                                                                      \
    constexpr int P = k::lanes / T;                                                                      \
    std::vector<float> elements(static_cast<std::size_t>(P));                                            \
    for (int p = 0; p < P; ++p) elements[static_cast<std::size_t>(p)] = static_cast<float>(1 + p);       \
    lanes_seen seen;                                                                                     \
    seen.spread.resize(static_cast<std::size_t>(k::lanes));                                              \
    k::store(seen.spread.data(), k::spread<T>(0.0f, elements.data()));                                   \
    if constexpr (P > 1) {                                                                               \
      for (int n = 1; n < P; ++n) {                                                                      \
        const std::vector<float> few(elements.begin(), elements.begin() + n);                            \
        std::vector<float> out(static_cast<std::size_t>(k::lanes));                                      \
        k::store(out.data(), k::spread_part<T>(0.0f, few.data(), n));                                    \
        seen.parts.push_back(out);                                                                       \
      }                                                                                                  \
    }                                                                                                    \
    std::vector<float> powers(static_cast<std::size_t>(k::lanes));                                       \
    for (int i = 0; i < k::lanes; ++i) powers[static_cast<std::size_t>(i)] = static_cast<float>(1 << i); \
    seen.folded.assign(static_cast<std::size_t>(T + 1), sentinel);                                       \
    k::fold<T>(k::load(powers.data()), seen.folded.data());                                              \
    constexpr int group = k::folded_together<T>;                                                         \
    std::uint32_t state = 12345;                                                                         \
    k::reg v[group];                                                                                     \
    for (int g = 0; g < group; ++g) {                                                                    \
      for (float& f : powers) {                                                                          \
        state = state * 1664525u + 1013904223u;                                                          \
        f = static_cast<float>(static_cast<std::int32_t>(state)) * 0x1p-31f;                             \
      }                                                                                                  \
      v[g] = k::load(powers.data());                                                                     \
    }                                                                                                    \
    seen.apart.assign(static_cast<std::size_t>(group * T), sentinel);                                    \
    seen.together.assign(static_cast<std::size_t>(group * T + 1), sentinel);                             \
    for (int g = 0; g < group; ++g) k::fold<T>(v[g], seen.apart.data() + g * T);                         \
    k::fold_together<T>(v, seen.together.data());                                                        \
    return seen;                                                                                         \
  }

LORA_TEST_LANES(generic, )
#if LORA_X86
LORA_TEST_LANES(avx2, [[gnu::target("avx2,fma,f16c")]])
LORA_TEST_LANES(avx512, [[gnu::target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]])
#endif

}  // namespace

TEST_CASE("simd/lanes: generic: one token or all lanes") {
  expect(look_generic<1>(), lora::simd::generic::lanes, 1);
  expect(look_generic<lora::simd::generic::lanes>(), lora::simd::generic::lanes, lora::simd::generic::lanes);
}

#if LORA_X86

TEST_CASE("simd/lanes: avx2: 1, 2, 4 and 8 tokens") {
  if (lora::simd::best_tier() < tier::avx2) {
    MESSAGE("skipped, not on this CPU: tier avx2");
    return;
  }
  expect(look_avx2<1>(), 8, 1);
  expect(look_avx2<2>(), 8, 2);
  expect(look_avx2<4>(), 8, 4);
  expect(look_avx2<8>(), 8, 8);
}

TEST_CASE("simd/lanes: avx512: 1, 2, 4, 8 and 16 tokens") {
  if (lora::simd::best_tier() < tier::avx512) {
    MESSAGE("skipped, not on this CPU: tier avx512");
    return;
  }
  expect(look_avx512<1>(), 16, 1);
  expect(look_avx512<2>(), 16, 2);
  expect(look_avx512<4>(), 16, 4);
  expect(look_avx512<8>(), 16, 8);
  expect(look_avx512<16>(), 16, 16);
}

#endif
