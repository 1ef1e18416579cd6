// SPDX-License-Identifier: Apache-2.0
//
// canary: gray release. Requests report how they went, on the stable version or on the candidate; at the end of each window a rule decides
// whether the candidate gets more traffic, waits, or goes back, and the decision is put on record in the history.
// Not here: sending the traffic (routes.hpp): the caller publishes a table with the share that decide() gives.
//
//   lora::canary<model> trial(h, candidate, lora::canary_rules{});
//   auto meter = trial.meter();                                   // one a thread
//   meter.report(lora::canary_arm::candidate, ok, latency);       // one a request
//   const auto d = trial.decide();                                // from a timer
//   routes.publish(d.verdict == lora::canary_verdict::roll_back ? table.with_status(candidate_id, lora::route_status::deprecated)
//                                                               : table.with_share(candidate_id, d.share));
//
// `table` is the one that the trial began with: a table in which the candidate has all the traffic knows no shares to go back to.
#ifndef LORA_SNAPSHOT_CANARY_HPP
#define LORA_SNAPSHOT_CANARY_HPP

#include <lora/snapshot/history.hpp>

#include <array>
#include <cmath>
#include <deque>

namespace lora::inline v0 {

enum class canary_arm : std::uint8_t { stable, candidate };
enum class canary_verdict : std::uint8_t { promote, hold, roll_back };

[[nodiscard]] constexpr const char* name_of(canary_verdict v) noexcept {
  constexpr const char* names[] = {"promote", "hold", "roll back"};
  return names[static_cast<std::size_t>(v)];
}

/** What one arm did in a window. */
struct canary_counts {
  std::uint64_t requests = 0;
  std::uint64_t errors = 0;
  std::chrono::nanoseconds latency{};  // summed up
  double score = 0;                    // summed up; what it means is the caller's

  [[nodiscard]] double error_rate() const noexcept {
    return requests == 0 ? 0 : static_cast<double>(errors) / static_cast<double>(requests);
  }
  [[nodiscard]] double mean_latency_ns() const noexcept {
    return requests == 0 ? 0 : static_cast<double>(latency.count()) / static_cast<double>(requests);
  }
  [[nodiscard]] double mean_score() const noexcept { return requests == 0 ? 0 : score / static_cast<double>(requests); }
};

struct canary_window {
  canary_counts stable;
  canary_counts candidate;
};

/**
 * A rule to begin with; any function of a canary_window may stand in its place. It rolls back when the candidate's error rate exceeds the stable one's by
 * more than `error_margin` and by three standard deviations of the difference (two proportions, pooled), when its mean latency exceeds
 * `latency_ratio` times the stable one's, or its mean score falls more than `score_margin` below; otherwise it promotes.
 * With fewer than `least_requests` on an arm it holds.
 */
struct canary_rules {
  std::uint64_t least_requests = 200;
  double error_margin = 0.005;
  double latency_ratio = 1.25;
  double score_margin = 0.02;

  [[nodiscard]] canary_verdict operator()(const canary_window& w) const noexcept {
    const auto n0 = static_cast<double>(w.stable.requests), n1 = static_cast<double>(w.candidate.requests);
    if (w.stable.requests < least_requests || w.candidate.requests < least_requests) return canary_verdict::hold;
    const double excess = w.candidate.error_rate() - w.stable.error_rate();
    const double pooled = static_cast<double>(w.stable.errors + w.candidate.errors) / (n0 + n1);
    const double deviation = std::sqrt(pooled * (1 - pooled) * (1 / n0 + 1 / n1));
    if (excess > error_margin && excess > 3 * deviation) return canary_verdict::roll_back;
    if (w.candidate.mean_latency_ns() > latency_ratio * w.stable.mean_latency_ns()) return canary_verdict::roll_back;
    if (w.candidate.mean_score() < w.stable.mean_score() - score_margin) return canary_verdict::roll_back;
    return canary_verdict::promote;
  }
};

struct canary_decision {
  canary_verdict verdict = canary_verdict::hold;
  double share = 0;       // of the traffic, that the candidate should have from now on: route_table::with_share
  bool finished = false;  // promoted to the last share, or rolled back
  canary_window window{};
};

namespace detail {

/** Written by one thread, read by decide(). Relaxed throughout: sums of independent numbers. Alone on its cache lines. */
struct alignas(64) canary_slot {
  struct arm {
    std::atomic<std::uint64_t> requests{0}, errors{0}, latency{0};
    std::atomic<double> score{0};
  };
  std::array<arm, 2> arms{};

  template <class V>
  static void add(std::atomic<V>& to, V n) noexcept {  // one writer: no locked addition
    to.store(to.load(std::memory_order::relaxed) + n, std::memory_order::relaxed);
  }
};

}  // namespace detail

/** Reports of one thread. Must not outlive its canary. @par Cost  Four loads and stores of its own cache lines; nothing is shared. */
class canary_meter {
 public:
  /** A score that is not finite counts as an error, and as 0: in a sum it would outlast its window. */
  void report(canary_arm arm, bool ok, std::chrono::nanoseconds latency, double score = 0) noexcept {
    auto& a = slot_->arms[static_cast<std::size_t>(arm)];
    using slot = detail::canary_slot;
    const bool finite = std::isfinite(score);
    if (!finite) score = 0;
    slot::add<std::uint64_t>(a.requests, 1);
    if (!ok || !finite) slot::add<std::uint64_t>(a.errors, 1);
    slot::add<std::uint64_t>(a.latency, latency.count() < 0 ? 0 : static_cast<std::uint64_t>(latency.count()));
    slot::add<double>(a.score, score);
  }

