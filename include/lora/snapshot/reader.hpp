// SPDX-License-Identifier: Apache-2.0
//
// How versions are read: `snapshot_reader`, a registered handle for one thread; `snapshot_pin`, one version for a whole
// request; `snapshot_share`, a counted hold on a version that may change threads. All three may outlive the cell.
// Not here: publishing (cell.hpp), the protocol (control.hpp).
//
//   auto reader = cell.reader();                 // once a thread
//   const model* m = reader.read();              // the current version; valid until the next call on `reader`
//   auto pin = reader.pin();                     // the same version until `pin` goes
//   for (auto& layer : pin->layers) run(layer);
#ifndef LORA_SNAPSHOT_READER_HPP
#define LORA_SNAPSHOT_READER_HPP

#include <lora/config.hpp>
#include <lora/snapshot/control.hpp>
#include <lora/snapshot/payload.hpp>
#include <lora/snapshot/traits.hpp>

#include <cstdint>
#include <utility>

namespace lora::inline v0 {

template <class T, class Traits>
class snapshot_cell;
template <class T, class Traits = std_snapshot_traits>
class snapshot_reader;

/**
 * A counted hold on one version: it stays what it is until the last share of it goes, however many are published meanwhile.
 * May be copied, moved to another thread, stored across a suspension point, and may outlive reader and cell.
 *
 * @par Cost     Two atomic additions to make or copy, two subtractions to drop; all shares of a version use the same counter,
 *               so take one a request, not one a layer. Never destroys a payload while the cell lives; if the cell is gone
 *               and this is the last of its readers and shares, it destroys what is left.
 * @par Threads  As for any plain object: different shares of one version may be used by different threads.
 */
template <class T, class Traits = std_snapshot_traits>
class snapshot_share {
  using control = detail::snapshot_control<T, Traits>;
  using node = typename control::node;

 public:
  /** Holds nothing. */
  snapshot_share() noexcept = default;

  snapshot_share(const snapshot_share& other) noexcept : snapshot_share(other.control_, other.node_) {}
  snapshot_share(snapshot_share&& other) noexcept
      : control_(std::exchange(other.control_, nullptr)), node_(std::exchange(other.node_, nullptr)) {}

  snapshot_share& operator=(snapshot_share other) noexcept {
    std::swap(control_, other.control_);
    std::swap(node_, other.node_);
    return *this;
  }

  ~snapshot_share() {
    if (node_ == nullptr) return;
    control::drop_owner(*node_);
    control_->drop_handle();  // second: it keeps the list of versions alive
  }

  /** The value, or nullptr if nothing is held or the version has no value. */
  [[nodiscard]] const T* get() const noexcept { return node_ == nullptr ? nullptr : node_->value.get(); }
  [[nodiscard]] const T& operator*() const noexcept { return *checked(); }
  [[nodiscard]] const T* operator->() const noexcept { return checked(); }
  [[nodiscard]] explicit operator bool() const noexcept { return get() != nullptr; }

  /** The stamp of the version held; 0 for none. */
  [[nodiscard]] lora::stamp stamp() const noexcept { return node_ == nullptr ? lora::stamp{} : node_->stamp.get(); }

  /** Stamp, parent and payload. The payload is then held by the result as well: see snapshot_payload for who destroys it. */
  [[nodiscard]] snapshot_version<T, Traits> version() const noexcept {
    return node_ == nullptr ? snapshot_version<T, Traits>{} : node_->version();
  }

 private:
  template <class, class>
  friend class snapshot_pin;

  // `n` is protected by the caller's slot or share.
  snapshot_share(control* c, node* n) noexcept : control_(c), node_(n) {
    if (n == nullptr) return;
    control::add_owner(*n);
    c->add_handle();
  }

  [[nodiscard]] const T* checked() const noexcept {
    LORA_ASSERT(get() != nullptr, "snapshot_share: there is no value to dereference");
    return get();
  }

