// SPDX-License-Identifier: Apache-2.0
//
// The protocol behind snapshot_cell: the hazard slots of the readers, and the control block that holds them and the versions and
// outlives the cell while a reader or a share needs it. All atomic operations on them stand here, so that partners can be read side
// by side. docs/snapshots.md has the proof; R1-R3, P1-P3, C1 and C2 are its names for the steps. Not here: what users hold
// (reader.hpp, cell.hpp). Nothing in this file is API.
//
// The argument in short. A reader stores the node's address into its slot and then loads `current_`; a publisher exchanges
// `current_` and then loads the slots. These four operations are seq_cst, so they stand in one order S. If the publisher's
// load of the slot precedes the reader's store in S, then the exchange precedes the reader's load, which returns the new
// node and never the old one; otherwise the publisher sees the slot and keeps the node. With asymmetric fences (traits.hpp) a light
// one and a heavy one stand in S in the place of the store and of the first load of the slots.
#ifndef LORA_SNAPSHOT_CONTROL_HPP
#define LORA_SNAPSHOT_CONTROL_HPP

#include <lora/config.hpp>
#include <lora/snapshot/limits.hpp>
#include <lora/snapshot/payload.hpp>
#include <lora/snapshot/traits.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <utility>

namespace lora::inline v0 {

namespace detail {

/** What one reader announces. Written by that reader, read by collectors; alone on its cache line. */
template <class Traits>
struct alignas(64) snapshot_slot {
  typename Traits::template atomic<std::uintptr_t> hazard{0};
  typename Traits::template atomic<std::uint32_t> claimed{0};
  typename Traits::template atomic<const char*> name{nullptr};  // for reports only
  typename Traits::template var<bool> named{false};             // the owner's, so that readers without a name store none
};

template <class Traits>
struct snapshot_chunk {
  snapshot_slot<Traits> slots[Traits::slots_per_chunk];
  typename Traits::template var<snapshot_chunk*> next{nullptr};  // written before the chunk is appended
};

template <class T, class Traits>
class snapshot_control {
  template <class U>
  using atomic = typename Traits::template atomic<U>;
  template <class U>
  using var = typename Traits::template var<U>;

  using site = snapshot_site;
  using step = snapshot_step;
  using enum std::memory_order;

  // The production order stands at each operation; the traits of a test may give another one for a site.
  template <snapshot_site Site, std::memory_order Production>
  static constexpr std::memory_order order = Traits::template order<Site, Production>;
  template <snapshot_step Step>
  static constexpr bool keeps = Traits::template keeps<Step>;

 public:
  using node = snapshot_node<T, Traits>;
  using slot = snapshot_slot<Traits>;
  using chunk = snapshot_chunk<Traits>;
  using payload = snapshot_payload<T, Traits>;

  snapshot_control() = default;
  snapshot_control(const snapshot_control&) = delete;
  snapshot_control& operator=(const snapshot_control&) = delete;

  // Runs with the last handle, after close(): nobody reads, shares or publishes any more, so every retired version goes.
  ~snapshot_control() {
    destroy(retired_.get());
    for (chunk* c = chunks_.load(relaxed); c != nullptr;) {  // Relaxed: drop() has ordered everything before this.
      chunk* next = c->next.get();
      Traits::destroy(c);
      c = next;
    }
  }

  // ---- handles: the cell, its readers and its shares -------------------------------------------------------------------

  void add_handle() noexcept {
    handles_.fetch_add(1, relaxed);  // Relaxed: the caller holds a handle already, and learns nothing from the count.
  }

  void drop_handle() noexcept {
    // Release: pairs with the acquire half of the last such subtraction: what this handle did happens before the destruction there.
    if (handles_.fetch_sub(1, order<site::handle_drop, acq_rel>) == 1) Traits::destroy(this);
  }

  /** Takes a free slot, or appends a chunk. Lock-free; allocates only when every slot is taken. */
  [[nodiscard]] slot* claim_slot() {
    // Seq_cst: with the append below and the load in mark_hazards() the same handshake as hazard against current_: a collector
    // that misses the chunk made its exchange before this reader's first load of current_. Acquire alone would leave a
    // reader that claims a slot in somebody else's chunk outside S.
    chunk* head = chunks_.load(order<site::chunk_find, seq_cst>);
    for (chunk* c = head; c != nullptr; c = c->next.get()) {
      for (slot& s : c->slots) {
        // Relaxed: only a hint, the exchange below decides.
        if (s.claimed.load(relaxed) != 0) continue;
        std::uint32_t vacant = 0;
        // Acquire: pairs with the release store in unclaim_slot(); the former reader's uses happen before whatever this one
        // announces, hence before what a collector does that sees only this one's word.
        if (s.claimed.compare_exchange_strong(vacant, 1, order<site::slot_claim, acquire>, relaxed)) return &s;
      }
    }
    chunk* fresh = Traits::template create<chunk>();
    fresh->slots[0].claimed.store(1, relaxed);  // Relaxed: nobody else sees the chunk yet.
    do {
      fresh->next.set(head);
      // Release half: pairs with the loads of chunks_ here and in mark_hazards(), which then see a complete chunk. Seq_cst: above.
    } while (!chunks_.compare_exchange_weak(head, fresh, order<site::chunk_append, seq_cst>));
    return &fresh->slots[0];
  }

