// SPDX-License-Identifier: Apache-2.0
//
// history: a snapshot cell that remembers. Every version has a record (where it came from, what it was made from, its hash, its health);
// the payloads of the last ones stay, so that going back is one exchange and nothing is loaded. Only validated payloads get in.
// docs/snapshots.md shows the ways of using it. Not here: the records (version_record.hpp), drawing them (interop/history_svg.hpp),
// traffic shares (routes.hpp).
//
//   lora::history<model> h(gate, {.keep_last = 4, .byte_budget = 2u << 30});
//   auto r = h.load({.source = "v2", .bytes = size}, [&](auto&) { return read_model("v2"); });
//   if (!r) log(r.what);                      // the last good version still serves
//   h.rollback_to_healthy();
#ifndef LORA_SNAPSHOT_HISTORY_HPP
#define LORA_SNAPSHOT_HISTORY_HPP

#include <lora/snapshot/cell.hpp>
#include <lora/snapshot/detail/history_store.hpp>

#include <exception>
#include <mutex>
#include <type_traits>

namespace lora::inline v0 {

/**
 * A tree of immutable versions, one of them current.
 *
 * While the history lives, a payload is destroyed by publish(), rollback(), load(), promote_standby(), drop() or collect() only, on the
 * thread that calls them and outside every lock, once retention has let go of it and no reader, share, named pin or other handle uses it.
 *
 * @par Threads  All members may be called from any thread, except construction and destruction. Publishers and whoever asks for records
 *               wait for each other; readers (reader()) are the cell's: wait-free, whatever happens here. Callables given to the history
 *               run on the calling thread outside the lock, so they may use the history; the clocks run inside it and must neither do so nor throw.
 */
template <class T, class Traits = std_snapshot_traits>
class history {
  using store = detail::history_store<T, Traits>;
  using body = typename store::body;
  using entry = typename store::entry;

 public:
  using payload_type = snapshot_payload<T, Traits>;
  using validated_type = validated<T, Traits>;
  using reader_type = snapshot_reader<T, Traits>;

  /** Nothing is published. @param gate  what a payload must pass. @throws value_error when an option makes no sense. */
  explicit history(validator<T, Traits> gate, history_options options = {})
      : gate_(std::move(gate)), store_(std::move(options), std::make_shared<detail::pin_registry>()) {}

  history(const history&) = delete;
  history& operator=(const history&) = delete;

  // ---- readers -----------------------------------------------------------------------------------------------------------

  /** A reader of the current version: snapshot_cell::reader(). Register once a thread. */
  [[nodiscard]] reader_type reader() const { return cell_.reader(); }

  /** Holds the current version under a name. @throws value_error when nothing is published. */
  [[nodiscard]] named_pin<T, Traits> pin(std::string who) { return pin_entry(std::move(who), std::nullopt); }

  /** Holds an older version under a name. @throws value_error when there is no such version, or its payload was dropped. */
  [[nodiscard]] named_pin<T, Traits> pin(lora::stamp version, std::string who) { return pin_entry(std::move(who), version); }

  // ---- publishing --------------------------------------------------------------------------------------------------------

  /** validator::validate, timed. @throws value_error when a check refuses. */
  [[nodiscard]] validated_type validate(payload_type payload, version_facts facts) {
    std::string problem;
    auto passed = try_validate(std::move(payload), std::move(facts), problem);
    if (!passed) detail::raise<value_error>(detail::text() << problem.c_str());
    return std::move(*passed);
  }

  /** The same, answering instead of throwing: nothing, and a sentence in `problem`, when a check refuses. */
  [[nodiscard]] std::optional<validated_type> try_validate(payload_type payload, version_facts facts, std::string& problem) {
    stage_clock clock(counters_, store_.options.ticks);
    return gate_.try_validate(std::move(payload), std::move(facts), problem, &clock);
  }

  /**
   * Makes `value` the current version: a child of the one that is current, or of `how.parent`.
   *
   * @return published, lost_race, over_budget or unknown_version (of the parent)
   * @throws value_error when another validator than this history's let `value` pass; std::bad_alloc. Nothing changed then.
   * @par Cost  Allocations of a record before the exchange, none after; the exchange itself is the cell's.
   */
  publish_result publish(const validated_type& value, const publish_options& how = {}) {
    check_gate(value);
    return finish([&] { return publish_locked(value, how); });
  }