 private:
  template <class, class>
  friend class canary;
  explicit canary_meter(detail::canary_slot& s) noexcept : slot_(&s) {}
  detail::canary_slot* slot_;
};

/**
 * One trial of one candidate.
 *
 * @par Threads  meter() and decide() may be called from any thread; each meter belongs to one. A report that runs beside decide() counts in this window
 *               or in the next.
 */
template <class T, class Traits = std_snapshot_traits>
class canary {
 public:
  using rule = std::function<canary_verdict(const canary_window&)>;

  /**
   * @param h          where decisions are recorded and the candidate's health is set
   * @param candidate  a version of `h`
   * @param steps      shares that promotions walk through, ascending in (0, 1]; the trial begins at the first
   * @throws value_error when the candidate is unknown, the rule empty, or the steps are not such shares.
   */
  canary(history<T, Traits>& h, lora::stamp candidate, rule decide_by, std::vector<double> steps = {0.01, 0.05, 0.25, 1.0})
      : history_(h), candidate_(candidate), rule_(std::move(decide_by)), steps_(std::move(steps)) {
    if (!history_.find(candidate_)) detail::raise<value_error>(detail::text() << "canary: the history has no version " << candidate_.value);
    if (!rule_) detail::raise<value_error>(detail::text() << "canary: no rule to decide by");
    double before = 0;
    for (const double s : steps_) {
      if (!(s > before && s <= 1)) detail::raise<value_error>(detail::text() << "canary: steps are ascending shares in (0, 1]");
      before = s;
    }
    if (steps_.empty()) detail::raise<value_error>(detail::text() << "canary: no steps");
  }

  /** Registers a thread's reports. @throws std::bad_alloc. */
  [[nodiscard]] canary_meter meter() {
    std::lock_guard<std::mutex> lock(mutex_);
    return canary_meter(slots_.emplace_back());
  }

  /** The share of the traffic that the candidate should have now. */
  [[nodiscard]] double share() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return state_ == state::rolled_back ? 0 : steps_[step_];
  }

  /**
   * Closes the window and decides. At share 1, where next to nothing goes to the stable version, the candidate is compared with the stable
   * version's last window before. Promoted at the last step the candidate gets health 1, rolled back it gets 0, so that rollback_to_healthy() knows. Afterwards the
   * trial is over and the answer stays. A window that was held is over as well: where requests are few, take longer windows. The rule runs under the trial's lock, so it must not use the trial.
   */
  canary_decision decide() {
    std::lock_guard<std::mutex> lock(mutex_);
    canary_decision d;
    d.window = {take(canary_arm::stable), take(canary_arm::candidate)};
    // At share 1 only what was under way when the table changed still goes to the stable version.
    if (steps_[step_] == 1 && d.window.stable.requests < last_stable_.requests)
      d.window.stable = last_stable_;
    else
      last_stable_ = d.window.stable;
    d.verdict = state_ == state::running    ? rule_(d.window)
                : state_ == state::promoted ? canary_verdict::promote
                                            : canary_verdict::roll_back;
    const bool over = state_ != state::running;
    if (!over && d.verdict == canary_verdict::roll_back) state_ = state::rolled_back;
    if (!over && d.verdict == canary_verdict::promote && ++step_ == steps_.size()) {
      --step_;
      state_ = state::promoted;
    }
    d.finished = state_ != state::running;
    d.share = state_ == state::rolled_back ? 0 : steps_[step_];
    if (over) return d;
    if (d.finished) history_.set_health(candidate_, state_ == state::promoted ? 1 : 0, "by its canary");
    history_.record_decision(candidate_, sentence(d));
    return d;
  }

 private:
  enum class state : std::uint8_t { running, promoted, rolled_back };

  // What came since the last window.
  [[nodiscard]] canary_counts take(canary_arm arm) {
    canary_counts sum;
    for (const detail::canary_slot& s : slots_) {
      const auto& a = s.arms[static_cast<std::size_t>(arm)];
      sum.requests += a.requests.load(std::memory_order::relaxed);
      sum.errors += a.errors.load(std::memory_order::relaxed);
      sum.latency += std::chrono::nanoseconds(static_cast<std::int64_t>(a.latency.load(std::memory_order::relaxed)));
      sum.score += a.score.load(std::memory_order::relaxed);
    }
    canary_counts& seen = seen_[static_cast<std::size_t>(arm)];
    const canary_counts now{sum.requests - seen.requests, sum.errors - seen.errors, sum.latency - seen.latency, sum.score - seen.score};
    seen = sum;
    return now;
  }

  [[nodiscard]] static std::string of(const canary_counts& c) {
    return std::to_string(c.requests) + " requests, " + std::to_string(c.errors) + " errors, " +
           std::to_string(static_cast<std::uint64_t>(c.mean_latency_ns() / 1000)) + " us";
  }
  [[nodiscard]] static std::string sentence(const canary_decision& d) {
    const auto permille = static_cast<int>(d.share * 1000 + 0.5);
    return std::string("canary: ") + name_of(d.verdict) + ", share " + std::to_string(permille / 10) + "." + std::to_string(permille % 10) +
           " %; candidate " + of(d.window.candidate) + "; stable " + of(d.window.stable);
  }

  history<T, Traits>& history_;
  lora::stamp candidate_;
  rule rule_;
  std::vector<double> steps_;
  mutable std::mutex mutex_;
  std::deque<detail::canary_slot> slots_;  // a deque does not move them
  std::array<canary_counts, 2> seen_{};
  canary_counts last_stable_{};  // of the last window that had as many as share 1 leaves, or more
  std::size_t step_ = 0;
  state state_ = state::running;
};

}  // namespace lora::inline v0

#endif
