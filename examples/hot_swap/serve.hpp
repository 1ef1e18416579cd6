// SPDX-License-Identifier: Apache-2.0
//
// request_pool: threads that answer requests without pause while versions are swapped under them. The way of one request, in
// request_thread::answer(), neither allocates nor locks nor waits; everything it records goes into memory of its own thread.
//
//   request_pool pool(net, test, cell, 4);
//   cell.publish(first);
//   pool.open();                              // the threads begin
//   ...publish, with pool.swap_begins() before each...
//   pool.stop();                              // then look at pool.total()
#ifndef HOT_SWAP_SERVE_HPP
#define HOT_SWAP_SERVE_HPP

#include "digits.hpp"
#include "measure.hpp"

#include <cstring>
#include <latch>
#include <thread>

namespace hot_swap {

using cell_type = lora::snapshot_cell<digit_model>;
inline constexpr nanoseconds near_a_swap = 5'000'000;

class request_pool {
 public:
  /** Versions from this stamp on are counted together. */
  static constexpr std::size_t counted_versions = 1024;

  request_pool(const digit_net& net, const test_set& test, const cell_type& cell, std::size_t threads)
      : ready_(static_cast<std::ptrdiff_t>(threads)) {
    for (std::size_t i = 0; i < threads; ++i) threads_.push_back(std::make_unique<request_thread>(*this, net, test, i));
    for (auto& t : threads_) t->thread = std::thread([&t = *t, &cell] { t.run(cell); });
    ready_.wait();
  }
  request_pool(const request_pool&) = delete;
  request_pool& operator=(const request_pool&) = delete;
  ~request_pool() { stop(); }

  void open() noexcept {
    if (!opened_) gate_.count_down();
    opened_ = true;
  }

  void stop() {
    // Relaxed: nothing is handed over by it; the results are, by join().
    stopping_.store(true, std::memory_order_relaxed);
    open();
    for (auto& t : threads_)
      if (t->thread.joinable()) t->thread.join();
  }

  /** To be called right before each publication: the answers of the next 5 ms are counted apart. */
  nanoseconds swap_begins() noexcept {
    const nanoseconds at = now();
    last_swap_.store(at, std::memory_order_relaxed);  // Relaxed: only sorts measurements.
    return at;
  }

  /** Sums over all threads for one stamp; while they run, a moment old. */
  [[nodiscard]] served of(std::uint64_t stamp) const noexcept {
    served sum;
    for (const auto& t : threads_) {
      const live_count& c = t->versions[slot(stamp)];
      sum.requests += c.requests.load(std::memory_order_relaxed);
      sum.images += c.images.load(std::memory_order_relaxed);
      sum.right += c.right.load(std::memory_order_relaxed);
      const nanoseconds first = c.first_answer.load(std::memory_order_relaxed);
      if (first != 0 && (sum.first_answer == 0 || first < sum.first_answer)) sum.first_answer = first;
    }
    return sum;
  }

  /** @pre stop() was called. */
  [[nodiscard]] std::unique_ptr<totals> total() const {
    auto sum = std::make_unique<totals>();
    for (const auto& t : threads_) {
      sum->requests += t->own.requests;
      sum->mixed += t->own.mixed;
      sum->lost += t->own.lost;
      sum->went_back += t->own.went_back;
      sum->allocations += t->own.allocations;
      for (std::size_t s = 0; s < batch_sizes.size(); ++s) {
        sum->steady[s].add(t->own.steady[s]);
        sum->after_swap[s].add(t->own.after_swap[s]);
      }
    }
    return sum;
  }

 private:
  /** Written by one thread, read by the one that reports. Relaxed throughout: nothing depends on the order of these numbers. */
  struct live_count {
    std::atomic<std::uint64_t> requests{0};
    std::atomic<std::uint64_t> images{0};
    std::atomic<std::uint64_t> right{0};
    std::atomic<nanoseconds> first_answer{0};

