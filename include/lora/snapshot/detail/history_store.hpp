// SPDX-License-Identifier: Apache-2.0
//
// The books of a history: records, payloads, what is on standby, the log. Plain data that the history's mutex guards. Nothing here destroys
// a payload: what is let go of moves to the list `leaving` until the history takes it out, unused, and destroys it outside its lock.
// Not API; history.hpp is.
#ifndef LORA_SNAPSHOT_DETAIL_HISTORY_STORE_HPP
#define LORA_SNAPSHOT_DETAIL_HISTORY_STORE_HPP

#include <lora/snapshot/named_pin.hpp>
#include <lora/snapshot/version_record.hpp>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace lora::inline v0::detail {

template <class T, class Traits>
struct history_store {
  using payload_type = snapshot_payload<T, Traits>;

  /** A payload and what it weighs. Versions that hold the same payload share one, so it is counted once. */
  struct body {
    body(payload_type p, std::size_t size) noexcept : payload(std::move(p)), bytes(size) {}
    payload_type payload;
    std::size_t bytes;
    std::uint64_t mark = 0;      // equal to `round`: seen in this walk
    std::shared_ptr<body> next;  // in `leaving`; intrusive, so that letting go cannot fail
  };

  struct entry {
    version_record record;
    std::shared_ptr<body> held;  // null: dropped
  };
  using entries_type = std::map<lora::stamp, entry>;

  /** A record and its event, built before the exchange and moved in after it, which cannot fail. */
  struct fresh {
    typename entries_type::node_type node;
    history_event event;
  };

  struct standby_entry {
    version_facts facts;
    std::shared_ptr<body> held;
  };

  history_store(history_options chosen, std::shared_ptr<pin_registry> registry) : options(std::move(chosen)), pins(std::move(registry)) {
    if (options.keep_last == 0) raise<value_error>(text() << "history: keep_last is 0, but the current version always stays");
    if (!options.now || options.ticks == nullptr) raise<value_error>(text() << "history: a clock is missing");
    if (!(options.healthy >= 0 && options.healthy <= 1)) raise<value_error>(text() << "history: the score `healthy` lies in [0, 1]");
    events.reserve(options.keep_events);
  }
  history_store(const history_store&) = delete;
  history_store& operator=(const history_store&) = delete;
  ~history_store() {
    while (leaving != nullptr) leaving = std::exchange(leaving->next, nullptr);  // not by recursion
  }

  // ---- records -----------------------------------------------------------------------------------------------------------

  [[nodiscard]] entry* find(lora::stamp version) {
    const auto at = entries.find(version);
    return at == entries.end() ? nullptr : &at->second;
  }
  [[nodiscard]] const entry* find(lora::stamp version) const {
    const auto at = entries.find(version);
    return at == entries.end() ? nullptr : &at->second;
  }

  [[nodiscard]] fresh prepare(version_facts facts, lora::stamp parent, lora::stamp back_to) const {
    fresh f;
    f.event.kind = back_to == lora::stamp{} ? history_event_kind::published : history_event_kind::rolled_back;
    f.event.source = facts.source;
    f.event.text = facts.note;
    f.event.at = options.now();
    entries_type one;
    entry& e = one[lora::stamp{}];
    e.record.created = f.event.at;
    e.record.parent = parent;
    e.record.rolled_back_to = back_to;
    e.record.facts = std::move(facts);
    f.node = one.extract(one.begin());
    return f;
  }

  void commit(fresh& f, lora::stamp given, std::shared_ptr<body> held) noexcept {
    entry& e = f.node.mapped();
    f.node.key() = given;
    e.record.stamp = given;
    e.record.replaced = current;
    come_back(held);
    e.held = std::move(held);
    ++(e.record.rolled_back_to == lora::stamp{} ? published : rollbacks);
    current = given;
    f.event.version = given;
    push(std::move(f.event));
    entries.insert(entries.end(), std::move(f.node));
  }

