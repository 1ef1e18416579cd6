// SPDX-License-Identifier: Apache-2.0
//
// The cell, searched schedule by schedule: the production protocol passes, and each mutant of it is killed. The search is
// exhaustive up to a number of preemptions and random beyond. What the checker cannot show stands in checker.hpp.
#include "scenarios.hpp"

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdio>
#include <limits>
#include <string>

namespace {

using model::mutant;

// The full search is meant for optimised builds; without optimisation it takes one preemption less. Under a sanitizer, which slows
// the fibers down a hundredfold and has little to find in a program with one thread, it stops early.
#if defined(MODEL_TSAN) || defined(MODEL_ASAN)
constexpr int less = 1;
constexpr bool to_the_end = false;
constexpr std::size_t random_schedules = 500;
#elif !defined(__OPTIMIZE__)
constexpr int less = 1;
constexpr bool to_the_end = true;
constexpr std::size_t random_schedules = 5000;
#else
constexpr int less = 0;
constexpr bool to_the_end = true;
constexpr std::size_t random_schedules = 100000;
#endif

constexpr std::size_t all_at_once = 8 * random_schedules;  // with the eight others, twice each: 3,200,000 where it is optimised

constexpr std::size_t no_more_than = to_the_end ? std::numeric_limits<std::size_t>::max() : 500;

template <template <mutant> class Scenario, mutant M = mutant::none>
void passes(int bound, std::size_t samples = random_schedules) {
  for (const bool reuse : {false, true}) {  // once for uses after free, once for addresses that come again
    CAPTURE(reuse);
    const model::verdict explored =
        model::explore<Scenario<M>>({.bound = bound - less - (reuse ? 1 : 0), .schedules = no_more_than, .reuse_memory = reuse});
    CAPTURE(explored.why);
    CHECK(!explored.failed);
    if (to_the_end) CHECK(explored.complete);
    const model::verdict sampled = model::sample<Scenario<M>>({.schedules = samples, .seed = 7, .reuse_memory = reuse});
    CAPTURE(sampled.why);
    std::printf("  %-12s %s memory: %9zu schedules within %d preemptions, %7zu at random\n",
                std::string(model::type_name<Scenario<M>>()).c_str(), reuse ? "reused" : "fresh ", explored.schedules,
                bound - less - (reuse ? 1 : 0), sampled.schedules);
    CHECK(!sampled.failed);
  }
}

// `limit` bounds both searches. Prints how many schedules it took, and the failing one with the fewest preemptions, then the fewest steps,
// among the first `limit` of each bound. The numbers that were measured stand in docs/snapshots.md.
template <template <mutant> class Scenario, mutant M>
void killed(const char* name, int bound, std::size_t limit = 5000) {
  CAPTURE(name);
  std::size_t until = 0;
  if (to_the_end) {
    const model::verdict explored = model::explore<Scenario<M>>({.bound = bound, .schedules = limit});
    CHECK(explored.failed);
    until = explored.schedules;
  }
  const model::verdict sampled = model::sample<Scenario<M>>({.schedules = limit});
  CHECK(sampled.failed);
  std::printf("mutant %s: caught after %zu schedules depth first, %zu at random\n", name, until, sampled.schedules);
  for (int b = 0; to_the_end && b <= bound; ++b) {
    const model::verdict v = model::explore<Scenario<M>>({.bound = b, .schedules = limit, .shortest = true, .field = model::field_name});
    if (!v.failed) continue;
    std::printf("  %s, with %d preemptions in %zu steps:\n%s", v.why.c_str(), v.preemptions, v.steps, v.trace.c_str());
    CHECK(!v.trace.empty());
    break;
  }
}

}  // namespace

TEST_CASE("snapshot/model: two readers and a publisher, sticky and pinned") { passes<model::serving>(3); }
TEST_CASE("snapshot/model: one reader that is overtaken again and again") { passes<model::chasing>(4); }
TEST_CASE("snapshot/model: pins that become shares, shares that are copied") { passes<model::sharing>(3); }
TEST_CASE("snapshot/model: readers that register while versions are published") { passes<model::registering>(3); }
TEST_CASE("snapshot/model: a slot that passes from one reader to the next") { passes<model::reusing>(3); }
TEST_CASE("snapshot/model: a reader and a share that outlive the cell") { passes<model::outliving>(3); }
TEST_CASE("snapshot/model: publishers that compare and roll back") { passes<model::contending>(3); }

TEST_CASE("snapshot/model: all of it at once, in as many random schedules as the others together") {
  passes<model::mixing>(3, all_at_once);
}
TEST_CASE("snapshot/model: a cell with a limit keeps it and refuses nobody but the publisher") { passes<model::limiting>(3); }

