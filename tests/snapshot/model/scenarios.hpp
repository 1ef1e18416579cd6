// SPDX-License-Identifier: Apache-2.0
//
// The cell under the model checker: traits that supply the model's atomics and weaken one thing at a time, and the scenarios, each
// small enough to be searched exhaustively. The code that runs is include/lora/snapshot/, nothing else.
#ifndef LORA_TESTS_SNAPSHOT_MODEL_SCENARIOS_HPP
#define LORA_TESTS_SNAPSHOT_MODEL_SCENARIOS_HPP

#include "checker.hpp"

#include <lora/snapshot/cell.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>

namespace model {

/** One mistake each. The numbers are those of the table in docs/snapshots.md. */
enum class mutant {
  none,
  m1_hazard_release,
  m1b_wild_release,
  m2_scan_acquire,
  m3_wild_ignored,
  m4_owners_first,
  m5_validate_acquire,
  m5b_wild_load_acquire,
  m6_exchange_acq_rel,
  m7_owner_drop_relaxed,
  m8_clear_relaxed,
  m9_append_acq_rel,
  m9b_chunk_scan_acquire,
  m9c_chunk_find_acquire,
  m10_cleared_before_counted,
  m11_unvalidated_returned,
  m12_settle_relaxed,
  m13_owner_scan_relaxed,
  m14_claim_relaxed,
  m15_unclaim_relaxed,
  m16_payload_drop_relaxed,
  m17_handle_drop_relaxed,
  // From here on with asymmetric fences.
  fenced,         // no mistake
  fence_refused,  // no mistake: heavy_fence() may fail while the threads run
  m18_no_light_fence,
  m19_no_heavy_fence,
  m20_heavy_fence_of_one_thread,  // as an ordinary fence, which readers would have to match with one of their own
  m21_one_heavy_fence_for_all,    // only the first exchange is fenced
  m22_light_store_relaxed,
};

template <mutant M, std::size_t Slots>
struct traits {
  template <class U>
  using atomic = model::atomic<U>;
  template <class U>
  using var = model::var<U>;
  using mutex = model::mutex;
  static constexpr std::size_t slots_per_chunk = Slots;

  static constexpr bool has_asymmetric_fences = M >= mutant::fenced;
  static bool may_use_fences() { return true; }
  static void light_fence() {
    if (M != mutant::m18_no_light_fence) checker::current().light_fence();
  }
  static bool heavy_fence() {
    checker& c = checker::current();
    if (M == mutant::fence_refused && c.self() != 0 && c.chance()) return false;
    if (M == mutant::m20_heavy_fence_of_one_thread)
      c.light_fence();
    else if (M != mutant::m19_no_heavy_fence && (M != mutant::m21_one_heavy_fence_for_all || c.heavy_fences() == 0))
      c.heavy_fence();
    return true;
  }

  static constexpr std::memory_order changed(lora::snapshot_site site, std::memory_order production) {
    using at = lora::snapshot_site;
    using enum std::memory_order;
    switch (M) {
      case mutant::m1_hazard_release:
        return site == at::hazard_set ? release : production;
      case mutant::m1b_wild_release:
        return site == at::hazard_wild ? release : production;
      case mutant::m2_scan_acquire:
        return site == at::hazard_scan ? acquire : production;
      case mutant::m5_validate_acquire:
        return site == at::current_validate ? acquire : production;
      case mutant::m5b_wild_load_acquire:
        return site == at::current_wild ? acquire : production;
      case mutant::m6_exchange_acq_rel:
        return site == at::current_exchange ? acq_rel : production;
      case mutant::m7_owner_drop_relaxed:
        return site == at::owner_drop ? relaxed : production;
      case mutant::m8_clear_relaxed:
        return site == at::hazard_clear ? relaxed : production;
      case mutant::m9_append_acq_rel:
        return site == at::chunk_append ? acq_rel : production;
      case mutant::m9b_chunk_scan_acquire:
        return site == at::chunk_scan ? acquire : production;
      case mutant::m9c_chunk_find_acquire:
        return site == at::chunk_find ? acquire : production;
      case mutant::m12_settle_relaxed:
        return site == at::hazard_settle ? relaxed : production;
      case mutant::m13_owner_scan_relaxed:
        return site == at::owner_scan ? relaxed : production;
      case mutant::m14_claim_relaxed:
        return site == at::slot_claim ? relaxed : production;
      case mutant::m15_unclaim_relaxed:
        return site == at::slot_unclaim ? relaxed : production;
      case mutant::m16_payload_drop_relaxed:
        return site == at::payload_drop ? relaxed : production;
      case mutant::m17_handle_drop_relaxed:
        return site == at::handle_drop ? relaxed : production;
      case mutant::m22_light_store_relaxed:
        return site == at::hazard_light ? relaxed : production;
      default:
        return production;
    }
  }