  /** What has not passed the validator cannot be published. */
  template <class Unvalidated>
    requires(!std::is_same_v<Unvalidated, validated_type>)
  publish_result publish(const Unvalidated&, const publish_options& = {}) {
    static_assert(std::is_same_v<Unvalidated, validated_type>,
                  "lora history: this payload was not validated; publish(history.validate(payload, facts)), or use load().");
    return {};
  }

  /**
   * Goes back to the payload of version `to`, under a new stamp, as a child of it. Nothing is loaded or copied.
   *
   * @param expected  go back only if this version is current
   * @return published, lost_race, unknown_version or payload_dropped
   * @par Cost  As publish(), whatever the payload's size, and a search in the records.
   */
  publish_result rollback(lora::stamp to, std::optional<lora::stamp> expected = {}, std::string note = {}) {
    return finish([&] { return rollback_locked(to, expected, std::move(note)); });
  }

  /**
   * rollback() to the newest version with another payload than the current one and a health of at least history_options::healthy.
   * Retention never drops that one. @return published, lost_race or none_healthy.
   */
  publish_result rollback_to_healthy(std::optional<lora::stamp> expected = {}, std::string note = {}) {
    return finish([&] {
      const entry* e = store_.newest_healthy();
      if (e == nullptr) return store_.refuse(publish_outcome::none_healthy, "history: no healthy version is left to go back to");
      return rollback_locked(e->record.stamp, expected, std::move(note));
    });
  }

  /**
   * Puts a payload beside the current version, so that the swap is one exchange later. It counts against the budget; it replaces what was
   * on standby. @return on_standby or over_budget.
   */
  publish_result set_standby(const validated_type& value) {
    check_gate(value);
    return finish([&] {
      std::shared_ptr<body> held = store_.body_of(value.payload_);
      if (held == nullptr) {
        if (auto refused = store_.admit(value.facts_, store_.standby_only())) return *refused;
        held = std::make_shared<body>(value.payload_, value.facts_.bytes);
      }
      std::optional<typename store::standby_entry> fresh(typename store::standby_entry{value.facts_, held});
      if (store_.standby && store_.standby->held == held)
        store_.standby->held.reset();  // the same again
      else
        store_.drop_standby();
      store_.standby.swap(fresh);
      store_.come_back(held);
      return publish_result{publish_outcome::on_standby, {}, store_.current, {}};
    });
  }

  /** Publishes what is on standby. @return as publish(), or nothing_on_standby; it stays there unless it was published. */
  publish_result promote_standby(const publish_options& how = {}) {
    return finish([&] {
      if (!store_.standby) return store_.refuse(publish_outcome::nothing_on_standby, "history: nothing is on standby");
      if (auto refused = objection(store_.standby->facts, how)) return *refused;
      publish_result r = publish_body(store_.standby->facts, store_.standby->held, how);
      if (r) store_.standby.reset();  // the record holds the payload
      return r;
    });
  }

  /** Lets go of what is on standby, if anything is. */
  void drop_standby() {
    finish([&] { return store_.drop_standby(), publish_result{}; });
  }

  /**
   * The whole way of a new version: budget, load, hash, checks, publication. What fails is recorded, and the current version stays.
   *
   * @param facts   `bytes` is what the load will occupy; it is reserved before `loader` runs
   * @param loader  called with a stage_clock&; returns a payload_type or a T. May mark the stages open, parse and prefault
   * @return as publish(), or load_failed with the loader's or the check's sentence. With -fno-exceptions a loader reports failure by an empty
   *         payload_type.
   */
  template <class Loader, bool Throws = static_cast<bool>(LORA_HAS_EXCEPTIONS)>
  publish_result load(version_facts facts, Loader&& loader, const publish_options& how = {}) {
    const auto [source, bytes] = std::pair(facts.source, facts.bytes);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (auto refused = store_.admit(facts, 0)) return store_.fail(*refused, source);
      store_.reserved += bytes;
    }
    struct reservation {
      history& h;
      std::size_t bytes, heap_before;
      void release() noexcept { h.store_.reserved -= std::exchange(bytes, 0); }
      ~reservation() {
        std::lock_guard<std::mutex> lock(h.mutex_);
        h.store_.load_ended(bytes, heap_before);
      }
    } held{*this, bytes, store_.heap()};
    std::string problem;
    std::optional<validated_type> value;
#if LORA_HAS_EXCEPTIONS
    try {
#endif
      stage_clock clock(counters_, store_.options.ticks);
      payload_type payload = as_payload(loader(clock));
      value = gate_.try_validate(std::move(payload), std::move(facts), problem, &clock);
#if LORA_HAS_EXCEPTIONS
    } catch (const std::exception& e) {
      problem = "loading '" + source + "' failed: " + e.what();
    } catch (...) {
      problem = "loading '" + source + "' failed: an exception that is not a std::exception";
    }
#endif
    if (!value) {
      std::lock_guard<std::mutex> lock(mutex_);
      return store_.fail(store_.refuse(publish_outcome::load_failed, std::move(problem)), source);
    }
    return finish([&] {
      held.release();  // here, not at the end: payloads that are destroyed on the way may ask for the same bytes
      return publish_locked(*value, how);
    });
  }

