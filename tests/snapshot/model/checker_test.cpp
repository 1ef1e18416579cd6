// SPDX-License-Identifier: Apache-2.0
//
// Litmus tests for the checker itself: what it must show, what it must never show, which mistakes it must find. A checker that
// cannot fail proves nothing about the cell.
#include "checker.hpp"

#include <doctest/doctest.h>

#include <memory>

namespace {

using enum std::memory_order;
using order = std::memory_order;

// x := 1, read y  ||  y := 1, read x
template <order Store1, order Load1, order Store2, order Load2>
struct store_buffering {
  static constexpr int threads = 2;
  model::atomic<int> x{0}, y{0};
  int r[2] = {0, 0};
  void thread(int i) {
    if (i == 0) {
      x.store(1, Store1);
      r[0] = y.load(Load1);
    } else {
      y.store(1, Store2);
      r[1] = x.load(Load2);
    }
  }
  void finish() { model::record(r[0] * 10 + r[1]); }
};

// The same with a read-modify-write in place of the second store.
template <order Exchange>
struct store_buffering_exchange {
  static constexpr int threads = 2;
  model::atomic<int> x{0}, y{0};
  int r[2] = {0, 0};
  void thread(int i) {
    if (i == 0) {
      x.store(1, seq_cst);
      r[0] = y.load(seq_cst);
    } else {
      y.exchange(1, Exchange);
      r[1] = x.load(seq_cst);
    }
  }
  void finish() { model::record(r[0] * 10 + r[1]); }
};

enum class fence { none, light, heavy };

inline void put(fence f) {
  if (f == fence::light) model::checker::current().light_fence();
  if (f == fence::heavy) model::checker::current().heavy_fence();
}

// The same with fences between relaxed operations.
template <fence First, fence Second>
struct store_buffering_fenced {
  static constexpr int threads = 2;
  model::atomic<int> x{0}, y{0};
  int r[2] = {0, 0};
  void thread(int i) {
    auto& mine = i == 0 ? x : y;
    auto& other = i == 0 ? y : x;
    mine.store(1, relaxed);
    put(i == 0 ? First : Second);
    r[i] = other.load(relaxed);
  }
  void finish() { model::record(r[0] * 10 + r[1]); }
};

// A store that a thread has only read before its light fence counts as one it knew: x := 1  ||  read x, light, read y  ||  y := 1, heavy, read x
struct fence_cumulativity {
  static constexpr int threads = 3;
  model::atomic<int> x{0}, y{0};
  int a = 0, b = 0, c = 0;
  void thread(int i) {
    if (i == 0) {
      x.store(1, relaxed);
    } else if (i == 1) {
      a = x.load(relaxed);
      put(fence::light);
      b = y.load(relaxed);
    } else {
      y.store(1, relaxed);
      put(fence::heavy);
      c = x.load(relaxed);
    }
  }
  void finish() { model::record(a * 100 + b * 10 + c); }
};

// Fences on both sides, relaxed operations, plain data: the checker's fences order no plain data.
struct fenced_plain {
  static constexpr int threads = 2;
  model::var<int> data{0};
  model::atomic<int> ready{0};
  void thread(int i) {
    if (i == 0) {
      data.set(1);
      put(fence::heavy);
      ready.store(1, relaxed);
    } else if (ready.load(relaxed) == 1) {
      put(fence::light);
      data.get();
    }
  }
  void finish() {}
};

// data := 1, ready := 1  ||  read ready, then data
template <order Store, order Load>
struct message_passing {
  static constexpr int threads = 2;
  model::atomic<int> data{0}, ready{0};
  int r[2] = {0, 0};
  void thread(int i) {
    if (i == 0) {
      data.store(1, relaxed);
      ready.store(1, Store);
    } else {
      r[0] = ready.load(Load);
      r[1] = data.load(relaxed);
    }
  }
  void finish() { model::record(r[0] * 10 + r[1]); }
};

// The same with plain data, read only when announced: a race or none.
template <order Store, order Load>
struct message_passing_plain {
  static constexpr int threads = 2;
  model::var<int> data{0};
  model::atomic<int> ready{0};
  void thread(int i) {
    if (i == 0) {
      data.set(1);
      ready.store(1, Store);
    } else if (ready.load(Load) == 1) {
      model::require(data.get() == 1, "stale data");
    }
  }
  void finish() {}
};

// Thread 0 releases 1 and then stores or adds relaxedly; who acquires the later value may or may not see the data.
template <bool Modify, bool OtherThread>
struct release_sequence {
  static constexpr int threads = 3;
  model::var<int> data{0};
  model::atomic<int> flag{0};
  void later() {
    if (Modify)
      flag.fetch_add(1, relaxed);
    else
      flag.store(2, relaxed);
  }
  void thread(int i) {
    if (i == 0) {
      data.set(1);
      flag.store(1, release);
      if (!OtherThread) later();
    } else if (i == 1) {
      if (OtherThread && flag.load(relaxed) == 1) later();
    } else if (flag.load(acquire) == 2) {
      model::require(data.get() == 1, "stale data");
    }
  }
  void finish() {}
};

// Two writers, two readers that read in opposite order: do they agree on which write was first?
template <order Store, order Load>
struct independent_reads {
  static constexpr int threads = 4;
  model::atomic<int> x{0}, y{0};
  int r[4] = {0, 0, 0, 0};
  void thread(int i) {
    if (i == 0) x.store(1, Store);
    if (i == 1) y.store(1, Store);
    if (i == 2) {
      r[0] = x.load(Load);
      r[1] = y.load(Load);
    }
    if (i == 3) {
      r[2] = y.load(Load);
      r[3] = x.load(Load);
    }
  }
  void finish() { model::record(r[0] * 1000 + r[1] * 100 + r[2] * 10 + r[3]); }
};

// Two reads of one location by one thread never go back.
struct read_coherence {
  static constexpr int threads = 2;
  model::atomic<int> x{0};
  int r[2] = {0, 0};
  void thread(int i) {
    if (i == 0) {
      x.store(1, relaxed);
      x.store(2, relaxed);
    } else {
      r[0] = x.load(relaxed);
      r[1] = x.load(relaxed);
    }
  }
  void finish() { model::record(r[0] * 10 + r[1]); }
};

// x := 1, ready := 1 || acquire ready, y := 1 || acquire y, read x: happens-before is transitive.
struct write_causality {
  static constexpr int threads = 3;
  model::atomic<int> x{0}, y{0};
  int r[3] = {0, 0, 0};
  void thread(int i) {
    if (i == 0) x.store(1, release);
    if (i == 1) {
      r[0] = x.load(acquire);
      y.store(1, release);
    }
    if (i == 2) {
      r[1] = y.load(acquire);
      r[2] = x.load(relaxed);
    }
  }
  void finish() { model::record(r[0] * 100 + r[1] * 10 + r[2]); }
};

// Read-modify-writes never lose an addition, whatever the order.
struct counting {
  static constexpr int threads = 2;
  model::atomic<unsigned> x{0};
  void thread(int) {
    x.fetch_add(1, relaxed);
    unsigned seen = x.load(relaxed);
    while (!x.compare_exchange_weak(seen, seen + 1, relaxed)) {
    }
  }
  void finish() { model::require(x.load(relaxed) == 4, "an addition was lost"); }
};

template <bool Locked>
struct guarded {
  static constexpr int threads = 2;
  model::mutex m;
  model::var<int> n{0};
  void thread(int) {
    if (Locked) m.lock();
    n.set(n.get() + 1);
    if (Locked) m.unlock();
  }
  void finish() { model::require(n.get() == 2, "an increment was lost"); }
};

struct unordered_writes {
  static constexpr int threads = 2;
  model::var<int> n{0};
  void thread(int i) { n.set(i); }
  void finish() {}
};

struct lock_order {
  static constexpr int threads = 2;
  model::mutex a, b;
  void thread(int i) {
    model::mutex& first = i == 0 ? a : b;
    model::mutex& second = i == 0 ? b : a;
    first.lock();
    second.lock();
    second.unlock();
    first.unlock();
  }
  void finish() {}
};

enum class mistake { none, leak, double_free, use_after_free, unordered_free, endless_loop };

template <mistake M>
struct memory {
  static constexpr int threads = 2;
  struct object {
    model::var<int> value{7};
    model::atomic<int> count{0};
  };
  object* one = model::create<object>();
  model::atomic<int> done{0};
  void thread(int i) {
    if (i == 0) {
      one->count.fetch_add(1, relaxed);
      done.store(1, M == mistake::unordered_free ? relaxed : release);
    } else if (done.load(acquire) == 1) {
      if (M == mistake::leak) return;
      model::destroy(one);
      done.store(2, relaxed);
      if (M == mistake::double_free) model::destroy(one);
      if (M == mistake::use_after_free) one->count.load(relaxed);
      while (M == mistake::endless_loop) done.load(relaxed);
    }
  }
  void finish() {
    if (done.load(relaxed) == 1 && M != mistake::leak) model::destroy(one);
  }
};

// A pointer that is compared after its object was freed: only with reuse can the comparison be fooled.
struct address_reuse {
  static constexpr int threads = 1;
  struct object {
    model::var<int> value{0};
  };
  void thread(int) {
    auto* a = model::create<object>();
    model::destroy(a);
    auto* b = model::create<object>();
    model::record(a == b);
    model::destroy(b);
  }
  void finish() {}
};

template <class Scenario>
model::verdict all() {
  const model::verdict v = model::explore<Scenario>({.bound = 100});
  INFO(v.why);
  CHECK(!v.failed);
  CHECK(v.complete);
  return v;
}

template <class Scenario>
void finds(const char* why) {
  const model::verdict explored = model::explore<Scenario>({.bound = 3});
  CHECK(explored.failed);
  CHECK(explored.why == why);
  const model::verdict sampled = model::sample<Scenario>({.schedules = 10000});
  CHECK(sampled.failed);
}

}  // namespace

