// SPDX-License-Identifier: Apache-2.0
//
// A small model checker for the C++20 memory model: atomics that remember every value they held, a scheduler that decides
// before each atomic operation which thread goes next and which of the permitted values a load returns, plain variables that
// detect data races, memory that detects use after free, double free and leaks. It runs a scenario through every
// schedule with at most `bound` preemptions (explore), or through random schedules without that limit (sample).
//
// How weak memory is modelled. Each location keeps its stores in modification order, which is the order of execution. A thread's
// view says for each location which store is the oldest that it may still read; happens-before is a vector clock. A release store
// carries its thread's view, an acquire load that reads it joins that view. A release sequence is continued by
// read-modify-write operations only (C++20, P0982). Seq_cst operations execute in their single order S: such a load reads nothing
// older than what any earlier seq_cst operation on the same location wrote or read, and they have no effect on other locations.
//
// Every outcome it shows is allowed by C++20. Not every allowed outcome is shown: no load buffering (r1 = r2 = 1), no
// modification order against execution order (2+2W), no S against happens-before (what P0668 admits for mixed
// orders). Consume is not modelled, nor are fences but the asymmetric pair of P1202: what a thread knew of each location before a light fence is known
// after every later heavy one, and the other way round; two light fences order nothing, and no fence orders plain data, which is less than
// the paper promises. A failed weak compare-exchange means that the values differ.
//
//   struct message_passing {
//     static constexpr int threads = 2;
//     model::var<int> data; model::atomic<int> ready{0};
//     void thread(int i) { if (i == 0) { data.set(1); ready.store(1, release); } else if (ready.load(acquire)) data.get(); }
//     void finish() {}                                     // when all threads have ended
//   };
//   model::verdict v = model::explore<message_passing>({.bound = 3});
#ifndef LORA_TESTS_SNAPSHOT_MODEL_CHECKER_HPP
#define LORA_TESTS_SNAPSHOT_MODEL_CHECKER_HPP

#include <ucontext.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <set>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

// The sanitizers must be told when the stack changes.
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define MODEL_TSAN 1
#elif __has_feature(address_sanitizer)
#define MODEL_ASAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define MODEL_TSAN 1
#elif defined(__SANITIZE_ADDRESS__)
#define MODEL_ASAN 1
#endif
#if defined(MODEL_TSAN)
#include <sanitizer/tsan_interface.h>
#elif defined(MODEL_ASAN)
#include <sanitizer/common_interface_defs.h>
#endif

namespace model {

inline constexpr int max_threads = 6;  // thread 0 builds the scenario and finishes it
inline constexpr std::size_t max_locations = 96;
inline constexpr std::size_t arena_bytes = std::size_t{1} << 17;
inline constexpr std::size_t granule = 16;  // of the arena
inline constexpr std::size_t max_steps = 20000;

/** What a thread knows: which events happened before now, and for each location the oldest store it may read. */
struct view {
  std::array<std::uint32_t, max_threads> clock{};
  std::array<std::uint16_t, max_locations> seen{};

  void join(const view& other) {
    for (std::size_t i = 0; i < clock.size(); ++i) clock[i] = std::max(clock[i], other.clock[i]);
    for (std::size_t i = 0; i < seen.size(); ++i) seen[i] = std::max(seen[i], other.seen[i]);
  }
};

struct options {
  int bound = 2;                                                    // explore: preemptions in one schedule
  std::size_t schedules = std::numeric_limits<std::size_t>::max();  // stop after this many
  std::uint64_t seed = 1;                                           // sample
  bool reuse_memory = false;                                        // freed memory is handed out again: ABA instead of use after free
  bool shortest = false;  // do not stop at the first failure: look for the one with the fewest steps
  const char* (*field)(std::string_view type, std::size_t i) = nullptr;  // shortest: the name of the i-th atomic of a type, for the trace
};

struct verdict {
  bool failed = false;
  std::string why;            // of the first failure; exploration stops there
  std::size_t schedules = 0;  // run, the failing one included
  bool complete = false;      // explore: nothing left within the bound
  std::set<long> outcomes;    // what scenarios passed to model::record()
  std::string trace;          // options::shortest: what the threads did, one operation a line
  std::size_t steps = 0;      // of that trace
  int preemptions = 0;
};

/** The state of one exploration. Model atomics and variables find it through current(). */
class checker {
 public:
  explicit checker(const options& opts) : options_(opts), rng_(opts.seed * 0x9e3779b97f4a7c15ull + 1), locations_(max_locations) {
    arena_ = static_cast<std::byte*>(::operator new(arena_bytes, std::align_val_t{64}));
    active() = this;
  }
  ~checker() {
    active() = nullptr;
#if defined(MODEL_TSAN)
    for (fiber& f : fibers_)
      if (f.tsan != nullptr && !f.is_host) __tsan_destroy_fiber(f.tsan);
#endif
    ::operator delete(arena_, std::align_val_t{64});
  }
  checker(const checker&) = delete;
  checker& operator=(const checker&) = delete;