  /** Puts on record that a load failed which did not go through load(). */
  void record_failure(const std::string& source, std::string what) {
    std::lock_guard<std::mutex> lock(mutex_);
    store_.fail(store_.refuse(publish_outcome::load_failed, std::move(what)), source);
  }

  // ---- judging and keeping -----------------------------------------------------------------------------------------------

  /** Health of a version, 0 bad .. 1 good. @return whether there is such a version. @throws value_error outside [0, 1]. */
  bool set_health(lora::stamp version, double score, std::string note = {}) {
    if (!(score >= 0 && score <= 1)) detail::raise<value_error>(detail::text() << "history: a health score lies in [0, 1]");
    std::lock_guard<std::mutex> lock(mutex_);
    entry* e = store_.find(version);
    if (e == nullptr) return false;
    store_.log(history_event_kind::judged, version, e->record.facts.source, std::move(note));
    e->record.health = score;
    return true;
  }

  /** Exempts a version from retention, or ends that. @return whether there is such a version. */
  bool keep(lora::stamp version, bool on = true) {
    std::lock_guard<std::mutex> lock(mutex_);
    entry* e = store_.find(version);
    if (e != nullptr) e->record.keep = on;
    return e != nullptr;
  }

  /**
   * Lets go of a version's payload; memory comes back when nobody uses it any more. Versions that share the payload lose it as well.
   * @return whether it was let go of; not the current one, a kept one, or one that a named pin holds.
   */
  bool drop(lora::stamp version) {
    bool dropped = false;
    finish([&] {
      entry* e = store_.find(version);
      dropped = e != nullptr && e->held != nullptr && !store_.is_protected(*e->held);
      if (dropped) store_.drop_body(e->held);
      return publish_result{};
    });
    return dropped;
  }

