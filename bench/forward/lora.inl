// SPDX-License-Identifier: Apache-2.0
//
// Ours: one call, W where it lies. Included by lora.cpp (the preset's level) and o2/lora.cpp (-O2), both without any -m flag.
#include <lora/linalg/forward.hpp>
#include <lora/parallel/thread_pool.hpp>

#include <memory>

namespace bench {
namespace {

lora::thread_pool& pool(int threads) {
  static std::unique_ptr<lora::thread_pool> kept;
  const auto wanted = static_cast<std::size_t>(threads);
  if (kept == nullptr || kept->concurrency() != wanted) kept = std::make_unique<lora::thread_pool>(wanted);
  return *kept;
}

struct state {
  lora::workspace scratch;
  lora::forward_options options;
  lora::thread_pool* pool = nullptr;  // null: the calling thread
  std::vector<std::vector<lora::low_rank_term>> terms;
};

template <class T>
lora::ndview<const T, 2> matrix(const void* p, std::ptrdiff_t rows, std::ptrdiff_t columns) {
  return {static_cast<const T*>(p), {rows, columns}};
}

template <class T>
lora::low_rank_term term(const problem& p, const void* a, const void* b) {
  return {matrix<T>(a, p.rank, p.in), matrix<T>(b, p.out, p.rank), p.scale};
}

template <lora::simd::tier Tier, lora::precision Precision, bool Terms>
void* prepare(const problem& p) {
  auto* const s = new state;
  s->options = {Tier, Precision};
  if (p.threads > 1) s->pool = &pool(p.threads);
  for (const layer& l : p.layers) {
    auto& terms = s->terms.emplace_back();
    for (std::size_t i = 0; Terms && i < l.a.size(); ++i)
      terms.push_back(p.element == type::f32 ? term<float>(p, l.a[i], l.b[i]) : term<lora::bfloat16>(p, l.a[i], l.b[i]));
  }
  return s;
}
void discard(void* s) { delete static_cast<state*>(s); }

template <class T>
void run_as(state& s, const problem& p, std::size_t at, std::size_t set) {
  const lora::ndview<T, 2> y(static_cast<T*>(p.y[set]), {p.n, p.out});
  const auto x = matrix<T>(p.x[set], p.n, p.in);
  const auto w = p.transposed ? matrix<T>(p.layers[at].w, p.in, p.out).transpose() : matrix<T>(p.layers[at].w, p.out, p.in);
  if (s.pool != nullptr)
    lora::forward(y, x, w, s.terms[at], {}, s.scratch, *s.pool, s.options);
  else
    lora::forward(y, x, w, s.terms[at], {}, s.scratch, s.options);
}

}  // namespace
}  // namespace bench