  static checker& current() { return *active(); }

  template <class Scenario>
  verdict run(bool random) {
    static_assert(Scenario::threads < max_threads);
    random_ = random;
    threads_ = Scenario::threads + 1;
    body_ = [](checker& c, int self) {
      static Scenario* scenario = nullptr;
      if (self != 0) return scenario->thread(self - 1);
      Scenario here;
      scenario = &here;
      c.start_threads();
      c.join_threads();
      here.finish();
    };
    do {
      one_schedule();
      ++result_.schedules;
      if (result_.failed && !options_.shortest) return result_;
      if (result_.failed) keep_if_shorter();
      if (!random_ && !next_path()) {
        result_.complete = true;
        break;
      }
    } while (result_.schedules < options_.schedules);
    if (best_.failed) {
      best_.schedules = result_.schedules;
      best_.complete = result_.complete;
      return best_;
    }
    return result_;
  }

  // ---- called from the fibers --------------------------------------------------------------------------------------------

  /** Ends the schedule; the fibers are abandoned where they stand. */
  [[noreturn]] void fail(const char* why) {
    result_.failed = true;
    result_.why = why;
    for (int t = 0; t < threads_; ++t) fibers_[idx(t)].ready = false;
    switch_to(host);
    std::abort();  // not reached
  }

  void record(long outcome) { result_.outcomes.insert(outcome); }
  std::size_t steps_of_this_thread() const { return now().steps; }
  int self() const { return self_; }

  std::size_t new_location(void* object, std::uint64_t value) {
    if (location_count_ == max_locations) fail("the scenario has too many atomics: raise max_locations");
    location& l = locations_[location_count_];
    l.stores.clear();
    l.stores.push_back({value, false, {}});
    l.seq_cst_floor = 0;
    l.made_by = self_;
    l.made_at = now().known.clock[idx(self_)];
    l.touched.fill(0);
    if (options_.shortest) l.name = name_of_new(object);
    return location_count_++;
  }

  void end_location(const void* object, std::size_t id) {
    check_alive(object);
    for (int t = 0; t < threads_; ++t)
      if (locations_[id].touched[idx(t)] > now().known.clock[idx(t)]) fail("an atomic was destroyed while another thread used it");
  }

  std::uint64_t load(const void* object, std::size_t id, std::memory_order order) {
    location& l = begin_operation(object, id);
    const std::size_t last = l.stores.size() - 1;
    const std::size_t oldest = oldest_readable(id, order);
    const std::size_t back = choose_store(last - oldest + 1);
    const std::uint64_t got = read_from(id, last - back, order);
    if (options_.shortest) note("loads    ", id, name_of(got) + (back == 0 ? "" : ", which is not the newest"), order);
    return got;
  }

  void store(const void* object, std::size_t id, std::uint64_t value, std::memory_order order) {
    begin_operation(object, id);
    const std::string what = options_.shortest ? name_of(value) : std::string();
    append(id, value, order, false);
    if (options_.shortest) note("stores   ", id, what, order);
  }

