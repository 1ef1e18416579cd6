// SPDX-License-Identifier: Apache-2.0
#include <lora/snapshot/cell.hpp>

#include "tracked.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

using lora::make_payload;
using lora::snapshot_cell;
using lora::stamp;
using test::ledger;
using test::tracked;

namespace {

using cell_type = snapshot_cell<tracked>;
using share_type = lora::snapshot_share<tracked>;

struct aggregate {
  int rank;
  std::string name;
};

struct move_throws {
  move_throws() = default;
  move_throws(move_throws&&) { throw std::runtime_error("cannot move"); }
};

}  // namespace

static_assert(!std::is_copy_constructible_v<cell_type> && !std::is_move_constructible_v<cell_type>);
static_assert(!std::is_convertible_v<aggregate, snapshot_cell<aggregate>>);

TEST_CASE("snapshot/cell: an empty cell has stamp 0 and no value") {
  cell_type cell;
  CHECK(cell.current().stamp == stamp{0});
  CHECK(!cell.current().payload);
  auto reader = cell.reader();
  CHECK(reader.read() == nullptr);
  CHECK(reader.stamp() == stamp{0});
  auto pin = reader.pin();
  CHECK(!pin);
  CHECK(pin.stamp() == stamp{0});
  CHECK(!pin.share());
  CHECK(cell.collect() == 0);
  CHECK(cell.counters().published == 0);
  CHECK(cell.counters().live == 0);
}

TEST_CASE("snapshot/cell: stamps count from 1, parents name the version replaced") {
  ledger book;
  cell_type cell;
  for (std::uint64_t i = 1; i <= 5; ++i) {
    CHECK(cell.publish(make_payload<tracked>(book, static_cast<int>(i))) == stamp{i});
    const auto v = cell.current();
    CHECK(v.stamp == stamp{i});
    CHECK(v.parent == stamp{i - 1});
    CHECK(v.rolled_back_to == stamp{0});
    CHECK(v.payload->value == static_cast<int>(i));
  }
}

TEST_CASE("snapshot/cell: values, payloads and aggregates can be published, at construction too") {
  snapshot_cell<aggregate> cell(aggregate{4, "k_proj"});
  auto reader = cell.reader();
  CHECK(reader.read()->rank == 4);
  CHECK(reader.stamp() == stamp{1});
  CHECK(cell.publish({8, "q_proj"}) == stamp{2});
  CHECK(reader.read()->name == "q_proj");

  snapshot_cell deduced(make_payload<aggregate>(16, "v_proj"));
  static_assert(std::is_same_v<decltype(deduced), snapshot_cell<aggregate>>);
  CHECK(deduced.reader().read()->rank == 16);

  snapshot_cell<std::unique_ptr<int>> movable;
  movable.publish(std::make_unique<int>(5));
  CHECK(**movable.reader().read() == 5);
}

TEST_CASE("snapshot/cell: a value that cannot be moved in is not published") {
  snapshot_cell<move_throws> cell;
  CHECK_THROWS_AS(cell.publish(move_throws{}), std::runtime_error);
  CHECK(cell.current().stamp == stamp{0});
  CHECK(cell.publish(make_payload<move_throws>()) == stamp{1});
}

TEST_CASE("snapshot/cell: publishing destroys what nobody uses, on the publishing thread") {
  ledger book;
  cell_type cell(make_payload<tracked>(book, 1));
  cell.publish(make_payload<tracked>(book, 2));
  CHECK(book.destroyed == 1);
  cell.publish(make_payload<tracked>(book, 3));
  CHECK(book.destroyed == 2);
  CHECK(book.live() == 1);
  const auto c = cell.counters();
  CHECK(c.published == 3);
  CHECK(c.destroyed == 2);
  CHECK(c.retired == 0);
  CHECK(c.live == 1);
}

TEST_CASE("snapshot/cell: a version in use stays, and goes with the next collection") {
  ledger book;
  cell_type cell(make_payload<tracked>(book, 1));
  auto reader = cell.reader();
  SUBCASE("pinned") {
    auto pin = reader.pin();
    cell.publish(make_payload<tracked>(book, 2));
    CHECK(cell.collect() == 0);
    CHECK(cell.counters().retired == 1);
    CHECK(pin->value == 1);
    CHECK(!pin->poisoned);
    { auto last = std::move(pin); }
    CHECK(book.destroyed == 0);  // a reader never destroys
  }
  SUBCASE("read") {
    const tracked* t = reader.read();
    cell.publish(make_payload<tracked>(book, 2));
    CHECK(cell.collect() == 0);
    CHECK(t->value == 1);
    reader.release();
    CHECK(reader.stamp() == stamp{0});
    CHECK(book.destroyed == 0);
  }
  SUBCASE("read, then read again") {
    reader.read();
    cell.publish(make_payload<tracked>(book, 2));
    CHECK(cell.collect() == 0);
    CHECK(reader.read()->value == 2);
    CHECK(book.destroyed == 0);
  }
  SUBCASE("shared") {
    share_type share = reader.pin().share();
    cell.publish(make_payload<tracked>(book, 2));
    CHECK(cell.collect() == 0);
    CHECK(share->value == 1);
    share = {};
    CHECK(book.destroyed == 0);
  }
  SUBCASE("reader destroyed") {
    {
      auto other = cell.reader();
      other.read();
      cell.publish(make_payload<tracked>(book, 2));
      CHECK(cell.collect() == 0);
    }
    CHECK(book.destroyed == 0);
  }
  CHECK(cell.collect() == 1);
  CHECK(book.destroyed == 1);
  CHECK(cell.counters().retired == 0);
}