  control* control_ = nullptr;
  node* node_ = nullptr;
};

/**
 * One version for a whole request: from construction to destruction it never changes, whatever is published.
 * Pins of one reader nest and all see the version of the first. They may go in any order.
 *
 * @pre The reader neither moves nor goes before its pins (asserted when LORA_CHECKS >= 1).
 * @par Cost     First pin: 3 shared operations, 6 if a publication falls between them; 1 when the last pin goes. Nested: none.
 *               Never destroys a payload.
 * @par Threads  Belongs to the reader's thread. To give the version to another thread, take a share.
 */
template <class T, class Traits = std_snapshot_traits>
class snapshot_pin {
 public:
  snapshot_pin(snapshot_pin&& other) noexcept : reader_(std::exchange(other.reader_, nullptr)) {}
  snapshot_pin& operator=(snapshot_pin&& other) noexcept {
    if (this != &other) {
      unpin();
      reader_ = std::exchange(other.reader_, nullptr);
    }
    return *this;
  }
  ~snapshot_pin() { unpin(); }

  /** The value, or nullptr if nothing was published or the version has no value. Valid as long as a pin of the reader. */
  [[nodiscard]] const T* get() const noexcept { return reader_ == nullptr ? nullptr : reader_->value_.get(); }
  [[nodiscard]] const T& operator*() const noexcept { return *checked(); }
  [[nodiscard]] const T* operator->() const noexcept { return checked(); }
  [[nodiscard]] explicit operator bool() const noexcept { return get() != nullptr; }

  /** The stamp of the pinned version; 0 if nothing was published. */
  [[nodiscard]] lora::stamp stamp() const noexcept { return reader_ == nullptr ? lora::stamp{} : reader_->stamp(); }

  /** A share of the pinned version; the pin stays. */
  [[nodiscard]] snapshot_share<T, Traits> share() const& noexcept {
    return reader_ == nullptr ? snapshot_share<T, Traits>{} : snapshot_share<T, Traits>(reader_->control_, reader_->cached_.get());
  }

  /** Turns the pin into a share: `std::move(pin).share()`. The pin is empty afterwards. */
  [[nodiscard]] snapshot_share<T, Traits> share() && noexcept {
    if (reader_ == nullptr) return {};
    snapshot_reader<T, Traits>& from = *reader_;
    if constexpr (Traits::template keeps<snapshot_step::own_before_clear>) {
      snapshot_share<T, Traits> result(from.control_, from.cached_.get());
      unpin();  // second: a collector that sees the cleared slot sees the count
      return result;
    } else {
      typename detail::snapshot_control<T, Traits>::node* held = from.cached_.get();
      unpin();
      return snapshot_share<T, Traits>(from.control_, held);
    }
  }

 private:
  friend class snapshot_reader<T, Traits>;

  explicit snapshot_pin(snapshot_reader<T, Traits>& reader) noexcept : reader_(&reader) { reader.enter(); }

  void unpin() noexcept {
    if (reader_ != nullptr) std::exchange(reader_, nullptr)->leave();
  }

  [[nodiscard]] const T* checked() const noexcept {
    LORA_ASSERT(get() != nullptr, "snapshot_pin: there is no value to dereference");
    return get();
  }

  snapshot_reader<T, Traits>* reader_;
};

/**
 * A registered reader of one cell, made by snapshot_cell::reader(). Give each thread its own; keep it for the thread's life.
 *
 * read() is for short uses: it costs a load and a compare while nothing changes, and its result is valid until the next
 * call. pin() is for requests: one version from first to last layer. An idle reader keeps the version that it read
 * last from being destroyed, so call release() before a long wait.
 *
 * Successive reads of one reader never go back to an older version. After the cell is gone, reads give nullptr.
 *
 * @par Threads  Any thread may make one, and it may move to another thread (with the usual synchronisation of that move), but one
 *               thread at a time uses it. Different readers are independent. Never waits for publishers or other readers.
 *               A process that forks must not use in the child a cell made before.
 */
template <class T, class Traits>
class snapshot_reader {
  static_assert(detail::payload_rules<T>::hold);
  using control = detail::snapshot_control<T, Traits>;
  using node = typename control::node;
  using slot = typename control::slot;
  template <class U>
  using var = typename Traits::template var<U>;

 public:
  snapshot_reader(snapshot_reader&& other) noexcept { take(other); }
  snapshot_reader& operator=(snapshot_reader&& other) noexcept {
    if (this != &other) {
      unregister();
      take(other);
    }
    return *this;
  }