  /** `change` maps the old value to the new one. */
  template <class Change>
  std::uint64_t modify(const void* object, std::size_t id, std::memory_order order, Change change) {
    location& l = begin_operation(object, id);
    const std::uint64_t old = read_from(id, l.stores.size() - 1, order);  // a read-modify-write reads the last store
    const std::uint64_t now_there = change(old);
    append(id, now_there, order, true);
    if (options_.shortest) note("exchanges", id, name_of(old) + " for " + name_of(now_there), order);
    return old;
  }

  bool compare_exchange(const void* object, std::size_t id, std::uint64_t& expected, std::uint64_t desired, std::memory_order success,
                        std::memory_order failure) {
    location& l = begin_operation(object, id);
    // It may fail on any readable store that differs, or act on the last one.
    candidates_.clear();
    candidates_.push_back(l.stores.size() - 1);
    for (std::size_t i = l.stores.size() - 1; i-- > oldest_readable(id, failure);)
      if (l.stores[i].value != expected) candidates_.push_back(i);
    const std::size_t i = candidates_[choose_store(candidates_.size())];
    if (l.stores[i].value != expected) {
      expected = read_from(id, i, failure);
      return false;
    }
    read_from(id, i, success);
    append(id, desired, success, true);
    if (options_.shortest) note("exchanges", id, name_of(expected) + " for " + name_of(desired), success);
    return true;
  }

  // ---- asymmetric fences -------------------------------------------------------------------------------------------------

  void light_fence() {
    schedule();
    learn(now().known.seen, heavy_);
    learn(light_, now().known.seen);
    if (options_.shortest) note("light fence");
  }

  void heavy_fence() {
    schedule();
    learn(now().known.seen, light_);
    learn(now().known.seen, heavy_);
    learn(heavy_, now().known.seen);
    ++heavy_fences_;
    if (options_.shortest) note("heavy fence");
  }

  int heavy_fences() const { return heavy_fences_; }  // so far

  /** Either answer, each in a schedule of its own. */
  bool chance() { return (random_ ? random() & 1 : choose(2)) != 0; }

  // ---- mutexes -----------------------------------------------------------------------------------------------------------

  struct mutex_state {
    bool held = false;
    int owner = -1;
    view released;
  };

  void lock(mutex_state& m) {
    schedule();
    check_alive(&m);
    if (m.held && m.owner == self_) fail("a thread locks a mutex that it holds");
    while (m.held) {
      now().waits_for = &m;
      yield_blocked();
      now().waits_for = nullptr;
    }
    m.held = true;
    m.owner = self_;
    if (options_.shortest) note("locks");
    now().known.join(m.released);
  }

  void unlock(mutex_state& m) {
    check_alive(&m);
    if (!m.held || m.owner != self_) fail("a thread unlocks a mutex that it does not hold");
    m.held = false;
    if (options_.shortest) note("unlocks");
    m.released = now().known;
    tick();
  }

  // ---- plain variables ---------------------------------------------------------------------------------------------------

  struct access_log {
    int writer = 0;
    std::uint32_t written = 0;
    std::array<std::uint32_t, max_threads> read{};
  };

  void on_make(access_log& a) {
    a.writer = self_;
    a.written = now().known.clock[idx(self_)];
    a.read.fill(0);
  }

  void on_read(access_log& a) {
    check_alive(&a);
    if (a.written > now().known.clock[idx(a.writer)]) fail("data race: a read and an earlier write");
    a.read[idx(self_)] = now().known.clock[idx(self_)];
  }

  void on_write(access_log& a) {
    check_alive(&a);
    if (a.written > now().known.clock[idx(a.writer)]) fail("data race: two writes");
    for (int t = 0; t < threads_; ++t)
      if (a.read[idx(t)] > now().known.clock[idx(t)]) fail("data race: a write (or the end of the object) and an earlier read");
    a.writer = self_;
    a.written = now().known.clock[idx(self_)];
  }

  // ---- memory ------------------------------------------------------------------------------------------------------------

