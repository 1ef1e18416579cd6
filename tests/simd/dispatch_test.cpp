// SPDX-License-Identifier: Apache-2.0
//
// Which tier is used, and what LORA_TIER does to it. The variable is read once, so it is tested in child processes of this program.
#include <lora/simd/dispatch.hpp>

#include <doctest/doctest.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>

using lora::simd::tier;

namespace {

/** Runs the test case below in a child with LORA_TIER set (or not, when null), and gives what it printed. */
std::string tier_of_child(const char* wanted) {
  char self[4096] = {};
  if (readlink("/proc/self/exe", self, sizeof self - 1) <= 0) return "no /proc/self/exe";
  std::string command = wanted == nullptr ? "env -u LORA_TIER" : std::string("env 'LORA_TIER=") + wanted + "'";
  const char* emulator = std::getenv("LORA_TEST_EMULATOR");  // a program for another CPU is not started by its name alone
  command += std::string(" ") + (emulator == nullptr ? "" : emulator) + " '" + self + "' --no-skip --test-case='simd/dispatch: (child*'";
  std::FILE* out = popen(command.c_str(), "r");
  if (out == nullptr) return "popen failed";
  std::string found = "nothing";
  char line[256];
  while (std::fgets(line, sizeof line, out) != nullptr)
    if (std::string(line).rfind("active=", 0) == 0) found = std::string(line).substr(7, std::string(line).find('\n') - 7);
  pclose(out);
  return found;
}

}  // namespace

TEST_CASE("simd/dispatch: (child of the test of LORA_TIER)" * doctest::skip()) { std::printf("active=%s\n", lora::simd::tier_name()); }

TEST_CASE("simd/dispatch: LORA_TIER lowers the tier; unknown, empty and higher names are ignored") {
  const tier best = lora::simd::best_tier();
  const std::string best_name = lora::simd::name_of(best);
  CHECK(tier_of_child(nullptr) == best_name);
  CHECK(tier_of_child("") == best_name);
  CHECK(tier_of_child("AVX2") == best_name);
  CHECK(tier_of_child("sse9") == best_name);
  for (unsigned i = 0; i < lora::simd::tier_count; ++i) {
    const char* name = lora::simd::name_of(static_cast<tier>(i));
    CHECK(tier_of_child(name) == (static_cast<tier>(i) <= best ? name : best_name));
  }
}

TEST_CASE("simd/dispatch: a table is of the tier that was asked for, or of the active one where that is lower") {
  const tier active = lora::simd::active_tier();
  CHECK(active <= lora::simd::best_tier());
  CHECK(std::string(lora::simd::tier_name()) == lora::simd::name_of(active));
  for (unsigned i = 0; i < lora::simd::tier_count; ++i) {
    const auto wanted = static_cast<tier>(i);
    const auto& k = lora::simd::kernels(wanted);
    // Of its own avx512_bf16 has only the kernels of pairs.
    const tier usable = wanted < active ? wanted : active;
    CHECK(k.which == (usable < tier::avx512_bf16 ? usable : tier::avx512));
    CHECK(&k == &lora::simd::kernels(wanted));
    CHECK(lora::simd::has_pairs(wanted) == (usable == tier::avx512_bf16));
  }
  CHECK(&lora::simd::kernels() == &lora::simd::kernels(active));
  CHECK(lora::simd::kernels(tier::generic).which == tier::generic);
}

TEST_CASE("simd/isa: names of the tiers") {
  CHECK(std::string(lora::simd::name_of(tier::generic)) == "generic");
  CHECK(std::string(lora::simd::name_of(tier::avx2)) == "avx2");
  CHECK(std::string(lora::simd::name_of(tier::avx512)) == "avx512");
  CHECK(std::string(lora::simd::name_of(tier::avx512_bf16)) == "avx512_bf16");
}
