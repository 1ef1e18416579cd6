// SPDX-License-Identifier: Apache-2.0
//
// ggml: the graph that llama.cpp builds for a product with adapters (res = mul_mat(w, x); res = add(res, scale(mul_mat(b, mul_mat(a, x)))) for each), W
// as it lies. Built once for a problem, with the pointers of a layer put in before each call. x goes in as it is; sums come out as f32, and
// where the problem is of bf16 they are rounded to it at the end, so that every peer hands over the same thing.
#include "forward.hpp"

#if defined(LORA_BENCH_HAVE_GGML)
#include <ggml-cpu.h>
#include <ggml.h>

#include <memory>

namespace bench {
namespace {

struct state {
  ggml_context* context = nullptr;
  ggml_cgraph* graph = nullptr;
  ggml_threadpool* pool = nullptr;
  ggml_cplan plan{};
  ggml_tensor* w = nullptr;
  ggml_tensor* x = nullptr;
  ggml_tensor* y = nullptr;
  std::vector<ggml_tensor*> a, b;
  std::vector<char> work;
  std::vector<std::vector<char>> results;  // of the nodes in between
  ~state() {
    if (pool != nullptr) ggml_threadpool_free(pool);
    if (context != nullptr) ggml_free(context);
  }
};

void* prepare(const problem& p) {
  const ggml_type type = p.element == bench::type::f32 ? GGML_TYPE_F32 : GGML_TYPE_BF16;
  auto s = std::make_unique<state>();
  s->context = ggml_init({ggml_tensor_overhead() * 64 + ggml_graph_overhead(), nullptr, /* no_alloc = */ true});
  ggml_context* const c = s->context;
  s->w = ggml_new_tensor_2d(c, type, p.in, p.out);
  s->x = ggml_new_tensor_2d(c, type, p.in, p.n);
  ggml_tensor* sum = ggml_mul_mat(c, s->w, s->x);
  for (std::ptrdiff_t i = 0; i < p.adapters && p.rank != 0; ++i) {
    s->a.push_back(ggml_new_tensor_2d(c, type, p.in, p.rank));
    s->b.push_back(ggml_new_tensor_2d(c, type, p.rank, p.out));
    ggml_tensor* const h = ggml_mul_mat(c, s->a.back(), s->x);
    sum = ggml_add(c, sum, ggml_scale(c, ggml_mul_mat(c, s->b.back(), h), p.scale));
  }
  if (p.element != bench::type::f32) sum = ggml_cast(c, sum, type);
  s->y = sum;
  s->graph = ggml_new_graph(c);
  ggml_build_forward_expand(s->graph, sum);
  for (int i = 0; i < ggml_graph_n_nodes(s->graph); ++i) {
    ggml_tensor* const t = ggml_graph_node(s->graph, i);
    if (t == s->y || t->view_src == s->y) continue;
    s->results.emplace_back(ggml_nbytes(t));
    t->data = s->results.back().data();
  }
  ggml_threadpool_params threads = ggml_threadpool_params_default(p.threads);
  // Spins for some 6 ms after a call, as the other peers' threads are told to. By itself it is 0.3 s, beside all that follow.
  threads.poll = 1;
  s->pool = ggml_threadpool_new(&threads);
  s->plan = ggml_graph_plan(s->graph, p.threads, s->pool);
  s->work.resize(s->plan.work_size);
  s->plan.work_data = reinterpret_cast<std::uint8_t*>(s->work.data());
  return s.release();
}
void discard(void* s) { delete static_cast<state*>(s); }

void run(void* opaque, const problem& p, std::size_t at, std::size_t set) {
  auto& s = *static_cast<state*>(opaque);
  const layer& l = p.layers[at];
  s.w->data = const_cast<void*>(l.w);
  s.x->data = const_cast<void*>(p.x[set]);
  s.y->data = p.y[set];
  for (std::size_t i = 0; i < s.a.size(); ++i) {
    s.a[i]->data = const_cast<void*>(l.a[i]);
    s.b[i]->data = const_cast<void*>(l.b[i]);
  }
  ggml_graph_compute(s.graph, &s.plan);
}

bool takes(const problem& p) { return !p.transposed && p.n != 0; }

}  // namespace

void ggml_peers(peer_list& out) {
  out.push_back({"ggml", std::string("ggml ") + ggml_version() + ", the graph of llama.cpp, W as it lies", form::plain, true, takes,
                 prepare, run, discard, nullptr});
}

}  // namespace bench
#else
void bench::ggml_peers(peer_list&) {}
#endif
