// SPDX-License-Identifier: Apache-2.0
//
// Eigen: three products on row-major maps, compiled with -march=native; a single token as matrix times vector, its faster path.
#include "forward.hpp"

// g++ 12 reports its own AVX-512 header as using uninitialised variables wherever Eigen inlines it.
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

#if defined(LORA_BENCH_HAVE_EIGEN)
#include <Eigen/Core>

namespace bench {
namespace {

using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using vector = Eigen::VectorXf;

struct state {
  matrix h;
  vector h1;
};

void* prepare(const problem& p) { return new state{matrix(p.n, p.rank), vector(p.rank)}; }
void discard(void* s) { delete static_cast<state*>(s); }

void run(void* s, const problem& p, std::size_t i) {
  const Eigen::Map<const matrix> w(p.w[i], p.out, p.in);
  const Eigen::Map<const matrix> a(p.a, p.rank, p.in);
  const Eigen::Map<const matrix> b(p.b, p.out, p.rank);
  if (p.n == 1) {
    auto& h = static_cast<state*>(s)->h1;
    const Eigen::Map<const vector> x(p.x, p.in);
    Eigen::Map<vector> y(p.y, p.out);
    y.noalias() = w * x;
    h.noalias() = a * x;
    y.noalias() += p.scale * (b * h);
  } else {
    auto& h = static_cast<state*>(s)->h;
    const Eigen::Map<const matrix> x(p.x, p.n, p.in);
    Eigen::Map<matrix> y(p.y, p.n, p.out);
    y.noalias() = x * w.transpose();
    h.noalias() = x * a.transpose();
    y.noalias() += (p.scale * h) * b.transpose();
  }
}

}  // namespace

std::vector<peer> eigen_peers() {
  return {{"Eigen",
           "Eigen " + std::to_string(EIGEN_WORLD_VERSION) + "." + std::to_string(EIGEN_MAJOR_VERSION) + "." +
               std::to_string(EIGEN_MINOR_VERSION) + ", three products, -march=native",
           prepare, run, discard}};
}

}  // namespace bench
#else
std::vector<bench::peer> bench::eigen_peers() { return {}; }
#endif
