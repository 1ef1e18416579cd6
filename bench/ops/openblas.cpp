// SPDX-License-Identifier: Apache-2.0
//
// OpenBLAS: its transposed copy.
#include "ops.hpp"

#if defined(LORA_BENCH_HAVE_OPENBLAS)
#include <cblas.h>

namespace bench {
namespace {

void transpose(const task& t, const void* from, void* to) {
  const auto rows = static_cast<blasint>(t.shape[0]);
  const auto columns = static_cast<blasint>(t.shape[1]);
  cblas_somatcopy(CblasRowMajor, CblasTrans, rows, columns, 1.0f, static_cast<const float*>(from), columns, static_cast<float*>(to), rows);
}

}  // namespace

void openblas(const task& t, peer_list& out) {
  if (t.what == op::transpose) {
    openblas_set_num_threads(1);
    out.push_back({"OpenBLAS", "cblas_somatcopy", transpose});
  }
}
const char* openblas_core() { return openblas_get_corename(); }

}  // namespace bench
#else
void bench::openblas(const task&, peer_list&) {}
const char* bench::openblas_core() { return ""; }
#endif