TEST_CASE("snapshot/model: each mutant of the twelve proof obligations is killed") {
  SUBCASE("1: the hazard is published with release") {
    killed<model::serving, mutant::m1_hazard_release>("1: the hazard is published with release", 3);
  }
  SUBCASE("1b: WILD is published with release") {
    killed<model::serving, mutant::m1b_wild_release>("1b: WILD is published with release", 3);
  }
  SUBCASE("2: the slots are scanned with acquire") {
    killed<model::serving, mutant::m2_scan_acquire>("2: the slots are scanned with acquire", 3);
  }
  SUBCASE("3: WILD is ignored") { killed<model::serving, mutant::m3_wild_ignored>("3: WILD is ignored", 3); }
  SUBCASE("4: owners are looked at before slots") {
    killed<model::sharing, mutant::m4_owners_first>("4: owners are looked at before slots", 2, 50000);
  }
  SUBCASE("5: the current version is loaded again with acquire") {
    killed<model::serving, mutant::m5_validate_acquire>("5: the current version is loaded again with acquire", 3);
  }
  SUBCASE("5b: the same in R3") { killed<model::serving, mutant::m5b_wild_load_acquire>("5b: the same in R3", 3); }
  SUBCASE("6: the exchange is acq_rel") { killed<model::serving, mutant::m6_exchange_acq_rel>("6: the exchange is acq_rel", 3); }
  SUBCASE("7: a share is dropped with relaxed") {
    killed<model::outliving, mutant::m7_owner_drop_relaxed>("7: a share is dropped with relaxed", 3);
  }
  SUBCASE("8: a slot is cleared with relaxed") { killed<model::serving, mutant::m8_clear_relaxed>("8: a slot is cleared with relaxed", 3); }
  SUBCASE("9: slots are appended with acq_rel") {
    killed<model::reusing, mutant::m9_append_acq_rel>("9: slots are appended with acq_rel", 3);
  }
  SUBCASE("9b: slots are looked for with acquire, by the publisher") {
    killed<model::registering, mutant::m9b_chunk_scan_acquire>("9b: slots are looked for with acquire, by the publisher", 3);
  }
  SUBCASE("10: the slot is cleared before the share is counted") {
    killed<model::sharing, mutant::m10_cleared_before_counted>("10: the slot is cleared before the share is counted", 2, 50000);
  }
  SUBCASE("11: R2 returns a version that failed its check") {
    killed<model::serving, mutant::m11_unvalidated_returned>("11: R2 returns a version that failed its check", 3);
  }
  // A checker with the release sequences of C++11 cannot kill this one, because there a later store of the same thread
  // continues the sequence. This one follows C++20 and can.
  SUBCASE("12: the second store of R3 is relaxed") {
    killed<model::chasing, mutant::m12_settle_relaxed>("12: the second store of R3 is relaxed", 3);
  }
}

TEST_CASE("snapshot/model: the orders outside the twelve obligations are needed as well") {
  SUBCASE("13: the number of shares is loaded with relaxed") {
    killed<model::outliving, mutant::m13_owner_scan_relaxed>("13: the number of shares is loaded with relaxed", 3);
  }
  SUBCASE("14: a slot is claimed with relaxed") {
    killed<model::reusing, mutant::m14_claim_relaxed>("14: a slot is claimed with relaxed", 3);
  }
  SUBCASE("15: a slot is given back with relaxed") {
    killed<model::reusing, mutant::m15_unclaim_relaxed>("15: a slot is given back with relaxed", 3);
  }
  SUBCASE("16: a payload is let go of with relaxed") {
    killed<model::contending, mutant::m16_payload_drop_relaxed>("16: a payload is let go of with relaxed", 3);
  }
  SUBCASE("17: a handle is let go of with relaxed") {
    killed<model::outliving, mutant::m17_handle_drop_relaxed>("17: a handle is let go of with relaxed", 3);
  }
}

TEST_CASE("snapshot/model: with asymmetric fences every scenario passes too") {
  passes<model::serving, mutant::fenced>(3, random_schedules / 4);
  passes<model::chasing, mutant::fenced>(4, random_schedules / 4);
  passes<model::sharing, mutant::fenced>(2, random_schedules / 4);
  passes<model::registering, mutant::fenced>(2, random_schedules / 4);
  passes<model::reusing, mutant::fenced>(2, random_schedules / 4);
  passes<model::outliving, mutant::fenced>(3, random_schedules / 4);
  passes<model::contending, mutant::fenced>(2, random_schedules / 4);
  passes<model::limiting, mutant::fenced>(2, random_schedules / 4);
  passes<model::mixing, mutant::fenced>(2, random_schedules / 4);
}

TEST_CASE("snapshot/model: a heavy fence that fails frees nothing, and nothing is lost by it") {
  passes<model::serving, mutant::fence_refused>(2, random_schedules / 4);
  passes<model::chasing, mutant::fence_refused>(3, random_schedules / 4);
  passes<model::outliving, mutant::fence_refused>(2, random_schedules / 4);
  passes<model::mixing, mutant::fence_refused>(2, random_schedules / 4);
}

TEST_CASE("snapshot/model: each mutant of the asymmetric fences is killed") {
  SUBCASE("18: the light fence is missing") { killed<model::serving, mutant::m18_no_light_fence>("18: the light fence is missing", 3); }
  SUBCASE("19: the heavy fence is missing") { killed<model::serving, mutant::m19_no_heavy_fence>("19: the heavy fence is missing", 3); }
  SUBCASE("20: the heavy fence is an ordinary one") {
    killed<model::serving, mutant::m20_heavy_fence_of_one_thread>("20: the heavy fence is an ordinary one", 3);
  }
  SUBCASE("21: only the first exchange is fenced") {
    killed<model::chasing, mutant::m21_one_heavy_fence_for_all>("21: only the first exchange is fenced", 3);
  }
  SUBCASE("22: the announcement is relaxed") {
    killed<model::chasing, mutant::m22_light_store_relaxed>("22: the announcement is relaxed", 3);
  }
}

// 9c weakens the load of the chunk list by a reader that takes a slot in somebody else's chunk. The proof needs it to be seq_cst:
// a reader that only acquires the chunk happens after its append, but C++20's S need not follow that happens-before
// (P0668). This checker executes seq_cst operations in an order that always does, so it cannot show the failure. That is what this
// test states; the obligation rests on the written proof in docs/snapshots.md.
TEST_CASE("snapshot/model: the order of the reader's search for a slot is beyond this checker") {
  CHECK(!model::explore<model::registering<mutant::m9c_chunk_find_acquire>>({.bound = 2 - less, .schedules = no_more_than}).failed);
  CHECK(!model::sample<model::registering<mutant::m9c_chunk_find_acquire>>({.schedules = random_schedules}).failed);
}
