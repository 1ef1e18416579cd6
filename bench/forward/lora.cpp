// SPDX-License-Identifier: Apache-2.0
//
// Ours: one call, W where it lies, compiled without any -m flag.
#include "forward.hpp"

#include <lora/linalg/forward.hpp>

namespace bench {
namespace {

struct state {
  lora::workspace scratch;
};

void* prepare(const problem&) { return new state; }
void discard(void* s) { delete static_cast<state*>(s); }

template <lora::simd::tier Tier>
void run(void* s, const problem& p, std::size_t i) {
  const lora::low_rank_term term{lora::ndview<const float, 2>(p.a, {p.rank, p.in}), lora::ndview<const float, 2>(p.b, {p.out, p.rank}),
                                 p.scale};
  lora::forward(lora::ndview<float, 2>(p.y, {p.n, p.out}), lora::ndview<const float, 2>(p.x, {p.n, p.in}),
                lora::ndview<const float, 2>(p.w[i], {p.out, p.in}), {&term, 1}, {}, static_cast<state*>(s)->scratch, {Tier});
}

}  // namespace

std::vector<peer> lora_peers() {
  using lora::simd::tier;
  const std::string best = std::string("one fused call, tier ") + lora::simd::tier_name();
  return {
      {"lora", best, prepare, run<tier::avx512>, discard},
      {"lora again", "the same a second time: how far equal code differs here", prepare, run<tier::avx512>, discard},
      {"lora avx2", "tier forced down to AVX2", prepare, run<tier::avx2>, discard},
      {"lora generic", "tier forced down to xsimd at this file's flags (none)", prepare, run<tier::generic>, discard},
  };
}

}  // namespace bench
