// SPDX-License-Identifier: Apache-2.0
//
// thread_pool: an executor with threads of its own, for programs that have none yet. The calling thread works too: a pool of 4 has three
// workers. Not a task queue: it runs one loop at a time, from its first index to its last, and holds nothing between loops.
//
//   lora::thread_pool pool(4);                                          // or pool() for all the machine has
//   lora::forward(y, x, w, terms, bias, scratch, pool);
//   pool.run(items.size(), [&](std::size_t i) { convert(items[i]); });  // your own loops as well
//
// How it works: a caller publishes its loop, opens it, and takes indices from a shared counter; workers that are awake join and take
// indices too. When none are left the caller closes the loop and waits for those that joined, not for those that still sleep: a worker is
// help, never a condition, so no wake-up that comes late, or not at all, can delay or stop a call.
#ifndef LORA_PARALLEL_THREAD_POOL_HPP
#define LORA_PARALLEL_THREAD_POOL_HPP

#include <lora/core/error.hpp>
#include <lora/parallel/executor.hpp>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>
#include <vector>

namespace lora::inline v0 {

/**
 * A pool of threads that satisfies `executor`.
 *
 * @par Threads   run() may be called by any number of threads at once, and from inside a task. One call has the workers; a call that finds
 *                them taken runs all its tasks itself, on its own thread, at once. So calls never wait for each other, a nested call cannot
 *                deadlock, and several request threads on one pool are as fast as several inline executors.
 * @par Idle      Workers look out for the next loop for about 30 us, so that the layers of one request follow each other without a system
 *                call, and then sleep. An idle pool uses no CPU time.
 */
class thread_pool {
 public:
  static constexpr std::size_t most_threads = 1024;

  /**
   * @param threads  how many tasks run at once, the caller's among them; 0: as many as the machine has.
   * @throws value_error above most_threads; std::system_error when a thread cannot be started; std::bad_alloc.
   */
  explicit thread_pool(std::size_t threads = 0) {
    const std::size_t hardware = std::thread::hardware_concurrency();
    if (threads == 0) threads = hardware == 0 ? 1 : hardware < most_threads ? hardware : most_threads;
    if (threads > most_threads)
      detail::raise<value_error>(detail::text() << "thread_pool: " << threads << " threads; at most " << most_threads);
    // A thread that waits beside more threads than there are CPUs keeps one of them from working.
    if (hardware != 0 && threads > hardware) spin_ = std::chrono::microseconds(0);
    workers_.threads.reserve(threads - 1);
    for (std::size_t i = 1; i < threads; ++i) workers_.threads.emplace_back([this] { work(); });
  }

  thread_pool(const thread_pool&) = delete;
  thread_pool& operator=(const thread_pool&) = delete;
  /** Stops and joins the workers. @pre No run() of this pool is under way. */
  ~thread_pool() = default;

  /** How many tasks can run at once: the workers and the caller. */
  [[nodiscard]] std::size_t concurrency() const noexcept { return workers_.threads.size() + 1; }

  /**
   * Calls f(0) ... f(n - 1), each once, in any order, and returns when all have finished; what they wrote is then visible here, and what
   * the caller wrote before is visible to them. Allocates nothing.
   *
   * @pre f may be called by several threads at once, and does not throw: an exception that leaves f ends the program by std::terminate,
   *      on whichever thread it happens. (Half of a loop cannot be taken back.) Catch inside f and keep what you need.
   */
  template <class F>
  void run(std::size_t n, F&& f) noexcept {
    // Acquire: pairs with the release below; the job's fields may be written only after the previous owner is done with them. `taken_`
    // is true while a loop runs, so nested and concurrent calls take the other branch.
    if (n <= 1 || workers_.threads.empty() || taken_.exchange(true, std::memory_order_acquire)) {
      for (std::size_t i = 0; i < n; ++i) f(i);
      return;
    }
    const auto invoke = [&f](std::size_t i) noexcept { f(i); };
    call_ = [](const void* context, std::size_t i) noexcept { (*static_cast<decltype(&invoke)>(context))(i); };
    context_ = &invoke;
    count_ = n;
    next_.store(0, std::memory_order_relaxed);
    open(n - 1);
    take_tasks();
    close();
    taken_.store(false, std::memory_order_release);
  }

 private:
  // state_: which loop, whether it can be joined, and how many workers are in it. A worker that has slept through 2^19 loops may take one
  // for an older one that it has seen; it then misses a loop, which is harmless.
  static constexpr std::uint32_t joined_mask = (1u << 11) - 1;
  static constexpr std::uint32_t open_bit = 1u << 11;
  static constexpr std::uint32_t stop_bit = 1u << 12;
  static constexpr std::uint32_t loop_unit = 1u << 13;
  static constexpr std::uint32_t loop_mask = ~(loop_unit - 1);
  static_assert(most_threads <= joined_mask);

