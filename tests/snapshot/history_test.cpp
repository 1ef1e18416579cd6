// SPDX-License-Identifier: Apache-2.0
#include <lora/snapshot/history.hpp>

#include "tracked.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

using lora::history_event_kind;
using lora::history_options;
using lora::make_payload;
using lora::publish_outcome;
using lora::stamp;
using lora::version_status;
using test::ledger;
using test::tracked;

namespace {

using history = lora::history<tracked>;
using validator = lora::validator<tracked>;

// The type state: nothing but a validator makes a validated payload.
static_assert(!std::is_default_constructible_v<lora::validated<tracked>>);
static_assert(!std::is_constructible_v<lora::validated<tracked>, lora::snapshot_payload<tracked>>);
static_assert(!std::is_constructible_v<lora::validated<tracked>, lora::snapshot_payload<tracked>, lora::version_facts>);
static_assert(!std::is_aggregate_v<lora::validated<tracked>>);
static_assert(!std::is_copy_constructible_v<history> && !std::is_move_constructible_v<history>);

validator positive() {
  return validator(
      {{"positive", [](const tracked& t) { return t.value > 0 ? std::string() : "the value is " + std::to_string(t.value); }}});
}

/** Every look at the clock is a second later. */
history_options ticking(history_options o = {}) {
  o.now = [t = lora::wall_time(std::chrono::seconds(1000))]() mutable { return t += std::chrono::seconds(1); };
  return o;
}

struct fixture {
  ledger book;
  history h;
  explicit fixture(history_options o = {}) : h(positive(), ticking(std::move(o))) {}
  lora::publish_result put(int value, std::size_t bytes = 100, lora::publish_options how = {}) {
    return h.load(
        {.source = "v" + std::to_string(value), .bytes = bytes}, [&](auto&) { return make_payload<tracked>(book, value); }, how);
  }
  [[nodiscard]] int now() const {
    auto r = h.reader();
    return r.pin()->value;
  }
};

template <class F>
std::string message_of(F f) {
#if LORA_HAS_EXCEPTIONS
  try {
    f();
  } catch (const lora::value_error& e) {
    return e.what();
  }
#endif
  return "nothing was thrown";
}

}  // namespace

TEST_CASE("snapshot/history: each version has a record, and the reader's stamp names it") {
  fixture f;
  CHECK(f.h.current() == stamp{0});
  REQUIRE(f.put(1));
  lora::content_hash hash;
  hash.bytes[0] = 0xab;
  const auto r = f.h.publish(f.h.validate(make_payload<tracked>(f.book, 2), {.source = "second", .bytes = 7, .hash = hash, .note = "n"}));
  REQUIRE(r);
  CHECK(r.stamp == stamp{2});
  CHECK(r.current == stamp{2});
  CHECK(r.what.empty());
  auto reader = f.h.reader();
  const auto pin = reader.pin();
  const auto v = f.h.find(pin.stamp());
  REQUIRE(v);
  CHECK(v->facts.source == "second");
  CHECK(v->facts.bytes == 7);
  CHECK(v->facts.note == "n");
  CHECK(std::string(v->facts.hash.hex().data()).substr(0, 4) == "ab00");
  CHECK(v->parent == stamp{1});
  CHECK(v->replaced == stamp{1});
  CHECK(v->status == version_status::current);
  CHECK(!v->health);
  CHECK(v->created > f.h.find(stamp{1})->created);
  CHECK(!f.h.find(stamp{3}));
}

TEST_CASE("snapshot/history: what a check refuses is not published, and stays on record") {
  fixture f;
  REQUIRE(f.put(1));
  const auto r = f.put(-4);
  CHECK(r.outcome == publish_outcome::load_failed);
  CHECK(r.what == "validation refuses 'v-4': positive: the value is -4");
  CHECK(r.stamp == stamp{0});
  CHECK(r.current == stamp{1});
  CHECK(f.now() == 1);
  CHECK(f.book.live() == 1);  // the refused payload is gone
  const auto events = f.h.picture().events;
  REQUIRE(events.size() == 2);
  CHECK(events[1].kind == history_event_kind::load_failed);
  CHECK(events[1].version == stamp{1});
  CHECK(events[1].text == r.what);
  CHECK(f.h.metrics().reloads_failed == 1);
  CHECK(f.h.metrics().durations[static_cast<std::size_t>(lora::reload_stage::validate)][0].count == 1);
#if LORA_HAS_EXCEPTIONS
  CHECK(message_of([&] { (void)f.h.validate(make_payload<tracked>(f.book, 0), {.source = "z"}); }) ==
        "validation refuses 'z': positive: the value is 0");
  CHECK(message_of([&] { (void)f.h.validate({}, {.source = "z"}); }) == "validation refuses 'z': the payload is empty");
#endif
}