  void* allocate(std::size_t bytes, std::size_t alignment, std::string_view type = {}) {
    if (options_.reuse_memory)
      for (std::size_t i = blocks_.size(); i-- > 0;)
        if (!blocks_[i].live && blocks_[i].bytes == bytes) {
          blocks_[i].live = true;
          blocks_[i].type = type;
          blocks_[i].fields = 0;
          now().known.join(blocks_[i].freed);  // as free() and malloc() do
          mark(blocks_[i], 1);
          return arena_ + blocks_[i].begin;
        }
    const std::size_t unit = std::max(alignment, granule);
    const std::size_t begin = (arena_used_ + unit - 1) / unit * unit;
    if (begin + bytes > arena_bytes) fail("the scenario needs too much memory: raise arena_bytes");
    arena_used_ = begin + (bytes + granule - 1) / granule * granule;
    blocks_.push_back({begin, bytes, true, {}, type, 0});
    mark(blocks_.back(), 1);
    return arena_ + begin;
  }

  void before_destruction(const void* object) {
    if (block_of(object) == nullptr) fail("double free, or a free of something that was never allocated");
  }

  void release(const void* object) {
    block& b = *block_of(object);
    b.live = false;
    if (options_.shortest) note("frees " + block_name(static_cast<std::size_t>(&b - blocks_.data())));
    b.freed = now().known;
    tick();
    mark(b, 2);  // the bytes stay as they are until the schedule ends, so that a late access can be reported
  }

  void check_alive(const void* object) {
    const auto* p = static_cast<const std::byte*>(object);
    if (std::less<const std::byte*>{}(p, arena_) || !std::less<const std::byte*>{}(p, arena_ + arena_bytes)) return;
    if (state_[static_cast<std::size_t>(p - arena_) / granule] != 1) fail("use after free");
  }

 private:
  static constexpr int host = max_threads;  // the fiber of the test itself
  static constexpr std::size_t stack_bytes = std::size_t{1} << 17;

  struct stored {
    std::uint64_t value;
    bool releases;  // whether `sync` means anything
    view sync;      // what an acquire load that reads this learns
  };

  struct location {
    std::vector<stored> stores;
    std::size_t seq_cst_floor = 0;  // newest store that a seq_cst operation wrote or read
    int made_by = 0;
    std::uint32_t made_at = 0;
    std::array<std::uint32_t, max_threads> touched{};
    std::string name;  // options::shortest
  };

  struct thread {
    view known;
    bool finished = true;
    bool fresh = false;  // started, and has not done anything yet
    bool joining = false;
    const mutex_state* waits_for = nullptr;
    std::size_t steps = 0;
  };

  struct fiber {
    ucontext_t context{};
    std::unique_ptr<char[]> stack;
    bool ready = false;  // waits at the top of its loop; a fiber of a failed schedule is not and must be made anew
    bool is_host = false;
    void* tsan = nullptr;
    void* asan = nullptr;
    const void* bottom = nullptr;
    std::size_t size = 0;
  };

  struct block {
    std::size_t begin;
    std::size_t bytes;
    bool live;
    view freed;
    std::string_view type;
    std::size_t fields = 0;  // atomics in it that have a name
  };

  using knowledge = std::array<std::uint16_t, max_locations>;

  static void learn(knowledge& of, const knowledge& other) {
    for (std::size_t i = 0; i < of.size(); ++i) of[i] = std::max(of[i], other[i]);
  }

  static checker*& active() {
    static checker* one = nullptr;
    return one;
  }
  static std::size_t idx(int t) { return static_cast<std::size_t>(t); }
  static bool acquires(std::memory_order o) {
    return o == std::memory_order::acquire || o == std::memory_order::acq_rel || o == std::memory_order::seq_cst;
  }
  static bool releases(std::memory_order o) {
    return o == std::memory_order::release || o == std::memory_order::acq_rel || o == std::memory_order::seq_cst;
  }

  thread& now() { return states_[idx(self_)]; }
  const thread& now() const { return states_[idx(self_)]; }
  void tick() { ++now().known.clock[idx(self_)]; }

  // ---- operations --------------------------------------------------------------------------------------------------------

