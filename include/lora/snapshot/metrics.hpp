// SPDX-License-Identifier: Apache-2.0
//
// What a history counts about reloads, and the picture of it that is pulled by whoever exports metrics (interop/metrics_text.hpp).
// Counters are relaxed atomics that publishers touch; the readers' path counts nothing.
//
//   lora::stage_clock clock(metrics, now);  clock.begin(lora::reload_stage::parse);  ...;  clock.end(true);
#ifndef LORA_SNAPSHOT_METRICS_HPP
#define LORA_SNAPSHOT_METRICS_HPP

#include <lora/snapshot/payload.hpp>

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>

namespace lora::inline v0 {

/** The parts of a reload, in the order in which they run. */
enum class reload_stage : std::uint8_t { open, parse, validate, checksum, prefault, swap, reclaim };
inline constexpr std::size_t reload_stages = 7;

[[nodiscard]] constexpr const char* name_of(reload_stage stage) noexcept {
  constexpr const char* names[reload_stages] = {"open", "parse", "validate", "checksum", "prefault", "swap", "reclaim"};
  return names[static_cast<std::size_t>(stage)];
}

/** Counts of durations: bucket i holds those of at most bound(i), the last one the longer ones. */
struct duration_histogram {
  static constexpr std::size_t buckets = 15;
  std::array<std::uint64_t, buckets> counts{};  // not cumulative
  std::uint64_t count = 0;
  std::chrono::nanoseconds sum{};

  /** 1 us, four times as much each, and 60 s. @pre i < buckets - 1. */
  [[nodiscard]] static constexpr std::chrono::nanoseconds bound(std::size_t i) noexcept {
    if (i + 2 == buckets) return std::chrono::seconds(60);
    return std::chrono::nanoseconds(std::int64_t{1000} << (2 * i));
  }
  [[nodiscard]] static constexpr std::size_t bucket_of(std::chrono::nanoseconds d) noexcept {
    std::size_t i = 0;
    while (i + 1 < buckets && d > bound(i)) ++i;
    return i;
  }
};

/** What a history did and holds. Sums are monotone; each number is exact, but numbers of different kinds may be a moment apart. */
struct snapshot_metrics {
  std::array<std::array<duration_histogram, 2>, reload_stages> durations{};  // [stage][0 failed, 1 ok]
  std::uint64_t reloads_ok = 0;                                              // publications of new payloads
  std::uint64_t reloads_failed = 0;                                          // loads that failed, and payloads that were refused
  std::uint64_t reloads_lost = 0;                                            // loaders that found another version published meanwhile
  std::uint64_t rollbacks = 0;
  stamp current{};
  std::size_t live_versions = 0;  // payloads that the history can go back to, the current one included
  std::size_t live_bytes = 0;
  std::size_t retired_versions = 0;  // payloads that were dropped, but are still in use
  std::size_t retired_bytes = 0;
  std::size_t budget_bytes = 0;  // 0: none
  std::size_t named_pins = 0;
  std::chrono::nanoseconds oldest_pin{};  // age of the oldest named pin; 0 without one
  bool heap_probed = false;               // a probe was given (history_options::heap), and a load() has ended
  std::int64_t heap_delta_bytes = 0;      // then: how much more the heap held after the last load() than before it, what it freed included
};

/** The counters behind snapshot_metrics. @par Threads  Any thread may observe at any time. */
class reload_counters {
 public:
  // Relaxed throughout: each number stands for itself, and nothing is published by it.
  void observe(reload_stage stage, bool ok, std::chrono::nanoseconds duration) noexcept {
    live_histogram& h = durations_[static_cast<std::size_t>(stage)][ok ? 1 : 0];
    if (duration.count() < 0) duration = {};  // a clock that was set back
    h.counts[duration_histogram::bucket_of(duration)].fetch_add(1, std::memory_order::relaxed);
    h.sum.fetch_add(static_cast<std::uint64_t>(duration.count()), std::memory_order::relaxed);
  }

  /** Fills in the durations. The count is the sum of the buckets, so an exporter's last bucket always equals its count. */
  void read(snapshot_metrics& to) const noexcept {
    for (std::size_t s = 0; s < reload_stages; ++s)
      for (std::size_t r = 0; r < 2; ++r) {
        duration_histogram& h = to.durations[s][r];
        h.count = 0;
        for (std::size_t b = 0; b < duration_histogram::buckets; ++b) {
          h.counts[b] = durations_[s][r].counts[b].load(std::memory_order::relaxed);
          h.count += h.counts[b];
        }
        h.sum = std::chrono::nanoseconds(static_cast<std::int64_t>(durations_[s][r].sum.load(std::memory_order::relaxed)));
      }
  }

 private:
  struct live_histogram {
    std::array<std::atomic<std::uint64_t>, duration_histogram::buckets> counts{};
    std::atomic<std::uint64_t> sum{0};
  };
  std::array<std::array<live_histogram, 2>, reload_stages> durations_{};
};

/** Times the stages of one reload. One stage is open at a time; beginning the next one ends it well, the destructor ends it as failed. */
class stage_clock {
 public:
  using ticks = std::chrono::nanoseconds (*)();
  static std::chrono::nanoseconds steady() noexcept {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch());
  }

  explicit stage_clock(reload_counters& to, ticks now = steady) noexcept : to_(to), now_(now) {}
  stage_clock(const stage_clock&) = delete;
  stage_clock& operator=(const stage_clock&) = delete;
  ~stage_clock() { end(false); }

  void begin(reload_stage stage) noexcept {
    end(true);
    stage_ = stage;
    open_ = true;
    since_ = now_();
  }
  void end(bool ok) noexcept {
    if (open_) to_.observe(stage_, ok, now_() - since_);
    open_ = false;
  }

 private:
  reload_counters& to_;
  ticks now_;
  std::chrono::nanoseconds since_{};
  reload_stage stage_ = reload_stage::open;
  bool open_ = false;
};

}  // namespace lora::inline v0

#endif