TEST_CASE("snapshot/history: a loader that throws leaves the last good version") {
  fixture f;
  REQUIRE(f.put(1));
  const auto r = f.h.load({.source = "torn", .bytes = 50}, [](auto& clock) -> lora::snapshot_payload<tracked> {
    clock.begin(lora::reload_stage::open);
    clock.begin(lora::reload_stage::parse);
    throw std::runtime_error("the file ends at byte 12");
  });
  CHECK(r.outcome == publish_outcome::load_failed);
  CHECK(r.what == "loading 'torn' failed: the file ends at byte 12");
  CHECK(f.h.picture().held_bytes == 100);  // the reservation is gone
  CHECK(f.now() == 1);
  const auto m = f.h.metrics();
  CHECK(m.durations[static_cast<std::size_t>(lora::reload_stage::open)][1].count == 1);
  CHECK(m.durations[static_cast<std::size_t>(lora::reload_stage::parse)][0].count == 1);
  f.h.record_failure("elsewhere", "no route");
  CHECK(f.h.picture().events.back().text == "no route");
}

TEST_CASE("snapshot/history: only this history's validator counts; a validator needs a check or a reason") {
  fixture f;
  const auto other = positive().validate(make_payload<tracked>(f.book, 1), {.source = "alien"});
  CHECK(message_of([&] { f.h.publish(other); }) == "history: 'alien' was validated by another validator than this history's");
  CHECK(message_of([&] { f.h.set_standby(other); }) == "history: 'alien' was validated by another validator than this history's");
  CHECK(f.h.current() == stamp{0});
  CHECK(message_of([] { validator empty(std::vector<lora::payload_check<tracked>>{}); }).find("no checks") != std::string::npos);
  CHECK(message_of([] {
          validator broken(std::vector<lora::payload_check<tracked>>{{"x", {}}});
        }) == "validator: check 'x' has no function");
  history proven(validator::proven_by_type());
  CHECK(proven.publish(proven.validate(make_payload<tracked>(f.book, -1), {})));
  CHECK(message_of([] { history none(positive(), {.keep_last = 0}); }).find("keep_last") != std::string::npos);
}

TEST_CASE("snapshot/history: a check's refusal can be asked for without a throw, and is timed as failed") {
  lora::history<int> h(lora::validator<int>({{"sign", [](int v) { return v > 0 ? "" : "must be positive"; }}}));
  std::string problem;
  const auto good = h.try_validate(make_payload<int>(1), {.source = "good"}, problem);
  REQUIRE(good);
  CHECK(problem.empty());
  CHECK(h.publish(*good));
  CHECK(!h.try_validate(make_payload<int>(-1), {.source = "bad"}, problem));
  CHECK(problem == "validation refuses 'bad': sign: must be positive");
  const auto m = h.metrics();
  const auto& checks = m.durations[static_cast<std::size_t>(lora::reload_stage::validate)];
  CHECK(checks[0].count == 1);
  CHECK(checks[1].count == 1);
}

TEST_CASE("snapshot/history: a hash function fills the hash in, and contradicts a wrong one") {
  ledger book;
  const auto hash = [](const tracked& t) {
    lora::content_hash h;
    h.bytes[31] = static_cast<std::uint8_t>(t.value);
    return h;
  };
  history h(validator::proven_by_type(hash), ticking());
  REQUIRE(h.publish(h.validate(make_payload<tracked>(book, 5), {.source = "five"})));
  CHECK(h.find(stamp{1})->facts.hash.bytes[31] == 5);
  lora::content_hash wrong;
  wrong.bytes[31] = 6;
  const auto r = h.load({.source = "six?", .hash = wrong}, [&](auto&) { return make_payload<tracked>(book, 7); });
  CHECK(!r);
  CHECK(r.what.find("the content has hash 00") != std::string::npos);
  CHECK(r.what.find("07, expected 00") != std::string::npos);
  CHECK(h.metrics().durations[static_cast<std::size_t>(lora::reload_stage::checksum)][0].count == 1);
}