  location& begin_operation(const void* object, std::size_t id) {
    schedule();
    check_alive(object);
    location& l = locations_[id];
    thread& t = now();
    if (l.made_at > t.known.clock[idx(l.made_by)]) fail("data race: an atomic is used before its construction is visible");
    l.touched[idx(self_)] = t.known.clock[idx(self_)];
    ++t.steps;
    return l;
  }

  std::size_t oldest_readable(std::size_t id, std::memory_order order) {
    const std::size_t own = now().known.seen[id];
    return order == std::memory_order::seq_cst ? std::max(own, locations_[id].seq_cst_floor) : own;
  }

  std::uint64_t read_from(std::size_t id, std::size_t i, std::memory_order order) {
    location& l = locations_[id];
    thread& t = now();
    t.known.seen[id] = static_cast<std::uint16_t>(i);
    if (acquires(order) && l.stores[i].releases) t.known.join(l.stores[i].sync);
    if (order == std::memory_order::seq_cst) l.seq_cst_floor = std::max(l.seq_cst_floor, i);
    return l.stores[i].value;
  }

  void append(std::size_t id, std::uint64_t value, std::memory_order order, bool continues) {
    location& l = locations_[id];
    thread& t = now();
    const std::size_t i = l.stores.size();
    t.known.seen[id] = static_cast<std::uint16_t>(i);
    l.stores.push_back({value, false, {}});
    stored& s = l.stores[i];
    if (releases(order)) {
      s.releases = true;
      s.sync = t.known;
    }
    if (continues && l.stores[i - 1].releases) {  // a read-modify-write continues the release sequence it reads from
      s.releases = true;
      s.sync.join(l.stores[i - 1].sync);
    }
    if (order == std::memory_order::seq_cst) l.seq_cst_floor = i;
    tick();
  }

  // ---- the trace ---------------------------------------------------------------------------------------------------------

  // What the threads do; building the scenario and finishing it are not part of it, except where the failure shows.
  void note(const std::string& what) {
    if (!tracing_) return;
    trace_ += "    " + (self_ == 0 ? std::string("end") : "T" + std::to_string(self_)) + "  " + what + "\n";
    ++traced_;
  }
  void note(const char* what, std::size_t id, const std::string& value, std::memory_order order) {
    constexpr const char* names[] = {"relaxed", "consume", "acquire", "release", "acq_rel", "seq_cst"};
    note(std::string(what) + " " + locations_[id].name + ": " + value + "  (" + names[static_cast<std::size_t>(order)] + ")");
  }

  std::string block_name(std::size_t i) const {
    std::size_t number = 0;
    for (std::size_t k = 0; k <= i; ++k)
      if (blocks_[k].type == blocks_[i].type) ++number;
    return std::string(blocks_[i].type) + " " + std::to_string(number);
  }
  std::string name_of_new(void* object) {
    const auto* p = static_cast<const std::byte*>(object);
    for (std::size_t i = 0; i < blocks_.size(); ++i) {
      const std::byte* begin = arena_ + blocks_[i].begin;
      if (!blocks_[i].live || std::less<const std::byte*>{}(p, begin) || !std::less<const std::byte*>{}(p, begin + blocks_[i].bytes))
        continue;
      const std::size_t field = blocks_[i].fields++;
      return block_name(i) + "." + (options_.field == nullptr ? std::to_string(field) : options_.field(blocks_[i].type, field));
    }
    return "atomic " + std::to_string(location_count_);
  }
  std::string name_of(std::uint64_t value) const {
    for (std::size_t i = blocks_.size(); i-- > 0;)
      if (value == reinterpret_cast<std::uintptr_t>(arena_ + blocks_[i].begin)) return block_name(i);
    return std::to_string(value);
  }

  void keep_if_shorter() {
    if (!best_.failed || preemptions_ < best_.preemptions || (preemptions_ == best_.preemptions && traced_ < best_.steps)) {
      best_.failed = true;
      best_.why = result_.why;
      best_.trace = trace_;
      best_.steps = traced_;
      best_.preemptions = preemptions_;
    }
    result_.failed = false;
  }

  // ---- choices -----------------------------------------------------------------------------------------------------------

