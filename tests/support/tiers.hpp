// SPDX-License-Identifier: Apache-2.0
//
// Runs a part of a doctest case once for each tier of kernels that this CPU has; what fails there shows the tier.
//
//   test::for_each_tier([&](lora::simd::tier t) { ... });
#ifndef LORA_TESTS_SUPPORT_TIERS_HPP
#define LORA_TESTS_SUPPORT_TIERS_HPP

#include <lora/simd/active.hpp>

#include <doctest/doctest.h>

#include <string>

namespace test {

/** Not for avx512_bf16: without precision::native it has the kernels of avx512. */
template <class F>
void for_each_tier(F f) {
  using lora::simd::tier;
  for (const tier t : {tier::generic, tier::avx2, tier::avx512}) {
    const std::string name = lora::simd::name_of(t);
    CAPTURE(name);
    if (lora::simd::active_tier() < t)
      MESSAGE("skipped, not on this CPU: tier " << name);
    else
      f(t);
  }
}

}  // namespace test

#endif