TEST_CASE("snapshot/history: rollback brings the same object back under a new stamp, as a child of its origin") {
  fixture f;
  REQUIRE(f.put(1));
  const tracked* first = f.h.payload(stamp{1}).get();
  REQUIRE(f.put(2));
  const auto r = f.h.rollback(stamp{1}, {}, "errors");
  REQUIRE(r);
  CHECK(r.stamp == stamp{3});
  auto reader = f.h.reader();
  CHECK(reader.read() == first);  // nothing was loaded or copied
  CHECK(f.book.made == 2);
  const auto v = *f.h.find(stamp{3});
  CHECK(v.parent == stamp{1});
  CHECK(v.replaced == stamp{2});
  CHECK(v.rolled_back_to == stamp{1});
  CHECK(v.facts.source == "v1");
  CHECK(v.facts.note == "errors");
  CHECK(f.h.picture().held_bytes == 200);  // two payloads, three versions
  CHECK(f.h.picture().events.back().kind == history_event_kind::rolled_back);
  CHECK(f.h.rollback(stamp{9}).outcome == publish_outcome::unknown_version);
  CHECK(f.h.rollback(stamp{9}).what == "history: there is no version 9");
  REQUIRE(f.put(4));
  CHECK(f.h.find(stamp{4})->parent == stamp{3});
  CHECK(f.h.metrics().rollbacks == 1);
  CHECK(f.h.metrics().reloads_ok == 3);
}

TEST_CASE("snapshot/history: a branch names its parent") {
  fixture f;
  REQUIRE(f.put(1));
  REQUIRE(f.put(2));
  REQUIRE(f.put(3, 100, {.parent = stamp{1}}));
  CHECK(f.h.find(stamp{3})->parent == stamp{1});
  CHECK(f.h.find(stamp{3})->replaced == stamp{2});
  CHECK(f.put(4, 100, {.parent = stamp{8}}).outcome == publish_outcome::unknown_version);
  CHECK(f.book.live() == 3);
  REQUIRE(f.put(5, 100, {.parent = stamp{0}}));  // a second root
  CHECK(f.h.find(stamp{4})->parent == stamp{0});
}

TEST_CASE("snapshot/history: a loader that lost the race is told so, and nothing is half done") {
  fixture f;
  REQUIRE(f.put(1, 100, {.expected = stamp{0}}));
  const auto mine = f.h.validate(make_payload<tracked>(f.book, 2), {.source = "mine"});
  REQUIRE(f.put(3));
  const auto r = f.h.publish(mine, {.expected = stamp{1}});
  CHECK(r.outcome == publish_outcome::lost_race);
  CHECK(r.current == stamp{2});
  CHECK(r.what == "history: 'mine' was meant to replace version 1, but version 2 ('v3') is current; nothing was changed");
  CHECK(f.now() == 3);
  CHECK(f.h.picture().versions.size() == 2);
  CHECK(f.h.picture().events.back().kind == history_event_kind::lost_race);
  CHECK(f.h.metrics().reloads_lost == 1);
  CHECK(f.h.rollback(stamp{1}, stamp{1}).outcome == publish_outcome::lost_race);
  const auto again = f.h.publish(mine, {.expected = r.current});  // it is still ours
  REQUIRE(again);
  CHECK(again.stamp == stamp{3});  // no stamp was used up
}

