// SPDX-License-Identifier: Apache-2.0
#include <lora/snapshot/patience.hpp>

#include "tracked.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <thread>
#include <utility>

using lora::make_payload;
using lora::stamp;
using test::ledger;
using test::tracked;

namespace {

using namespace std::chrono_literals;
using cell_type = lora::snapshot_cell<tracked>;

#if LORA_HAS_EXCEPTIONS
template <class F>
std::string refusal_of(F f) {
  try {
    f();
  } catch (const lora::pinned_error& e) {
    return e.what();
  }
  return "nothing was thrown";
}
#endif

}  // namespace

TEST_CASE("snapshot/limits: without a limit everything is published") {
  ledger book;
  cell_type cell(make_payload<tracked>(book, 0));
  CHECK(cell.limits().max_retired == 0);
  auto reader = cell.reader("somebody");
  std::array<lora::snapshot_share<tracked>, 20> held;
  for (int i = 0; i < 20; ++i) {
    held[static_cast<std::size_t>(i)] = reader.pin().share();
    cell.publish(make_payload<tracked>(book, i + 1));
  }
  CHECK(cell.counters().retired == 20);
}

TEST_CASE("snapshot/limits: a full cell refuses the publisher, changes nothing, and takes the next one when a reader has let go") {
  ledger book;
  cell_type cell(lora::snapshot_limits{2});
  auto slow = cell.reader("slow");
  auto idle = cell.reader("idle");
  cell.publish(make_payload<tracked>(book, 1));
  std::optional<lora::snapshot_pin<tracked>> pin(slow.pin());
  cell.publish(make_payload<tracked>(book, 2));
  CHECK(idle.read()->value == 2);
  cell.publish(make_payload<tracked>(book, 3));
  CHECK(cell.counters().retired == 2);

  const auto four = make_payload<tracked>(book, 4);
  for (int again = 0; again < 3; ++again) {
    const lora::snapshot_attempt a = cell.publish_if_room(four);
    CHECK(!a);
    CHECK(a.in_the_way.version == stamp{1});  // the oldest
    CHECK(std::string(a.in_the_way.reader) == "slow");
    CHECK(a.in_the_way.shares == 0);
  }
  CHECK(cell.current().stamp == stamp{3});
  CHECK(cell.counters().published == 3);
  CHECK(cell.counters().retired == 2);
  CHECK(four.use_count() == 1);
  CHECK(idle.read()->value == 3);  // readers go on, and that made room: version 2 is free
  CHECK(cell.publish_if_room(four).given == stamp{4});
  CHECK(cell.counters().retired <= 2);

  pin.reset();
  idle.release();
  for (int i = 5; i < 20; ++i) CHECK(cell.publish(make_payload<tracked>(book, i)) == stamp{static_cast<std::uint64_t>(i)});
  CHECK(cell.counters().retired == 0);
}

TEST_CASE("snapshot/limits: after a publication nothing is left that nobody uses, with a limit as without") {
  ledger book;
  cell_type cell(lora::snapshot_limits{1});
  auto reader = cell.reader();
  cell.publish(make_payload<tracked>(book, 1));
  {
    auto pin = reader.pin();
    cell.publish(make_payload<tracked>(book, 2));
  }
  cell.publish(make_payload<tracked>(book, 3));  // collects before the exchange, to make room, and after it
  CHECK(cell.counters().retired == 0);
  CHECK(book.live() == 1);
}

#if LORA_HAS_EXCEPTIONS
TEST_CASE("snapshot/limits: the sentence names who is in the way") {
  lora::snapshot_cell<int> cell(lora::snapshot_limits{1});
  cell.publish(1);
  const auto two = make_payload<int>(2);
  const std::string begin = "publish: 1 replaced version is still in use, which is all that max_retired allows; ";
  const std::string end = "; nothing was published";
  {
    auto reader = cell.reader("request thread 3");
    auto pin = reader.pin();
    cell.publish(2);
    const std::string want = begin + "version 1 is held by reader 'request thread 3'" + end;
    CHECK(refusal_of([&] { cell.publish(two); }) == want);
    CHECK(refusal_of([&] { (void)cell.try_publish(stamp{2}, two); }) == want);
    CHECK(refusal_of([&] { cell.rollback(cell.current()); }) == want);
    CHECK(!cell.try_publish(stamp{1}, two));  // who lost the race is told that, whatever the room
  }
  cell.collect();
  {
    auto reader = cell.reader();  // the same slot: the name is gone
    auto pin = reader.pin();
    cell.publish(3);
    CHECK(refusal_of([&] { cell.publish(two); }) ==
          begin + "version 2 is held by a reader without a name (name it: cell.reader(\"...\"))" + end);
    auto share = std::move(pin).share();
    CHECK(refusal_of([&] { cell.publish(two); }) == begin + "version 2 is held by 1 share" + end);
    auto second = share;
    CHECK(refusal_of([&] { cell.publish(two); }) == begin + "version 2 is held by 2 shares" + end);
  }
  CHECK(cell.publish(two) == stamp{4});
}

