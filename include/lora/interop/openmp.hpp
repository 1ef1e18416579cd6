// SPDX-License-Identifier: Apache-2.0
//
// forward on the threads that OpenMP already has. Compile with -fopenmp, which CMake's target lora::openmp brings.
//
//   lora::openmp_executor threads;                                      // what OMP_NUM_THREADS and omp_set_num_threads() say
//   lora::forward(y, x, w, terms, bias, scratch, threads);
#ifndef LORA_INTEROP_OPENMP_HPP
#define LORA_INTEROP_OPENMP_HPP

#ifndef _OPENMP
#error "lora: interop/openmp.hpp without -fopenmp would run everything on one thread in silence; add the flag, or link lora::openmp"
#endif

#include <lora/parallel/executor.hpp>

#include <omp.h>

namespace lora::inline v0 {

/**
 * An `executor` of OpenMP's threads, the calling one among them.
 *
 * @par Threads   run() may be called by several threads at once (each has a team of its own) and inside a parallel region, where it runs
 *                all tasks on the calling thread and concurrency() is 1: the region is parallel already.
 * @par Affinity  Task i of every loop goes to the same thread of the team, so that its rows of W stay near the caches and the memory
 *                that saw them last.
 */
class openmp_executor {
 public:
  openmp_executor() noexcept = default;
  /** At most `threads` threads a loop; 0 or less: omp_get_max_threads() at each call. */
  explicit openmp_executor(int threads) noexcept : threads_(threads) {}

  [[nodiscard]] std::size_t concurrency() const noexcept { return omp_in_parallel() != 0 ? 1 : static_cast<std::size_t>(team()); }

  /** Calls f(0) ... f(n - 1) and returns when all have finished. @pre f does not throw: an exception would end the program. */
  template <class F>
  void run(std::size_t n, F&& f) const noexcept {
    const std::size_t most = concurrency();
    if (n <= 1 || most <= 1) {
      for (std::size_t i = 0; i < n; ++i) f(i);
      return;
    }
    const int threads = static_cast<int>(n < most ? n : most);
#pragma omp parallel for schedule(static, 1) num_threads(threads)
    for (std::size_t i = 0; i < n; ++i) f(i);
  }

 private:
  [[nodiscard]] int team() const noexcept { return threads_ > 0 ? threads_ : omp_get_max_threads(); }

  int threads_ = 0;
};

static_assert(executor<openmp_executor>);

}  // namespace lora::inline v0

#endif