TEST_CASE("snapshot/history: back to the newest healthy payload, judged by its latest score") {
  fixture f({.keep_last = 2});
  CHECK(f.h.rollback_to_healthy().outcome == publish_outcome::none_healthy);
  REQUIRE(f.put(1));
  CHECK(f.h.set_health(stamp{1}, 0.9));
  REQUIRE(f.put(2));
  CHECK(f.h.set_health(stamp{2}, 0.7, "fair"));
  for (int i = 3; i <= 6; ++i) {
    REQUIRE(f.put(i));
    CHECK(f.h.set_health(stamp{static_cast<std::uint64_t>(i)}, 0.1));
  }
  CHECK(f.h.find(stamp{1})->status == version_status::dropped);
  CHECK(f.h.find(stamp{2})->status == version_status::kept);  // beyond keep_last, but where one would go back to
  CHECK(f.h.find(stamp{3})->status == version_status::dropped);
  const auto r = f.h.rollback_to_healthy();
  REQUIRE(r);
  CHECK(f.now() == 2);
  CHECK(f.h.find(r.stamp)->rolled_back_to == stamp{2});
  CHECK(*f.h.find(r.stamp)->health == 0.7);
  CHECK(f.h.set_health(r.stamp, 0.2));  // it does badly this time
  REQUIRE(f.put(8));
  CHECK(f.h.rollback_to_healthy().outcome == publish_outcome::none_healthy);
  CHECK(f.h.rollback(stamp{1}).outcome == publish_outcome::payload_dropped);
  CHECK(f.h.rollback(stamp{1}).what.find("version 1 ('v1') was dropped") != std::string::npos);
  CHECK(!f.h.set_health(stamp{99}, 1));
  CHECK(message_of([&] { f.h.set_health(stamp{1}, 1.5); }) == "history: a health score lies in [0, 1]");
}

TEST_CASE("snapshot/history: retention keeps the last payloads, marked ones, pinned ones, and the rest goes") {
  fixture f({.keep_last = 2, .keep_records = 6});
  for (int i = 1; i <= 3; ++i) REQUIRE(f.put(i));
  CHECK(f.h.find(stamp{1})->status == version_status::dropped);
  CHECK(f.book.live() == 2);
  CHECK(f.h.keep(stamp{2}));
  auto pin = f.h.pin("tenant acme");  // version 3
  for (int i = 4; i <= 6; ++i) REQUIRE(f.put(i));
  CHECK(f.book.live() == 4);  // 2 marked, 3 pinned, 5, 6
  CHECK(f.h.find(stamp{3})->named_pins == 1);
  CHECK(f.h.find(stamp{3})->holders == 1);
  CHECK(!f.h.drop(stamp{2}));
  CHECK(!f.h.drop(stamp{3}));
  CHECK(!f.h.drop(stamp{6}));
  CHECK(f.h.keep(stamp{2}, false));
  CHECK(f.h.drop(stamp{2}));
  CHECK(f.book.live() == 3);
  REQUIRE(f.put(7));
  CHECK(f.h.picture().versions.size() == 6);  // record 1 is forgotten
  CHECK(!f.h.find(stamp{1}));
  CHECK(f.h.pins().size() == 1);
  CHECK(f.h.pins()[0].who == "tenant acme");
  CHECK(f.h.pins()[0].version == stamp{3});
  { const auto moved = std::move(pin); }
  CHECK(f.h.pins().empty());
  REQUIRE(f.put(8));
  CHECK(f.h.find(stamp{3})->status == version_status::dropped);
  CHECK(f.book.live() == 2);
}

TEST_CASE("snapshot/history: rollbacks do not push other payloads out") {
  fixture f({.keep_last = 2});
  REQUIRE(f.put(1));
  REQUIRE(f.put(2));
  for (int i = 0; i < 10; ++i) REQUIRE(f.h.rollback(stamp{static_cast<std::uint64_t>(1 + i % 2)}));
  CHECK(f.book.live() == 2);
  CHECK(f.book.made == 2);
}

TEST_CASE("snapshot/history: a dropped payload in use is counted until it is gone, and never destroyed by its user") {
  fixture f({.keep_last = 1, .byte_budget = 350});
  auto reader = f.h.reader();
  REQUIRE(f.put(1));
  {
    const auto request = reader.pin();
    REQUIRE(f.put(2));
    CHECK(f.h.find(stamp{1})->status == version_status::dropped);
    CHECK(f.h.metrics().retired_versions == 1);
    CHECK(f.h.metrics().retired_bytes == 100);
    CHECK(f.h.picture().held_bytes == 200);
    CHECK(!request->poisoned);
    CHECK(f.h.collect() == 0);
  }
  CHECK(f.book.live() == 2);  // the reader did not free it
  CHECK(f.h.collect() == 1);
  CHECK(f.book.live() == 1);
  CHECK(f.h.metrics().retired_versions == 0);
  CHECK(f.h.metrics().durations[static_cast<std::size_t>(lora::reload_stage::reclaim)][1].count >= 1);
}

