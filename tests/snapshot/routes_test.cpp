// SPDX-License-Identifier: Apache-2.0
#include <lora/snapshot/canary.hpp>
#include <lora/snapshot/routes.hpp>

#include "tracked.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <string>
#include <thread>
#include <vector>

using lora::make_payload;
using lora::mix64;
using lora::route_refusal;
using lora::route_status;
using lora::stable_hash;
using lora::stamp;
using table = lora::route_table<int>;
using entry = lora::route<int>;

namespace {

entry make(std::uint64_t id, std::optional<double> weight = {}, route_status status = route_status::active) {
  return {id, make_payload<int>(static_cast<int>(id)), stamp{id}, status, weight};
}

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

TEST_CASE("snapshot/routes: the hash is the documented one, for ever") {
  // FNV-1a's own vectors, seen through the inverse-free end: mix64 of the published values.
  CHECK(stable_hash("") == mix64(0xcbf29ce484222325u));
  CHECK(stable_hash("a") == mix64(0xaf63dc4c8601ec8cu));
  CHECK(stable_hash("foobar") == mix64(0x85944171f73967e8u));
  CHECK(mix64(0x9e3779b97f4a7c15u) == 0xe220a8397b1dcdafu);  // the first output of splitmix64 from seed 0
  CHECK(stable_hash("a", 1) == mix64(0xaf63dc4c8601ec8cu ^ mix64(1)));
  CHECK(stable_hash("a", 1) != stable_hash("a", 2));
  static_assert(stable_hash("x") != stable_hash("y"));
}

TEST_CASE("snapshot/routes: the integer logarithm is right to its last bit") {
  std::uint64_t h = 1;
  for (int i = 0; i < 20000; ++i) {
    h = mix64(h + 0x9e3779b97f4a7c15u) >> (i % 60);
    if (h == 0) h = 1;
    const long double want = 64.0L - std::log2(static_cast<long double>(h));
    const long double got = static_cast<long double>(lora::detail::minus_log2(h)) / 67108864.0L;
    // One unit of the fraction that is cut off, 2^-30 of the squarings, 2^-31 * log2(e) of the mantissa.
    REQUIRE(std::abs(got - want) <= 1.0L / 67108864 + 1.0L / 1073741824 + 1.5L / 2147483648);
  }
  CHECK(lora::detail::minus_log2(0) == lora::detail::minus_log2(1));
  CHECK(lora::detail::minus_log2(1) == std::uint64_t{64} << 26);
  CHECK(lora::detail::minus_log2(std::uint64_t{1} << 63) == std::uint64_t{1} << 26);
  CHECK(lora::detail::minus_log2(~std::uint64_t{0}) >= 1);
}

TEST_CASE("snapshot/routes: shares are the weights (chi-squared)") {
  const std::vector<std::vector<double>> cases = {{1, 1}, {0.9, 0.1}, {0.5, 0.25, 0.125, 0.125}, {0.99, 0.01}, {0.3, 0.3, 0.3, 0.05, 0.05}};
  // Quantiles of chi-squared at 1 - 1e-4, for 1 to 4 degrees of freedom. Keys are fixed, so the test does not flicker.
  const double quantile[] = {0, 15.14, 18.42, 21.11, 23.51};
  for (const auto& weights : cases) {
    std::vector<entry> entries;
    double total = 0;
    for (std::size_t i = 0; i < weights.size(); ++i) {
      entries.push_back(make(i + 1, weights[i]));
      total += weights[i];
    }
    const table t(std::move(entries));
    std::vector<double> seen(weights.size());
    const int n = 100000;
    for (int k = 0; k < n; ++k) ++seen[t.choose(stable_hash("user " + std::to_string(k)))->id - 1];
    double chi = 0;
    for (std::size_t i = 0; i < weights.size(); ++i) {
      const double want = n * weights[i] / total;
      chi += (seen[i] - want) * (seen[i] - want) / want;
    }
    CAPTURE(weights.size());
    CHECK(chi < quantile[weights.size() - 1]);
  }
}

TEST_CASE("snapshot/routes: sticky, and monotone: when one weight grows keys move to its entry only, when it falls from it only") {
  std::uint64_t random = 42;
  const auto next = [&] { return random = mix64(random + 0x9e3779b97f4a7c15u); };
  const auto weight = [&] { return next() % 8 == 0 ? 0.0 : static_cast<double>(next() % 1000) / 999; };
  int moved = 0;
  for (int round = 0; round < 60; ++round) {
    std::vector<entry> entries{make(1000, 0.001)};  // so that somebody takes traffic
    const std::size_t n = 1 + next() % 6;
    for (std::size_t i = 0; i < n; ++i) entries.push_back(make(next(), weight()));
    const std::uint64_t id = entries[1 + next() % n].id;
    const double w0 = weight(), w1 = weight();
    const table low = table(entries).with_weight(id, std::min(w0, w1));
    const table high = low.with_weight(id, std::max(w0, w1));
    for (int k = 0; k < 500; ++k) {
      const std::uint64_t key = next();
      const auto before = low.choose(key)->id, after = high.choose(key)->id;
      REQUIRE((before == after || after == id));
      REQUIRE(low.choose(key)->id == before);
      REQUIRE(*low.choose(key)->weight > 0);
      moved += before != after ? 1 : 0;
    }
  }
  CHECK(moved > 1000);  // the property was put to the test
}

TEST_CASE("snapshot/routes: one entry more takes keys, and moves none between the others") {
  const table two({make(1, 0.5), make(2, 0.5)});
  const table three({make(3, 0.25), make(2, 0.5), make(1, 0.5)});  // in any order
  int taken = 0;
  for (std::uint64_t k = 0; k < 4000; ++k) {
    const auto before = two.choose(mix64(k))->id, after = three.choose(mix64(k))->id;
    REQUIRE((before == after || after == 3));
    taken += after == 3 ? 1 : 0;
  }
  CHECK(taken > 600);
  CHECK(taken < 1000);
}

TEST_CASE("snapshot/routes: staging only by a weight, deprecated not at all, and the refusal says so") {
  const table t({make(1), make(2, {}, route_status::staging), make(3, {}, route_status::deprecated)});
  for (std::uint64_t k = 0; k < 1000; ++k) REQUIRE(t.choose(mix64(k))->id == 1);
  CHECK(t.find(2).chosen->id == 2);  // by name a client may try it
  CHECK(!t.find(3));
  CHECK(t.find(3).refusal == route_refusal::deprecated);
  CHECK(std::string(t.find(3).what()) == "routes: this entry is deprecated and takes no new requests; those under way finish");
  CHECK(t.find(4).refusal == route_refusal::unknown);
  CHECK(std::string(t.find(1).what()).empty());
  const table tiny = t.with_weight(2, 1e-12);  // not rounded to nothing
  CHECK(*tiny.find(2).chosen->weight > 0);
  const table gone = tiny.with_status(2, route_status::deprecated);
  CHECK(gone.find(2).refusal == route_refusal::deprecated);
}

TEST_CASE("snapshot/routes: a tenant's override stands above the weights") {
  const auto acme = stable_hash("acme"), other = stable_hash("other");
  const table t({make(1), make(2, {}, route_status::staging), make(3, 1.0)}, {{acme, 2}});
  bool differs = false;
  for (std::uint64_t k = 0; k < 200; ++k) {
    REQUIRE(t.choose(acme, mix64(k))->id == 2);
    REQUIRE(t.choose(other, mix64(k))->id == t.choose(mix64(k))->id);
    differs = differs || t.choose(other, mix64(k))->id == 3;
  }
  CHECK(differs);
  CHECK(t.with_weight(1, 0.5).choose(acme, 7)->id == 2);
}

TEST_CASE("snapshot/routes: a table that makes no sense is refused, with the entry") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  CHECK(message_of([] { table t({}); }) == "routes: no entry takes traffic; give an active or staging entry a weight above 0");
  CHECK(message_of([] { table t({make(1, {}, route_status::staging)}); }).find("no entry takes traffic") != std::string::npos);
  CHECK(message_of([] { table t({make(7), make(7)}); }) == "routes: entry 7 comes twice");
  CHECK(message_of([] { table t({entry{9, {}, {}, route_status::active, {}}}); }).find("entry 9 has no payload") != std::string::npos);
  CHECK(message_of([] { table t({make(1, 1.5)}); }) == "routes: entry 1 has a weight outside [0, 1]");
  CHECK(message_of([] { table t({make(1, -0.5)}); }) == "routes: entry 1 has a weight outside [0, 1]");
  CHECK(message_of([&] { table t({make(1, nan)}); }) == "routes: entry 1 has a weight outside [0, 1]");
  CHECK(message_of([] {
          table t({make(1), make(2, 0.1, route_status::deprecated)});
        }) == "routes: entry 2 is deprecated and cannot have a weight");
  CHECK(message_of([] { table t({make(1)}, {{5, 2}}); }) == "routes: entry 2 is the override of a tenant, but not in the table");
  CHECK(message_of([] { table t({make(1)}, {{5, 1}, {5, 1}}); }).find("two overrides of the same tenant") != std::string::npos);
  CHECK(message_of([] {
          table t({make(1), make(2, {}, route_status::deprecated)}, {{5, 2}});
        }) == "routes: entry 2 is deprecated and the override of a tenant");
  const table t({make(1), make(2)}, {{5, 2}});
  CHECK(message_of([&] { (void)t.with_weight(3, 0.5); }) == "routes: entry 3 is not in the table");
  CHECK(message_of([&] { (void)t.with_share(3, 0.5); }) == "routes: entry 3 is not in the table");
  CHECK(message_of([&] { (void)t.with_share(2, 1.5); }) == "routes: entry 2 cannot have a share outside [0, 1]");
  CHECK(message_of([&] { (void)t.with_share(2, nan); }) == "routes: entry 2 cannot have a share outside [0, 1]");
  CHECK(message_of([&] { (void)t.with_share(2, 1).with_share(2, 0.5); }) ==
        "routes: entry 2 takes all traffic: with less, nobody would take the rest");
}

