// SPDX-License-Identifier: Apache-2.0
#include <lora/snapshot/cell.hpp>

#include "tracked.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <cstdint>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

using lora::make_payload;
using lora::stamp;
using test::ledger;
using test::tracked;

namespace {

using cell_type = lora::snapshot_cell<tracked>;
using reader_type = lora::snapshot_reader<tracked>;
using pin_type = lora::snapshot_pin<tracked>;
using share_type = lora::snapshot_share<tracked>;

/** std::atomic that counts the operations of the current thread. */
inline thread_local int operations = 0;

template <class U>
class counted_atomic {
 public:
  counted_atomic() = default;
  counted_atomic(U v) : a_(v) {}
  U load(std::memory_order o) const { return ++operations, a_.load(o); }
  void store(U v, std::memory_order o) { ++operations, a_.store(v, o); }
  U exchange(U v, std::memory_order o) { return ++operations, a_.exchange(v, o); }
  U fetch_add(U v, std::memory_order o) { return ++operations, a_.fetch_add(v, o); }
  U fetch_sub(U v, std::memory_order o) { return ++operations, a_.fetch_sub(v, o); }
  bool compare_exchange_strong(U& e, U d, std::memory_order s, std::memory_order f) {
    return ++operations, a_.compare_exchange_strong(e, d, s, f);
  }
  bool compare_exchange_weak(U& e, U d, std::memory_order s) { return ++operations, a_.compare_exchange_weak(e, d, s); }

 private:
  std::atomic<U> a_{};
};

/** Counts operations, and the chunks of slots that are made. */
struct counting_traits : lora::std_snapshot_traits {
  template <class U>
  using atomic = counted_atomic<U>;
  static inline int chunks = 0;
  static constexpr std::size_t slots_per_chunk = 4;

  template <class U, class... Args>
  static U* create(Args&&... args) {
    if constexpr (std::is_same_v<U, lora::detail::snapshot_chunk<counting_traits>>) ++chunks;
    return std_snapshot_traits::create<U>(std::forward<Args>(args)...);
  }
};

template <class F>
int count(F&& f) {
  const int before = operations;
  f();
  return operations - before;
}

}  // namespace

static_assert(std::is_nothrow_move_constructible_v<reader_type> && !std::is_copy_constructible_v<reader_type>);
static_assert(std::is_nothrow_move_constructible_v<pin_type> && !std::is_copy_constructible_v<pin_type>);
static_assert(std::is_nothrow_move_constructible_v<share_type> && std::is_nothrow_copy_constructible_v<share_type>);
static_assert(noexcept(std::declval<reader_type&>().read()) && noexcept(std::declval<reader_type&>().pin()));
static_assert(std::is_same_v<decltype(std::declval<reader_type&>().read()), const tracked*>);

TEST_CASE("snapshot/reader: a read gives the current version and its stamp") {
  ledger book;
  cell_type cell;
  auto reader = cell.reader();
  CHECK(reader.read() == nullptr);
  for (int i = 1; i <= 3; ++i) {
    cell.publish(make_payload<tracked>(book, i));
    const tracked* t = reader.read();
    CHECK(t->value == i);
    CHECK(reader.read() == t);
    CHECK(reader.stamp().value == static_cast<std::uint64_t>(i));
  }
}

TEST_CASE("snapshot/reader: nested pins see one version, whatever is published and in whatever order they go") {
  ledger book;
  cell_type cell(make_payload<tracked>(book, 1));
  auto reader = cell.reader();
  pin_type outer = reader.pin();
  cell.publish(make_payload<tracked>(book, 2));
  pin_type inner = reader.pin();
  CHECK(inner.get() == outer.get());
  CHECK(inner.stamp() == stamp{1});
  CHECK(reader.read() == outer.get());
  CHECK(reader.stamp() == stamp{1});
  { pin_type gone = std::move(outer); }  // the first one goes first
  cell.publish(make_payload<tracked>(book, 3));
  CHECK(inner->value == 1);
  CHECK(!inner->poisoned);
  CHECK(book.live() == 2);
  { pin_type gone = std::move(inner); }
  CHECK(reader.stamp() == stamp{0});
  CHECK(reader.pin()->value == 3);
}