TEST_CASE("snapshot/cell: retired versions are at most the slots and the shares") {
  ledger book;
  cell_type cell(make_payload<tracked>(book, 0));
  std::vector<lora::snapshot_reader<tracked>> readers;
  std::vector<share_type> shares;
  for (int i = 0; i < 3; ++i) readers.push_back(cell.reader());
  for (int i = 1; i <= 100; ++i) {
    readers[static_cast<std::size_t>(i % 3)].read();
    if (i % 25 == 0) shares.push_back(readers[0].pin().share());
    cell.publish(make_payload<tracked>(book, i));
    CHECK(cell.counters().retired <= readers.size() + shares.size());
  }
  CHECK(book.live() <= 1 + 3 + 4);
  readers.clear();
  shares.clear();
  cell.collect();
  CHECK(book.live() == 1);
}

TEST_CASE("snapshot/cell: compare-and-publish replaces only what was expected, and loses nothing otherwise") {
  ledger book;
  cell_type cell;
  auto first = make_payload<tracked>(book, 1);
  CHECK(!cell.try_publish(stamp{1}, first));
  CHECK(first->value == 1);
  CHECK(cell.try_publish(stamp{0}, first) == stamp{1});
  auto second = make_payload<tracked>(book, 2);
  CHECK(!cell.try_publish(stamp{0}, second));
  CHECK(!cell.try_publish(stamp{2}, second));
  CHECK(cell.current().payload == first);
  CHECK(cell.try_publish(stamp{1}, second) == stamp{2});  // failures used up no stamp
  CHECK(cell.current().payload == second);
  CHECK(cell.counters().published == 2);
  CHECK(book.destroyed == 0);  // both are still held here
}

TEST_CASE("snapshot/cell: a rollback is a new stamp over the same payload") {
  ledger book;
  cell_type cell(make_payload<tracked>(book, 1));
  auto reader = cell.reader();
  const tracked* old = reader.read();
  const auto v1 = cell.current();
  cell.publish(make_payload<tracked>(book, 2));
  CHECK(cell.rollback(v1) == stamp{3});
  CHECK(reader.read() == old);
  CHECK(reader.stamp() == stamp{3});
  const auto v3 = cell.current();
  CHECK(v3.parent == stamp{2});
  CHECK(v3.rolled_back_to == stamp{1});
  CHECK(book.live() == 1);  // version 2 went, the payload of 1 and 3 is one
  CHECK(book.made == 2);

  CHECK(!cell.try_rollback(stamp{2}, v1));
  CHECK(cell.try_rollback(stamp{3}, v1) == stamp{4});

  // From a share that a reader took.
  auto share = reader.pin().share();
  CHECK(share.version().rolled_back_to == stamp{1});
  cell.publish(make_payload<tracked>(book, 5));
  CHECK(cell.rollback(share.version()) == stamp{6});
  CHECK(cell.current().rolled_back_to == stamp{4});
  CHECK(cell.current().payload.get() == old);
}

TEST_CASE("snapshot/cell: a version without a value has a stamp and reads as nullptr") {
  ledger book;
  cell_type cell(make_payload<tracked>(book, 1));
  auto reader = cell.reader();
  reader.read();
  CHECK(cell.publish(lora::snapshot_payload<tracked>{}) == stamp{2});
  CHECK(reader.read() == nullptr);
  CHECK(reader.stamp() == stamp{2});
  {
    auto pin = reader.pin();
    CHECK(!pin);
    CHECK(pin.stamp() == stamp{2});
    CHECK(pin.share().stamp() == stamp{2});
  }
  cell.collect();
  CHECK(book.live() == 0);
}

TEST_CASE("snapshot/cell: a reader and its pin outlive the cell") {
  ledger book;
  auto cell = std::make_unique<cell_type>(make_payload<tracked>(book, 1));
  auto reader = std::make_unique<lora::snapshot_reader<tracked>>(cell->reader());
  auto idle = cell->reader();
  {
    auto pin = reader->pin();
    cell.reset();
    CHECK(book.destroyed == 0);
    CHECK(pin->value == 1);
    CHECK(!pin->poisoned);
    CHECK(reader->read() == pin.get());  // inside a pin nothing changes
  }
  CHECK(reader->read() == nullptr);  // afterwards nothing is published
  CHECK(idle.read() == nullptr);
  reader.reset();
  CHECK(book.destroyed == 0);  // `idle` still holds the control block
  auto& same = idle;
  idle = std::move(same);  // leaves it alone
  CHECK(idle.valid());
  { auto last = std::move(idle); }
  CHECK(book.destroyed == 1);
}