  void name_slot(slot& s, const char* name) noexcept {
    if (name == nullptr) return;
    s.named.set(true);
    s.name.store(name, relaxed);  // Relaxed: the text outlives everybody, and nothing else is read through it.
  }

  void unclaim_slot(slot& s) noexcept {
    if (s.named.get()) s.name.store(nullptr, relaxed);  // Relaxed: as above.
    s.named.set(false);
    // Release: pairs with the acquire in claim_slot().
    s.claimed.store(0, order<site::slot_unclaim, release>);
  }

  // ---- readers: only the thread that owns `s` calls these ------------------------------------------------------------------

  /** R1. For comparison only: what it returns may be freed at any moment unless a slot holds it. */
  [[nodiscard]] node* current_hint() const noexcept {
    // Relaxed: an address equal to the one in the caller's slot is the same node, acquired when the slot was set; else protect() loads again.
    return current_.load(relaxed);
  }

  /** R2 and R3: makes `s` protect the current version and returns that version. At most five operations, no loop. */
  [[nodiscard]] node* protect(slot& s, node* seen) noexcept {
    // R2. Seq_cst: before the load below in S; pairs with the load in mark_hazards(). Its release half covers the last use of what
    // the slot held before.
    announce<site::hazard_set>(s, address(seen));
    // Seq_cst: after the store above in S; pairs with the exchange in publish(). Its acquire half makes the node's content visible.
    node* now = current_.load(order<site::current_validate, seq_cst>);
    // `now`, not `seen`: `seen` may be the stale address of an earlier node that was freed and reused for this one.
    if (now == seen || !keeps<step::validated_only>) return now;
    // R3. The publisher was faster. WILD protects whatever comes next, so this cannot fail. Seq_cst twice, as in R2.
    announce<site::hazard_wild>(s, wild);
    now = current_.load(order<site::current_wild, seq_cst>);
    // Release: pairs with the load in mark_hazards(). A collector that reads this value instead of WILD must still synchronise with
    // the uses of what the slot held before; since C++20 a plain store continues no earlier release sequence.
    s.hazard.store(address(now), order<site::hazard_settle, release>);
    return now;
  }

  void clear(slot& s) noexcept {
    // Release: pairs with the load in mark_hazards(); the reader's last use happens before the destruction.
    s.hazard.store(none, order<site::hazard_clear, release>);
  }

  // ---- shares ------------------------------------------------------------------------------------------------------------

  /** Legal only while a slot or another share protects `n`. */
  static void add_owner(node& n) noexcept {
    // Relaxed: the caller clears its slot later with release (or drops its own share), and a collector that sees that also
    // sees this addition. Hence slots before owners in collect_locked().
    n.owners.fetch_add(1, relaxed);
  }

  static void drop_owner(node& n) noexcept {
    // Release: pairs with the load in mark_owned(); the uses through this share happen before the destruction. The node may be
    // gone right after this.
    n.owners.fetch_sub(1, order<site::owner_drop, release>);
  }

  // ---- publishers --------------------------------------------------------------------------------------------------------

