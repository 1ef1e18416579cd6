// SPDX-License-Identifier: Apache-2.0
//
// forward on the threads of an Eigen::ThreadPool, the pool that TensorFlow and ONNX Runtime derive theirs from, or of the
// device that Eigen's tensors use. CMake target lora::eigen.
//
//   Eigen::ThreadPool pool(4);                                          // or any Eigen::ThreadPoolInterface
//   lora::eigen_executor threads(pool);                                 // or of an Eigen::ThreadPoolDevice; both must outlive it
//   lora::forward(y, x, w, terms, bias, scratch, threads);
#ifndef LORA_INTEROP_EIGEN_POOL_HPP
#define LORA_INTEROP_EIGEN_POOL_HPP

#include <lora/parallel/executor.hpp>

#include <unsupported/Eigen/CXX11/ThreadPool>

#include <atomic>

namespace lora::inline v0 {

namespace detail {

/** Eigen::ThreadPoolDevice, without the seconds that Eigen's header of tensors takes to compile. */
template <class D>
concept eigen_device = requires(const D& d) {
  { d.getPool() } -> std::convertible_to<Eigen::ThreadPoolInterface*>;
  { d.numThreads() } -> std::convertible_to<int>;
};

}  // namespace detail

/**
 * An `executor` of the threads of one of Eigen's pools. The calling thread works too and takes the place of one of the pool's, so that a
 * pool as large as the machine is not joined by one thread too many.
 *
 * @par Threads   run() may be called by several threads at once. On a thread of the pool (a nested loop, or a request that the pool runs)
 *                it runs all tasks there, and concurrency() is 1: such a thread must not wait for others that may wait for it. Elsewhere it
 *                returns once the pool has come to its share: a pool that is busy for long holds it up.
 */
class eigen_executor {
 public:
  explicit eigen_executor(Eigen::ThreadPoolInterface& pool) noexcept : pool_(&pool), threads_(pool.NumThreads()) {}
  /** Of an Eigen::ThreadPoolDevice: its pool, and as many threads of it as the device may use. */
  template <detail::eigen_device Device>
  explicit eigen_executor(const Device& device) noexcept : pool_(device.getPool()), threads_(device.numThreads()) {}

  [[nodiscard]] std::size_t concurrency() const noexcept {
    return threads_ < 1 || pool_->CurrentThreadId() != -1 ? 1 : static_cast<std::size_t>(threads_);
  }

  /** Calls f(0) ... f(n - 1) and returns when all have finished. @pre f does not throw: an exception would end the program. */
  template <class F>
  void run(std::size_t n, F&& f) const noexcept {
    const std::size_t workers = n < concurrency() ? n : concurrency();
    if (workers <= 1) {
      for (std::size_t i = 0; i < n; ++i) f(i);
      return;
    }
    struct loop {
      F& task;
      const std::size_t size;
      Eigen::Barrier helpers;
      std::atomic<std::size_t> next{0};

      void take_tasks() noexcept {
        // Relaxed: the counter hands out numbers; the barrier and the pool's queue order the data.
        for (std::size_t i = next.fetch_add(1, std::memory_order_relaxed); i < size; i = next.fetch_add(1, std::memory_order_relaxed))
          task(i);
      }
    } l{f, n, Eigen::Barrier(static_cast<unsigned>(workers - 1))};
    // One pointer: std::function holds it without asking for memory.
    for (std::size_t i = 1; i < workers; ++i)
      pool_->Schedule([&l] {
        l.take_tasks();
        l.helpers.Notify();
      });
    l.take_tasks();
    l.helpers.Wait();
  }

 private:
  Eigen::ThreadPoolInterface* pool_;
  int threads_;
};

static_assert(executor<eigen_executor>);

}  // namespace lora::inline v0

#endif