  static constexpr bool kept(lora::snapshot_step step) {
    using at = lora::snapshot_step;
    switch (M) {
      case mutant::m3_wild_ignored:
        return step != at::wild_keeps_all;
      case mutant::m4_owners_first:
        return step != at::slots_before_owners;
      case mutant::m10_cleared_before_counted:
        return step != at::own_before_clear;
      case mutant::m11_unvalidated_returned:
        return step != at::validated_only;
      default:
        return true;
    }
  }

  template <lora::snapshot_site Site, std::memory_order Production>
  static constexpr std::memory_order order = changed(Site, Production);
  template <lora::snapshot_step Step>
  static constexpr bool keeps = kept(Step);

  template <class U, class... Args>
  static U* create(Args&&... args) {
    return model::create<U>(std::forward<Args>(args)...);
  }
  template <class U>
  static void destroy(U* object) {
    model::destroy(object);
  }
};

/** What is published: the value is the stamp times ten. Its `var` finds every unordered use and destruction. */
struct weights {
  explicit weights(int v) : value(v) {}
  model::var<int> value;
};

/** The name of the i-th atomic of a type of the protocol, for traces. */
inline const char* field_name(std::string_view type, std::size_t i) {
  constexpr const char* of_control[] = {"current", "chunks", "handles"};
  constexpr const char* of_slot[] = {"hazard", "claimed", "name"};
  if (type == "control" && i < 3) return of_control[i];
  if (type == "chunk") return of_slot[i % 3];
  return "owners";
}

/** A cell with version 1 published, and the claims that hold for every use of it. */
template <mutant M, std::size_t Slots>
struct world {
  using T = traits<M, Slots>;
  using cell_type = lora::snapshot_cell<weights, T>;
  using reader_type = typename cell_type::reader_type;
  using share_type = lora::snapshot_share<weights, T>;

  template <class... Limits>
  explicit world(Limits... limits) {
    cell.emplace(limits...);
    publish(10);
  }

  static auto make(int value) { return lora::make_payload<weights, T>(value); }

  void publish(int value) { cell->publish(make(value)); }

  /** A sticky read: at most six operations, the right value, never an older version than before. */
  static void read(reader_type& r) {
    const lora::stamp before = r.stamp();
    const std::size_t start = checker::current().steps_of_this_thread();
    const weights* w = r.read();
    require(checker::current().steps_of_this_thread() - start <= 6, "a read took more than six operations");
    require(r.stamp() >= before, "a reader went back to an older version");
    check(w, r.stamp());
  }

  static void check(const weights* w, lora::stamp s) {
    require(w != nullptr, "a version vanished");
    require(w->value.get() == 10 * static_cast<int>(s.value), "the stamp and the value disagree");
  }

  /** All readers and shares are gone: one collection leaves the current version alone. */
  void settle() {
    cell->collect();
    const lora::snapshot_counters c = cell->counters();
    require(c.retired == 0 && c.live == 1 && c.destroyed + 1 == c.published, "a version that nobody uses was kept");
  }

  std::optional<cell_type> cell;
};

/** Two registered readers, one sticky and one pinning, and a publisher. */
template <mutant M>
struct serving : world<M, 2> {
  using base = world<M, 2>;
  static constexpr int threads = 3;
  std::optional<typename base::reader_type> readers[2];

