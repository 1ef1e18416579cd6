// SPDX-License-Identifier: Apache-2.0
//
// lora's generic tier at -O2 without an -m flag: what a cautious user's compiler makes of it. Floats only.
#include "../forward.hpp"

#include "../lora.inl"
#include "o2.hpp"

namespace bench {
namespace {

void run(void* s, const problem& p, std::size_t at, std::size_t set) { run_as<float>(*static_cast<state*>(s), p, at, set); }

}  // namespace

void o2_lora(peer_list& out) {
  constexpr auto generic = lora::simd::tier::generic;
  constexpr auto exact = lora::precision::exact;
  out.push_back({"lora generic -O2", "tier generic, compiled with -O2 and no -m flag", form::ours, false, floats,
                 prepare<generic, exact, true>, run, discard, nullptr});
}

[[gnu::visibility("default")]] void o2_peers(peer_list& out) {
  o2_lora(out);
  o2_eigen(out);
}

}  // namespace bench