  /** Destroys the dropped payloads that nobody uses any more. @return how many. */
  std::size_t collect() {
    const std::chrono::nanoseconds began = store_.options.ticks();
    cell_.collect();  // first: its nodes hold payloads
    std::shared_ptr<body> dead;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      dead = store_.take_unused();
    }
    std::size_t n = 0;
    for (; dead != nullptr; dead = std::exchange(dead->next, nullptr)) ++n;  // destroys each, outside the lock
    if (n != 0) counters_.observe(reload_stage::reclaim, true, store_.options.ticks() - began);
    return n;
  }

  /** Puts a decision on record: of a canary, of an operator. */
  void record_decision(lora::stamp version, std::string text) {
    std::lock_guard<std::mutex> lock(mutex_);
    store_.log(history_event_kind::decision, version, {}, std::move(text));
  }

  // ---- asking ------------------------------------------------------------------------------------------------------------

  [[nodiscard]] lora::stamp current() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return store_.current;
  }

  [[nodiscard]] std::optional<version_record> find(lora::stamp version) const {
    std::lock_guard<std::mutex> lock(mutex_);
    const entry* e = store_.find(version);
    return e == nullptr ? std::nullopt : std::optional(store_.describe(*e));
  }

  /** A hold on a version's payload, for publishers and routing tables; empty when it was dropped or never was. */
  [[nodiscard]] payload_type payload(lora::stamp version) const {
    std::lock_guard<std::mutex> lock(mutex_);
    const entry* e = store_.find(version);
    return e == nullptr || e->held == nullptr ? payload_type{} : e->held->payload;
  }

  /** Who holds which version since when. */
  [[nodiscard]] std::vector<pin_record> pins() const { return store_.pins->all(); }

  [[nodiscard]] history_picture picture() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return store_.picture();
  }

  /** Counters and sizes, for interop/metrics_text.hpp. */
  [[nodiscard]] snapshot_metrics metrics() const {
    snapshot_metrics m;
    counters_.read(m);
    std::lock_guard<std::mutex> lock(mutex_);
    store_.fill(m);
    return m;
  }

 private:
  [[nodiscard]] static payload_type as_payload(payload_type p) noexcept { return p; }
  [[nodiscard]] static payload_type as_payload(T&& value) { return make_payload<T, Traits>(std::move(value)); }

  void check_gate(const validated_type& value) const {
    if (value.gate_ == gate_.rules_) return;
    detail::raise<value_error>(detail::text() << "history: " << detail::quote(value.facts_.source)
                                              << " was validated by another validator than this history's");
  }

  // Runs `attempt` under the lock and, afterwards, destroys what became unused.
  template <class Attempt>
  publish_result finish(Attempt attempt) {
    publish_result r;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      r = attempt();
    }
    collect();
    return r;
  }

  publish_result publish_locked(const validated_type& value, const publish_options& how) {
    if (auto refused = objection(value.facts_, how)) return *refused;
    std::shared_ptr<body> held = store_.body_of(value.payload_);
    if (held == nullptr) {
      if (auto refused = store_.admit(value.facts_, 0)) return store_.fail(*refused, value.facts_.source);
      held = std::make_shared<body>(value.payload_, value.facts_.bytes);
    }
    return publish_body(value.facts_, std::move(held), how);
  }

  [[nodiscard]] std::optional<publish_result> objection(const version_facts& facts, const publish_options& how) {
    if (how.expected && *how.expected != store_.current) return store_.lose_race(facts.source, *how.expected);
    if (how.parent && *how.parent != lora::stamp{} && store_.find(*how.parent) == nullptr)
      return store_.refuse(publish_outcome::unknown_version, store_.no_version(*how.parent));
    return std::nullopt;
  }

  publish_result publish_body(const version_facts& facts, std::shared_ptr<body> held, const publish_options& how) {
    return swap(store_.prepare(facts, how.parent.value_or(store_.current), {}), std::move(held));
  }

  publish_result rollback_locked(lora::stamp to, std::optional<lora::stamp> expected, std::string note) {
    const entry* e = store_.find(to);
    if (e == nullptr) return store_.refuse(publish_outcome::unknown_version, store_.no_version(to));
    if (expected && *expected != store_.current) return store_.lose_race(e->record.facts.source, *expected);
    if (e->held == nullptr)
      return store_.refuse(publish_outcome::payload_dropped,
                           "history: the payload of version " + std::to_string(to.value) + " ('" + e->record.facts.source +
                               "') was dropped; load it again, or keep more versions (keep_last, keep())");
    version_facts facts = e->record.facts;
    facts.note = std::move(note);
    typename store::fresh f = store_.prepare(std::move(facts), to, to);
    f.node.mapped().record.health = e->record.health;
    return swap(std::move(f), e->held);
  }

  publish_result swap(typename store::fresh f, std::shared_ptr<body> held) {
    stage_clock clock(counters_, store_.options.ticks);
    clock.begin(reload_stage::swap);
    // No foreign code runs in there: every payload that a node holds is held by a body as well, so none is destroyed.
    const lora::stamp given = cell_.publish(held->payload);
    clock.end(true);
    store_.commit(f, given, std::move(held));
    store_.retain();
    return {publish_outcome::published, given, given, {}};
  }

  [[nodiscard]] named_pin<T, Traits> pin_entry(std::string who, std::optional<lora::stamp> version) {
    std::lock_guard<std::mutex> lock(mutex_);
    const lora::stamp wanted = version.value_or(store_.current);
    const entry* e = store_.find(wanted);
    if (e == nullptr || e->held == nullptr)
      detail::raise<value_error>(detail::text() << "history: " << detail::quote(who) << " cannot pin version " << wanted.value
                                                << (e == nullptr ? ": there is none" : ": its payload was dropped"));
    return named_pin<T, Traits>(store_.pins, {std::move(who), wanted, store_.options.now()}, e->held->payload);
  }

  validator<T, Traits> gate_;
  reload_counters counters_;
  mutable std::mutex mutex_;
  store store_;                    // under mutex_
  snapshot_cell<T, Traits> cell_;  // behind store_, so that its nodes go before the payloads do
};

}  // namespace lora::inline v0

#endif
