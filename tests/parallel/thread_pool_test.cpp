// SPDX-License-Identifier: Apache-2.0
//
// The pool: each index once, everything visible afterwards, from any thread, nested, idle. Meant to run under TSan as well.
#include <lora/parallel/thread_pool.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <ctime>
#include <memory>
#include <set>
#include <thread>
#include <vector>

namespace {

double cpu_seconds(clockid_t clock) {
  std::timespec t{};
  clock_gettime(clock, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

/** Spins for some time and gives the CPU time it got: what any other spinning thread would get meanwhile, however busy the machine. */
double spin_for(std::chrono::milliseconds time) {
  const double before = cpu_seconds(CLOCK_THREAD_CPUTIME_ID);
  const auto end = std::chrono::steady_clock::now() + time;
  while (std::chrono::steady_clock::now() < end) {
  }
  return cpu_seconds(CLOCK_THREAD_CPUTIME_ID) - before;
}

using clock_type = std::chrono::steady_clock;

}  // namespace

TEST_CASE("parallel/executor: inline_executor runs each index once, in order") {
  std::vector<std::size_t> seen;
  lora::inline_executor here;
  here.run(5, [&](std::size_t i) { seen.push_back(i); });
  CHECK(seen == std::vector<std::size_t>{0, 1, 2, 3, 4});
  here.run(0, [&](std::size_t) { seen.clear(); });
  CHECK(seen.size() == 5);
  CHECK(lora::inline_executor::concurrency() == 1);
  static_assert(lora::executor<lora::inline_executor>);
  static_assert(lora::executor<lora::thread_pool>);
  static_assert(!lora::executor<int>);
  static_assert(!std::is_copy_constructible_v<lora::thread_pool> && !std::is_move_constructible_v<lora::thread_pool>);
}

TEST_CASE("parallel/thread_pool: every index exactly once, and what the tasks wrote is visible") {
  for (std::size_t threads = 1; threads <= 5; ++threads) {
    lora::thread_pool pool(threads);
    CHECK(pool.concurrency() == threads);
    // Plain ints: a race or a missing order would be seen by TSan, a task that ran twice or not by the values.
    std::vector<int> count(1001, 0);
    for (std::size_t n = 0; n <= 1000; ++n) {
      pool.run(n, [&](std::size_t i) { ++count[i]; });
      if (n % 100 == 99)
        for (std::size_t i = 0; i < count.size(); ++i) REQUIRE(count[i] == (i < n ? static_cast<int>(n - i) : 0));
    }
    for (std::size_t i = 0; i <= 1000; ++i) REQUIRE(count[i] == static_cast<int>(1000 - i));
  }
}

TEST_CASE("parallel/thread_pool: what the caller wrote is visible to the tasks, loop after loop") {
  lora::thread_pool pool(4);
  int before = 0;
  std::vector<int> after(8);
  for (int round = 1; round <= 3000; ++round) {
    before = round;
    pool.run(after.size(), [&](std::size_t i) { after[i] = before + static_cast<int>(i); });
    int sum = 0;
    for (const int v : after) sum += v;
    REQUIRE(sum == 8 * round + 28);
  }
}

TEST_CASE("parallel/thread_pool: the workers do take part") {
  lora::thread_pool pool(3);
  std::atomic<int> inside{0};
  std::atomic<int> most{0};
  std::this_thread::sleep_for(std::chrono::milliseconds(100));  // asleep by now: they must be woken
  const auto give_up = clock_type::now() + std::chrono::seconds(10);
  while (most < 3 && clock_type::now() < give_up)
    pool.run(3, [&](std::size_t) {
      const int now = ++inside;
      for (int seen = most; now > seen && !most.compare_exchange_weak(seen, now);) {
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
      --inside;
    });
  CHECK(most == 3);  // three tasks at once: the caller and both workers
}

TEST_CASE("parallel/thread_pool: the default takes all the machine has; one thread starts none; too many are refused") {
  const std::size_t hardware = std::thread::hardware_concurrency();
  CHECK(lora::thread_pool().concurrency() == (hardware == 0 ? 1 : hardware));
  lora::thread_pool alone(1);
  const auto me = std::this_thread::get_id();
  alone.run(100, [&](std::size_t) { REQUIRE(std::this_thread::get_id() == me); });
#if LORA_HAS_EXCEPTIONS
  CHECK_THROWS_WITH_AS(lora::thread_pool(1025), "thread_pool: 1025 threads; at most 1024", lora::value_error);
#endif
}

TEST_CASE("parallel/thread_pool: takes functions, const functions, references and move-only state") {
  lora::thread_pool pool(2);
  static std::atomic<std::size_t> sum;
  sum = 0;
  struct plain {
    static void task(std::size_t i) { sum += i; }
  };
  pool.run(10, plain::task);
  pool.run(10, &plain::task);
  const auto constant = [](std::size_t i) { sum += i; };
  pool.run(10, constant);
  auto owner = std::make_unique<std::atomic<std::size_t>>(0);
  pool.run(10, [owner = std::move(owner)](std::size_t i) { sum += i + *owner; });
  CHECK(sum == 4 * 45);
}

TEST_CASE("parallel/thread_pool: a nested loop runs to its end on the thread that asked for it") {
  lora::thread_pool pool(4);
  for (int round = 0; round < 50; ++round) {
    std::vector<std::vector<int>> count(7, std::vector<int>(11, 0));
    std::vector<int> wrong_thread(7, 0);
    pool.run(7, [&](std::size_t i) {
      const auto me = std::this_thread::get_id();
      pool.run(11, [&](std::size_t j) {
        ++count[i][j];
        if (std::this_thread::get_id() != me) ++wrong_thread[i];
        pool.run(2, [](std::size_t) {});
      });
    });
    for (const auto& row : count)
      for (const int c : row) REQUIRE(c == 1);
    for (const int w : wrong_thread) REQUIRE(w == 0);
  }
}

TEST_CASE("parallel/thread_pool: several threads call run at once, and none waits for another") {
  lora::thread_pool pool(3);
  std::vector<std::thread> callers;
  std::vector<long> sums(4, 0);
  for (std::size_t c = 0; c < sums.size(); ++c)
    callers.emplace_back([&, c] {
      std::vector<long> part(37);
      for (int round = 0; round < 400; ++round) {
        pool.run(part.size(), [&](std::size_t i) { part[i] = static_cast<long>(i + c); });
        for (const long p : part) sums[c] += p;
      }
    });
  for (std::thread& t : callers) t.join();
  for (std::size_t c = 0; c < sums.size(); ++c) CHECK(sums[c] == 400 * (37 * 36 / 2 + 37 * static_cast<long>(c)));

  // A call that waited for the other would never end: the first loop ends only when the second has.
  std::atomic<bool> inside{false};
  std::atomic<bool> second_done{false};
  std::thread first([&] {
    pool.run(2, [&](std::size_t) {
      inside = true;
      while (!second_done) std::this_thread::yield();
    });
  });
  while (!inside) std::this_thread::yield();
  int ran = 0;
  pool.run(5, [&](std::size_t) { ++ran; });
  CHECK(ran == 5);
  second_done = true;
  first.join();
}

TEST_CASE("parallel/thread_pool: built and destroyed at once, after a loop, and while asleep") {
  for (int i = 0; i < 100; ++i) {
    lora::thread_pool pool(3);
    if (i % 3 == 1) pool.run(4, [](std::size_t) {});
    if (i % 10 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

TEST_CASE("parallel/thread_pool: an idle pool sleeps") {
  lora::thread_pool pool(4);
  pool.run(8, [](std::size_t) {});
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  const double before = cpu_seconds(CLOCK_PROCESS_CPUTIME_ID);
  const double mine = spin_for(std::chrono::milliseconds(300));
  const double all = cpu_seconds(CLOCK_PROCESS_CPUTIME_ID) - before;
  CHECK(all - mine < 0.5 * mine + 0.005);  // three spinning workers would get about three times as much
}

TEST_CASE("parallel/thread_pool: a caller waits for its worker, asleep, and is woken") {
  lora::thread_pool pool(2);
  const auto me = std::this_thread::get_id();
  std::atomic<bool> worker_in{false};
  bool worker_done = false;  // plain: ordered by the end of the loop alone
  double worker = 0;
  double all = 0;
  for (int attempt = 0; attempt < 50 && !worker_in; ++attempt) {
    const double before = cpu_seconds(CLOCK_PROCESS_CPUTIME_ID);
    pool.run(2, [&](std::size_t) {
      if (std::this_thread::get_id() != me) {
        worker_in = true;
        worker = spin_for(std::chrono::milliseconds(300));
        worker_done = true;
      } else {
        for (int i = 0; i < 20 && !worker_in; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(5));
      }
    });
    all = cpu_seconds(CLOCK_PROCESS_CPUTIME_ID) - before;
  }
  CHECK(worker_in);
  CHECK(worker_done);
  CHECK(all - worker < 0.5 * worker + 0.005);  // a caller that spins would get as much as the worker
}

TEST_CASE("parallel/thread_pool: a second of short loops, with and without pauses") {
  lora::thread_pool pool(4);
  const auto end = clock_type::now() + std::chrono::seconds(1);
  std::vector<unsigned> cells(64, 0);
  unsigned loops = 0;
  while (clock_type::now() < end) {
    const std::size_t n = 2 + loops % 63;
    pool.run(n, [&](std::size_t i) { cells[i] += 1; });
    ++loops;
    if (loops % 128 == 0) std::this_thread::sleep_for(std::chrono::microseconds(50));  // long enough for the workers to fall asleep
    if (loops % 1024 == 0) {
      std::size_t total = 0;
      for (const unsigned c : cells) total += c;
      std::size_t want = 0;
      for (unsigned l = 0; l < loops; ++l) want += 2 + l % 63;
      REQUIRE(total == want);
    }
  }
  CHECK(loops > 100);
  CHECK(cells[1] == loops);
}
