// SPDX-License-Identifier: Apache-2.0
//
// The executors over other libraries' threads, one text for all: each task once, at once, nested, from two threads, and forward's bits.
// For openmp.hpp, tbb.hpp and eigen_pool.hpp.
#define EIGEN_USE_THREADS  // Eigen::ThreadPoolDevice
#include <lora/interop/eigen_pool.hpp>
#include <lora/interop/openmp.hpp>
#include <lora/interop/tbb.hpp>

#include "support/oracle.hpp"

#include <doctest/doctest.h>

#include <tbb/global_control.h>
#include <tbb/task_group.h>
#include <unsupported/Eigen/CXX11/Tensor>

#include <atomic>
#include <chrono>
#include <memory>
#include <set>
#include <thread>
#include <vector>

using lora::index_t;
using test::layout;
using test::matrix;

namespace {

constexpr int threads = 3;  // more than the machine has, perhaps: what counts is that there are several

/** Every executor with three threads, and the way its library's own tasks run it: inside(task) runs task on a thread of its. */
struct openmp {
  lora::openmp_executor ex{threads};
  template <class F>
  void inside(F&& task) {
#pragma omp parallel num_threads(2)
    {
#pragma omp single
      task();
    }
  }
};
struct tbb_arena {
  tbb::global_control more{tbb::global_control::max_allowed_parallelism, threads};  // than the machine has CPUs
  tbb::task_arena arena{threads};
  lora::tbb_executor ex{arena};
  template <class F>
  void inside(F&& task) {
    arena.execute(task);
  }
};
struct tbb_default {
  tbb::global_control more{tbb::global_control::max_allowed_parallelism, threads};
  tbb::task_arena arena{threads};
  lora::tbb_executor ex;
  template <class F>
  void inside(F&& task) {
    arena.execute(task);
  }
};
struct eigen_pool {
  Eigen::ThreadPool pool{threads};
  lora::eigen_executor ex{pool};
  template <class F>
  void inside(F&& task) {
    Eigen::Notification done;
    pool.Schedule([&] {
      task();
      done.Notify();
    });
    done.Wait();
  }
};
using clock_type = std::chrono::steady_clock;

/** Runs tasks that wait for each other for a while: the most that were inside at once. */
template <class E>
int most_at_once(const E& ex, std::size_t n) {
  std::atomic<int> now{0};
  std::atomic<int> most{0};
  ex.run(n, [&](std::size_t) {
    const int inside = ++now;
    for (int seen = most; inside > seen && !most.compare_exchange_weak(seen, inside);) {
    }
    for (int i = 0; i < 200 && most < static_cast<int>(n); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    --now;
  });
  return most;
}

}  // namespace

TEST_CASE_TEMPLATE("interop/executors: every task exactly once, and what it wrote is visible", L, openmp, tbb_arena, tbb_default,
                   eigen_pool) {
  static_assert(lora::executor<decltype(L::ex)>);
  L lib;
  CHECK(lib.ex.concurrency() == (std::is_same_v<L, tbb_default> ? lora::tbb_executor().concurrency() : std::size_t{threads}));
  std::vector<int> ran(1000, 0);  // plain ints: only the end of the loop orders them
  for (const std::size_t n : {0u, 1u, 2u, 3u, 4u, 7u, 64u, 1000u}) {
    const std::vector<int> before = ran;
    lib.ex.run(n, [&](std::size_t i) { ++ran[i]; });
    CAPTURE(n);
    for (std::size_t i = 0; i < ran.size(); ++i) REQUIRE(ran[i] == before[i] + (i < n ? 1 : 0));
  }
  // Functions, references to const, and tasks that change themselves (one at a time: the loop has one task).
  static std::atomic<std::size_t> sum;
  sum = 0;
  struct plain {
    static void task(std::size_t i) { sum += i; }
  };
  lib.ex.run(10, plain::task);
  const auto constant = [](std::size_t i) { sum += i; };
  lib.ex.run(10, constant);
  int calls = 0;
  lib.ex.run(1, [calls, &out = calls](std::size_t) mutable { out = ++calls; });
  CHECK(sum == 90);
  CHECK(calls == 1);
}

TEST_CASE_TEMPLATE("interop/executors: tasks do run at once", L, openmp, tbb_arena, eigen_pool) {
  L lib;
  int most = 0;
  for (int attempt = 0; attempt < 20 && most < threads; ++attempt) most = std::max(most, most_at_once(lib.ex, threads));
  CHECK(most == threads);
}

TEST_CASE_TEMPLATE("interop/executors: a nested loop ends, wherever it is asked for", L, openmp, tbb_arena, tbb_default, eigen_pool) {
  L lib;
  for (int round = 0; round < 20; ++round) {
    std::vector<std::vector<int>> ran(7, std::vector<int>(11, 0));
    lib.ex.run(7, [&](std::size_t i) {
      lib.ex.run(11, [&](std::size_t j) {
        ++ran[i][j];
        lib.ex.run(2, [](std::size_t) {});
      });
    });
    std::vector<int> inside(11, 0);
    lib.inside([&] { lib.ex.run(11, [&](std::size_t j) { ++inside[j]; }); });
    for (const auto& row : ran)
      for (const int n : row) REQUIRE(n == 1);
    for (const int n : inside) REQUIRE(n == 1);
  }
}

TEST_CASE("interop/openmp: inside a parallel region a loop stays on its thread") {
  openmp lib;
  lib.inside([&] {
    CHECK(lib.ex.concurrency() == 1);
    const auto me = std::this_thread::get_id();
    lib.ex.run(9, [&](std::size_t) { CHECK(std::this_thread::get_id() == me); });
  });
  CHECK(lora::openmp_executor().concurrency() == static_cast<std::size_t>(omp_get_max_threads()));
}

TEST_CASE("interop/openmp: a task goes to the same thread in every loop") {
  const lora::openmp_executor ex(threads);
  std::vector<std::thread::id> first(7);
  ex.run(7, [&](std::size_t i) { first[i] = std::this_thread::get_id(); });
  CHECK(std::set<std::thread::id>(first.begin(), first.end()).size() == threads);
  for (int round = 0; round < 50; ++round) {
    std::vector<std::thread::id> again(7);
    ex.run(7, [&](std::size_t i) { again[i] = std::this_thread::get_id(); });
    REQUIRE(again == first);
  }
}

TEST_CASE("interop/tbb: a cancelled group around the call leaves out no task") {
  tbb::task_group_context group;
  std::atomic<int> done{0};
  tbb::parallel_for(
      0, 1,
      [&](int) {
        group.cancel_group_execution();
        lora::tbb_executor().run(8, [&](std::size_t) { ++done; });
        tbb::task_arena arena(threads);
        lora::tbb_executor(arena).run(8, [&](std::size_t) { ++done; });
      },
      tbb::simple_partitioner(), group);
  CHECK(done == 16);
}

TEST_CASE("interop/tbb: a thread that waits for its loop does not start somebody else's task") {
  tbb_arena lib;
  std::atomic<bool> second_started{false};
  std::atomic<bool> waiting{false};
  std::atomic<bool> over{false};
  std::atomic<int> strangers{0};
  const auto me = std::this_thread::get_id();
  // Holds tasks that any idle thread of the arena may take, from the moment that the loop below has one task left, on the worker.
  std::thread other([&] {
    lib.arena.execute([&] {
      while (!second_started) std::this_thread::yield();
      tbb::task_group tasks;
      for (int i = 0; i < 100; ++i)
        tasks.run([&] {
          if (std::this_thread::get_id() == me && waiting) ++strangers;
        });
      while (!over) std::this_thread::yield();
      tasks.wait();
    });
  });
  lib.ex.run(2, [&](std::size_t) {
    const auto give_up = clock_type::now() + std::chrono::seconds(10);
    if (std::this_thread::get_id() != me) {
      second_started = true;
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    } else {
      while (!second_started && clock_type::now() < give_up) std::this_thread::yield();
      waiting = true;
    }
  });
  waiting = false;
  CHECK(second_started);
  second_started = true;
  over = true;
  other.join();
  CHECK(strangers == 0);
}

TEST_CASE("interop/eigen_pool: a thread of the pool runs its loop itself, so that a pool of busy threads cannot deadlock") {
  eigen_pool lib;
  std::atomic<int> ended{0};
  Eigen::Barrier all(threads);
  std::atomic<int> inside{0};
  for (int t = 0; t < threads; ++t)
    lib.pool.Schedule([&] {
      ++inside;
      while (inside < threads) std::this_thread::yield();  // now every thread of the pool is in a request
      CHECK(lib.ex.concurrency() == 1);
      const auto me = std::this_thread::get_id();
      lib.ex.run(50, [&](std::size_t) { ended += std::this_thread::get_id() == me; });
      all.Notify();
    });
  all.Wait();
  CHECK(ended == threads * 50);
}

TEST_CASE("interop/eigen_pool: a device lends as many threads as it may use") {
  Eigen::ThreadPool pool(threads);
  CHECK(lora::eigen_executor(Eigen::ThreadPoolDevice(&pool, 2)).concurrency() == 2);
  CHECK(lora::eigen_executor(Eigen::ThreadPoolDevice(&pool, 0)).concurrency() == 1);
  CHECK(most_at_once(lora::eigen_executor(Eigen::ThreadPoolDevice(&pool, 1)), 2) == 1);
  std::atomic<int> ran{0};
  lora::eigen_executor(Eigen::ThreadPoolDevice(&pool, 2)).run(100, [&](std::size_t) { ++ran; });
  CHECK(ran == 100);
}

TEST_CASE_TEMPLATE("interop/executors: forward gives the bits of one thread, also to two requests at once", L, openmp, tbb_arena,
                   tbb_default, eigen_pool) {
  constexpr index_t in = 300;
  constexpr index_t out = 500;  // 10 tiles and a short one; large enough to be split
  const matrix x(70, in, layout::plain, 1);
  const matrix w(out, in, layout::padded, 2);
  const matrix a(6, in, layout::padded, 3);
  const matrix b(out, 6, layout::transposed, 4);  // gathered: each task into its own scratch
  const lora::low_rank_term term{a.view(), b.view(), 0.5f};
  L lib;
  for (const index_t n : {1, 7, 70}) {
    const lora::ndview<const float, 2> rows(x.view().data(), {n, in}, x.view().stride());
    matrix want(n, out, layout::plain);
    lora::workspace scratch;
    lora::forward(want.view(), rows, w.view(), {&term, 1}, {}, scratch);
    const auto request = [&](bool& equal) {
      lora::workspace own;
      matrix y(n, out, layout::plain);
      for (int i = 0; i < 40; ++i) {
        lora::forward(y.view(), rows, w.view(), {&term, 1}, {}, own, lib.ex);
        equal = equal && std::memcmp(&y(0, 0), &want(0, 0), sizeof(float) * static_cast<std::size_t>(n * out)) == 0;
      }
    };
    bool first = true;
    bool second = true;
    std::thread other([&] { request(second); });
    request(first);
    other.join();
    bool within = true;
    lib.inside([&] { request(within); });
    CAPTURE(n);
    CHECK(first);
    CHECK(second);
    CHECK(within);
  }
}