  [[nodiscard]] version_record describe(const entry& e) const {
    version_record r = e.record;
    r.status = r.stamp == current ? version_status::current : e.held != nullptr ? version_status::kept : version_status::dropped;
    r.named_pins = pins->count(r.stamp);
    r.holders = e.held == nullptr ? 0 : e.held->payload.use_count() - 1;
    return r;
  }

  // ---- the log -----------------------------------------------------------------------------------------------------------

  void log(history_event_kind kind, lora::stamp version, std::string source, std::string what) {
    push({0, options.now(), kind, version, std::move(source), std::move(what)});
  }

  void push(history_event e) noexcept {
    e.number = ++logged;
    if (options.keep_events == 0) return;
    if (events.size() < options.keep_events)
      events.push_back(std::move(e));  // reserved: does not allocate
    else
      events[(e.number - 1) % options.keep_events] = std::move(e);
  }

  // ---- payloads ----------------------------------------------------------------------------------------------------------

  [[nodiscard]] std::shared_ptr<body> body_of(const payload_type& p) {
    for (auto& [key, e] : entries)
      if (e.held != nullptr && e.held->payload == p) return e.held;
    if (standby && standby->held->payload == p) return standby->held;
    for (std::shared_ptr<body>* at = &leaving; *at != nullptr; at = &(*at)->next)
      if ((*at)->payload == p) return *at;
    return nullptr;
  }

  /** Takes a body that is a version or on standby (again) out of the list of those that leave, if it is there. */
  void come_back(const std::shared_ptr<body>& b) noexcept {
    for (std::shared_ptr<body>* at = &leaving; *at != nullptr; at = &(*at)->next)
      if (*at == b) {
        (void)unlink(*at);  // `b` holds it
        return;
      }
  }

  [[nodiscard]] static std::shared_ptr<body> unlink(std::shared_ptr<body>& at) noexcept {
    std::shared_ptr<body> taken = std::move(at);
    at = std::move(taken->next);
    return taken;
  }

  void leave(std::shared_ptr<body> b) noexcept {
    body& last = *b;
    last.next = std::move(leaving);
    leaving = std::move(b);
  }

  [[nodiscard]] bool is_protected(const entry& e) const noexcept {
    return e.record.stamp == current || e.record.keep || pins->count(e.record.stamp) != 0;
  }

  /** Whether some version that must stay holds this payload. */
  [[nodiscard]] bool is_protected(const body& b) const noexcept {
    if (standby && standby->held.get() == &b) return true;
    for (const auto& [key, e] : entries)
      if (e.held.get() == &b && is_protected(e)) return true;
    return false;
  }

  void drop_body(std::shared_ptr<body> b) noexcept {
    for (auto& [key, e] : entries)
      if (e.held == b) {
        e.held.reset();
        push({0, options.now(), history_event_kind::dropped, e.record.stamp, {}, {}});
      }
    leave(std::move(b));
  }

  /** Bytes that go when what is on standby goes: none if it is a version as well, or somebody else holds it. */
  [[nodiscard]] std::size_t standby_only() const noexcept {
    if (!standby || standby->held->payload.use_count() != 1) return 0;
    for (const auto& [key, e] : entries)
      if (e.held == standby->held) return 0;
    return standby->held->bytes;
  }

  void drop_standby() noexcept {
    if (!standby) return;
    std::shared_ptr<body> b = std::move(standby->held);
    standby.reset();
    for (const auto& [key, e] : entries)
      if (e.held == b) return;  // it is a version as well
    leave(std::move(b));
  }

  /**
   * The newest version that may be gone back to for its health. A payload counts with its latest judgement: one that did well once and
   * badly since is not healthy.
   */
  [[nodiscard]] const entry* newest_healthy() const noexcept {
    const entry* now = find(current);
    ++round;
    for (auto at = entries.rbegin(); at != entries.rend(); ++at) {
      const entry& e = at->second;
      if (e.held == nullptr || e.held->mark == round || !e.record.health || (now != nullptr && e.held == now->held)) continue;
      e.held->mark = round;
      if (*e.record.health >= options.healthy) return &e;
    }
    return nullptr;
  }

