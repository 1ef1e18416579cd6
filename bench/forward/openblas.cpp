// SPDX-License-Identifier: Apache-2.0
//
// OpenBLAS: three calls; sgemv for a single token, where its sgemm is several times slower.
#include "forward.hpp"

#if defined(LORA_BENCH_HAVE_OPENBLAS)
#include <cblas.h>

#include <unistd.h>
#include <cstdlib>
#include <cstring>

namespace bench {
namespace {

void* prepare(const problem& p) {
  openblas_set_num_threads(1);
  return std::malloc(static_cast<std::size_t>(p.n * p.rank) * sizeof(float) + 1);
}
void discard(void* s) { std::free(s); }

void run(void* s, const problem& p, std::size_t i) {
  auto* h = static_cast<float*>(s);
  const auto n = static_cast<blasint>(p.n);
  const auto in = static_cast<blasint>(p.in);
  const auto out = static_cast<blasint>(p.out);
  const auto rank = static_cast<blasint>(p.rank);
  if (n == 1) {
    cblas_sgemv(CblasRowMajor, CblasNoTrans, out, in, 1.0f, p.w[i], in, p.x, 1, 0.0f, p.y, 1);
    cblas_sgemv(CblasRowMajor, CblasNoTrans, rank, in, 1.0f, p.a, in, p.x, 1, 0.0f, h, 1);
    cblas_sgemv(CblasRowMajor, CblasNoTrans, out, rank, p.scale, p.b, rank, h, 1, 1.0f, p.y, 1);
  } else {
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, out, in, 1.0f, p.x, in, p.w[i], in, 0.0f, p.y, out);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, rank, in, 1.0f, p.x, in, p.a, in, 0.0f, h, rank);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, out, rank, p.scale, h, rank, p.b, rank, 1.0f, p.y, out);
  }
}

}  // namespace

// OpenBLAS 0.3.21 does not know CPUs that came after it and runs them with its oldest kernels (core Prescott). It reads the name of the
// kernels to use from the environment when it is loaded, so the program starts itself again with a better one.
void openblas_at_its_best(char** argv) {
  if (__builtin_cpu_supports("avx512dq") && std::strcmp(openblas_get_corename(), "Prescott") == 0 &&
      setenv("OPENBLAS_CORETYPE", "SkylakeX", 0) == 0)
    execv("/proc/self/exe", argv);
}

std::vector<peer> openblas_peers() {
  return {{"OpenBLAS", std::string(openblas_get_config()) + ", core " + openblas_get_corename() + ", three calls", prepare, run, discard}};
}

}  // namespace bench
#else
void bench::openblas_at_its_best(char**) {}
std::vector<bench::peer> bench::openblas_peers() { return {}; }
#endif