  std::uint64_t random() {  // splitmix64
    std::uint64_t z = (rng_ += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
  }

  std::size_t choose(std::size_t count) {  // explore: depth first over all choices
    if (count < 2) return 0;
    if (depth_ == path_.size()) path_.push_back({0, static_cast<std::uint16_t>(count)});
    return path_[depth_++].taken;
  }

  std::size_t choose_store(std::size_t count) {  // 0 is the newest
    if (!random_) return choose(count);
    return count < 2 || (random() & 1) != 0 ? 0 : random() % count;
  }

  bool next_path() {
    while (!path_.empty() && path_.back().taken + 1 == path_.back().count) path_.pop_back();
    if (path_.empty()) return false;
    ++path_.back().taken;
    return true;
  }

  // ---- scheduling --------------------------------------------------------------------------------------------------------

  bool runnable(int t) const {
    const thread& s = states_[idx(t)];
    if (s.finished) return false;
    if (s.waits_for != nullptr) return !s.waits_for->held;
    if (s.joining)
      for (int other = 1; other < threads_; ++other)
        if (!states_[idx(other)].finished) return false;
    return true;
  }

  std::size_t others() {  // runnable threads besides this one
    std::size_t n = 0;
    for (int t = 0; t < threads_; ++t)
      if (t != self_ && runnable(t)) runnable_[n++] = t;
    return n;
  }

  void schedule() {  // before each operation: may preempt
    if (++steps_ > max_steps) fail("no end in sight: a thread loops");
    if (std::exchange(now().fresh, false)) return;  // it was picked a moment ago, for this very operation
    if (!random_ && preemptions_ >= options_.bound) return;
    const std::size_t n = others();
    if (n == 0) return;
    std::size_t pick = 0;
    if (random_)
      pick = (random() & preempt_mask_) == 0 ? 1 + random() % n : 0;
    else
      pick = choose(n + 1);
    if (pick == 0) return;
    ++preemptions_;
    switch_to(runnable_[pick - 1]);
  }

  void yield_blocked() {  // this thread cannot go on
    const std::size_t n = others();
    if (n == 0) fail("deadlock");
    switch_to(runnable_[random_ ? random() % n : choose(n)]);
  }

  void start_threads() {
    const view at_start = now().known;
    for (int t = 1; t < threads_; ++t) {
      states_[idx(t)] = thread{};
      states_[idx(t)].known = at_start;
      states_[idx(t)].known.clock[idx(t)] = 1;
      states_[idx(t)].finished = false;
      states_[idx(t)].fresh = true;
    }
    tick();
    tracing_ = true;
  }

  void join_threads() {
    now().joining = true;
    if (threads_ > 1) yield_blocked();
    now().joining = false;
    for (int t = 1; t < threads_; ++t) now().known.join(states_[idx(t)].known);
  }

  void one_schedule() {
    depth_ = 0;
    steps_ = 0;
    preemptions_ = 0;
    location_count_ = 0;
    light_.fill(0);
    heavy_.fill(0);
    heavy_fences_ = 0;
    preempt_mask_ = (std::uint64_t{2} << (random_ ? random() % 4 : 0)) - 1;  // preempt at every 2nd to 16th step
    std::memset(state_.data(), 0, arena_used_ / granule + 1);
    arena_used_ = 0;
    blocks_.clear();
    trace_.clear();
    traced_ = 0;
    tracing_ = false;
    for (thread& t : states_) t = thread{};  // a failed schedule leaves threads in the middle of something
    states_[0].known.clock[0] = 1;
    states_[0].finished = false;
    for (int t = 0; t < threads_; ++t) prepare(fibers_[idx(t)]);
    self_ = host;
    switch_to(0);
    if (result_.failed) return;
    for (const block& b : blocks_)
      if (b.live) {
        result_.failed = true;
        result_.why = "leak";
      }
  }

  // ---- fibers ------------------------------------------------------------------------------------------------------------

  void prepare(fiber& f) {
    if (f.ready) return;
    if (f.stack == nullptr) f.stack.reset(new char[stack_bytes]);  // left uninitialised on purpose
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = f.stack.get();
    f.context.uc_stack.ss_size = stack_bytes;
    f.context.uc_link = nullptr;
    f.bottom = f.stack.get();
    f.size = stack_bytes;
    f.asan = nullptr;
#if defined(MODEL_TSAN)
    if (f.tsan != nullptr) __tsan_destroy_fiber(f.tsan);
    f.tsan = __tsan_create_fiber(0);
#endif
    makecontext(&f.context, &checker::fiber_main, 0);
    f.ready = true;
  }

  static void fiber_main() {
    checker::current().after_switch();
    for (;;) {
      checker& c = checker::current();
      const int self = c.self_;
      c.fibers_[idx(self)].ready = false;
      c.body_(c, self);
      c.now().finished = true;
      c.fibers_[idx(self)].ready = true;
      if (self == 0) {
        c.switch_to(host);
      } else {
        c.tick();
        c.yield_blocked();
      }
    }
  }

  void switch_to(int to) {
    fiber& from = fibers_[idx(self_)];
    from_ = self_;
    self_ = to;
    fiber& target = fibers_[idx(to)];
#if defined(MODEL_TSAN)
    if (from_ == host) {
      from.tsan = __tsan_get_current_fiber();
      from.is_host = true;
    }
    __tsan_switch_to_fiber(target.tsan, 0);
#elif defined(MODEL_ASAN)
    __sanitizer_start_switch_fiber(&from.asan, target.bottom, target.size);
#endif
    swapcontext(&from.context, &target.context);
    after_switch();
  }

  void after_switch() {
#if defined(MODEL_ASAN)
    const void* bottom = nullptr;
    std::size_t size = 0;
    __sanitizer_finish_switch_fiber(fibers_[idx(self_)].asan, &bottom, &size);
    if (from_ == host) {
      fibers_[idx(host)].bottom = bottom;
      fibers_[idx(host)].size = size;
    }
#endif
  }

  // ---- memory ------------------------------------------------------------------------------------------------------------

  void mark(const block& b, std::uint8_t state) {
    for (std::size_t i = b.begin / granule; i < (b.begin + b.bytes + granule - 1) / granule; ++i) state_[i] = state;
  }

  block* block_of(const void* object) {
    for (block& b : blocks_)
      if (b.live && arena_ + b.begin == object) return &b;
    return nullptr;
  }

  struct choice {
    std::uint16_t taken;
    std::uint16_t count;
  };

  options options_;
  verdict result_;
  verdict best_;  // options::shortest
  std::string trace_;
  std::size_t traced_ = 0;
  bool tracing_ = false;
  std::uint64_t rng_;
  std::uint64_t preempt_mask_ = 1;
  bool random_ = false;
  void (*body_)(checker&, int) = nullptr;

  std::vector<choice> path_;
  std::size_t depth_ = 0;
  std::size_t steps_ = 0;
  int preemptions_ = 0;

  int threads_ = 0;
  int self_ = host;
  int from_ = host;
  std::array<int, max_threads> runnable_{};
  std::array<thread, max_threads + 1> states_{};
  std::array<fiber, max_threads + 1> fibers_{};

  std::vector<location> locations_;
  std::size_t location_count_ = 0;
  knowledge light_{}, heavy_{};  // what was known before some light fence, some heavy fence
  int heavy_fences_ = 0;
  std::vector<std::size_t> candidates_;

  std::byte* arena_ = nullptr;
  std::size_t arena_used_ = 0;
  std::array<std::uint8_t, arena_bytes / granule + 1> state_{};
  std::vector<block> blocks_;
};

// ---- what scenarios use ------------------------------------------------------------------------------------------------------

template <class U>
std::uint64_t to_bits(U value) {
  if constexpr (std::is_pointer_v<U>)
    return static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(value));
  else
    return static_cast<std::uint64_t>(value);
}

template <class U>
U from_bits(std::uint64_t bits) {
  if constexpr (std::is_pointer_v<U>)
    return reinterpret_cast<U>(static_cast<std::uintptr_t>(bits));
  else
    return static_cast<U>(bits);
}

/** std::atomic's counterpart. Every operation names its order: a forgotten one does not compile. */
template <class U>
class atomic {
 public:
  atomic() : atomic(U{}) {}
  atomic(U value) : id_(checker::current().new_location(this, to_bits(value))) {}
  ~atomic() { checker::current().end_location(this, id_); }
  atomic(const atomic&) = delete;
  atomic& operator=(const atomic&) = delete;

