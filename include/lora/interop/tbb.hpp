// SPDX-License-Identifier: Apache-2.0
//
// forward on oneTBB's threads. CMake target lora::tbb.
//
//   lora::tbb_executor threads;                                         // the arena of the calling thread
//   tbb::task_arena half(4);
//   lora::tbb_executor on_half(half);                                   // an arena of the program's own; it must outlive the executor
//   lora::forward(y, x, w, terms, bias, scratch, on_half);
#ifndef LORA_INTEROP_TBB_HPP
#define LORA_INTEROP_TBB_HPP

#include <lora/parallel/executor.hpp>

#include <tbb/parallel_for.h>
#include <tbb/partitioner.h>
#include <tbb/task_arena.h>

namespace lora::inline v0 {

/**
 * An `executor` of the threads of a TBB arena, the calling one among them.
 *
 * @par Threads    run() may be called by several threads at once and from inside a task; a nested loop takes idle threads of the arena. A
 *                 thread from outside an arena whose slots are all taken has its loop run by the threads in there, and waits for them.
 * @par Isolation  While a thread waits for the end of a loop it takes tasks of that loop only. Otherwise TBB could start another request
 *                 in the middle of this one, on the same stack and with the same thread's workspace.
 */
class tbb_executor {
 public:
  tbb_executor() noexcept = default;
  explicit tbb_executor(tbb::task_arena& arena) noexcept : arena_(&arena) {}

  [[nodiscard]] std::size_t concurrency() const noexcept {
    return static_cast<std::size_t>(arena_ != nullptr ? arena_->max_concurrency() : tbb::this_task_arena::max_concurrency());
  }

  /**
   * Calls f(0) ... f(n - 1) and returns when all have finished.
   * @pre f does not throw, and memory is not exhausted: either would end the program. (TBB takes each task from its own pool.)
   */
  template <class F>
  void run(std::size_t n, F&& f) const noexcept {
    const auto task = [&f](std::size_t i) noexcept { f(i); };
    // Not auto_partitioner: it may give several tasks to one thread, and there are hardly more tasks than threads. In a context of its own:
    // where a group around this call is cancelled, its loops would leave out tasks without a word.
    const auto loop = [&] {
      tbb::task_group_context own(tbb::task_group_context::isolated);
      tbb::parallel_for(std::size_t{0}, n, task, tbb::simple_partitioner(), own);
    };
    const auto alone = [&] { tbb::this_task_arena::isolate(loop); };
    if (n <= 1) {
      if (n == 1) f(std::size_t{0});
    } else if (arena_ != nullptr) {
      arena_->execute(alone);
    } else {
      alone();
    }
  }

 private:
  tbb::task_arena* arena_ = nullptr;
};

static_assert(executor<tbb_executor>);

}  // namespace lora::inline v0

#endif