TEST_CASE("snapshot/model: store buffering is forbidden by seq_cst on all four operations, and only by that") {
  CHECK(all<store_buffering<seq_cst, seq_cst, seq_cst, seq_cst>>().outcomes == std::set<long>{1, 10, 11});
  CHECK(all<store_buffering<release, seq_cst, seq_cst, seq_cst>>().outcomes == std::set<long>{0, 1, 10, 11});
  CHECK(all<store_buffering<seq_cst, acquire, seq_cst, seq_cst>>().outcomes == std::set<long>{0, 1, 10, 11});
  CHECK(all<store_buffering<seq_cst, seq_cst, release, seq_cst>>().outcomes == std::set<long>{0, 1, 10, 11});
  CHECK(all<store_buffering<seq_cst, seq_cst, seq_cst, acquire>>().outcomes == std::set<long>{0, 1, 10, 11});
  CHECK(all<store_buffering<relaxed, relaxed, relaxed, relaxed>>().outcomes == std::set<long>{0, 1, 10, 11});
  CHECK(all<store_buffering_exchange<seq_cst>>().outcomes == std::set<long>{1, 10, 11});
  CHECK(all<store_buffering_exchange<acq_rel>>().outcomes == std::set<long>{0, 1, 10, 11});
}

TEST_CASE("snapshot/model: a heavy fence orders as two seq_cst fences do beside a light or a heavy one, two light ones do nothing") {
  using enum fence;
  CHECK(all<store_buffering_fenced<light, heavy>>().outcomes == std::set<long>{1, 10, 11});
  CHECK(all<store_buffering_fenced<heavy, light>>().outcomes == std::set<long>{1, 10, 11});
  CHECK(all<store_buffering_fenced<heavy, heavy>>().outcomes == std::set<long>{1, 10, 11});
  CHECK(all<store_buffering_fenced<light, light>>().outcomes == std::set<long>{0, 1, 10, 11});
  CHECK(all<store_buffering_fenced<heavy, none>>().outcomes == std::set<long>{0, 1, 10, 11});
  CHECK(all<store_buffering_fenced<none, heavy>>().outcomes == std::set<long>{0, 1, 10, 11});
  CHECK(all<fence_cumulativity>().outcomes == std::set<long>{0, 1, 10, 11, 101, 110, 111});  // not 100: x seen, y missed, x missed
  finds<fenced_plain>("data race: a read and an earlier write");
}