TEST_CASE("snapshot/routes: a share is a share of all keys, and moves keys to or from its entry alone") {
  constexpr std::uint64_t keys = 40000;
  table t({make(1), make(2, 0.5), make(3, 0.0, route_status::staging)});
  std::vector<std::uint64_t> before(keys);
  for (std::uint64_t k = 0; k < keys; ++k) before[k] = t.choose(mix64(k))->id;
  for (const double share : {0.01, 0.05, 0.25, 0.4, 0.9, 1.0}) {  // beside 1.5, weights above 1 from 0.4 on
    t = t.with_share(3, share);
    std::uint64_t taken = 0, strangers = 0;
    for (std::uint64_t k = 0; k < keys; ++k) {
      const std::uint64_t now = t.choose(mix64(k))->id;
      taken += now == 3;
      strangers += now != 3 && now != before[k];
      before[k] = now;
    }
    CAPTURE(share);
    const double mean = share * keys;
    CHECK(std::abs(static_cast<double>(taken) - mean) <= 4.5 * std::sqrt(mean * (1 - share)));
    CHECK(strangers == 0);
  }
  const table back = table({make(1), make(2, 0.5), make(3, 0.3)}).with_share(3, 0);
  for (std::uint64_t k = 0; k < 1000; ++k) REQUIRE(back.choose(mix64(k))->id != 3);
}

