// SPDX-License-Identifier: Apache-2.0
//
// `snapshot_cell`: the place where one current version of a T is published and read. Readers are wait-free and never free
// anything; publishers swap the version in with one exchange and destroy the old ones that nobody uses any more.
// docs/snapshots.md tells how to use it and why it is right. Not here: reading (reader.hpp), payloads (payload.hpp).
//
//   lora::snapshot_cell<model> cell(model{...});
//   std::thread server([&] { auto reader = cell.reader(); while (serving) handle(reader.pin()); });
//   cell.publish(load("v2"));                         // requests under way finish on the version that they began with
#ifndef LORA_SNAPSHOT_CELL_HPP
#define LORA_SNAPSHOT_CELL_HPP

#include <lora/config.hpp>
#include <lora/snapshot/control.hpp>
#include <lora/snapshot/limits.hpp>
#include <lora/snapshot/payload.hpp>
#include <lora/snapshot/reader.hpp>
#include <lora/snapshot/traits.hpp>

#include <cstddef>
#include <optional>
#include <type_traits>
#include <utility>

namespace lora::inline v0 {

/**
 * One current version of a T, for many readers and occasional publishers.
 *
 * A version is immutable, has a stamp larger than every earlier one, and is destroyed by publish(), collect() or the cell's
 * destructor, on the thread that calls them, once no pin, read() result or share holds it; never by a reader while the cell
 * lives. Replaced versions that are still held stay until the first of those calls after they are let go. If
 * readers or shares outlive the cell, the last of them destroys what is left.
 *
 * At most (registered readers + shared versions) replaced versions exist after a publish() or collect() during which no
 * reader was in the middle of a read.
 *
 * A payload's destructor runs outside every lock, so it may publish, into this cell too as long as the cell exists. A payload must
 * not hold a share or a reader of its own cell: together they would outlive it for ever. A snapshot_payload of another
 * version is fine.
 *
 * @par Threads  All members may be called from any thread at the same time, except construction and destruction. Publishers
 *               and collectors wait for each other, never for readers; readers never wait.
 */
template <class T, class Traits = std_snapshot_traits>
class snapshot_cell {
  static_assert(detail::payload_rules<T>::hold);
  using control = detail::snapshot_control<T, Traits>;
  using node = typename control::node;

 public:
  using value_type = T;
  using payload_type = snapshot_payload<T, Traits>;
  using version_type = snapshot_version<T, Traits>;
  using reader_type = snapshot_reader<T, Traits>;

  /** Nothing is published: readers get nullptr and stamp 0. */
  snapshot_cell() : control_(Traits::template create<control>()) {}

  /**
   * The same, and never more than `limits.max_retired` replaced versions in use: a publication that finds no room is refused. Readers notice
   * nothing of it.
   */
  explicit snapshot_cell(snapshot_limits limits) : control_(Traits::template create<control>()), limits_(limits) {}

  /** Publishes a first version, with stamp 1. */
  explicit snapshot_cell(T&& first) : snapshot_cell(wrap(std::move(first))) {}

  /** Publishes a first version, with stamp 1. */
  explicit snapshot_cell(payload_type first) : snapshot_cell() { publish(std::move(first)); }

  snapshot_cell(const snapshot_cell&) = delete;
  snapshot_cell& operator=(const snapshot_cell&) = delete;

  /** Retires the current version and destroys what nobody holds. Pins and shares stay valid; later reads give nullptr. */
  ~snapshot_cell() {
    control_->close();
    control_->drop_handle();
  }

  // ---- publishers --------------------------------------------------------------------------------------------------------

  /**
   * Makes `value` the current version and destroys the replaced ones that nobody holds.
   *
   * @return the new version's stamp
   * @throws std::bad_alloc, what T's move constructor throws; pinned_error when the cell's limits leave no room. Nothing is published then.
   * @par Cost  Two allocations before the exchange, none after; one load a registered slot; the destructors.
   */
  lora::stamp publish(T&& value) { return publish(wrap(std::move(value))); }

  /** The same for a payload made beforehand (make_payload). An empty one gives a version without a value. One allocation. */
  lora::stamp publish(payload_type payload) { return *commit(std::move(payload), lora::stamp{}, nullptr); }