TEST_CASE("snapshot/history: the budget is checked before the loader runs, and the answer says what to drop") {
  fixture f({.keep_last = 8, .byte_budget = 1000});
  REQUIRE(f.put(1, 400));
  REQUIRE(f.put(2, 300));
  REQUIRE(f.put(3, 200));
  bool ran = false;
  const auto r = f.h.load({.source = "big", .bytes = 450}, [&](auto&) {
    ran = true;
    return make_payload<tracked>(f.book, 9);
  });
  CHECK(r.outcome == publish_outcome::over_budget);
  CHECK(!ran);
  CHECK(r.what == "history: 'big' needs 450 bytes, but 900 of 1000 are held; drop version 1 ('v1', 400 bytes)");
  CHECK(f.put(9, 750).what ==
        "history: 'v9' needs 750 bytes, but 900 of 1000 are held; drop version 1 ('v1', 400 bytes), 2 ('v2', 300 bytes)");
  CHECK(f.put(9, 1001).what == "history: 'v9' needs 1001 bytes, but 900 of 1000 are held; it can never fit");
  CHECK(f.h.keep(stamp{1}));
  CHECK(f.put(9, 750).what.find("what may be dropped is not enough") != std::string::npos);
  CHECK(f.h.keep(stamp{1}, false));
  CHECK(f.h.drop(stamp{1}));
  CHECK(f.put(4, 500));  // exactly full
  CHECK(!f.put(5, 1));
  CHECK(f.put(6, 0));
  // What is reserved for one load is not there for another.
  CHECK(f.h.drop(stamp{2}));
  const auto outer = f.h.load({.source = "outer", .bytes = 300}, [&](auto&) {
    CHECK(f.h.picture().held_bytes == 1000);
    CHECK(f.put(7, 1).outcome == publish_outcome::over_budget);
    return make_payload<tracked>(f.book, 8);
  });
  CHECK(outer);
  CHECK(f.h.picture().held_bytes == 1000);
  CHECK(f.h.picture().budget_bytes == 1000);
}

TEST_CASE("snapshot/history: what is on standby counts against the budget and is published by a swap") {
  fixture f({.byte_budget = 300});
  CHECK(f.h.promote_standby().outcome == publish_outcome::nothing_on_standby);
  REQUIRE(f.put(1));
  const auto ready = f.h.set_standby(f.h.validate(make_payload<tracked>(f.book, 2), {.source = "two", .bytes = 200}));
  REQUIRE(ready);
  CHECK(ready.outcome == publish_outcome::on_standby);  // nothing is published yet
  CHECK(ready.stamp == stamp{});
  CHECK(f.h.picture().held_bytes == 300);
  CHECK(f.h.picture().standby->source == "two");
  CHECK(f.now() == 1);
  CHECK(f.put(3).outcome == publish_outcome::over_budget);
  // Another one takes its place, and its room.
  CHECK(!f.h.set_standby(f.h.validate(make_payload<tracked>(f.book, 4), {.source = "four", .bytes = 201})));
  CHECK(f.h.picture().standby->source == "two");
  REQUIRE(f.h.set_standby(f.h.validate(make_payload<tracked>(f.book, 5), {.source = "five", .bytes = 150})));
  CHECK(f.book.live() == 2);
  CHECK(f.h.promote_standby({.expected = stamp{7}}).outcome == publish_outcome::lost_race);
  CHECK(f.h.picture().standby);
  const auto r = f.h.promote_standby({.expected = stamp{1}});
  REQUIRE(r);
  CHECK(f.now() == 5);
  CHECK(!f.h.picture().standby);
  CHECK(f.h.picture().held_bytes == 250);
  CHECK(f.h.find(r.stamp)->facts.source == "five");
  REQUIRE(f.h.set_standby(f.h.validate(f.h.payload(stamp{1}), {.source = "one again", .bytes = 100})));  // counted once
  CHECK(f.h.picture().held_bytes == 250);
  // It is a version as well, so its room does not come free.
  CHECK(!f.h.set_standby(f.h.validate(make_payload<tracked>(f.book, 7), {.source = "seven", .bytes = 51})));
  f.h.drop_standby();
  CHECK(f.book.live() == 2);
  REQUIRE(f.h.set_standby(f.h.validate(make_payload<tracked>(f.book, 6), {.source = "six", .bytes = 10})));
  f.h.drop_standby();
  CHECK(f.book.live() == 2);
  CHECK(f.h.picture().held_bytes == 250);
}

