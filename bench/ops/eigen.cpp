// SPDX-License-Identifier: Apache-2.0
//
// Eigen: maps, compiled with -march=native. It has two axes; those of a slice that lie without a gap are joined here by hand, as its users do.
#include "ops.hpp"

// g++ 12 reports its own AVX-512 header as using uninitialised variables wherever Eigen inlines it.
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

#if defined(LORA_BENCH_HAVE_EIGEN)
#include <Eigen/Core>

namespace bench {
namespace {

using matrix = Eigen::Array<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using rows = Eigen::Map<matrix, 0, Eigen::OuterStride<>>;
using const_rows = Eigen::Map<const matrix, 0, Eigen::OuterStride<>>;

/** [rows, columns] with one step between rows, or columns = 0 when the slice is not such a matrix. Both sides have the same strides. */
struct joined {
  index rows = 1;
  index columns = 1;
  index step = 0;
};
joined join(const task& t) {
  joined j;
  std::size_t k = t.rank;
  for (; k > 0 && t.from_stride[k - 1] == j.columns; --k) j.columns *= t.shape[k - 1];
  for (; k > 0; --k) {
    if (j.step == 0) j.step = t.from_stride[k - 1];
    if (t.from_stride[k - 1] != j.step * j.rows) return {0, 0, 0};
    j.rows *= t.shape[k - 1];
  }
  if (j.step == 0) j.step = j.columns;
  return j;
}

void scale(const task& t, const void* from, void* to) {
  const joined j = join(t);
  if (j.rows == 1) {
    Eigen::Map<Eigen::ArrayXf>(static_cast<float*>(to), j.columns) =
        2 * Eigen::Map<const Eigen::ArrayXf>(static_cast<const float*>(from), j.columns);
    return;
  }
  rows(static_cast<float*>(to), j.rows, j.columns, Eigen::OuterStride<>(j.step)) =
      2 * const_rows(static_cast<const float*>(from), j.rows, j.columns, Eigen::OuterStride<>(j.step));
}

void transpose(const task& t, const void* from, void* to) {
  Eigen::Map<matrix>(static_cast<float*>(to), t.shape[1], t.shape[0]) =
      Eigen::Map<const matrix>(static_cast<const float*>(from), t.shape[0], t.shape[1]).transpose();
}

}  // namespace

void eigen(const task& t, peer_list& out) {
  const std::string version = "Eigen " + std::to_string(EIGEN_WORLD_VERSION) + "." + std::to_string(EIGEN_MAJOR_VERSION) + "." +
                              std::to_string(EIGEN_MINOR_VERSION) + ", -march=native";
  if (t.what == op::scale && join(t).columns != 0) out.push_back({"Eigen", version + "; axes joined by hand into one map", scale});
  if (t.what == op::transpose) out.push_back({"Eigen", version, transpose});
}

}  // namespace bench
#else
void bench::eigen(const task&, peer_list&) {}
#endif