  /**
   * Publishes only if the current version is still `expected` (stamp 0: if nothing was published yet), so that a decision taken
   * on one version never replaces another one.
   *
   * @return the new stamp, or nothing. Then nothing changed: `payload` is still the caller's and no stamp was used up.
   */
  [[nodiscard]] std::optional<lora::stamp> try_publish(lora::stamp expected, const payload_type& payload) {
    return commit(payload, lora::stamp{}, &expected);
  }

  /** publish(), answering instead of throwing when the limits leave no room. @throws std::bad_alloc */
  [[nodiscard]] snapshot_attempt publish_if_room(const payload_type& payload) {
    pending fresh{Traits::template create<node>(payload, lora::stamp{})};
    bool room = true;
    return attempt(fresh, nullptr, room);
  }

  /**
   * Goes back to the payload of an earlier version, under a new stamp; nothing is loaded or copied.
   * The new version's `rolled_back_to` is `to.stamp`.
   *
   * @param to  a version of this cell, from current() or snapshot_share::version()
   */
  lora::stamp rollback(const version_type& to) { return *commit(to.payload, to.stamp, nullptr); }

  /** rollback(), if the current version is still `expected`. */
  [[nodiscard]] std::optional<lora::stamp> try_rollback(lora::stamp expected, const version_type& to) {
    return commit(to.payload, to.stamp, &expected);
  }

  /**
   * Destroys, on this thread, the replaced versions that nobody holds. publish() does so as well; call this where
   * memory should come back sooner, for example from a timer.
   *
   * @return how many versions were destroyed
   */
  std::size_t collect() { return control_->collect(); }

  /** The current version, with a hold on its payload. For publishers, histories and tools: it takes the publishers' lock. */
  [[nodiscard]] version_type current() const { return control_->current(); }

  [[nodiscard]] snapshot_limits limits() const noexcept { return limits_; }

  /** Takes the publishers' lock. */
  [[nodiscard]] snapshot_counters counters() const { return control_->counters(); }

  // ---- readers -----------------------------------------------------------------------------------------------------------

  /**
   * Registers a reader. Uses the slot of an earlier reader if one is free.
   *
   * @param name  what pinned_error calls it; a string literal, or another text that outlives the cell and every reader
   * @throws std::bad_alloc
   * @par Cost  A search through the slots; an allocation when all are taken. Slots are never given back while the cell or a
   *            handle lives, and each costs every publication one load: register once a thread, not once a request.
   */
  [[nodiscard]] reader_type reader(const char* name = nullptr) const { return reader_type(*control_, name); }

 private:
  [[nodiscard]] static payload_type wrap(T&& value) {
    static_assert(std::is_move_constructible_v<T>,
                  "lora snapshots: T cannot be moved into a payload; build it in place: publish(lora::make_payload<T>(arguments...)).");
    return make_payload<T, Traits>(std::move(value));
  }

  // Owns the node until the control block does. A plain local: std::unique_ptr would cost <memory> for one line.
  struct pending {
    node* n;
    ~pending() {
      if (n != nullptr) Traits::destroy(n);
    }
  };

  [[nodiscard]] std::optional<lora::stamp> commit(payload_type payload, lora::stamp back_to, const lora::stamp* expected) {
    // P0: everything that can fail or take long has happened when the lock is taken.
    pending fresh{Traits::template create<node>(std::move(payload), back_to)};
    bool room = true;
    const snapshot_attempt a = attempt(fresh, expected, room);
    if (!room) detail::refuse_publication(limits_.max_retired, a.in_the_way);
    if (!a) return std::nullopt;
    return a.given;
  }

  [[nodiscard]] snapshot_attempt attempt(pending& fresh, const lora::stamp* expected, bool& room) {
    snapshot_attempt a;
    a.given = control_->publish(fresh.n, expected, limits_.max_retired, room, a.in_the_way);
    if (a) fresh.n = nullptr;
    return a;
  }

  control* control_;
  snapshot_limits limits_;
};

}  // namespace lora::inline v0

#endif