  /** Drops what nothing asks to keep. Each payload counts once, for the newest version that holds it. */
  void retain() noexcept {
    const entry* healthy = newest_healthy();
    ++round;
    std::size_t kept = 0;
    for (auto at = entries.rbegin(); at != entries.rend(); ++at) {
      entry& e = at->second;
      if (e.held == nullptr || e.held->mark == round) continue;
      const bool recent = kept < options.keep_last;
      if (recent) ++kept;
      if (recent || is_protected(*e.held) || &e == healthy) e.held->mark = round;
    }
    for (auto& [key, e] : entries)
      if (e.held != nullptr && e.held->mark != round && (!standby || e.held != standby->held)) drop_body(e.held);
    for (auto at = entries.begin(); entries.size() > options.keep_records && at != entries.end();)
      at = at->second.held == nullptr ? entries.erase(at) : std::next(at);
  }

  /** Unlinks what nobody but the list holds. */
  [[nodiscard]] std::shared_ptr<body> take_unused() noexcept {
    std::shared_ptr<body> unused;
    for (std::shared_ptr<body>* at = &leaving; *at != nullptr;) {
      if ((*at)->payload.use_count() != 1) {
        at = &(*at)->next;
        continue;
      }
      std::shared_ptr<body> b = unlink(*at);
      b->next = std::move(unused);
      unused = std::move(b);
    }
    return unused;
  }

  // ---- the budget --------------------------------------------------------------------------------------------------------

  struct amount {
    std::size_t count = 0;
    std::size_t bytes = 0;
  };

  [[nodiscard]] amount live() const noexcept {
    amount sum;
    ++round;
    for (const auto& [key, e] : entries) add(sum, e.held.get());
    return sum;
  }
  [[nodiscard]] amount in_leaving() const noexcept {
    amount sum;
    for (const body* b = leaving.get(); b != nullptr; b = b->next.get()) sum = {sum.count + 1, sum.bytes + b->bytes};
    return sum;
  }
  /** Bytes of every payload that is alive, and of those that are being loaded. */
  [[nodiscard]] std::size_t held_bytes() const noexcept {
    amount sum = live();
    if (standby) add(sum, standby->held.get());
    return sum.bytes + in_leaving().bytes + reserved;
  }
  void add(amount& sum, body* b) const noexcept {
    if (b == nullptr || b->mark == round) return;
    b->mark = round;
    sum = {sum.count + 1, sum.bytes + b->bytes};
  }

  /** Nothing when `facts` fit. @param counted  bytes that are in the books and will be replaced by these. */
  [[nodiscard]] std::optional<publish_result> admit(const version_facts& facts, std::size_t counted) const {
    const std::size_t budget = options.byte_budget;
    const std::size_t held = held_bytes() - counted;
    if (budget == 0 || (held <= budget && facts.bytes <= budget - held)) return std::nullopt;
    std::string what = "history: '" + facts.source + "' needs " + std::to_string(facts.bytes) + " bytes, but " + std::to_string(held) +
                       " of " + std::to_string(budget) + " are held";
    if (const amount old = in_leaving(); old.bytes != 0)
      what += ", " + std::to_string(old.bytes) + " of them by dropped payloads still in use";
    if (facts.bytes > budget) {
      what += "; it can never fit";
    } else {
      std::size_t room = budget > held ? budget - held : 0;
      std::string list;
      const entry* healthy = newest_healthy();  // not proposed: it is where one would go back to
      const std::uint64_t walk = ++round;
      for (const auto& [key, e] : entries) {
        if (room >= facts.bytes) break;
        if (e.held == nullptr || e.held->mark == walk) continue;
        e.held->mark = walk;
        if (is_protected(*e.held) || (healthy != nullptr && e.held == healthy->held)) continue;
        room += e.held->bytes;
        list += (list.empty() ? "" : ", ") + std::to_string(key.value) + " ('" + e.record.facts.source + "', " +
                std::to_string(e.held->bytes) + " bytes)";
      }
      if (room >= facts.bytes)
        what += "; drop version " + list;
      else
        what += "; what may be dropped is not enough, the rest is current, the last healthy one, kept, pinned, on standby or being loaded";
    }
    return refuse(publish_outcome::over_budget, std::move(what));
  }