  /** Unregisters; the slot is used again by the next reader. @pre No pin of this reader exists (asserted when LORA_CHECKS >= 1). */
  ~snapshot_reader() { unregister(); }

  /** Whether this is a registered reader. A moved-from one is not, and may only be assigned to or destroyed. */
  [[nodiscard]] bool valid() const noexcept { return control_ != nullptr; }

  /**
   * The current version's value; inside a pin, the pinned one.
   *
   * @return nullptr if nothing was published, the current version has no value, or the cell is gone; otherwise valid until the
   *         next read(), release() or first pin() on this reader, the end of its last pin, or its end.
   * @par Cost  1 shared load while nothing was published since the last call; at most 6 shared operations afterwards. Wait-free,
   *            allocates and destroys nothing.
   */
  const T* read() noexcept {
    LORA_ASSERT(valid(), "snapshot_reader: read() on a moved-from reader");
    node* seen = control_->current_hint();  // R1
    if (seen != cached_.get()) [[unlikely]]
      refresh(seen);
    return value_.get();
  }

  /** The stamp of the version that the last read() gave, or of the pinned one; 0 before the first and after release(). */
  [[nodiscard]] lora::stamp stamp() const noexcept {
    node* n = cached_.get();
    return n == nullptr ? lora::stamp{} : n->stamp.get();
  }

  /** Holds one version, the current one unless a pin of this reader exists already. Ends what read() gave before. */
  [[nodiscard]] snapshot_pin<T, Traits> pin() noexcept {
    LORA_ASSERT(valid(), "snapshot_reader: pin() on a moved-from reader");
    return snapshot_pin<T, Traits>(*this);
  }

  /** Lets go of what read() gave; one shared store. @pre No pin of this reader exists (asserted when LORA_CHECKS >= 1). */
  void release() noexcept {
    LORA_ASSERT(valid(), "snapshot_reader: release() on a moved-from reader");
    LORA_ASSERT(depth_.get() == 0, "snapshot_reader: release() while pinned");
    forget();
  }

 private:
  friend class snapshot_cell<T, Traits>;
  friend class snapshot_pin<T, Traits>;

  snapshot_reader(control& c, const char* name) : control_(&c), slot_(c.claim_slot()) {
    c.add_handle();
    c.name_slot(*slot_, name);
  }

  void take(snapshot_reader& other) noexcept {
    LORA_ASSERT(other.depth_.get() == 0, "snapshot_reader: moved while pinned");
    control_ = std::exchange(other.control_, nullptr);
    slot_ = std::exchange(other.slot_, nullptr);
    cached_.set(other.cached_.get());
    value_.set(other.value_.get());
    other.cached_.set(nullptr);
    other.value_.set(nullptr);
  }

  void unregister() noexcept {
    if (control_ == nullptr) return;
    LORA_ASSERT(depth_.get() == 0, "snapshot_reader: destroyed or assigned to while pinned");
    forget();
    control_->unclaim_slot(*slot_);
    control_->drop_handle();
  }

  void enter() noexcept {
    if (depth_.get() == 0) protect(control_->current_hint());
    depth_.set(depth_.get() + 1);
  }

  void leave() noexcept {
    depth_.set(depth_.get() - 1);
    if (depth_.get() == 0) forget();
  }

  // Out of line: the way that is taken once a publication should not be copied into every loop that reads.
  [[gnu::noinline]] void refresh(node* seen) noexcept {
    // What another core has made travels while protect() waits for the slot: 5 to 10 % of a first read. An address suffices, it is not followed.
    __builtin_prefetch(seen);
    if (depth_.get() == 0) protect(seen);
  }

  void protect(node* seen) noexcept {
    node* now = control_->protect(*slot_, seen);
    cached_.set(now);
    value_.set(now == nullptr ? nullptr : now->value.get());
  }

  void forget() noexcept {
    control_->clear(*slot_);
    cached_.set(nullptr);
    value_.set(nullptr);
  }

  control* control_ = nullptr;
  slot* slot_ = nullptr;
  var<node*> cached_{nullptr};    // what the slot holds, so never a freed address
  var<const T*> value_{nullptr};  // its value, so that a steady read touches nothing but current_ and this object
  var<std::uint32_t> depth_{0};   // pins
};

}  // namespace lora::inline v0

#endif
