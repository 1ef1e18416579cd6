// SPDX-License-Identifier: Apache-2.0
//
// Libraries with the interface of CBLAS, opened at run time, so that nothing has to be there when this is compiled and the newest ones (from
// PyPI) can be measured. Kinds:
//   openblas  Debian's or any other OpenBLAS; its functions may have the prefix scipy_
//   mkl       oneMKL (libmkl_rt): W as it lies and packed beforehand, float and bf16
// Three calls; sgemv for a single token, where OpenBLAS's sgemm is several times slower.
#include "forward.hpp"

#include <dlfcn.h>

#include <cstdlib>
#include <cstring>
#include <memory>

namespace bench {
namespace {

enum : int { row_major = 101, as_is = 111, turned = 112, packed = 151, b_matrix = 162 };  // as the interface numbers them

struct library {
  std::string kind;
  std::string version;
  void (*threads)(int) = nullptr;
  void (*sgemv)(int, int, int, int, float, const float*, int, const float*, int, float, float*, int) = nullptr;
  void (*sgemm)(int, int, int, int, int, int, float, const float*, int, const float*, int, float, float*, int) = nullptr;
  // oneMKL only
  std::size_t (*pack_size)(int, int, int, int) = nullptr;
  void (*pack)(int, int, int, int, int, int, float, const float*, int, float*) = nullptr;
  void (*compute)(int, int, int, int, int, int, const float*, int, const float*, int, float, float*, int) = nullptr;
  void (*gemm16)(int, int, int, int, int, int, float, const std::uint16_t*, int, const std::uint16_t*, int, float, float*, int) = nullptr;
  std::size_t (*pack_size16)(int, int, int, int) = nullptr;
  void (*pack16)(int, int, int, int, int, int, const std::uint16_t*, int, std::uint16_t*) = nullptr;
  void (*compute16)(int, int, int, int, int, int, float, const std::uint16_t*, int, const std::uint16_t*, int, float, float*,
                    int) = nullptr;
};

library& of(const char* kind) {
  static library openblas, mkl;
  return std::strcmp(kind, "mkl") == 0 ? mkl : openblas;
}

template <class F>
bool find(void* handle, const char* name, F& function) {
  void* found = dlsym(handle, name);
  if (found == nullptr) found = dlsym(handle, (std::string("scipy_") + name).c_str());
  std::memcpy(&function, &found, sizeof found);
  return found != nullptr;
}

std::string load_openblas(const std::string& path) {
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) return dlerror();
  char* (*core)() = nullptr;
  char* (*config)() = nullptr;
  if (!find(handle, "openblas_get_corename", core) || !find(handle, "openblas_get_config", config)) return "this is not OpenBLAS";
  // OpenBLAS 0.3.21 does not know CPUs that came after it and runs them with its oldest kernels (core Prescott). It reads the name of the
  // kernels to use from the environment when it is loaded, and only then.
  if (std::strcmp(core(), "Prescott") == 0 && __builtin_cpu_supports("avx512dq") && setenv("OPENBLAS_CORETYPE", "SkylakeX", 0) == 0) {
    dlclose(handle);
    handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    unsetenv("OPENBLAS_CORETYPE");
    if (handle == nullptr) return dlerror();
    find(handle, "openblas_get_corename", core);
    find(handle, "openblas_get_config", config);
  }
  library l;
  if (!find(handle, "cblas_sgemv", l.sgemv) || !find(handle, "cblas_sgemm", l.sgemm) ||
      !find(handle, "openblas_set_num_threads", l.threads))
    return "no cblas_sgemm";
  std::string words = config();
  l.version = words.substr(0, words.find(' ', words.find(' ') + 1)) + ", core " + core();
  l.kind = "openblas";
  of("openblas") = l;
  return {};
}

std::string load_mkl(const std::string& path) {
  void* const handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) return dlerror();
  library l;
  void (*version)(char*, int) = nullptr;
  if (!find(handle, "cblas_sgemm", l.sgemm) || !find(handle, "cblas_sgemv", l.sgemv) || !find(handle, "MKL_Set_Num_Threads", l.threads) ||
      !find(handle, "cblas_sgemm_pack_get_size", l.pack_size) || !find(handle, "cblas_sgemm_pack", l.pack) ||
      !find(handle, "cblas_sgemm_compute", l.compute) || !find(handle, "cblas_gemm_bf16bf16f32", l.gemm16) ||
      !find(handle, "cblas_gemm_bf16bf16f32_pack_get_size", l.pack_size16) || !find(handle, "cblas_gemm_bf16bf16f32_pack", l.pack16) ||
      !find(handle, "cblas_gemm_bf16bf16f32_compute", l.compute16))
    return "a function is missing";
  char words[256] = {};
  // "Intel(R) oneAPI Math Kernel Library Version 2026.2-Product Build ... for Intel(R) 64 architecture applications"
  if (find(handle, "MKL_Get_Version_String", version)) version(words, sizeof words - 1);
  const char* const number = std::strstr(words, "Version ");
  l.version = "MKL " + std::string(number == nullptr ? "" : number + 8, number == nullptr ? 0 : std::strcspn(number + 8, "- "));
  l.kind = "mkl";
  of("mkl") = l;
  return {};
}

