// SPDX-License-Identifier: Apache-2.0
//
// Ours, compiled without any -m flag, as users compile it.
#include "forward.hpp"

#include "lora.inl"

namespace bench {
namespace {

using lora::precision;
using lora::simd::tier;

void run(void* s, const problem& p, std::size_t at, std::size_t set) {
  if (p.element == type::f32)
    run_as<float>(*static_cast<state*>(s), p, at, set);
  else
    run_as<lora::bfloat16>(*static_cast<state*>(s), p, at, set);
}

constexpr tier best = tier::avx512_bf16;

bool any(const problem&) { return true; }
bool native(const problem& p) { return p.element == type::bf16 && !p.transposed && lora::simd::has_pairs(best); }
bool avx2(const problem&) { return lora::simd::active_tier() > tier::avx2; }
bool generic(const problem&) { return lora::simd::active_tier() > tier::generic; }

template <tier Tier, precision Precision, bool Terms = true>
peer make(const char* name, std::string how, bool (*takes)(const problem&)) {
  return {name, std::move(how), form::ours, false, takes, prepare<Tier, Precision, Terms>, run, discard, nullptr, !Terms};
}

}  // namespace

void lora_peers(peer_list& out) {
  const std::string again = "the same a second time: how far equal code differs here";
  out.push_back(make<best, precision::exact>("lora", std::string("one fused call, tier ") + lora::simd::tier_name(), any));
  out.push_back(make<best, precision::exact>("lora again", again, any));
  out.push_back(make<best, precision::native>("lora native", "precision::native: the CPU's dot product of bf16 pairs", native));
  out.push_back(make<best, precision::native>("lora native again", again, native));
  out.push_back(make<best, precision::exact, false>("lora base", "without the adapters: what they cost", any));
  out.push_back(make<best, precision::native, false>("lora native base", "without the adapters, precision::native", native));
  out.push_back(make<tier::avx2, precision::exact>("lora avx2", "tier forced down to AVX2", avx2));
  out.push_back(make<tier::generic, precision::exact>("lora generic", "tier forced down to xsimd at this file's flags (none)", generic));
}

}  // namespace bench