TEST_CASE("snapshot/history: what leaves standby but is still held keeps its place in the budget") {
  fixture f({.byte_budget = 300});
  auto held = make_payload<tracked>(f.book, 1);
  REQUIRE(f.h.set_standby(f.h.validate(held, {.source = "one", .bytes = 200})));
  CHECK(f.h.set_standby(f.h.validate(make_payload<tracked>(f.book, 2), {.source = "two", .bytes = 200})).outcome ==
        publish_outcome::over_budget);
  held = {};
  CHECK(f.h.set_standby(f.h.validate(make_payload<tracked>(f.book, 3), {.source = "three", .bytes = 200})));
}

TEST_CASE("snapshot/history: the same payload published again is counted once and comes back from the dropped ones") {
  fixture f({.keep_last = 1});
  const auto value = f.h.validate(make_payload<tracked>(f.book, 1), {.source = "one", .bytes = 100});
  REQUIRE(f.h.publish(value));
  REQUIRE(f.put(2));
  CHECK(f.h.metrics().retired_versions == 1);  // `value` holds it
  REQUIRE(f.h.publish(value));
  CHECK(f.h.metrics().retired_versions == 0);
  CHECK(f.h.metrics().live_versions == 1);
  CHECK(f.h.picture().held_bytes == 100);
  CHECK(f.book.live() == 1);
  CHECK(f.now() == 1);
}

TEST_CASE("snapshot/history: pins name versions, old ones too, and outlive the history") {
  ledger book;
  std::vector<lora::named_pin<tracked>> pins;
  {
    history h(positive(), ticking());
    CHECK(message_of([&] { (void)h.pin("early"); }) == "history: 'early' cannot pin version 0: there is none");
    REQUIRE(h.publish(h.validate(make_payload<tracked>(book, 1), {})));
    REQUIRE(h.publish(h.validate(make_payload<tracked>(book, 2), {})));
    pins.push_back(h.pin(stamp{1}, "a"));
    pins.push_back(h.pin("b"));
    CHECK(pins[0]->value == 1);
    CHECK((*pins[1]).value == 2);
    CHECK(pins[1].stamp() == stamp{2});
    CHECK(h.pins()[0].since < h.pins()[1].since);
    CHECK(h.metrics().named_pins == 2);
    CHECK(h.metrics().oldest_pin > std::chrono::seconds(0));
    CHECK(message_of([&] { (void)h.pin(stamp{3}, "c"); }) == "history: 'c' cannot pin version 3: there is none");
    pins[0] = std::move(pins[1]);
    pins.pop_back();
    CHECK(h.pins().size() == 1);
    CHECK(h.pins()[0].who == "b");
  }
  CHECK(book.live() == 1);
  CHECK(pins[0]->value == 2);
  pins.clear();
  CHECK(book.live() == 0);
}

TEST_CASE("snapshot/history: the log is bounded, numbered without gaps, and holds decisions") {
  fixture f({.keep_events = 4});
  REQUIRE(f.put(1));
  for (int i = 0; i < 9; ++i) f.h.record_decision(stamp{1}, "hold " + std::to_string(i));
  const auto events = f.h.picture().events;
  REQUIRE(events.size() == 4);
  for (std::size_t i = 0; i < 4; ++i) {
    CHECK(events[i].number == 7 + i);
    CHECK(events[i].text == "hold " + std::to_string(5 + i));
    CHECK(events[i].kind == history_event_kind::decision);
  }
  fixture none({.keep_events = 0});
  REQUIRE(none.put(1));
  CHECK(none.h.picture().events.empty());
}

TEST_CASE("snapshot/history: a payload's destructor may use the history") {
  ledger book;
  history h(positive(), ticking({.keep_last = 1}));
  int seen = 0;
  REQUIRE(h.publish(h.validate(make_payload<tracked>(book, 1,
                                                     [&] {
                                                       seen = static_cast<int>(h.current().value);
                                                       h.publish(h.validate(make_payload<tracked>(book, 3), {}));
                                                     }),
                               {})));
  REQUIRE(h.publish(h.validate(make_payload<tracked>(book, 2), {})));
  CHECK(seen == 2);
  CHECK(h.current() == stamp{3});
  h.collect();  // version 2 was held by the temporary that published it
  CHECK(book.live() == 1);
}

