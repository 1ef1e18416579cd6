// SPDX-License-Identifier: Apache-2.0
//
// oneDNN: three inner products, the last adding to y. Once with W as it lies (plain), once with W reordered beforehand into the layout it
// asks for, which is a second copy of W. Threads through the OpenMP runtime it is built with. The newest oneDNN comes with PyTorch:
// forward.py has its prepacked linear.
#include "forward.hpp"

#if defined(LORA_BENCH_HAVE_DNNL)
#include <dnnl.hpp>

#include <dlfcn.h>
#include <memory>

namespace bench {
namespace {

using dnnl::memory;
using tag = memory::format_tag;

memory::data_type type_of(const problem& p) { return p.element == type::f32 ? memory::data_type::f32 : memory::data_type::bf16; }
memory::desc plain(const problem& p, std::ptrdiff_t rows, std::ptrdiff_t columns) { return {{rows, columns}, type_of(p), tag::ab}; }

struct product {
  dnnl::inner_product_forward primitive;
  memory x, w, y;
  memory::desc layout;  // of w
};

struct state {
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  std::vector<char> h;
  product base, down, up;
  memory given;               // W as it lies
  std::vector<void*> copies;  // reordered
  ~state() {
    for (void* c : copies) give_back(c, base.layout.get_size());
  }
};

product make(state& s, const problem& p, std::ptrdiff_t in, std::ptrdiff_t out, const memory::desc& weights,
             const dnnl::primitive_attr& attr) {
  const dnnl::inner_product_forward::desc d(dnnl::prop_kind::forward_inference, plain(p, p.n, in), weights, plain(p, p.n, out));
  const dnnl::inner_product_forward::primitive_desc pd(d, attr, s.engine);
  return {dnnl::inner_product_forward(pd), memory(plain(p, p.n, in), s.engine, nullptr), memory(pd.weights_desc(), s.engine, nullptr),
          memory(plain(p, p.n, out), s.engine, nullptr), pd.weights_desc()};
}

void reorder(void* opaque, const problem& p, std::size_t at) {
  auto& s = *static_cast<state*>(opaque);
  s.given.set_data_handle(const_cast<void*>(p.layers[at].w));
  s.base.w.set_data_handle(s.copies[p.swap ? 0 : at]);
  dnnl::reorder(s.given, s.base.w).execute(s.stream, s.given, s.base.w);
  s.stream.wait();
}

template <bool Reordered>
void* prepare(const problem& p) {
  // libgomp and libomp both have it; weak linking would make the benchmark need one of them.
  if (auto* set = reinterpret_cast<void (*)(int)>(dlsym(RTLD_DEFAULT, "omp_set_num_threads"))) set(p.threads);
  auto s = std::make_unique<state>();
  s->h.resize(static_cast<std::size_t>(p.n * p.rank) * size_of(p.element));
  dnnl::primitive_attr none;
  dnnl::primitive_attr add;
  dnnl::post_ops sum;
  sum.append_sum(1.0f);
  add.set_post_ops(sum);
  dnnl::primitive_attr scaled;
  dnnl::post_ops times;
  times.append_eltwise(1.0f, dnnl::algorithm::eltwise_linear, p.scale, 0.0f);
  scaled.set_post_ops(times);
  const memory::desc w({p.out, p.in}, type_of(p), p.transposed ? tag::ba : tag::ab);
  s->given = memory(w, s->engine, nullptr);
  s->base = make(*s, p, p.in, p.out, Reordered ? memory::desc({p.out, p.in}, type_of(p), tag::any) : w, none);
  if (p.rank != 0 && p.adapters != 0) {  // A and B as they lie in both forms: they are a hundredth of W
    s->down = make(*s, p, p.in, p.rank, plain(p, p.rank, p.in), scaled);
    s->up = make(*s, p, p.rank, p.out, plain(p, p.out, p.rank), add);
  }
  for (std::size_t at = 0; Reordered && at < (p.swap ? 1 : p.layers.size()); ++at) {
    s->copies.push_back(take(s->base.layout.get_size(), p.kind));
    reorder(s.get(), p, at);
  }
  return s.release();
}

void discard(void* s) { delete static_cast<state*>(s); }

void execute(product& p, dnnl::stream& stream, const void* x, const void* w, void* y) {
  p.x.set_data_handle(const_cast<void*>(x));
  p.w.set_data_handle(const_cast<void*>(w));
  p.y.set_data_handle(y);
  p.primitive.execute(stream, {{DNNL_ARG_SRC, p.x}, {DNNL_ARG_WEIGHTS, p.w}, {DNNL_ARG_DST, p.y}});
}

void run(void* opaque, const problem& p, std::size_t at, std::size_t set) {
  auto& s = *static_cast<state*>(opaque);
  const layer& l = p.layers[at];
  execute(s.base, s.stream, p.x[set], s.copies.empty() ? l.w : s.copies[p.swap ? 0 : at], p.y[set]);
  for (std::size_t i = 0; i < l.a.size() && p.rank != 0; ++i) {
    execute(s.down, s.stream, p.x[set], l.a[i], s.h.data());
    execute(s.up, s.stream, s.h.data(), l.b[i], p.y[set]);
  }
  s.stream.wait();
}

bool any(const problem&) { return true; }

}  // namespace

void onednn_peers(peer_list& out) {
  const dnnl_version_t* v = dnnl_version();
  const std::string name = "oneDNN " + std::to_string(v->major) + "." + std::to_string(v->minor) + "." + std::to_string(v->patch);
  out.push_back({"oneDNN", name + ", three inner products, W as it lies", form::plain, true, any, prepare<false>, run, discard, nullptr});
  out.push_back({"oneDNN reordered", name + ", the same, W reordered beforehand (a second copy of W)", form::reordered, true, any,
                 prepare<true>, run, discard, reorder});
}

}  // namespace bench
#else
void bench::onednn_peers(peer_list&) {}
#endif