  U load(std::memory_order order) const { return from_bits<U>(checker::current().load(this, id_, order)); }
  void store(U value, std::memory_order order) { checker::current().store(this, id_, to_bits(value), order); }
  U exchange(U value, std::memory_order order) {
    return from_bits<U>(checker::current().modify(this, id_, order, [&](std::uint64_t) { return to_bits(value); }));
  }
  U fetch_add(U by, std::memory_order order) {
    return from_bits<U>(
        checker::current().modify(this, id_, order, [&](std::uint64_t old) { return to_bits(static_cast<U>(from_bits<U>(old) + by)); }));
  }
  U fetch_sub(U by, std::memory_order order) {
    return from_bits<U>(
        checker::current().modify(this, id_, order, [&](std::uint64_t old) { return to_bits(static_cast<U>(from_bits<U>(old) - by)); }));
  }
  bool compare_exchange_strong(U& expected, U desired, std::memory_order success, std::memory_order failure) {
    std::uint64_t bits = to_bits(expected);
    const bool done = checker::current().compare_exchange(this, id_, bits, to_bits(desired), success, failure);
    expected = from_bits<U>(bits);
    return done;
  }
  bool compare_exchange_weak(U& expected, U desired, std::memory_order success) {
    const std::memory_order failure = success == std::memory_order::acq_rel   ? std::memory_order::acquire
                                      : success == std::memory_order::release ? std::memory_order::relaxed
                                                                              : success;
    return compare_exchange_strong(expected, desired, success, failure);
  }