TEST_CASE("snapshot/model: message passing needs release and acquire") {
  CHECK(all<message_passing<release, acquire>>().outcomes == std::set<long>{0, 1, 11});
  CHECK(all<message_passing<seq_cst, seq_cst>>().outcomes == std::set<long>{0, 1, 11});
  CHECK(all<message_passing<relaxed, acquire>>().outcomes == std::set<long>{0, 1, 10, 11});
  CHECK(all<message_passing<release, relaxed>>().outcomes == std::set<long>{0, 1, 10, 11});
  all<message_passing_plain<release, acquire>>();
  finds<message_passing_plain<relaxed, acquire>>("data race: a read and an earlier write");
  finds<message_passing_plain<release, relaxed>>("data race: a read and an earlier write");
}

TEST_CASE("snapshot/model: a release sequence is continued by read-modify-writes of any thread and by no plain store") {
  all<release_sequence<true, false>>();
  all<release_sequence<true, true>>();
  finds<release_sequence<false, false>>("data race: a read and an earlier write");
  finds<release_sequence<false, true>>("data race: a read and an earlier write");
}

TEST_CASE("snapshot/model: independent reads agree under seq_cst and may disagree under acquire") {
  CHECK(all<independent_reads<seq_cst, seq_cst>>().outcomes.count(1010) == 0);
  CHECK(all<independent_reads<relaxed, seq_cst>>().outcomes.count(1010) == 0);  // the loads alone are in S, and suffice
  CHECK(all<independent_reads<release, acquire>>().outcomes.count(1010) == 1);
}