TEST_CASE("snapshot/reader: a pin of an empty cell stays empty") {
  ledger book;
  cell_type cell;
  auto reader = cell.reader();
  {
    auto pin = reader.pin();
    cell.publish(make_payload<tracked>(book, 1));
    CHECK(pin.get() == nullptr);
    CHECK(reader.read() == nullptr);
    CHECK(reader.pin().stamp() == stamp{0});
  }
  CHECK(reader.read()->value == 1);
}

TEST_CASE("snapshot/reader: a pin moves, and holds as long as one of its successors") {
  ledger book;
  cell_type cell(make_payload<tracked>(book, 1));
  auto reader = cell.reader();
  auto other = cell.reader();
  pin_type a = reader.pin();
  pin_type b = std::move(a);
  CHECK(!a);
  CHECK(a.stamp() == stamp{0});
  CHECK(!a.share());
  CHECK(b->value == 1);
  cell.publish(make_payload<tracked>(book, 2));
  CHECK(book.destroyed == 0);
  b = other.pin();  // lets go of version 1
  CHECK(b->value == 2);
  CHECK(cell.collect() == 1);
  pin_type& self = b;
  b = std::move(self);
  CHECK(b->value == 2);
}

TEST_CASE("snapshot/reader: a share keeps its version after pin, reader and later versions") {
  ledger book;
  cell_type cell(make_payload<tracked>(book, 1));
  share_type share;
  CHECK(!share);
  CHECK(share.get() == nullptr);
  CHECK(share.stamp() == stamp{0});
  CHECK(share.version().stamp == stamp{0});
  {
    auto reader = cell.reader();
    auto pin = reader.pin();
    share = pin.share();
    CHECK(pin->value == 1);  // the pin stays
  }
  cell.publish(make_payload<tracked>(book, 2));
  share_type copy = share;
  share_type moved = std::move(share);
  CHECK(!share);
  CHECK(copy.get() == moved.get());
  moved = {};
  CHECK(cell.collect() == 0);
  CHECK(copy->value == 1);
  CHECK((*copy).value == 1);
  CHECK(copy.version().payload.get() == copy.get());
  copy = share_type(copy);
  copy = {};
  CHECK(cell.collect() == 1);
}

TEST_CASE("snapshot/reader: a pin turns into a share without a gap") {
  ledger book;
  cell_type cell(make_payload<tracked>(book, 1));
  auto reader = cell.reader();
  auto pin = reader.pin();
  cell.publish(make_payload<tracked>(book, 2));
  share_type share = std::move(pin).share();
  CHECK(!pin);
  CHECK(reader.stamp() == stamp{0});  // unpinned
  CHECK(cell.collect() == 0);
  CHECK(share->value == 1);
  CHECK(!std::move(pin).share());
}

TEST_CASE("snapshot/reader: a share goes to another thread and is the last there") {
  ledger book;
  cell_type cell(make_payload<tracked>(book, 1));
  auto reader = cell.reader();
  share_type share = reader.pin().share();
  cell.publish(make_payload<tracked>(book, 2));
  std::thread([share = std::move(share)] {
    test::on_reader_thread = true;
    CHECK(share->value == 1);
    CHECK(!share->poisoned);
  }).join();
  CHECK(book.destroyed == 0);
  CHECK(cell.collect() == 1);
  CHECK(book.destroyed_by_readers == 0);
}

