// SPDX-License-Identifier: Apache-2.0
//
// oneDNN: three inner products, the last adding to y. Once with W as it lies (plain), once with W reordered beforehand into the layout it
// asks for, which is a second copy of W and is not timed. One thread, through the OpenMP runtime it is built with.
#include "forward.hpp"

#if defined(LORA_BENCH_HAVE_DNNL)
#include <dnnl.hpp>

#include <dlfcn.h>
#include <memory>

namespace bench {
namespace {

using dnnl::memory;
using tag = memory::format_tag;

struct product {
  dnnl::inner_product_forward primitive;
  memory x, w, y;
};

struct state {
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  std::vector<float> h;
  product base, down, up;
  std::vector<memory> w;
};

memory::desc plain(std::ptrdiff_t rows, std::ptrdiff_t columns) { return {{rows, columns}, memory::data_type::f32, tag::ab}; }

product make(state& s, std::ptrdiff_t n, std::ptrdiff_t in, std::ptrdiff_t out, const float* x, const float* w, float* y, bool any,
             const dnnl::primitive_attr& attr) {
  const memory::desc weights = any ? memory::desc({out, in}, memory::data_type::f32, tag::any) : plain(out, in);
  const dnnl::inner_product_forward::desc d(dnnl::prop_kind::forward_inference, plain(n, in), weights, plain(n, out));
  const dnnl::inner_product_forward::primitive_desc pd(d, attr, s.engine);
  product p{dnnl::inner_product_forward(pd), memory(plain(n, in), s.engine, const_cast<float*>(x)), memory(),
            memory(plain(n, out), s.engine, y)};
  const memory given(plain(out, in), s.engine, const_cast<float*>(w));
  if (any && pd.weights_desc() != given.get_desc()) {
    p.w = memory(pd.weights_desc(), s.engine);
    dnnl::reorder(given, p.w).execute(s.stream, const_cast<memory&>(given), p.w);
    s.stream.wait();
  } else {
    p.w = given;
  }
  return p;
}

template <bool Reordered>
void* prepare(const problem& p) {
  // libgomp and libomp both have it; weak linking would make the benchmark need one of them.
  if (auto* set = reinterpret_cast<void (*)(int)>(dlsym(RTLD_DEFAULT, "omp_set_num_threads"))) set(1);
  auto s = std::make_unique<state>();
  s->h.resize(static_cast<std::size_t>(p.n * p.rank));
  dnnl::primitive_attr none;
  dnnl::primitive_attr add;
  dnnl::post_ops sum;
  sum.append_sum(1.0f);
  add.set_post_ops(sum);
  dnnl::primitive_attr scaled;
  dnnl::post_ops times;
  times.append_eltwise(1.0f, dnnl::algorithm::eltwise_linear, p.scale, 0.0f);
  scaled.set_post_ops(times);
  s->base = make(*s, p.n, p.in, p.out, p.x, p.w[0], p.y, Reordered, none);
  s->down = make(*s, p.n, p.in, p.rank, p.x, p.a, s->h.data(), Reordered, scaled);
  s->up = make(*s, p.n, p.rank, p.out, s->h.data(), p.b, p.y, Reordered, add);
  for (const float* w : p.w) s->w.push_back(make(*s, p.n, p.in, p.out, p.x, w, p.y, Reordered, none).w);
  return s.release();
}

void discard(void* s) { delete static_cast<state*>(s); }

void execute(product& p, dnnl::stream& stream, memory& w) {
  p.primitive.execute(stream, {{DNNL_ARG_SRC, p.x}, {DNNL_ARG_WEIGHTS, w}, {DNNL_ARG_DST, p.y}});
}

void run(void* opaque, const problem&, std::size_t i) {
  auto& s = *static_cast<state*>(opaque);
  execute(s.base, s.stream, s.w[i]);
  execute(s.down, s.stream, s.down.w);
  execute(s.up, s.stream, s.up.w);
  s.stream.wait();
}

}  // namespace

std::vector<peer> onednn_peers() {
  const dnnl_version_t* v = dnnl_version();
  const std::string name = "oneDNN " + std::to_string(v->major) + "." + std::to_string(v->minor) + "." + std::to_string(v->patch);
  return {{"oneDNN", name + ", three inner products, W as it lies", prepare<false>, run, discard},
          {"oneDNN reord.", name + ", the same, W reordered beforehand (a second copy of W, not timed)", prepare<true>, run, discard}};
}

}  // namespace bench
#else
std::vector<bench::peer> bench::onednn_peers() { return {}; }
#endif