  /**
   * P1-P3. `fresh` is complete except for its stamp and parent; on success it belongs to the cell.
   * Returns its stamp, or 0 if `expected` is given and is not the stamp of the current version, or if there is no `room`: `max_retired` (0: any
   * number) replaced versions are in use already, the oldest by `holder`.
   */
  [[nodiscard]] lora::stamp publish(node* fresh, const lora::stamp* expected, std::size_t max_retired, bool& room, snapshot_hold& holder) {
    lora::stamp given;
    node* dead_before = nullptr;
    node* dead = nullptr;
    room = true;
    {
      std::lock_guard<typename Traits::mutex> lock(publishers_);
      // Relaxed: the last exchange was made under this lock.
      node* before = current_.load(relaxed);
      const lora::stamp parent = before == nullptr ? lora::stamp{} : before->stamp.get();
      if (expected != nullptr && *expected != parent) return {};
      // The exchange adds one. So the limit holds at every moment, not only after a collection.
      if (max_retired != 0 && retired_count_.get() >= max_retired) {
        dead_before = collect_locked();
        room = retired_count_.get() < max_retired;
        if (!room) holder = holder_of_oldest();
      }
      if (room) {
        given.value = last_stamp_.get() + 1;
        last_stamp_.set(given.value);
        fresh->stamp.set(given);
        fresh->parent.set(parent);
        // P2. From here to the unlock nothing allocates and nothing throws.
        replace_current(fresh);
        dead = collect_locked();
      }
    }
    destroy(dead_before);
    destroy(dead);  // P3: outside the lock, so a payload's destructor may publish.
    return given;
  }

  /** Returns the number of versions destroyed. */
  std::size_t collect() {
    node* dead = nullptr;
    {
      std::lock_guard<typename Traits::mutex> lock(publishers_);
      dead = collect_locked();
    }
    return destroy(dead);
  }

  /** The cell goes: the current version is retired, readers see nothing from now on, what nobody uses is destroyed. */
  void close() {
    bool again = true;
    while (again) {  // Once more for what payload destructors publish, or let go of, on the way.
      node* dead = nullptr;
      {
        std::lock_guard<typename Traits::mutex> lock(publishers_);
        if (current_.load(relaxed) != nullptr) replace_current(nullptr);  // Relaxed: as in publish().
        dead = collect_locked();
      }
      again = destroy(dead) != 0;
    }
  }

  [[nodiscard]] snapshot_version<T, Traits> current() {
    std::lock_guard<typename Traits::mutex> lock(publishers_);
    // Relaxed: the last exchange was made under this lock. Nothing is freed while it is held.
    const node* n = current_.load(relaxed);
    return n == nullptr ? snapshot_version<T, Traits>{} : n->version();
  }

  [[nodiscard]] snapshot_counters counters() {
    std::lock_guard<typename Traits::mutex> lock(publishers_);
    const std::size_t current = current_.load(relaxed) == nullptr ? 0 : 1;  // Relaxed: as above.
    return {last_stamp_.get(), destroyed_.get(), retired_count_.get(), retired_count_.get() + current};
  }

 private:
  static constexpr std::uintptr_t none = 0;  // the address of "nothing published", too
  static constexpr std::uintptr_t wild = 1;  // R3 is under way; never the address of a node
  static_assert(alignof(node) > 1);

  [[nodiscard]] static std::uintptr_t address(const node* n) noexcept { return reinterpret_cast<std::uintptr_t>(n); }

  [[nodiscard]] static bool ask_for_fences() noexcept {
    if constexpr (Traits::has_asymmetric_fences) return Traits::may_use_fences();
    return false;
  }

  // The reader's store of R2 and R3, before its load of current_.
  template <snapshot_site Site>
  void announce(slot& s, std::uintptr_t what) noexcept {
    if constexpr (Traits::has_asymmetric_fences)
      if (fenced_) [[likely]] {
        // Release: covers the last use of what the slot held before. The light fence takes the place of seq_cst: it comes before the heavy
        // one of collect_locked() in S, and the scan sees this store, or after it, and the load that follows sees the exchange.
        s.hazard.store(what, order<site::hazard_light, release>);
        Traits::light_fence();
        return;
      }
    s.hazard.store(what, order<Site, seq_cst>);
  }

  // P2. Under the lock.
  void replace_current(node* fresh) noexcept {
    // Seq_cst: before the loads of chunks_ and of the slots in mark_hazards() in S; pairs with the loads in protect(). Its
    // release half makes the node's content visible to them.
    node* old = current_.exchange(fresh, order<site::current_exchange, seq_cst>);
    if (old == nullptr) return;
    if constexpr (Traits::has_asymmetric_fences) fence_owed_.set(fenced_);
    old->next.set(retired_.get());
    retired_.set(old);
    retired_count_.set(retired_count_.get() + 1);
  }