TEST_CASE("snapshot/routes: an entry that is deprecated lets go of its tenants") {
  const auto acme = stable_hash("acme"), other = stable_hash("other");
  const table t({make(1), make(2, 0.1, route_status::staging)}, {{acme, 2}, {other, 1}});
  const table gone = t.with_status(2, route_status::deprecated);
  REQUIRE(gone.overrides().size() == 1);
  CHECK(gone.overrides()[0].tenant == other);
  CHECK(gone.choose(acme, 7)->id == 1);
}

TEST_CASE("snapshot/routes: a published table owns its versions; a history of tables goes back to earlier shares") {
  test::ledger book;
  using model_history = lora::history<test::tracked>;
  using model_table = lora::route_table<test::tracked>;
  model_history models(lora::validator<test::tracked>::proven_by_type(), {.keep_last = 1});
  lora::history<model_table> routes(lora::validator<model_table>::proven_by_type());
  const auto put = [&](int v) {
    return models.publish(models.validate(make_payload<test::tracked>(book, v), {.source = "v", .bytes = 10})).stamp;
  };
  const stamp one = put(1);
  const auto first =
      routes.load({.source = "only 1"}, [&](auto&) { return model_table({{.id = 1, .payload = models.payload(one), .version = one}}); });
  const stamp two = put(2);  // retention lets go of 1; the table still owns it
  CHECK(book.live() == 2);
  CHECK(models.metrics().retired_versions == 1);
  auto reader = routes.reader();
  {
    const auto request = reader.pin();
    REQUIRE(
        routes.load({.source = "only 2"}, [&](auto&) { return model_table({{.id = 2, .payload = models.payload(two), .version = two}}); }));
    CHECK(request->choose(0)->payload->value == 1);  // the request keeps its table, and the table its version
    CHECK(!request->choose(0)->payload->poisoned);
  }
  CHECK(reader.read()->choose(0)->payload->value == 2);
  REQUIRE(routes.rollback(first.stamp));
  CHECK(reader.read()->choose(0)->payload->value == 1);
  CHECK(reader.read()->choose(0)->version == one);
}