  serving() {
    for (auto& r : readers) r.emplace(this->cell->reader());
  }

  void thread(int i) {
    if (i == 2) {
      this->publish(20);
      this->publish(30);
    } else if (i == 0) {
      base::read(*readers[0]);
      base::read(*readers[0]);
    } else {
      auto pin = readers[1]->pin();
      base::check(pin.get(), pin.stamp());
      const lora::stamp first = pin.stamp();
      auto nested = readers[1]->pin();
      base::check(nested.get(), first);
    }
  }

  void finish() {
    // Quiet: the sticky reader may hold one version, the other one is not pinned any more.
    this->cell->collect();
    require(this->cell->counters().retired <= 1, "more versions are retired than readers hold");
    for (auto& r : readers) r.reset();
    this->settle();
    this->cell.reset();
  }
};

/** One reader that reads three times, and three publications: R3, and slots that go from one version to another. */
template <mutant M>
struct chasing : world<M, 1> {
  using base = world<M, 1>;
  static constexpr int threads = 2;
  std::optional<typename base::reader_type> reader;

  chasing() { reader.emplace(this->cell->reader()); }

  void thread(int i) {
    if (i == 1) {
      this->publish(20);
      this->publish(30);
      this->publish(40);
    } else {
      base::read(*reader);
      base::read(*reader);
      reader->release();
      base::read(*reader);
    }
  }

  void finish() {
    reader.reset();
    this->settle();
    this->cell.reset();
  }
};

/** A pin becomes a share, a share is copied, dropped while the publisher collects. */
template <mutant M>
struct sharing : world<M, 2> {
  using base = world<M, 2>;
  static constexpr int threads = 3;
  std::optional<typename base::reader_type> readers[2];

  sharing() {
    for (auto& r : readers) r.emplace(this->cell->reader());
  }

  void thread(int i) {
    if (i == 2) {
      this->publish(20);
      this->publish(30);
    } else if (i == 0) {
      auto share = readers[0]->pin().share();  // the pin is a temporary: it becomes the share
      base::check(share.get(), share.stamp());
    } else {
      auto pin = readers[1]->pin();
      auto share = pin.share();
      auto copy = share;
      share = {};
      base::check(copy.get(), pin.stamp());
    }
  }

  void finish() {
    for (auto& r : readers) r.reset();
    this->settle();
    this->cell.reset();
  }
};

/** Readers that register while publications run; one slot a chunk, so each appends or takes over. */
template <mutant M>
struct registering : world<M, 1> {
  using base = world<M, 1>;
  static constexpr int threads = 3;

  void thread(int i) {
    if (i == 2) {
      this->publish(20);
      this->publish(30);
    } else {
      auto reader = this->cell->reader();
      base::read(reader);
    }
  }

  void finish() {
    this->settle();
    this->cell.reset();
  }
};

/** Readers come and go; the second one may get the first one's slot. */
template <mutant M>
struct reusing : world<M, 1> {
  using base = world<M, 1>;
  static constexpr int threads = 3;
  std::optional<typename base::reader_type> first;

  reusing() { first.emplace(this->cell->reader()); }

  void thread(int i) {
    if (i == 2) {
      this->publish(20);
      this->cell->collect();
    } else if (i == 0) {
      base::read(*first);
      first.reset();
    } else {
      auto reader = this->cell->reader();
      base::read(reader);
    }
  }

  void finish() {
    this->settle();
    this->cell.reset();
  }
};

/** Everything at once: a sticky reader, one that registers late and turns its pin into a share, nested pins, and a publisher. */
template <mutant M>
struct mixing : world<M, 1> {
  using base = world<M, 1>;
  static constexpr int threads = 3;
  std::optional<typename base::reader_type> early;

  mixing() { early.emplace(this->cell->reader()); }