TEST_CASE("snapshot/reader: a reader moves; the one moved from is not registered") {
  ledger book;
  cell_type cell(make_payload<tracked>(book, 1)), other(make_payload<tracked>(book, 10));
  auto a = cell.reader();
  const tracked* t = a.read();
  reader_type b = std::move(a);
  CHECK(!a.valid());
  CHECK(b.valid());
  CHECK(b.stamp() == stamp{1});
  cell.publish(make_payload<tracked>(book, 2));
  CHECK(!t->poisoned);  // what a read gave stays valid through the move
  CHECK(b.read()->value == 2);
  CHECK(cell.collect() == 1);
  a = other.reader();
  CHECK(a.read()->value == 10);
  b = std::move(a);  // b unregisters from `cell`
  CHECK(b.read()->value == 10);
  cell.publish(make_payload<tracked>(book, 3));
  CHECK(cell.counters().retired == 0);
  std::thread([r = std::move(b)]() mutable { CHECK(r.read()->value == 10); }).join();
  CHECK(!b.valid());
}

TEST_CASE("snapshot/reader: more readers than a chunk has slots, and slots are used again") {
  counting_traits::chunks = 0;
  lora::snapshot_cell<int, counting_traits> cell(7);
  using reader = lora::snapshot_reader<int, counting_traits>;
  {
    std::vector<reader> readers;
    for (int i = 0; i < 10; ++i) readers.push_back(cell.reader());
    CHECK(counting_traits::chunks == 3);
    for (auto& r : readers) CHECK(*r.read() == 7);
    cell.publish(8);
    CHECK(cell.counters().retired == 1);
    for (auto& r : readers) CHECK(*r.read() == 8);
    CHECK(cell.collect() == 1);
    readers.erase(readers.begin() + 3, readers.begin() + 5);
    readers.push_back(cell.reader());
    readers.push_back(cell.reader());
    CHECK(counting_traits::chunks == 3);
  }
  for (int i = 0; i < 100; ++i) {
    auto r = cell.reader();
    CHECK(*r.read() == 8);
  }
  CHECK(counting_traits::chunks == 3);
}

TEST_CASE("snapshot/reader: each slot of each chunk protects") {
  ledger book;
  cell_type cell(make_payload<tracked>(book, 0));
  std::vector<reader_type> readers;
  for (int i = 0; i < 40; ++i) {
    readers.push_back(cell.reader());
    CHECK(readers.back().read()->value == i);
    cell.publish(make_payload<tracked>(book, i + 1));
  }
  CHECK(cell.counters().retired == 40);
  for (std::size_t i = 0; i < readers.size(); ++i) {
    readers[i].release();
    CHECK(cell.collect() == 1);
  }
  CHECK(book.live() == 1);
}

TEST_CASE("snapshot/reader: what each call costs in shared operations") {
  lora::snapshot_cell<int, counting_traits> cell;
  auto reader = cell.reader();
  CHECK(count([&] { reader.read(); }) == 1);
  cell.publish(1);
  CHECK(count([&] { reader.read(); }) == 3);
  CHECK(count([&] { reader.read(); }) == 1);
  CHECK(count([&] { reader.release(); }) == 1);
  CHECK(count([&] {
          auto pin = reader.pin();
          CHECK(count([&] { auto nested = reader.pin(); }) == 0);
          CHECK(count([&] { reader.read(); }) == 1);
          CHECK(count([&] { auto share = pin.share(); }) == 4);
        }) == 3 + 1 + 4 + 1);
  CHECK(count([&] { auto share = reader.pin().share(); }) == 3 + 2 + 1 + 2);
}

TEST_CASE("snapshot/reader: a thread that ends lets go of what its reader held") {
  ledger book;
  cell_type cell(make_payload<tracked>(book, 1));
  std::thread([&] {
    test::on_reader_thread = true;
    auto reader = cell.reader();
    CHECK(reader.read()->value == 1);
    cell.publish(make_payload<tracked>(book, 2));  // a reader's thread may publish, but then it is a publisher
    CHECK(book.destroyed == 0);
    auto pin = reader.pin();
    CHECK(pin->value == 2);
  }).join();
  CHECK(book.destroyed == 0);
  CHECK(cell.collect() == 1);
  CHECK(book.destroyed_by_readers == 0);
}
