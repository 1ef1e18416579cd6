// SPDX-License-Identifier: Apache-2.0
//
// What it takes to run a loop on several threads, and the executor that does not: inline_executor, the default everywhere. The library
// starts no thread behind the caller's back; who wants more passes a thread_pool (parallel/thread_pool.hpp) or ten lines around a pool
// of his own.
//
//   struct my_executor {
//     std::size_t concurrency() const;                    // how many tasks can run at once, at least 1
//     template <class F> void run(std::size_t n, F&& f);  // calls f(0) ... f(n - 1), in any order, and returns when all are done
//   };
#ifndef LORA_PARALLEL_EXECUTOR_HPP
#define LORA_PARALLEL_EXECUTOR_HPP

#include <lora/config.hpp>

#include <concepts>
#include <cstddef>

namespace lora::inline v0 {

namespace detail {
struct any_task {
  void operator()(std::size_t) const noexcept;
};
}  // namespace detail

/**
 * Runs f(0) ... f(n - 1) and returns when all have finished; everything they wrote is then visible to the caller. The tasks that the
 * library passes do not throw, do not block on each other, and give results that do not depend on their number, order or thread.
 */
template <class E>
concept executor = requires(E& e, std::size_t n, detail::any_task task) {
  { e.concurrency() } -> std::convertible_to<std::size_t>;
  e.run(n, task);
};

/** Runs everything on the calling thread. */
struct inline_executor {
  [[nodiscard]] static constexpr std::size_t concurrency() noexcept { return 1; }

  template <class F>
  static constexpr void run(std::size_t n, F&& f) {
    for (std::size_t i = 0; i < n; ++i) f(i);
  }
};

}  // namespace lora::inline v0

#endif
