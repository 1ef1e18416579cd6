// SPDX-License-Identifier: Apache-2.0
//
// What all designs are measured by: one current version, readers that use it, a publisher that replaces it. A peer is a class with
//
//   explicit peer(std::unique_ptr<version>);                     the first version
//   void publish(std::unique_ptr<version>);                      replaces it, and frees what is not in use any more
//   struct reader { explicit reader(peer&); std::uint64_t use(); };   one a thread; use(): get at the version, read it, let go of it
//   static constexpr const char* name, * kind;
//
// Each peer's file calls reads_of<peer>() so that its way of reading is inlined into the loop that is timed.
#ifndef LORA_BENCH_SNAPSHOT_HPP
#define LORA_BENCH_SNAPSHOT_HPP

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace bench {

using clock = std::chrono::steady_clock;

inline double seconds(clock::duration d) { return std::chrono::duration<double>(d).count(); }

/** The same number twice, so that a mixture shows. */
struct version {
  explicit version(std::uint64_t n) : first(n), second(n) {}
  std::uint64_t first, second;
  std::uint64_t use() const { return first == second ? first : ~std::uint64_t{0}; }
};

struct window {
  std::uint64_t reads = 0;
  std::uint64_t wrong = 0;  // mixtures, and versions older than one seen before: a peer with any is not measured
  std::uint64_t swaps = 0;
  double elapsed = 0;
};

struct peer {
  std::string name;
  std::string kind;  // what a use consists of
  window (*run)(int readers, double swaps_per_second, double length);
};

/** `readers` threads use the version without pause; the caller's thread publishes. */
template <class Peer>
window run_window(int readers, double swaps_per_second, double length) {
  constexpr int batch = 256;  // uses between two looks at the flag
  Peer subject(std::make_unique<version>(1));
  std::atomic<int> ready{0};
  std::atomic<bool> go{false}, stop{false};
  std::atomic<std::uint64_t> reads{0}, wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < readers; ++t)
    threads.emplace_back([&] {
      typename Peer::reader reader(subject);
      ++ready;
      while (!go.load(std::memory_order_acquire)) std::this_thread::yield();
      std::uint64_t n = 0, bad = 0, last = 0;
      while (!stop.load(std::memory_order_relaxed)) {
        for (int i = 0; i < batch; ++i) {
          const std::uint64_t v = reader.use();
          bad += v < last || v == ~std::uint64_t{0} ? 1 : 0;
          last = v;
        }
        n += batch;
      }
      reads += n;
      wrong += bad;
    });
  while (ready != readers) std::this_thread::yield();
  window w;
  go = true;
  const auto begin = clock::now();
  const auto end = begin + std::chrono::duration_cast<clock::duration>(std::chrono::duration<double>(length));
  if (swaps_per_second == 0) {
    std::this_thread::sleep_until(end);
  } else {
    const auto period = std::chrono::duration_cast<clock::duration>(std::chrono::duration<double>(1 / swaps_per_second));
    for (auto next = begin + period / 2; next < end; next += period) {
      std::this_thread::sleep_until(next);
      subject.publish(std::make_unique<version>(++w.swaps + 1));
    }
    std::this_thread::sleep_until(end);
  }
  w.elapsed = seconds(clock::now() - begin);
  stop = true;
  for (auto& t : threads) t.join();
  w.reads = reads;
  w.wrong = wrong;
  return w;
}

template <class Peer>
peer reads_of() {
  return {Peer::name, Peer::kind, run_window<Peer>};
}

// One function a file; a peer whose library is absent gives none.
void add_lora(std::vector<peer>& to);
void add_locks(std::vector<peer>& to);
void add_urcu(std::vector<peer>& to);

}  // namespace bench

#endif
