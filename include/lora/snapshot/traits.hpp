// SPDX-License-Identifier: Apache-2.0
//
// What the snapshot protocol is built from: atomics, a mutex, plain variables, allocation. All of it is a template
// parameter, so that tests can run the very same protocol under a model checker, with counted operations, or with a reader
// stopped between any two of its steps. Programs use the default, std_snapshot_traits, and need not look here.
// Not here: the protocol itself (control.hpp), which also explains each memory order.
//
//   struct counting_traits : lora::std_snapshot_traits { template <class U> using atomic = counted_atomic<U>; };
//   lora::snapshot_cell<model, counting_traits> cell;
#ifndef LORA_SNAPSHOT_TRAITS_HPP
#define LORA_SNAPSHOT_TRAITS_HPP

#include <lora/config.hpp>

#include <atomic>
#include <cstddef>
#include <mutex>
#include <utility>

namespace lora::inline v0 {

/** Each atomic operation of the protocol whose memory order carries a proof obligation. Tests weaken one at a time. */
enum class snapshot_site {
  hazard_set,        // R2, the store: a reader announces the version that it is about to use
  current_validate,  // R2, the load: is it still the current one?
  hazard_wild,       // R3, the first store: a reader announces "whatever I load next"
  current_wild,      // R3, the load
  hazard_settle,     // R3, the second store: what it turned out to be
  hazard_light,      // R2 and R3 with asymmetric fences: the stores that are seq_cst without them
  hazard_clear,      // unpin, release
  hazard_scan,       // C1, the publisher's load of a slot
  current_exchange,  // P2, the new version becomes visible
  owner_drop,        // a share goes
  owner_scan,        // C2, the publisher's load of the number of shares
  chunk_append,      // a reader registers and adds slots
  chunk_find,        // a reader registers and looks for a free slot
  chunk_scan,        // C1, the publisher looks for slots
  slot_claim,        // a reader takes a slot that an earlier reader had
  slot_unclaim,      // a reader gives its slot back
  payload_drop,      // a version or a caller lets go of a payload
  handle_drop,       // the cell, a reader or a share lets go of the control block
};

/** Each rule of the protocol that is not a memory order. Tests break one at a time. */
enum class snapshot_step {
  wild_keeps_all,       // C2: a slot in R3 protects every retired version
  slots_before_owners,  // C1 before C2
  own_before_clear,     // a pin that becomes a share counts first and clears its slot second
  validated_only,       // R2: what differs from the announced version is not protected yet
};

namespace detail {

/** A plain variable. The model checker's counterpart also checks that no two threads race on it. */
template <class U>
class plain_var {
 public:
  constexpr plain_var() noexcept = default;
  constexpr explicit plain_var(U value) noexcept : value_(value) {}
  [[nodiscard]] constexpr U get() const noexcept { return value_; }
  constexpr void set(U value) noexcept { value_ = value; }

 private:
  U value_{};
};

}  // namespace detail

/**
 * The traits that programs use: std::atomic, std::mutex, new and delete, every order and step as the proof needs them.
 * A type used in its place supplies the same members; deriving from this one and replacing some is the easy way.
 */
struct std_snapshot_traits {
  template <class U>
  using atomic = std::atomic<U>;

  template <class U>
  using var = detail::plain_var<U>;

  /** Serialises publishers and collectors. Readers never touch it. */
  using mutex = std::mutex;

  /** One cache line a slot: a chunk is 1 KiB, and a cell with at most 16 readers allocates exactly one. */
  static constexpr std::size_t slots_per_chunk = 16;

  /** `Production` is the order that the proof asks for and stands beside the operation; only mutants give another. */
  template <snapshot_site Site, std::memory_order Production>
  static constexpr std::memory_order order = Production;

  /** Whether a rule is followed; only mutants say no. */
  template <snapshot_step Step>
  static constexpr bool keeps = true;

  /**
   * Whether these traits can have readers announce a version with a plain store, ordered by light_fence(), while publishers pay for both sides with
   * heavy_fence(). If so they also have `static bool may_use_fences() noexcept`, asked once a cell (false: as without), `static void light_fence()
   * noexcept` and `static bool heavy_fence() noexcept` (false: it could not be done, so nothing may be freed yet). interop/membarrier.hpp has such traits.
   */
  static constexpr bool has_asymmetric_fences = false;

  /** Makes a payload, a version, the control block or a chunk of slots. Never called between exchange and unlock. */
  template <class U, class... Args>
  [[nodiscard]] static U* create(Args&&... args) {
    return new U(std::forward<Args>(args)...);
  }

  template <class U>
  static void destroy(U* object) noexcept {
    delete object;
  }
};

}  // namespace lora::inline v0

#endif
