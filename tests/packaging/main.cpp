// SPDX-License-Identifier: Apache-2.0
//
// The program of every packaging case: uses lora::lora and, with WITH_IO, lora::io (and so on); prints "packaged".
#include <lora/lora.hpp>

#include <cstdio>
#ifdef WITH_IO
#include <lora/io/safetensors.hpp>
#endif
#ifdef WITH_NPZ
#include <lora/io/npz_writer.hpp>
#endif
#ifdef WITH_EIGEN
#include <lora/interop/eigen.hpp>
#include <lora/interop/eigen_pool.hpp>
#endif
#ifdef WITH_TBB
#include <lora/interop/tbb.hpp>
#endif
#ifdef WITH_OPENMP
#include <lora/interop/openmp.hpp>
#endif

#if defined(WITH_EIGEN) || defined(WITH_TBB) || defined(WITH_OPENMP)
template <class E>
bool runs_each_task_once(const E& ex) {
  int ran[9] = {};
  ex.run(9, [&](std::size_t i) { ++ran[i]; });
  for (const int n : ran)
    if (n != 1) return false;
  return ex.concurrency() >= 1;
}
#endif

int main() {
  const float w[] = {1, 2, 3, 4};
  const float a[] = {1, 1};
  const float b[] = {1, 2};
  const float x[] = {1, -1};
  float y[2] = {};
  const lora::low_rank_term term{lora::ndview<const float, 2>(a, {1, 2}), lora::ndview<const float, 2>(b, {2, 1}), 0.5f};
  lora::workspace scratch;
  lora::forward(lora::ndview<float, 2>(y, {1, 2}), lora::ndview<const float, 2>(x, {1, 2}), lora::ndview<const float, 2>(w, {2, 2}),
                {&term, 1}, {}, scratch);
#ifdef WITH_IO
  try {
    (void)lora::io::safetensors::open("/nonexistent");
    return 1;
  } catch (const lora::io_error&) {
  }
#endif
#ifdef WITH_NPZ
  if (lora::detail::crc32_of("123456789", 9) != 0xcbf43926u) return 1;
#endif
#ifdef WITH_EIGEN
  if (lora::as_eigen(lora::ndview<const float, 2>(w, {2, 2})).sum() != 10) return 1;
  Eigen::ThreadPool pool(2);
  if (!runs_each_task_once(lora::eigen_executor(pool))) return 1;
#endif
#ifdef WITH_TBB
  if (!runs_each_task_once(lora::tbb_executor())) return 1;
#endif
#ifdef WITH_OPENMP
  if (!runs_each_task_once(lora::openmp_executor())) return 1;
#endif
  if (y[0] != -1 || y[1] != -1) return 1;
  std::puts("packaged");
}