TEST_CASE("snapshot/model: reads of one location never go back, and happens-before is transitive") {
  CHECK(all<read_coherence>().outcomes == std::set<long>{0, 1, 2, 11, 12, 22});
  CHECK(all<write_causality>().outcomes.count(110) == 0);
}

TEST_CASE("snapshot/model: read-modify-writes are atomic, a mutex excludes and orders") {
  all<counting>();
  all<guarded<true>>();
  const model::verdict unguarded = model::explore<guarded<false>>({.bound = 3});
  CHECK(unguarded.failed);
  finds<unordered_writes>("data race: two writes");
  finds<lock_order>("deadlock");
}

TEST_CASE("snapshot/model: mistakes with memory are found") {
  all<memory<mistake::none>>();
  finds<memory<mistake::leak>>("leak");
  finds<memory<mistake::double_free>>("double free, or a free of something that was never allocated");
  finds<memory<mistake::use_after_free>>("use after free");
  finds<memory<mistake::unordered_free>>("an atomic was destroyed while another thread used it");
  finds<memory<mistake::endless_loop>>("no end in sight: a thread loops");
  CHECK(model::explore<address_reuse>({}).outcomes == std::set<long>{0});
  CHECK(model::explore<address_reuse>({.reuse_memory = true}).outcomes == std::set<long>{1});
}

TEST_CASE("snapshot/model: the preemption bound bounds, and the search is exhaustive below it") {
  // Store buffering with seq_cst: without a preemption one thread runs first, to its end.
  CHECK(model::explore<store_buffering<seq_cst, seq_cst, seq_cst, seq_cst>>({.bound = 0}).outcomes == std::set<long>{1, 10});
  CHECK(model::explore<store_buffering<seq_cst, seq_cst, seq_cst, seq_cst>>({.bound = 1}).outcomes == std::set<long>{1, 10, 11});
  // Two threads with two operations each and one value to read: exactly the six interleavings.
  CHECK(all<store_buffering<seq_cst, seq_cst, seq_cst, seq_cst>>().schedules == 6);
}