struct state {
  const library* l = nullptr;
  std::vector<float> h, y;  // y: where the library adds up bf16 products
  std::vector<std::uint16_t> h16;
  std::vector<void*> w;  // packed copies
  std::size_t bytes = 0;
};

template <bool Mkl>
void* prepare(const problem& p) {
  auto s = std::make_unique<state>();
  s->l = &of(Mkl ? "mkl" : "openblas");
  s->l->threads(p.threads);
  s->h.resize(static_cast<std::size_t>(p.n * p.rank));
  if (p.element == type::bf16) {
    s->h16.resize(s->h.size());
    s->y.resize(static_cast<std::size_t>(p.n * p.out));
  }
  return s.release();
}

void discard(void* opaque) {
  auto* const s = static_cast<state*>(opaque);
  for (void* w : s->w) give_back(w, s->bytes);
  delete s;
}

void reorder(void* opaque, const problem& p, std::size_t at) {
  auto& s = *static_cast<state*>(opaque);
  const auto n = static_cast<int>(p.n), in = static_cast<int>(p.in), out = static_cast<int>(p.out);
  const int form = p.transposed ? as_is : turned;
  const int stride = p.transposed ? out : in;
  void* const to = s.w[p.swap ? 0 : at];
  if (p.element == type::f32)
    s.l->pack(row_major, b_matrix, form, n, out, in, 1.0f, static_cast<const float*>(p.layers[at].w), stride, static_cast<float*>(to));
  else
    s.l->pack16(row_major, b_matrix, form, n, out, in, static_cast<const std::uint16_t*>(p.layers[at].w), stride,
                static_cast<std::uint16_t*>(to));
}

void* prepare_packed(const problem& p) {
  auto* const s = static_cast<state*>(prepare<true>(p));
  const auto n = static_cast<int>(p.n), in = static_cast<int>(p.in), out = static_cast<int>(p.out);
  s->bytes = p.element == type::f32 ? s->l->pack_size(b_matrix, n, out, in) : s->l->pack_size16(b_matrix, n, out, in);
  for (std::size_t at = 0; at < (p.swap ? 1 : p.layers.size()); ++at) {
    s->w.push_back(take(s->bytes, p.kind));
    reorder(s, p, at);
  }
  return s;
}

void low_rank(const state& s, const problem& p, const layer& l, const float* x, float* h, float* y) {
  const auto n = static_cast<int>(p.n), in = static_cast<int>(p.in), out = static_cast<int>(p.out), rank = static_cast<int>(p.rank);
  for (std::size_t i = 0; i < l.a.size() && rank != 0; ++i) {
    const auto* const a = static_cast<const float*>(l.a[i]);
    const auto* const b = static_cast<const float*>(l.b[i]);
    if (n == 1) {
      s.l->sgemv(row_major, as_is, rank, in, 1.0f, a, in, x, 1, 0.0f, h, 1);
      s.l->sgemv(row_major, as_is, out, rank, p.scale, b, rank, h, 1, 1.0f, y, 1);
    } else {
      s.l->sgemm(row_major, as_is, turned, n, rank, in, 1.0f, x, in, a, in, 0.0f, h, rank);
      s.l->sgemm(row_major, as_is, turned, n, out, rank, p.scale, h, rank, b, rank, 1.0f, y, out);
    }
  }
}