TEST_CASE("snapshot/cell: shares outlive the cell, and the last handle takes everything along") {
  ledger book;
  share_type first, second;
  {
    cell_type cell(make_payload<tracked>(book, 1));
    auto reader = cell.reader();
    first = reader.pin().share();
    cell.publish(make_payload<tracked>(book, 2));
    second = reader.pin().share();
    cell.publish(make_payload<tracked>(book, 3));
    CHECK(book.destroyed == 0);
  }
  CHECK(book.destroyed == 1);  // 3 went with the cell
  CHECK(first->value == 1);
  CHECK(second->value == 2);
  first = {};
  CHECK(book.destroyed == 1);
  CHECK(second->value == 2);
  std::thread([s = std::move(second)] { CHECK(s->value == 2); }).join();
  CHECK(book.live() == 0);
}

TEST_CASE("snapshot/cell: a cell destroyed with retired versions leaves nothing") {
  ledger book;
  {
    cell_type cell(make_payload<tracked>(book, 1));
    auto reader = cell.reader();
    reader.read();
    cell.publish(make_payload<tracked>(book, 2));
    CHECK(cell.counters().retired == 1);
    reader.release();
  }
  CHECK(book.made == 2);
  CHECK(book.live() == 0);
}

TEST_CASE("snapshot/cell: a payload kept by a caller outlives the cell") {
  ledger book;
  lora::snapshot_version<tracked> kept;
  {
    cell_type cell(make_payload<tracked>(book, 1));
    kept = cell.current();
  }
  CHECK(kept.payload->value == 1);
  CHECK(book.live() == 1);
}

TEST_CASE("snapshot/cell: a payload's destructor may publish and collect, here and elsewhere") {
  ledger book;
  cell_type log;  // another cell
  cell_type cell;
  auto reader = cell.reader();
  cell.publish(make_payload<tracked>(book, 1, [&] {
    log.publish(make_payload<tracked>(book, 100));
    cell.publish(make_payload<tracked>(book, 3, [&] { cell.collect(); }));
    static_cast<void>(cell.counters());  // would wait for itself under the lock
  }));
  CHECK(cell.publish(make_payload<tracked>(book, 2)) == stamp{2});
  CHECK(cell.current().stamp == stamp{3});
  CHECK(reader.read()->value == 3);
  CHECK(log.current().payload->value == 100);
  cell.publish(make_payload<tracked>(book, 4));
  reader.release();
  cell.collect();
  CHECK(book.live() == 2);
}

TEST_CASE("snapshot/cell: a payload's destructor may publish into the cell that is being destroyed") {
  ledger book;
  {
    auto cell = std::make_unique<cell_type>();
    cell_type& c = *cell;
    c.publish(make_payload<tracked>(book, 1, [&] { c.publish(make_payload<tracked>(book, 2)); }));
    cell.reset();
  }
  CHECK(book.made == 2);
  CHECK(book.live() == 0);
}

TEST_CASE("snapshot/cell: publishers on several threads get different stamps, all of them in order") {
  constexpr int threads = 3, each = 2000;
  ledger book;
  cell_type cell;
  std::vector<std::vector<stamp>> got(threads);
  std::vector<std::thread> publishers;
  std::atomic<int> ready{0};
  for (auto& mine : got)
    publishers.emplace_back([&] {
      for (++ready; ready != threads;) std::this_thread::yield();  // all at once, or they would follow each other
      for (int i = 0; i < each; ++i) mine.push_back(cell.publish(make_payload<tracked>(book, i)));
    });
  for (auto& t : publishers) t.join();
  std::vector<bool> seen(threads * each + 1);
  int wrong = 0;
  for (const auto& mine : got)
    for (std::size_t i = 0; i < mine.size(); ++i) {
      if (i > 0 && !(mine[i - 1] < mine[i])) ++wrong;
      if (mine[i].value > threads * each || seen[mine[i].value])
        ++wrong;
      else
        seen[mine[i].value] = true;
    }
  CHECK(wrong == 0);
  CHECK(cell.current().stamp.value == threads * each);
  CHECK(book.live() == 1);
}

TEST_CASE("snapshot/cell: compare-and-publish never loses an update") {
  constexpr int threads = 3, each = 100;
  snapshot_cell<int> cell(0);
  std::vector<std::thread> publishers;
  for (int t = 0; t < threads; ++t)
    publishers.emplace_back([&] {
      for (int i = 0; i < each; ++i)
        for (;;) {
          const auto v = cell.current();
          std::this_thread::yield();  // room for the others
          if (cell.try_publish(v.stamp, make_payload<int>(*v.payload + 1))) break;
        }
    });
  for (auto& t : publishers) t.join();
  CHECK(*cell.current().payload == threads * each);
}
