// SPDX-License-Identifier: Apache-2.0
//
// Readers never wait and nobody waits for readers: one reader is stopped before a chosen atomic operation, between any two steps of
// the protocol, and the publisher and the other readers go on. Traits whose atomics can hold a thread do the stopping.
#include <lora/snapshot/cell.hpp>

#include "tracked.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>

using lora::make_payload;
using test::ledger;
using test::tracked;

namespace {

/** Stops one thread before its n-th atomic operation from now on. */
class gate {
 public:
  /** On the thread to be stopped. */
  void arm(int before_operation) {
    current = this;
    countdown_ = before_operation;
    operations_ = 0;
  }

  static void step() {
    if (gate* g = current) g->pass();
  }

  /** On the other thread: until the first one has stopped. */
  void wait_until_stopped() {
    std::unique_lock lock(m_);
    cv_.wait(lock, [&] { return stopped_; });
  }

  /** Lets it go on, to stop again before its n-th operation from there; 0 for never. */
  void go_on(int before_operation = 0) {
    std::unique_lock lock(m_);
    countdown_ = before_operation;
    stopped_ = false;
    cv_.notify_all();
  }

  int operations() const { return operations_; }

 private:
  void pass() {
    std::unique_lock lock(m_);
    ++operations_;
    if (countdown_ == 0 || --countdown_ != 0) return;
    stopped_ = true;
    cv_.notify_all();
    cv_.wait(lock, [&] { return !stopped_; });
  }

  static inline thread_local gate* current = nullptr;
  std::mutex m_;
  std::condition_variable cv_;
  int countdown_ = 0;
  int operations_ = 0;
  bool stopped_ = false;
};

template <class U>
class gated_atomic {
 public:
  gated_atomic() = default;
  gated_atomic(U v) : a_(v) {}
  U load(std::memory_order o) const { return gate::step(), a_.load(o); }
  void store(U v, std::memory_order o) { gate::step(), a_.store(v, o); }
  U exchange(U v, std::memory_order o) { return gate::step(), a_.exchange(v, o); }
  U fetch_add(U v, std::memory_order o) { return gate::step(), a_.fetch_add(v, o); }
  U fetch_sub(U v, std::memory_order o) { return gate::step(), a_.fetch_sub(v, o); }
  bool compare_exchange_strong(U& e, U d, std::memory_order s, std::memory_order f) {
    return gate::step(), a_.compare_exchange_strong(e, d, s, f);
  }
  bool compare_exchange_weak(U& e, U d, std::memory_order s) { return gate::step(), a_.compare_exchange_weak(e, d, s); }

 private:
  std::atomic<U> a_{};
};

struct gated_traits : lora::std_snapshot_traits {
  template <class U>
  using atomic = gated_atomic<U>;
};

using cell_type = lora::snapshot_cell<tracked, gated_traits>;

auto make(ledger& book, int value) { return make_payload<tracked, gated_traits>(book, value); }

constexpr int rounds = 200;

/** What must go on while a reader is stopped. Returns how many replaced versions the cell still has. */
std::size_t others_go_on(cell_type& cell, ledger& book) {
  auto reader = cell.reader();
  for (int i = 0; i < rounds; ++i) {
    const lora::stamp s = cell.publish(make(book, i));
    const tracked* t = reader.read();
    CHECK(t->value == i);
    CHECK(!t->poisoned);
    CHECK(reader.stamp() == s);
    auto pin = reader.pin();
    CHECK(pin.stamp() == s);
  }
  reader.release();
  cell.collect();
  return cell.counters().retired;
}

}  // namespace

TEST_CASE("snapshot/progress: a reader stopped inside R2 delays nobody and keeps at most one version") {
  // Of a read: 1 the load of R1, 2 the store of R2, 3 its load.
  for (const int operation : {1, 2, 3}) {
    CAPTURE(operation);
    ledger book;
    cell_type cell(make(book, -1));
    gate g;
    std::thread stopped([&] {
      test::on_reader_thread = true;
      auto reader = cell.reader();
      g.arm(operation);
      const tracked* t = reader.read();
      CHECK(t->value == rounds - 1);  // the newest when it went on
      CHECK(!t->poisoned);
      // Stopped before it announced the first version, it may find another one at the same address: then R2 is enough.
      if (operation == 1) CHECK(g.operations() == 3);
      if (operation == 2) CHECK(g.operations() <= 6);
      if (operation == 3) CHECK(g.operations() == 6);
    });
    g.wait_until_stopped();
    CHECK(others_go_on(cell, book) <= 1);
    g.go_on();
    stopped.join();
    cell.collect();
    CHECK(book.live() == 1);
    CHECK(book.destroyed_by_readers == 0);
  }
}

TEST_CASE("snapshot/progress: a reader stopped inside R3 delays nobody; what it may hold is kept until it goes on") {
  // Stopped at 3 and overtaken, so that R2 fails; then at the steps of R3: 4 the store of WILD, 5 the load, 6 the second store.
  for (const int operation : {4, 5, 6}) {
    CAPTURE(operation);
    ledger book;
    cell_type cell(make(book, -2));
    gate g;
    std::thread stopped([&] {
      test::on_reader_thread = true;
      auto reader = cell.reader();
      g.arm(3);
      const tracked* t = reader.read();
      CHECK(t->value == (operation == 6 ? -1 : rounds - 1));
      CHECK(!t->poisoned);
      CHECK(g.operations() == 6);
    });
    g.wait_until_stopped();
    cell.publish(make(book, -1));
    g.go_on(operation - 3);
    g.wait_until_stopped();
    const std::size_t kept = others_go_on(cell, book);
    // Before WILD is stored the slot holds one address, the freed first version's. Afterwards it protects everything.
    CHECK((operation == 4 ? kept <= 1 : kept >= rounds));
    g.go_on();
    stopped.join();
    cell.collect();
    CHECK(book.live() == 1);
    CHECK(book.destroyed_by_readers == 0);
  }
}

TEST_CASE("snapshot/progress: a reader stopped while pinned delays nobody and keeps its one version") {
  ledger book;
  cell_type cell(make(book, -1));
  gate g;
  std::thread stopped([&] {
    test::on_reader_thread = true;
    auto reader = cell.reader();
    {
      auto pin = reader.pin();
      g.arm(1);  // the next operation is the one that unpins
      CHECK(pin->value == -1);
    }
    CHECK(reader.read()->value == rounds - 1);
  });
  g.wait_until_stopped();
  CHECK(others_go_on(cell, book) == 1);
  CHECK(book.live() == 2);
  g.go_on();
  stopped.join();
  cell.collect();
  CHECK(book.live() == 1);
  CHECK(book.destroyed_by_readers == 0);
}

TEST_CASE("snapshot/progress: a reader stopped while it registers or leaves delays nobody") {
  // 1 the search for a slot, then its claim, then the cell's handle count; the last ones clear the slot and give it back.
  for (int operation = 1; operation <= 9; ++operation) {
    CAPTURE(operation);
    ledger book;
    cell_type cell(make(book, -1));
    auto first = cell.reader();  // makes the chunk
    gate g;
    std::thread stopped([&] {
      test::on_reader_thread = true;
      g.arm(operation);
      auto reader = cell.reader();
      CHECK(!reader.read()->poisoned);
    });
    g.wait_until_stopped();
    CHECK(others_go_on(cell, book) <= 1);
    g.go_on();
    stopped.join();
    cell.collect();
    CHECK(book.live() == 1);
    CHECK(book.destroyed_by_readers == 0);
  }
}