TEST_CASE("snapshot/limits: the loader waits for a reader, and no longer than it was told to") {
  ledger book;
  cell_type cell(lora::snapshot_limits{1});
  cell.publish(make_payload<tracked>(book, 1));
  std::atomic<bool> pinned{false}, go{false};
  std::thread reader([&] {
    test::on_reader_thread = true;
    auto r = cell.reader("late");
    auto pin = r.pin();
    pinned = true;
    while (!go) std::this_thread::yield();
    CHECK(pin->value == 1);
  });
  while (!pinned) std::this_thread::yield();
  cell.publish(make_payload<tracked>(book, 2));
  const auto three = make_payload<tracked>(book, 3);
  const auto begin = std::chrono::steady_clock::now();
  CHECK(refusal_of([&] { lora::publish_within(cell, three, 20ms); }).find("held by reader 'late'") != std::string::npos);
  CHECK(std::chrono::steady_clock::now() - begin >= 20ms);
  CHECK(refusal_of([&] { lora::publish_within(cell, three, 0ms); }) != "nothing was thrown");
  CHECK(cell.current().stamp == stamp{2});
  std::thread release([&] {
    std::this_thread::sleep_for(5ms);
    go = true;
  });
  CHECK(lora::publish_within(cell, three, 60s) == stamp{3});
  release.join();
  reader.join();
  CHECK(book.destroyed_by_readers == 0);
}

namespace {

/** Fails the n-th allocation from now on. */
struct failing_traits : lora::std_snapshot_traits {
  static inline int allowed = 1 << 30;
  template <class U, class... Args>
  [[nodiscard]] static U* create(Args&&... args) {
    if (allowed-- <= 0) throw std::bad_alloc();
    return new U(std::forward<Args>(args)...);
  }
};

}  // namespace

TEST_CASE("snapshot/cell: whichever allocation of a publication fails, nothing has changed") {
  ledger book;
  {
    using failing = lora::snapshot_cell<tracked, failing_traits>;
    const auto make = [&](int v) { return make_payload<tracked, failing_traits>(book, v); };
    failing cell(make(1));
    auto reader = cell.reader();
    const tracked* before = reader.read();
    const auto kept = cell.current();
    const auto spare = make(9);
    const auto nothing_changed = [&] {
      CHECK(cell.current().stamp == stamp{1});
      CHECK(cell.counters().published == 1);
      CHECK(cell.counters().retired == 0);
      CHECK(reader.read() == before);
      CHECK(spare.use_count() == 1);
      CHECK(book.live() == 2);
    };
    const auto with = [&](int allocations, auto f) {  // returns whether that was enough
      failing_traits::allowed = allocations;
      bool enough = true;
      try {
        f();
      } catch (const std::bad_alloc&) {
        enough = false;
      }
      failing_traits::allowed = 1 << 30;
      return enough;
    };
    // Of publish(make(...)): the payload's block, then the node. Of the others: the node.
    for (int n : {0, 1}) {
      CHECK(!with(n, [&] { cell.publish(make(2)); }));
      nothing_changed();
    }
    CHECK(!with(0, [&] { cell.publish(spare); }));
    CHECK(!with(0, [&] { (void)cell.publish_if_room(spare); }));
    CHECK(!with(0, [&] { (void)cell.try_publish(stamp{1}, spare); }));
    CHECK(!with(0, [&] { cell.rollback(kept); }));
    CHECK(!with(0, [&] { (void)cell.try_rollback(stamp{1}, kept); }));
    nothing_changed();
    CHECK(with(2, [&] { cell.publish(make(2)); }));
    CHECK(cell.current().stamp == stamp{2});
    CHECK(with(1, [&] { cell.publish(spare); }));
    CHECK(with(1, [&] { cell.rollback(kept); }));
    CHECK(cell.current().stamp == stamp{4});

    // The control block of a cell, and a chunk of slots.
    CHECK(!with(0, [&] { failing none; }));
    CHECK(!with(1, [&] { failing half(make(3)); }));
    failing empty;
    CHECK(!with(0, [&] { (void)empty.reader(); }));
    CHECK(empty.reader().read() == nullptr);
  }
  CHECK(book.live() == 0);
}
#endif

TEST_CASE("snapshot/cell: cell, reader, share and payload may go in any order") {
  std::array<int, 4> order{0, 1, 2, 3};
  int orders = 0;
  do {
    CAPTURE(order[0]);
    CAPTURE(order[1]);
    CAPTURE(order[2]);
    ledger book;
    auto cell = std::make_unique<cell_type>(make_payload<tracked>(book, 1));
    auto reader = std::make_unique<lora::snapshot_reader<tracked>>(cell->reader("in any order"));
    reader->read();
    auto share = reader->pin().share();
    auto payload = cell->current().payload;
    cell->publish(make_payload<tracked>(book, 2));
    reader->read();
    cell->publish(make_payload<tracked>(book, 3));
    CHECK(book.destroyed == 0);  // 1 is shared and kept, 2 is read, 3 is current
    for (const int what : order) {
      if (what == 0) cell.reset();
      if (what == 1) reader.reset();
      if (what == 2) share = {};
      if (what == 3) payload = {};
      if (share) CHECK(share->value == 1);
      if (payload) CHECK(payload->value == 1);
      if (reader && cell) CHECK(reader->read()->value == 3);
      if (reader && !cell) CHECK(reader->read() == nullptr);
    }
    CHECK(book.made == 3);
    CHECK(book.live() == 0);
    ++orders;
  } while (std::next_permutation(order.begin(), order.end()));
  CHECK(orders == 24);
}