TEST_CASE("snapshot/canary: promotes step by step, and every decision is on record") {
  lora::history<int> h(lora::validator<int>::proven_by_type());
  h.load({.source = "stable"}, [](auto&) { return 1; });
  const stamp candidate = h.load({.source = "new"}, [](auto&) { return 2; }).stamp;
  lora::canary<int> trial(h, candidate, lora::canary_rules{.least_requests = 10}, {0.1, 0.5, 1.0});
  CHECK(trial.share() == 0.1);
  auto meter = trial.meter();
  const auto window = [&](int n, int errors, int us) {
    for (int i = 0; i < n; ++i) {
      meter.report(lora::canary_arm::stable, true, std::chrono::microseconds(100));
      meter.report(lora::canary_arm::candidate, i >= errors, std::chrono::microseconds(us));
    }
    return trial.decide();
  };
  CHECK(window(9, 9, 100).verdict == lora::canary_verdict::hold);  // too few to say
  CHECK(trial.share() == 0.1);
  auto d = window(100, 0, 110);
  CHECK(d.verdict == lora::canary_verdict::promote);
  CHECK(d.share == 0.5);
  CHECK(d.window.candidate.requests == 100);  // the nine of the window before are not counted again
  CHECK(!d.finished);
  CHECK(window(100, 0, 100).share == 1.0);
  d = window(100, 0, 100);
  CHECK(d.finished);
  CHECK(*h.find(candidate)->health == 1);
  std::vector<std::string> said;
  for (const auto& e : h.picture().events)
    if (e.kind == lora::history_event_kind::decision) said.push_back(e.text);
  REQUIRE(said.size() == 4);
  CHECK(said[0] == "canary: hold, share 10.0 %; candidate 9 requests, 9 errors, 100 us; stable 9 requests, 0 errors, 100 us");
  CHECK(said[1] == "canary: promote, share 50.0 %; candidate 100 requests, 0 errors, 110 us; stable 100 requests, 0 errors, 100 us");
  CHECK(window(100, 100, 100).verdict == lora::canary_verdict::promote);  // over
}

TEST_CASE("snapshot/canary: with all the traffic a candidate is compared with the last of the stable version, and may still go back") {
  for (const bool good : {true, false}) {
    lora::history<int> h(lora::validator<int>::proven_by_type());
    h.load({.source = "v1"}, [](auto&) { return 1; });
    const stamp candidate = h.load({.source = "v2"}, [](auto&) { return 2; }).stamp;
    lora::canary<int> trial(h, candidate, lora::canary_rules{.least_requests = 10}, {0.5, 1.0});
    auto meter = trial.meter();
    const auto some = [&](lora::canary_arm arm, double score) {
      for (int i = 0; i < 10; ++i) meter.report(arm, true, std::chrono::microseconds(100), score);
    };
    some(lora::canary_arm::candidate, 0.9);
    CHECK(trial.decide().verdict == lora::canary_verdict::hold);  // there was no stable window yet
    some(lora::canary_arm::stable, 0.9);
    some(lora::canary_arm::candidate, 0.9);
    CHECK(trial.decide().share == 1.0);
    some(lora::canary_arm::candidate, good ? 0.9 : 0.5);
    meter.report(lora::canary_arm::stable, true, std::chrono::microseconds(100),
                 0.1);  // was under way when everybody went to the candidate
    const auto d = trial.decide();
    CHECK(d.finished);
    CHECK(d.verdict == (good ? lora::canary_verdict::promote : lora::canary_verdict::roll_back));
    CHECK(d.window.stable.requests == 10);
    CHECK(d.window.stable.mean_score() == doctest::Approx(0.9));
    CHECK(*h.find(candidate)->health == (good ? 1 : 0));
  }
}