  // ---- answers -----------------------------------------------------------------------------------------------------------

  [[nodiscard]] publish_result refuse(publish_outcome outcome, std::string what) const { return {outcome, {}, current, std::move(what)}; }

  /** Puts it on record as a failed load. */
  publish_result fail(publish_result refused, const std::string& source) {
    ++failed;
    log(history_event_kind::load_failed, current, source, refused.what);
    return refused;
  }

  [[nodiscard]] publish_result lose_race(const std::string& source, lora::stamp expected) {
    const entry* now = find(current);
    std::string what = "history: '" + source + "' was meant to replace version " + std::to_string(expected.value) + ", but version " +
                       std::to_string(current.value) + (now == nullptr ? std::string() : " ('" + now->record.facts.source + "')") +
                       " is current; nothing was changed";
    ++lost;
    log(history_event_kind::lost_race, current, source, what);
    return refuse(publish_outcome::lost_race, std::move(what));
  }

  [[nodiscard]] static std::string no_version(lora::stamp s) { return "history: there is no version " + std::to_string(s.value); }

  [[nodiscard]] history_picture picture() const {
    history_picture p;
    for (const auto& [key, e] : entries) p.versions.push_back(describe(e));
    const std::size_t n = events.size();
    for (std::size_t i = 0; i < n; ++i) p.events.push_back(events[(logged - n + i) % (n == 0 ? 1 : options.keep_events)]);
    p.pins = pins->all();
    p.current = current;
    if (standby) p.standby = standby->facts;
    p.held_bytes = held_bytes();
    p.budget_bytes = options.byte_budget;
    return p;
  }

  [[nodiscard]] std::size_t heap() const { return options.heap ? options.heap() : 0; }
  /** @param size  what the load had reserved. @param before  heap() at its beginning. */
  void load_ended(std::size_t size, std::size_t before) {
    reserved -= size;
    if (!options.heap) return;
    heap_probed = true;
    heap_delta = static_cast<std::int64_t>(heap()) - static_cast<std::int64_t>(before);
  }

  void fill(snapshot_metrics& m) const {
    m.heap_probed = heap_probed;
    m.heap_delta_bytes = heap_delta;
    m.reloads_ok = published;
    m.reloads_failed = failed;
    m.reloads_lost = lost;
    m.rollbacks = rollbacks;
    m.current = current;
    const amount here = live();
    const amount old = in_leaving();
    m.live_versions = here.count;
    m.live_bytes = here.bytes;
    m.retired_versions = old.count;
    m.retired_bytes = old.bytes;
    m.budget_bytes = options.byte_budget;
    const wall_time now = options.now();
    for (const pin_record& p : pins->all()) {
      ++m.named_pins;
      const auto age = std::chrono::duration_cast<std::chrono::nanoseconds>(now - p.since);
      if (age > m.oldest_pin) m.oldest_pin = age;
    }
  }

  history_options options;
  std::shared_ptr<pin_registry> pins;
  entries_type entries;
  std::vector<history_event> events;  // a ring: event n at (n - 1) modulo keep_events
  std::uint64_t logged = 0;
  lora::stamp current{};
  std::optional<standby_entry> standby;
  std::shared_ptr<body> leaving;
  std::size_t reserved = 0;  // bytes of loads under way
  mutable std::uint64_t round = 0;
  std::uint64_t published = 0;
  std::uint64_t rollbacks = 0;
  std::uint64_t failed = 0;
  std::uint64_t lost = 0;
  bool heap_probed = false;
  std::int64_t heap_delta = 0;
};

}  // namespace lora::inline v0::detail

#endif