 private:
  std::size_t id_;
};

/** A plain variable; races and uses after its end are failures. */
template <class U>
class var {
 public:
  var() : var(U{}) {}
  explicit var(U value) : value_(value) { checker::current().on_make(log_); }
  ~var() { checker::current().on_write(log_); }
  var(const var&) = delete;
  var& operator=(const var&) = delete;

  U get() const {
    checker::current().on_read(log_);
    return value_;
  }
  void set(U value) {
    checker::current().on_write(log_);
    value_ = value;
  }

 private:
  mutable checker::access_log log_;  // first: its address stands for the variable
  U value_;
};

class mutex {
 public:
  void lock() { checker::current().lock(state_); }
  void unlock() { checker::current().unlock(state_); }

 private:
  checker::mutex_state state_;
};

/** "node" for ns::snapshot_node<...>: the compiler's text for the type without namespaces, arguments and that prefix. */
template <class U>
constexpr std::string_view type_name() {
  std::string_view s = __PRETTY_FUNCTION__;
  s.remove_prefix(s.find("U = ") + 4);
  s = s.substr(0, s.find_first_of("<;]"));
  if (const auto colons = s.rfind("::"); colons != s.npos) s.remove_prefix(colons + 2);
  constexpr std::string_view prefix = "snapshot_";
  if (s.substr(0, prefix.size()) == prefix) s.remove_prefix(prefix.size());
  return s;
}

template <class U, class... Args>
U* create(Args&&... args) {
  return ::new (checker::current().allocate(sizeof(U), alignof(U), type_name<U>())) U(std::forward<Args>(args)...);
}

template <class U>
void destroy(U* object) {
  checker& c = checker::current();
  c.before_destruction(object);
  object->~U();
  c.release(object);
}

/** Ends the schedule as failed unless `holds`. */
inline void require(bool holds, const char* what) {
  if (!holds) checker::current().fail(what);
}

inline void record(long outcome) { checker::current().record(outcome); }

template <class Scenario>
verdict explore(const options& opts = {}) {
  auto c = std::make_unique<checker>(opts);
  return c->run<Scenario>(false);
}

template <class Scenario>
verdict sample(const options& opts) {
  auto c = std::make_unique<checker>(opts);
  return c->run<Scenario>(true);
}

}  // namespace model

#endif
