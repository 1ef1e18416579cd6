// SPDX-License-Identifier: Apache-2.0
//
// The cell with asymmetric fences, on real threads. That the protocol is right with them, and that each mistake shows, is for the model checker
// (tests/snapshot/model/); here the kernel's call does what the model's fence does, and what happens where there is none.
#include <lora/interop/membarrier.hpp>
#include <lora/snapshot/history.hpp>

#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>
#include <vector>

namespace {

/** Weights that agree with each other until their end is written over them. */
struct weights {
  explicit weights(std::uint64_t v, std::atomic<int>* ends = nullptr) : destroyed(ends) { values.fill(v); }
  weights(const weights&) = delete;
  weights& operator=(const weights&) = delete;
  ~weights() {
    for (std::uint64_t& v : values) *static_cast<volatile std::uint64_t*>(&v) = ~std::uint64_t{0};
    if (destroyed != nullptr) ++*destroyed;
  }
  [[nodiscard]] bool all(std::uint64_t wanted) const {
    for (const std::uint64_t v : values)
      if (v != wanted) return false;
    return true;
  }
  std::array<std::uint64_t, 16> values;
  std::atomic<int>* destroyed;
};

/** A kernel that refuses: at once, or for a while. */
struct refusing_traits : lora::membarrier_snapshot_traits {
  static inline bool grants_use = true;
  static inline bool grants_fence = true;
  static inline int fences = 0;
  static bool may_use_fences() noexcept { return grants_use && lora::membarrier_snapshot_traits::may_use_fences(); }
  static bool heavy_fence() noexcept {
    ++fences;
    return grants_fence && lora::membarrier_snapshot_traits::heavy_fence();
  }
};

template <class Traits>
void publish_to(lora::snapshot_cell<weights, Traits>& cell, std::uint64_t v, std::atomic<int>& ends) {
  cell.publish(lora::make_payload<weights, Traits>(v, &ends));
}

}  // namespace

TEST_CASE("interop/membarrier: pins and sticky reads are whole under swaps, and everything is freed once") {
  if (!lora::membarrier_snapshot_traits::may_use_fences())
    MESSAGE("SKIPPED: the kernel refuses membarrier(2); the cell works as without it");
  std::atomic<int> wrong{0}, ends{0};
  std::atomic<std::uint64_t> reads{0};
  std::uint64_t published = 1;
  {
    lora::snapshot_cell<weights, lora::membarrier_snapshot_traits> cell;
    publish_to(cell, 1, ends);
    std::atomic<bool> stop{false};
    const auto serve = [&](bool pinning) {
      auto reader = cell.reader();
      std::uint64_t n = 0;
      for (lora::stamp last{}; !stop; ++n) {
        if (pinning) {
          const auto pin = reader.pin();
          if (!pin->all(pin.stamp().value) || pin.stamp() < last) ++wrong;
          last = pin.stamp();
        } else {
          const weights* w = reader.read();
          if (!w->all(reader.stamp().value) || reader.stamp() < last) ++wrong;
          last = reader.stamp();
        }
      }
      reads += n;
    };
    std::thread a(serve, true), b(serve, true), c(serve, false);
    const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(400);
    for (int own = 0; std::chrono::steady_clock::now() < end || own < 1000; ++own) publish_to(cell, ++published, ends);
    stop = true;
    a.join();
    b.join();
    c.join();
    cell.collect();
    CHECK(cell.counters().retired == 0);
    CHECK(ends == static_cast<int>(published) - 1);
  }
  CHECK(wrong == 0);
  CHECK(reads > 0);
  CHECK(ends == static_cast<int>(published));
}

TEST_CASE("interop/membarrier: a cell whose kernel refuses the call works with the orders of std_snapshot_traits, and asks for no fence") {
  refusing_traits::grants_use = false;
  refusing_traits::fences = 0;
  std::atomic<int> ends{0};
  {
    lora::snapshot_cell<weights, refusing_traits> cell;
    auto reader = cell.reader();
    publish_to(cell, 1, ends);
    {
      auto pin = reader.pin();
      publish_to(cell, 2, ends);
      CHECK(pin->all(1));
      CHECK(ends == 0);
    }
    publish_to(cell, 3, ends);
    CHECK(ends == 2);
    CHECK(reader.pin()->all(3));
  }
  CHECK(ends == 3);
  CHECK(refusing_traits::fences == 0);
  refusing_traits::grants_use = true;
}

TEST_CASE("interop/membarrier: without its fence a publication is seen and frees nothing; the next one that gets it frees all") {
  if (!lora::membarrier_snapshot_traits::may_use_fences()) {
    MESSAGE("SKIPPED: the kernel refuses membarrier(2)");
    return;
  }
  std::atomic<int> ends{0};
  {
    lora::snapshot_cell<weights, refusing_traits> cell;
    auto reader = cell.reader();
    publish_to(cell, 1, ends);
    refusing_traits::grants_fence = false;
    publish_to(cell, 2, ends);
    publish_to(cell, 3, ends);
    CHECK(reader.read()->all(3));
    CHECK(cell.collect() == 0);
    CHECK(ends == 0);
    CHECK(cell.counters().retired == 2);
    refusing_traits::grants_fence = true;
    refusing_traits::fences = 0;
    CHECK(cell.collect() == 2);
    CHECK(ends == 2);
    CHECK(refusing_traits::fences == 1);
    {
      const auto pin = reader.pin();
      publish_to(cell, 4, ends);
      CHECK(cell.collect() == 0);  // the pinned one is left: there are slots to look at
      CHECK(cell.collect() == 0);
      CHECK(refusing_traits::fences == 2);  // one after an exchange is enough for every later look
    }
    CHECK(cell.collect() == 1);
    CHECK(refusing_traits::fences == 2);
    refusing_traits::grants_fence = false;
  }
  CHECK(ends == 4);  // with the cell and its last handle, who wait for nobody
  refusing_traits::grants_fence = true;
}

TEST_CASE("interop/membarrier: a history runs on it as on any traits") {
  using traits = lora::membarrier_snapshot_traits;
  lora::history<int, traits> h(lora::validator<int, traits>::proven_by_type());
  h.load({.source = "v1"}, [](auto&) { return 1; });
  const auto reader_of = [&] { return h.reader(); };
  auto reader = reader_of();
  const auto pin = reader.pin();
  h.load({.source = "v2"}, [](auto&) { return 2; });
  CHECK(*pin == 1);
  CHECK(h.rollback(lora::stamp{1}).stamp == lora::stamp{3});
  CHECK(*h.reader().read() == 1);
}