  /** Stops and joins in its destructor: also when the constructor of the pool fails half way. */
  struct crew {
    explicit crew(std::atomic<std::uint32_t>& s) noexcept : state(s) {}
    crew(const crew&) = delete;
    crew& operator=(const crew&) = delete;
    ~crew() {
      // Release: pairs with the acquire in next_loop(); the workers end after all that the destroying thread did before.
      state.fetch_or(stop_bit, std::memory_order_release);
      state.notify_all();
      for (std::thread& t : threads) t.join();
    }

    std::atomic<std::uint32_t>& state;
    std::vector<std::thread> threads;
  };

  void open(std::size_t helpers) noexcept {
    const std::uint32_t loop = (state_.load(std::memory_order_relaxed) & loop_mask) + loop_unit;
    // Release: pairs with the acquire of the exchange in work(); without it a worker could read the fields of the previous job. A plain
    // store is enough: between loops nobody is in the pool, and nobody can join a closed loop.
    state_.store(loop | open_bit, std::memory_order_release);
    if (helpers >= workers_.threads.size()) {
      state_.notify_all();
    } else {
      for (; helpers != 0; --helpers) state_.notify_one();
    }
  }

  void take_tasks() noexcept {
    // Relaxed: the counter hands out numbers; the data is ordered by joining and leaving.
    for (std::size_t i = next_.fetch_add(1, std::memory_order_relaxed); i < count_; i = next_.fetch_add(1, std::memory_order_relaxed))
      call_(context_, i);
  }

  /** Lets nobody join any more, and returns when those who joined have left. */
  void close() noexcept {
    // Acquire: pairs with the release in leave(); without it the results of the workers race with the caller's use of them.
    if ((state_.fetch_and(~open_bit, std::memory_order_acquire) & joined_mask) == 0) return;
    for (spinner spin(spin_); spin.more();)
      if ((state_.load(std::memory_order_acquire) & joined_mask) == 0) return;
    for (;;) {
      // Read before the state: a worker that leaves after our look at the state changes `left_` after this.
      const std::uint32_t seen = left_.load(std::memory_order_acquire);
      if ((state_.load(std::memory_order_acquire) & joined_mask) == 0) return;
      left_.wait(seen, std::memory_order_acquire);
    }
  }

  void leave() noexcept {
    // Release: pairs with the acquires in close().
    const std::uint32_t before = state_.fetch_sub(1, std::memory_order_release);
    if ((before & open_bit) != 0 || (before & joined_mask) != 1) return;
    left_.fetch_add(1, std::memory_order_release);
    left_.notify_one();
  }

  void work() noexcept {
    std::uint32_t seen = 0;  // the last loop this worker was in; loop numbers start at 1
    for (;;) {
      std::uint32_t state = next_loop(seen);
      if ((state & stop_bit) != 0) return;
      // Acquire: pairs with the release in open().
      if (!state_.compare_exchange_weak(state, state + 1, std::memory_order_acquire, std::memory_order_relaxed)) continue;
      seen = state & loop_mask;
      take_tasks();
      leave();
    }
  }

  /** Waits until there is a loop to join that is not `seen`, or the end. */
  [[nodiscard]] std::uint32_t next_loop(std::uint32_t seen) noexcept {
    const auto wanted = [seen](std::uint32_t s) { return (s & stop_bit) != 0 || ((s & open_bit) != 0 && (s & loop_mask) != seen); };
    std::uint32_t state = state_.load(std::memory_order_acquire);
    for (spinner spin(spin_); !wanted(state) && spin.more();) state = state_.load(std::memory_order_acquire);
    while (!wanted(state)) {
      state_.wait(state, std::memory_order_acquire);
      state = state_.load(std::memory_order_acquire);
    }
    return state;
  }

  /** A bounded busy wait: some pauses between two looks at the clock. */
  class spinner {
   public:
    explicit spinner(std::chrono::nanoseconds limit) noexcept : end_(std::chrono::steady_clock::now() + limit) {}

    [[nodiscard]] bool more() noexcept {
      for (int i = 0; i < 8; ++i) {
#if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        asm volatile("yield");
#endif
      }
      return std::chrono::steady_clock::now() < end_;
    }

   private:
    std::chrono::steady_clock::time_point end_;
  };

  std::chrono::nanoseconds spin_ = std::chrono::microseconds(30);
  // The job: written by the thread that holds `taken_`, before it opens the loop.
  void (*call_)(const void* context, std::size_t index) noexcept = nullptr;
  const void* context_ = nullptr;
  std::size_t count_ = 0;
  // Each on a cache line of its own: the counter is hammered while the others are looked at.
  alignas(64) std::atomic<std::size_t> next_{0};
  alignas(64) std::atomic<std::uint32_t> state_{0};
  alignas(64) std::atomic<std::uint32_t> left_{0};
  alignas(64) std::atomic<bool> taken_{false};
  crew workers_{state_};  // last, so that it goes first: the workers use everything above
};

static_assert(executor<thread_pool>);

}  // namespace lora::inline v0

#endif