TEST_CASE("snapshot/canary: errors, latency and scores send a candidate back, noise does not") {
  using lora::canary_verdict;
  const lora::canary_rules rules{};
  const auto window = [](std::uint64_t errors0, std::uint64_t errors1, int us1 = 100, double score1 = 900) {
    return lora::canary_window{{1000, errors0, std::chrono::microseconds(100000), 900},
                               {1000, errors1, std::chrono::microseconds(1000 * us1), score1}};
  };
  CHECK(rules(window(10, 10)) == canary_verdict::promote);
  CHECK(rules(window(10, 20)) == canary_verdict::promote);    // 1 % more: 1.84 standard deviations
  CHECK(rules(window(10, 30)) == canary_verdict::roll_back);  // 2 % more: 3.19
  CHECK(rules(window(0, 5)) == canary_verdict::promote);      // within the margin
  CHECK(rules(window(0, 0, 125)) == canary_verdict::promote);
  CHECK(rules(window(0, 0, 126)) == canary_verdict::roll_back);
  CHECK(rules(window(0, 0, 100, 881)) == canary_verdict::promote);
  CHECK(rules(window(0, 0, 100, 879)) == canary_verdict::roll_back);

  lora::history<int> h(lora::validator<int>::proven_by_type());
  const stamp good = h.load({.source = "good"}, [](auto&) { return 1; }).stamp;
  h.set_health(good, 1);
  const stamp bad = h.load({.source = "bad"}, [](auto&) { return 2; }).stamp;
  lora::canary<int> trial(h, bad, [](const lora::canary_window&) { return canary_verdict::roll_back; });
  const auto d = trial.decide();
  CHECK(d.finished);
  CHECK(d.share == 0);
  CHECK(trial.share() == 0);
  CHECK(*h.find(bad)->health == 0);
  REQUIRE(h.rollback_to_healthy());
  CHECK(*h.reader().read() == 1);
  CHECK(message_of([&] { lora::canary<int> t(h, stamp{99}, rules); }) == "canary: the history has no version 99");
  CHECK(message_of([&] { lora::canary<int> t(h, good, {}); }) == "canary: no rule to decide by");
  CHECK(message_of([&] { lora::canary<int> t(h, good, rules, {0.5, 0.5}); }) == "canary: steps are ascending shares in (0, 1]");
  CHECK(message_of([&] { lora::canary<int> t(h, good, rules, {}); }) == "canary: no steps");
}

TEST_CASE("snapshot/canary: a score that is no number is an error of its window, and of no later one") {
  lora::history<int> h(lora::validator<int>::proven_by_type());
  const stamp candidate = h.load({.source = "new"}, [](auto&) { return 2; }).stamp;
  lora::canary<int> trial(h, candidate, [](const lora::canary_window&) { return lora::canary_verdict::hold; });
  auto meter = trial.meter();
  for (const double score : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(), 0.5})
    meter.report(lora::canary_arm::candidate, true, std::chrono::microseconds(1), score);
  const auto first = trial.decide().window.candidate;
  CHECK(first.errors == 2);
  CHECK(first.score == 0.5);
  meter.report(lora::canary_arm::candidate, true, std::chrono::microseconds(1), 0.25);
  const auto second = trial.decide().window.candidate;
  CHECK(second.errors == 0);
  CHECK(second.score == 0.25);
}

TEST_CASE("snapshot/canary: reports from several threads are all counted, once") {
  lora::history<int> h(lora::validator<int>::proven_by_type());
  h.load({}, [](auto&) { return 1; });
  lora::canary<int> trial(h, stamp{1}, [](const lora::canary_window&) { return lora::canary_verdict::hold; });
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t)
    threads.emplace_back([&] {
      auto meter = trial.meter();
      for (int i = 0; i < 2000; ++i) meter.report(lora::canary_arm::candidate, i % 4 != 0, std::chrono::nanoseconds(5), 0.5);
    });
  lora::canary_counts sum;
  const auto add = [&] {
    const auto w = trial.decide().window.candidate;
    sum.requests += w.requests;
    sum.errors += w.errors;
    sum.latency += w.latency;
    sum.score += w.score;
  };
  for (int i = 0; i < 20; ++i) add();
  for (auto& t : threads) t.join();
  add();
  CHECK(sum.requests == 6000);
  CHECK(sum.errors == 1500);
  CHECK(sum.latency == std::chrono::nanoseconds(30000));
  CHECK(sum.score == 3000);
}
