// SPDX-License-Identifier: Apache-2.0
//
// Eigen: products on row-major maps; a single token as matrix times vector, its faster path. Floats only: its bfloat16 product adds up in
// bfloat16 (7 to 21 % wrong at 4096). Included by eigen.cpp (-march=native) and o2/eigen.cpp.

// g++ 12 reports its own AVX-512 header as using uninitialised variables wherever Eigen inlines it.
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <Eigen/Core>

namespace bench {
namespace {

using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using vector = Eigen::VectorXf;

struct state {
  matrix h;
  vector h1;
};

const float* as_floats(const void* p) { return static_cast<const float*>(p); }

void* prepare(const problem& p) {
  Eigen::setNbThreads(1);
  return new state{matrix(p.n, p.rank), vector(p.rank)};
}
void discard(void* s) { delete static_cast<state*>(s); }

bool one_thread(const problem& p) { return floats(p) && p.threads == 1; }  // its products use threads through OpenMP only

template <class W>
void run_with(state& s, const problem& p, const W& w, const layer& l, std::size_t set) {
  auto* const y_data = static_cast<float*>(p.y[set]);
  if (p.n == 1) {
    const Eigen::Map<const vector> x(as_floats(p.x[set]), p.in);
    Eigen::Map<vector> y(y_data, p.out);
    y.noalias() = w * x;
    for (std::size_t i = 0; i < l.a.size(); ++i) {
      s.h1.noalias() = Eigen::Map<const matrix>(as_floats(l.a[i]), p.rank, p.in) * x;
      y.noalias() += p.scale * (Eigen::Map<const matrix>(as_floats(l.b[i]), p.out, p.rank) * s.h1);
    }
  } else {
    const Eigen::Map<const matrix> x(as_floats(p.x[set]), p.n, p.in);
    Eigen::Map<matrix> y(y_data, p.n, p.out);
    y.noalias() = x * w.transpose();
    for (std::size_t i = 0; i < l.a.size(); ++i) {
      s.h.noalias() = x * Eigen::Map<const matrix>(as_floats(l.a[i]), p.rank, p.in).transpose();
      y.noalias() += (p.scale * s.h) * Eigen::Map<const matrix>(as_floats(l.b[i]), p.out, p.rank).transpose();
    }
  }
}

void run(void* s, const problem& p, std::size_t at, std::size_t set) {
  const layer& l = p.layers[at];
  if (p.transposed)
    run_with(*static_cast<state*>(s), p, Eigen::Map<const matrix>(as_floats(l.w), p.in, p.out).transpose(), l, set);
  else
    run_with(*static_cast<state*>(s), p, Eigen::Map<const matrix>(as_floats(l.w), p.out, p.in), l, set);
}

peer eigen_peer(const char* name, const char* flags) {
  return {name,
          "Eigen " + std::to_string(EIGEN_WORLD_VERSION) + "." + std::to_string(EIGEN_MAJOR_VERSION) + "." +
              std::to_string(EIGEN_MINOR_VERSION) + ", three products, " + flags,
          form::plain,
          false,
          one_thread,
          prepare,
          run,
          discard,
          nullptr};
}

}  // namespace
}  // namespace bench