  // C1 and C2. Under the lock. Returns what nobody uses as a chain of its own. A scan of s slots costs s loads, and r
  // comparisons for each slot that holds neither nothing nor the current version.
  [[nodiscard]] node* collect_locked() noexcept {
    if (retired_.get() == nullptr) return nullptr;
    if constexpr (Traits::has_asymmetric_fences) {  // Between the exchange and the loads of the slots; one serves every later scan.
      if (fence_owed_.get() && !Traits::heavy_fence()) return nullptr;
      fence_owed_.set(false);
    }
    for (node* r = retired_.get(); r != nullptr; r = r->next.get()) r->used.set(false);
    bool all_used = false;
    if constexpr (keeps<step::slots_before_owners>) {
      // Slots first: who shares a pinned version counts before the slot is cleared, so whoever sees the cleared slot
      // sees the count.
      all_used = mark_hazards();
      if (!all_used) mark_owned();
    } else {
      mark_owned();
      all_used = mark_hazards();
    }
    if (all_used && keeps<step::wild_keeps_all>) return nullptr;
    node* dead = nullptr;
    node* kept = nullptr;
    std::size_t dead_count = 0;
    for (node* r = retired_.get(); r != nullptr;) {
      node* next = r->next.get();
      node*& list = r->used.get() ? kept : dead;
      if (!r->used.get()) ++dead_count;
      r->next.set(list);
      list = r;
      r = next;
    }
    retired_.set(kept);
    retired_count_.set(retired_count_.get() - dead_count);
    destroyed_.set(destroyed_.get() + dead_count);
    return dead;
  }

  // C1. Returns whether some reader is between its two stores of R3 and may get hold of anything.
  [[nodiscard]] bool mark_hazards() noexcept {
    // Relaxed: the last exchange was made under this lock, on this thread or before it.
    const std::uintptr_t current = address(current_.load(relaxed));
    bool some_wild = false;
    // Seq_cst: after the exchange in S; pairs with the append in claim_slot().
    for (chunk* c = chunks_.load(order<site::chunk_scan, seq_cst>); c != nullptr; c = c->next.get()) {
      for (slot& s : c->slots) {
        // Seq_cst: after the exchange in S; pairs with the stores in protect(). Its acquire half pairs with every store to a
        // slot: the reader's uses of what the slot held before happen before the destruction.
        const std::uintptr_t held = s.hazard.load(order<site::hazard_scan, seq_cst>);
        if (held == wild) some_wild = true;
        if (held == none || held == wild || held == current) continue;
        // An address, not a pointer: a reader in R2 may announce a node that was freed long ago. So it is looked for, never followed.
        for (node* r = retired_.get(); r != nullptr; r = r->next.get())
          if (address(r) == held) r->used.set(true);
      }
    }
    return some_wild;
  }

  // C2.
  void mark_owned() noexcept {
    for (node* r = retired_.get(); r != nullptr; r = r->next.get())
      // Acquire: pairs with the release in drop_owner(). Zero is final here: no slot holds the node, so nobody can count again.
      if (r->owners.load(order<site::owner_scan, acquire>) != 0) r->used.set(true);
  }

  // For the report of a refused publication, under the lock. Whoever held the node may have let go since the scan.
  [[nodiscard]] snapshot_hold holder_of_oldest() noexcept {
    const node* oldest = retired_.get();
    for (const node* r = oldest; r != nullptr; r = r->next.get())
      if (r->stamp.get() < oldest->stamp.get()) oldest = r;
    snapshot_hold by{oldest->stamp.get(), nullptr, oldest->owners.load(relaxed)};  // Relaxed, here and below: nothing is freed by it.
    for (chunk* c = chunks_.load(acquire); c != nullptr; c = c->next.get())        // Acquire: pairs with the append in claim_slot().
      for (slot& s : c->slots) {
        const std::uintptr_t held = s.hazard.load(relaxed);
        if (held == wild || held == address(oldest)) return {held == wild ? lora::stamp{} : by.version, s.name.load(relaxed), 0};
      }
    return by;
  }

  static std::size_t destroy(node* chain) noexcept {
    std::size_t count = 0;
    for (; chain != nullptr; ++count) {
      node* next = chain->next.get();
      Traits::destroy(chain);
      chain = next;
    }
    return count;
  }

  // Two cache lines: publications touch the first, registrations the second, so neither slows what it need not.
  alignas(64) atomic<node*> current_{nullptr};
  const bool fenced_ = ask_for_fences();  // readers announce with light fences; on the line that each of them loads anyway
  alignas(64) atomic<chunk*> chunks_{nullptr};
  atomic<std::uint32_t> handles_{1};  // the cell's own
  typename Traits::mutex publishers_;

  // Under publishers_.
  var<node*> retired_{nullptr};
  var<std::size_t> retired_count_{0};
  var<std::uint64_t> last_stamp_{0};
  var<std::uint64_t> destroyed_{0};
  var<bool> fence_owed_{false};  // there was an exchange since the last heavy fence
};

}  // namespace detail

}  // namespace lora::inline v0

#endif