#if LORA_HAS_EXCEPTIONS
namespace {

struct failing_traits : lora::std_snapshot_traits {
  static inline int allowed = 1000;
  template <class U, class... Args>
  [[nodiscard]] static U* create(Args&&... args) {
    if (allowed-- <= 0) throw std::bad_alloc();
    return new U(std::forward<Args>(args)...);
  }
};

}  // namespace

TEST_CASE("snapshot/history: no memory for the swap leaves everything as it was") {
  using failing = lora::history<int, failing_traits>;
  failing h(lora::validator<int, failing_traits>::proven_by_type(), ticking({.keep_last = 1}));
  const auto one = h.validate(make_payload<int, failing_traits>(1), {.source = "one", .bytes = 10});
  const auto two = h.validate(make_payload<int, failing_traits>(2), {.source = "two", .bytes = 20});
  REQUIRE(h.publish(one));
  failing_traits::allowed = 0;
  CHECK_THROWS_AS(h.publish(two), std::bad_alloc);
  CHECK_THROWS_AS(h.rollback(stamp{1}), std::bad_alloc);
  CHECK(h.picture().versions.size() == 1);
  CHECK(h.picture().held_bytes == 10);
  CHECK(h.current() == stamp{1});
  CHECK(h.metrics().durations[static_cast<std::size_t>(lora::reload_stage::swap)][0].count == 2);
  failing_traits::allowed = 1000;
  CHECK(h.publish(two).stamp == stamp{2});
}
#endif

TEST_CASE("snapshot/history: publishers, pins and readers at once: each stamp keeps its value, each payload goes once, no reader frees") {
  ledger book;
  {
    history h(positive(), {.keep_last = 3, .keep_records = 64});
    REQUIRE(h.publish(h.validate(make_payload<tracked>(book, 1), {.source = "1"})));
    std::atomic<bool> stop{false};
    std::atomic<int> wrong{0};
    std::atomic<int> lost{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 2; ++t)
      threads.emplace_back([&] {
        test::on_reader_thread = true;
        auto reader = h.reader();
        stamp last{};
        while (!stop) {
          const auto pin = reader.pin();
          if (pin->poisoned || pin.stamp() < last) ++wrong;
          last = pin.stamp();
          const auto record = h.find(last);
          if (record && record->facts.source != std::to_string(pin->value)) ++wrong;
        }
      });
    threads.emplace_back([&] {
      test::on_reader_thread = true;
      for (int i = 0; !stop; ++i) {
        const auto pin = h.pin("tenant " + std::to_string(i));
        if (pin->poisoned || pin.get() == nullptr) ++wrong;
        if (h.picture().pins.empty()) ++wrong;
      }
    });
    for (int t = 0; t < 2; ++t)
      threads.emplace_back([&, t] {
        for (int i = 0; i < 300; ++i) {
          const int value = 2 + 2 * i + t;
          const stamp expected = h.current();
          const auto r =
              h.load({.source = std::to_string(value)}, [&](auto&) { return make_payload<tracked>(book, value); }, {.expected = expected});
          if (r.outcome == publish_outcome::lost_race) ++lost;
          if (i % 10 == 0) h.set_health(h.current(), 1);
          if (i % 7 == 0) (void)h.rollback_to_healthy();
          if (i % 3 == 0) h.collect();
        }
      });
    threads[3].join();
    threads[4].join();
    stop = true;
    for (int i = 0; i < 3; ++i) threads[static_cast<std::size_t>(i)].join();
    CHECK(wrong == 0);
    const auto m = h.metrics();
    CHECK(m.reloads_ok + static_cast<std::uint64_t>(lost.load()) == 601);
    CHECK(m.reloads_lost >= static_cast<std::uint64_t>(lost.load()));
    CHECK(m.current.value == m.reloads_ok + m.rollbacks);
    h.collect();
    CHECK(h.metrics().retired_versions == 0);
    CHECK(static_cast<std::size_t>(book.live()) == h.metrics().live_versions);
    CHECK(book.destroyed_by_readers == 0);
  }
  CHECK(book.live() == 0);
}