/** h is rounded to bf16 between its two products: the library has none of bf16 with float. */
void low_rank16(state& s, const problem& p, const layer& l, const std::uint16_t* x) {
  const auto n = static_cast<int>(p.n), in = static_cast<int>(p.in), out = static_cast<int>(p.out), rank = static_cast<int>(p.rank);
  for (std::size_t i = 0; i < l.a.size() && rank != 0; ++i) {
    s.l->gemm16(row_major, as_is, turned, n, rank, in, 1.0f, x, in, static_cast<const std::uint16_t*>(l.a[i]), in, 0.0f, s.h.data(), rank);
    for (std::size_t k = 0; k < s.h.size(); ++k) s.h16[k] = to_bf16(s.h[k]);
    s.l->gemm16(row_major, as_is, turned, n, out, rank, p.scale, s.h16.data(), rank, static_cast<const std::uint16_t*>(l.b[i]), rank, 1.0f,
                s.y.data(), out);
  }
}

void store16(const state& s, std::uint16_t* y) {
  for (std::size_t k = 0; k < s.y.size(); ++k) y[k] = to_bf16(s.y[k]);
}

void run(void* opaque, const problem& p, std::size_t at, std::size_t set) {
  auto& s = *static_cast<state*>(opaque);
  const layer& l = p.layers[at];
  const auto n = static_cast<int>(p.n), in = static_cast<int>(p.in), out = static_cast<int>(p.out);
  const int form = p.transposed ? as_is : turned;
  const int stride = p.transposed ? out : in;
  if (p.element == type::f32) {
    const auto* const x = static_cast<const float*>(p.x[set]);
    const auto* const w = static_cast<const float*>(l.w);
    auto* const y = static_cast<float*>(p.y[set]);
    if (n == 1)
      s.l->sgemv(row_major, p.transposed ? turned : as_is, p.transposed ? in : out, stride, 1.0f, w, stride, x, 1, 0.0f, y, 1);
    else
      s.l->sgemm(row_major, as_is, form, n, out, in, 1.0f, x, in, w, stride, 0.0f, y, out);
    low_rank(s, p, l, x, s.h.data(), y);
  } else {
    const auto* const x = static_cast<const std::uint16_t*>(p.x[set]);
    s.l->gemm16(row_major, as_is, form, n, out, in, 1.0f, x, in, static_cast<const std::uint16_t*>(l.w), stride, 0.0f, s.y.data(), out);
    low_rank16(s, p, l, x);
    store16(s, static_cast<std::uint16_t*>(p.y[set]));
  }
}

void run_packed(void* opaque, const problem& p, std::size_t at, std::size_t set) {
  auto& s = *static_cast<state*>(opaque);
  const layer& l = p.layers[at];
  const auto n = static_cast<int>(p.n), in = static_cast<int>(p.in), out = static_cast<int>(p.out);
  const void* const w = s.w[p.swap ? 0 : at];
  if (p.element == type::f32) {
    const auto* const x = static_cast<const float*>(p.x[set]);
    auto* const y = static_cast<float*>(p.y[set]);
    s.l->compute(row_major, as_is, packed, n, out, in, x, in, static_cast<const float*>(w), in, 0.0f, y, out);
    low_rank(s, p, l, x, s.h.data(), y);
  } else {
    const auto* const x = static_cast<const std::uint16_t*>(p.x[set]);
    s.l->compute16(row_major, as_is, packed, n, out, in, 1.0f, x, in, static_cast<const std::uint16_t*>(w), in, 0.0f, s.y.data(), out);
    low_rank16(s, p, l, x);
    store16(s, static_cast<std::uint16_t*>(p.y[set]));
  }
}

bool any(const problem&) { return true; }

}  // namespace

std::string load_blas(const std::string& kind, const std::string& path) { return kind == "mkl" ? load_mkl(path) : load_openblas(path); }

void blas_peers(peer_list& out) {
  // Debian's, unless a newer one was named.
  if (of("openblas").kind.empty()) (void)load_openblas("libopenblas.so.0");
  if (const library& l = of("openblas"); !l.kind.empty())
    out.push_back({"OpenBLAS", l.version + ", three calls", form::plain, false, floats, prepare<false>, run, discard, nullptr});
  if (const library& l = of("mkl"); !l.kind.empty()) {
    out.push_back({"MKL", l.version + ", three calls", form::plain, true, any, prepare<true>, run, discard, nullptr});
    out.push_back({"MKL packed", l.version + ", the same, W packed beforehand", form::reordered, true, any, prepare_packed, run_packed,
                   discard, reorder});
  }
}

}  // namespace bench
