// SPDX-License-Identifier: Apache-2.0
//
// Which tier of kernels is in use. The choice is made once, by asking the CPU, and can be lowered by the environment variable LORA_TIER
// (generic, avx2, avx512, avx512_bf16), which is read at that moment only, or for one call by passing a tier. That cache is the only static of the
// library; filling it twice gives the same value.
//
//   lora::simd::tier_name();                                     // "avx512_bf16": print it beside every measurement
#ifndef LORA_SIMD_ACTIVE_HPP
#define LORA_SIMD_ACTIVE_HPP

#include <lora/simd/isa.hpp>

#include <cstdlib>

namespace lora::inline v0::simd::inline LORA_ISA_TAG {

namespace detail {

/** What was found out about the machine, once. */
struct machine {
  tier highest;
  fetch w;
  bool in_pairs;
};

[[nodiscard]] inline const machine& this_machine() noexcept {
  static const machine found = [] {
    const tier best = best_tier();
    const char* wanted = std::getenv("LORA_TIER");
    for (unsigned i = 0; wanted != nullptr && i < tier_count; ++i) {
      const auto t = static_cast<tier>(i);
      if (t <= best && __builtin_strcmp(wanted, name_of(t)) == 0) return machine{t, best_fetch(), best_in_pairs()};
    }
    return machine{best, best_fetch(), best_in_pairs()};
  }();
  return found;
}

}  // namespace detail

/** The highest tier in use: best_tier(), or LORA_TIER where that names a lower one. An unknown or higher name is ignored. */
[[nodiscard]] inline tier active_tier() noexcept { return detail::this_machine().highest; }

/** best_fetch(), remembered. */
[[nodiscard]] inline fetch active_fetch() noexcept { return detail::this_machine().w; }

/** best_in_pairs(), remembered. */
[[nodiscard]] inline bool active_in_pairs() noexcept { return detail::this_machine().in_pairs; }

/** What a call that asks for `wanted` gets: that, or the active tier where it is lower. */
[[nodiscard]] inline tier usable_tier(tier wanted) noexcept {
  const tier active = active_tier();
  return wanted < active ? wanted : active;
}

/** Name of the active tier. */
[[nodiscard]] inline const char* tier_name() noexcept { return name_of(active_tier()); }

}  // namespace lora::inline v0::simd::inline LORA_ISA_TAG

#endif