  void thread(int i) {
    if (i == 2) {
      this->publish(20);
      this->publish(30);
    } else if (i == 0) {
      base::read(*early);
      auto pin = early->pin();
      const lora::stamp first = pin.stamp();
      base::check(pin.get(), first);
      auto nested = early->pin();
      require(nested.stamp() == first, "a nested pin saw another version");
    } else {
      auto late = this->cell->reader();  // its slot is in a chunk of its own
      auto share = late.pin().share();
      base::read(late);
      base::check(share.get(), share.stamp());
    }
  }

  void finish() {
    early.reset();
    this->settle();
    this->cell.reset();
  }
};

/** A cell that may hold one replaced version: the publisher is refused, and nobody else notices. */
template <mutant M>
struct limiting : world<M, 2> {
  using base = world<M, 2>;
  static constexpr int threads = 3;
  std::optional<typename base::reader_type> readers[2];

  limiting() : base(lora::snapshot_limits{1}) {
    for (auto& r : readers) r.emplace(this->cell->reader());
  }

  void thread(int i) {
    if (i == 2) {
      int published = 1;
      for (int k = 0; k < 3; ++k) {
        const auto payload = base::make(10 * (published + 1));
        const lora::snapshot_attempt a = this->cell->publish_if_room(payload);
        if (a)
          require(a.given.value == static_cast<std::uint64_t>(++published), "a refused publication used up a stamp");
        else
          require(a.in_the_way.version.value < static_cast<std::uint64_t>(published), "the version in the way is not a replaced one");
        require(this->cell->counters().retired <= 1, "more versions are retired than the limit allows");
      }
    } else if (i == 0) {
      base::read(*readers[0]);
      base::read(*readers[0]);
    } else {
      auto pin = readers[1]->pin();
      base::check(pin.get(), pin.stamp());
    }
  }

  void finish() {
    for (auto& r : readers) r.reset();
    const lora::snapshot_attempt a =
        this->cell->publish_if_room(base::make(10 * (static_cast<int>(this->cell->current().stamp.value) + 1)));
    require(static_cast<bool>(a), "no room although nobody reads");
    this->settle();
    this->cell.reset();
  }
};

/** The cell goes while a reader is pinned and a share lives: whoever is last takes the control block along. */
template <mutant M>
struct outliving : world<M, 2> {
  using base = world<M, 2>;
  static constexpr int threads = 3;
  std::optional<typename base::reader_type> reader;
  typename base::share_type share;

  outliving() {
    reader.emplace(this->cell->reader());
    share = reader->pin().share();
    this->publish(20);
  }

  void thread(int i) {
    if (i == 2) {
      this->cell.reset();
    } else if (i == 0) {
      {
        auto pin = reader->pin();
        if (pin) base::check(pin.get(), pin.stamp());
      }
      reader.reset();
    } else {
      base::check(share.get(), lora::stamp{1});
      share = {};
    }
  }

  void finish() {}  // the check is that nothing is left: the checker reports a leak otherwise
};

/** Two publishers that compare, one of them rolling back; a payload that one thread keeps and drops on its own. */
template <mutant M>
struct contending : world<M, 1> {
  using base = world<M, 1>;
  static constexpr int threads = 3;
  std::optional<typename base::reader_type> reader;
  int won = 0;

  contending() { reader.emplace(this->cell->reader()); }

  void thread(int i) {
    if (i == 0) {
      auto version = reader->pin().share().version();
      require(version.payload->value.get() % 10 == 0, "a payload of nobody");
      reader->read();
    } else {
      auto mine = base::make(20);
      const auto got = this->cell->try_publish(lora::stamp{1}, mine);
      require(static_cast<bool>(mine), "a failed publication took the payload");
      if (got) {
        require(got->value == 2, "the stamp is not the next one");
        ++won_[i - 1];
      }
      if (i == 1) this->cell->rollback(this->cell->current());
    }
  }

  void finish() {
    require(won_[0] + won_[1] <= 1, "two publishers replaced the same version");
    reader.reset();
    this->settle();
    this->cell.reset();
  }

 private:
  int won_[2] = {0, 0};
};

}  // namespace model

#endif
