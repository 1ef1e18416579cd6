// SPDX-License-Identifier: Apache-2.0
//
// What is measured: latencies, and counts of what was answered. Plain numbers, so that the report can be compiled without the library.
#ifndef HOT_SWAP_MEASURE_HPP
#define HOT_SWAP_MEASURE_HPP

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>

namespace hot_swap {

/** Rows of x that one request brings. Each size runs through kernels of its own, so each has bits of its own. */
inline constexpr std::array<std::ptrdiff_t, 4> batch_sizes{1, 4, 16, 64};
inline constexpr std::ptrdiff_t largest_batch = 64;

using nanoseconds = std::int64_t;

[[nodiscard]] inline nanoseconds now() noexcept {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/** Calls of operator new on this thread so far (allocations.cpp). */
[[nodiscard]] std::uint64_t allocations_of_this_thread() noexcept;

/** Counts durations in buckets 1/32 wide relative to their size: 15 KiB for everything from 1 ns to 300 years. */
class latency_histogram {
 public:
  void add(nanoseconds duration) noexcept {
    const auto v = static_cast<std::uint64_t>(duration < 0 ? 0 : duration);
    const int octave = std::max(0, static_cast<int>(std::bit_width(v)) - 6);
    ++buckets_[static_cast<std::size_t>(octave) * 32 + static_cast<std::size_t>(v >> octave)];
    ++count_;
    max_ = std::max(max_, duration);
  }
  void add(const latency_histogram& other) noexcept {
    for (std::size_t i = 0; i < buckets_.size(); ++i) buckets_[i] += other.buckets_[i];
    count_ += other.count_;
    max_ = std::max(max_, other.max_);
  }

  [[nodiscard]] std::uint64_t count() const noexcept { return count_; }
  [[nodiscard]] nanoseconds max() const noexcept { return max_; }
  /** Upper edge of the bucket that holds the quantile, at most 3 % above it. */
  [[nodiscard]] nanoseconds quantile(double q) const noexcept {
    const auto wanted = static_cast<std::uint64_t>(q * static_cast<double>(count_));
    std::uint64_t seen = 0;
    for (std::size_t i = 0; i < buckets_.size(); ++i) {
      seen += buckets_[i];
      if (seen > wanted) {
        const std::size_t octave = i < 64 ? 0 : i / 32 - 1;
        return std::min(max_, static_cast<nanoseconds>(((i - octave * 32 + 1) << octave) - 1));
      }
    }
    return max_;
  }

 private:
  std::array<std::uint64_t, 60 * 32> buckets_{};
  std::uint64_t count_ = 0;
  nanoseconds max_ = 0;
};

/** What was answered with one version. */
struct served {
  std::uint64_t requests = 0;
  std::uint64_t images = 0;
  std::uint64_t right = 0;
  nanoseconds first_answer = 0;  // when; 0 if there was none
};

/** The sums of all threads, complete after stop(). */
struct totals {
  std::uint64_t requests = 0;
  std::uint64_t mixed = 0;        // answers whose bits are not those of the pinned version
  std::uint64_t lost = 0;         // requests that found no version, or failed
  std::uint64_t went_back = 0;    // requests that saw an older version than the one before them on their thread
  std::uint64_t allocations = 0;  // calls of operator new between the first and the last request
  std::array<latency_histogram, batch_sizes.size()> steady;
  std::array<latency_histogram, batch_sizes.size()> after_swap;
};

}  // namespace hot_swap

#endif