    static void add(std::atomic<std::uint64_t>& counter, std::uint64_t n) noexcept {
      counter.store(counter.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);  // one writer: no locked addition
    }
  };

  [[nodiscard]] static std::size_t slot(std::uint64_t stamp) noexcept { return std::min<std::size_t>(stamp, counted_versions - 1); }

  struct alignas(64) request_thread {
    request_thread(request_pool& p, const digit_net& n, const test_set& t, std::size_t number)
        : pool(p), net(n), test(t), turn(number), buffers(n, largest_batch), versions(counted_versions) {}

    void run(const cell_type& cell) {
      auto reader = cell.reader();  // registered once, not once a request
      pool.ready_.count_down();
      pool.gate_.wait();
      const std::uint64_t allocations = allocations_of_this_thread();
      while (!pool.stopping_.load(std::memory_order_relaxed)) {
        const std::size_t size = turn++ % batch_sizes.size();
        const lora::index_t first = position[size];
        const lora::index_t n = std::min(batch_sizes[size], test.size() - first);
        position[size] = first + n == test.size() ? 0 : first + n;
        ++own.requests;
        try {
          if (!answer(reader, size, first, n)) ++own.lost;
        } catch (const std::exception&) {
          ++own.lost;
        }
      }
      own.allocations = allocations_of_this_thread() - allocations;
    }

    /** One request: images [first, first + n). Whether it found a version. */
    bool answer(cell_type::reader_type& reader, std::size_t size, lora::index_t first, lora::index_t n) {
      const nanoseconds begin = now();
      const auto version = reader.pin();  // this version and no other until the pin goes, whatever is published meanwhile
      if (!version) return false;
      const matrix_view logits = net.logits(test.x(lora::range(first, first + n), lora::all), version->adapters, buffers);
      for (lora::index_t i = 0; i < n; ++i) answers[static_cast<std::size_t>(i)] = argmax(logits(i, lora::all));
      const nanoseconds end = now();

      // The request is answered; what follows is checking and counting.
      const nanoseconds since_swap = end - pool.last_swap_.load(std::memory_order_relaxed);
      (since_swap < near_a_swap ? own.after_swap : own.steady)[size].add(end - begin);
      const lora::ndview<const float, 2> expected = version->expected[size](lora::range(first, first + n), lora::all);
      if (std::memcmp(logits.data(), expected.data(), static_cast<std::size_t>(expected.size()) * sizeof(float)) != 0) ++own.mixed;
      if (version.stamp() < last_stamp) ++own.went_back;
      last_stamp = version.stamp();
      std::uint64_t right = 0;
      for (lora::index_t i = 0; i < n; ++i) right += answers[static_cast<std::size_t>(i)] == test.labels[first + i] ? 1u : 0u;
      live_count& count = versions[slot(version.stamp().value)];
      if (count.requests.load(std::memory_order_relaxed) == 0) count.first_answer.store(end, std::memory_order_relaxed);
      live_count::add(count.requests, 1);
      live_count::add(count.images, static_cast<std::uint64_t>(n));
      live_count::add(count.right, right);
      return true;
    }

    request_pool& pool;
    const digit_net& net;
    const test_set& test;
    std::size_t turn;                                          // threads begin with different sizes
    std::array<lora::index_t, batch_sizes.size()> position{};  // the next image of each size: each walks through the whole test set
    forward_buffers buffers;
    std::array<lora::index_t, largest_batch> answers{};
    lora::stamp last_stamp{};
    std::vector<live_count> versions;  // by stamp
    totals own;
    std::thread thread;
  };

  std::latch ready_;
  std::latch gate_{1};
  bool opened_ = false;
  std::atomic<bool> stopping_{false};
  std::atomic<nanoseconds> last_swap_{-near_a_swap};
  std::vector<std::unique_ptr<request_thread>> threads_;
};

}  // namespace hot_swap

#endif
