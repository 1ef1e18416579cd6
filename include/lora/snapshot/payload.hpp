// SPDX-License-Identifier: Apache-2.0
//
// What is published: `snapshot_payload`, a counted handle on one immutable T, and `snapshot_version`, a payload together
// with the stamp it was published under. Several versions may share a payload: that is what a rollback does.
// Also the record of it that a cell links up (detail::snapshot_node). Not here: the cell (cell.hpp) and its readers (reader.hpp).
//
//   auto payload = lora::make_payload<model>(weights, scale);   // all the work that can fail happens here
//   lora::stamp first = cell.publish(payload);                  // one exchange
#ifndef LORA_SNAPSHOT_PAYLOAD_HPP
#define LORA_SNAPSHOT_PAYLOAD_HPP

#include <lora/config.hpp>
#include <lora/snapshot/traits.hpp>

#include <atomic>
#include <compare>
#include <cstdint>
#include <type_traits>
#include <utility>

namespace lora::inline v0 {

/**
 * The number of a version within its cell. The first publication gets 1, each later one the next number; 0 means "nothing
 * published". Stamps of different cells have nothing to do with each other.
 */
struct stamp {
  std::uint64_t value = 0;
  friend constexpr auto operator<=>(const stamp&, const stamp&) noexcept = default;
};

namespace detail {

// One sentence for each misuse, in one place for all the templates that take a T.
template <class T>
struct payload_rules {
  static_assert(!std::is_reference_v<T>,
                "lora snapshots: T is a reference; publish an object that owns what readers will see, for example snapshot_cell<model>.");
  static_assert(std::is_reference_v<T> || std::is_object_v<T>, "lora snapshots: T is not an object type; publish a class or a scalar.");
  static_assert(!std::is_array_v<T>, "lora snapshots: T is an array; publish a std::array or a std::vector.");
  static_assert(!std::is_const_v<T> && !std::is_volatile_v<T>,
                "lora snapshots: T is const or volatile; write the plain type, readers get a pointer to const anyway.");
  static constexpr bool hold = true;
};

template <class T, class... Args>
[[nodiscard]] T construct_payload(Args&&... args) {
  static_assert(std::is_constructible_v<T, Args...> || std::is_aggregate_v<T>,
                "lora snapshots: T cannot be constructed from these arguments.");
  if constexpr (std::is_constructible_v<T, Args...>)
    return T(std::forward<Args>(args)...);
  else
    return T{std::forward<Args>(args)...};  // aggregates: clang 14 has no parenthesised form
}

template <class T, class Traits>
struct payload_block {
  static_assert(std::is_nothrow_destructible_v<T>,
                "lora snapshots: T cannot be destroyed without throwing; versions are destroyed by collect() and publish(), which cannot "
                "report it. Give T a public, noexcept destructor.");

  template <class... Args>
  explicit payload_block(std::in_place_t, Args&&... args) : value(construct_payload<T>(std::forward<Args>(args)...)) {}

  typename Traits::template atomic<std::uint32_t> owners{1};
  const T value;
};

}  // namespace detail

/**
 * A counted handle on one immutable T.
 * Copies share the object; the handle that goes last destroys it, on its own thread. Keep handles where destruction may
 * happen, beside the publisher; readers use pins and shares, which never destroy while the cell lives.
 *
 * @par Cost     One atomic addition a copy, one subtraction a destruction, nothing to move or to read.
 * @par Threads  Different handles on the same object may be used by different threads; one handle is like any plain object.
 */
template <class T, class Traits = std_snapshot_traits>
class snapshot_payload {
  static_assert(detail::payload_rules<T>::hold);
  using block = detail::payload_block<T, Traits>;

 public:
  /** An empty handle. Published, it makes a version without a value: readers see nullptr under a new stamp. */
  constexpr snapshot_payload() noexcept = default;

  snapshot_payload(const snapshot_payload& other) noexcept : block_(other.block_) {
    // Relaxed: `other` keeps the object alive, and nothing is learnt from the count.
    if (block_ != nullptr) block_->owners.fetch_add(1, std::memory_order::relaxed);
  }

  snapshot_payload(snapshot_payload&& other) noexcept : block_(std::exchange(other.block_, nullptr)) {}

  snapshot_payload& operator=(snapshot_payload other) noexcept {
    std::swap(block_, other.block_);
    return *this;
  }

  ~snapshot_payload() {
    if (block_ == nullptr) return;
    // Release: pairs with the acquire half of the last such subtraction, so that the uses made through this handle happen
    // before the destruction there.
    constexpr std::memory_order order = Traits::template order<snapshot_site::payload_drop, std::memory_order::acq_rel>;
    if (block_->owners.fetch_sub(1, order) == 1) Traits::destroy(block_);
  }

  [[nodiscard]] const T* get() const noexcept { return block_ == nullptr ? nullptr : &block_->value; }
  [[nodiscard]] const T& operator*() const noexcept { return *checked(); }
  [[nodiscard]] const T* operator->() const noexcept { return checked(); }
  [[nodiscard]] explicit operator bool() const noexcept { return block_ != nullptr; }

  /**
   * How many handles share the object, this one included; 0 for an empty handle. A moment old, except that 1 is final when the caller
   * lets nobody else reach this handle.
   */
  [[nodiscard]] std::uint32_t use_count() const noexcept {
    // Relaxed: for counting. Who destroys on the strength of a 1 does so through the destructor, which acquires.
    return block_ == nullptr ? 0 : block_->owners.load(std::memory_order::relaxed);
  }

  /** Whether both are handles on the same object (or both are empty). */
  friend bool operator==(const snapshot_payload& a, const snapshot_payload& b) noexcept { return a.block_ == b.block_; }

 private:
  template <class U, class UTraits, class... Args>
  friend snapshot_payload<U, UTraits> make_payload(Args&&... args);

  explicit snapshot_payload(block* owned) noexcept : block_(owned) {}

  [[nodiscard]] const T* checked() const noexcept {
    LORA_ASSERT(block_ != nullptr, "snapshot_payload: empty handle dereferenced");
    return &block_->value;
  }

  block* block_ = nullptr;
};

/**
 * Builds a T in place and returns the first handle on it.
 *
 * @param args  passed to T's constructor, or to its braces if T is an aggregate
 * @throws what the constructor of T throws, and std::bad_alloc.
 * @par Cost  One allocation.
 */
template <class T, class Traits = std_snapshot_traits, class... Args>
[[nodiscard]] snapshot_payload<T, Traits> make_payload(Args&&... args) {
  static_assert(detail::payload_rules<T>::hold);
  using block = detail::payload_block<T, Traits>;
  return snapshot_payload<T, Traits>(Traits::template create<block>(std::in_place, std::forward<Args>(args)...));
}

/**
 * One published version, as a value to keep: what a history stores and what a rollback is given.
 * It owns its payload as any snapshot_payload does; it holds no slot and does not delay the cell's own reclamation.
 */
template <class T, class Traits = std_snapshot_traits>
struct snapshot_version {
  lora::stamp stamp{};           // 0: nothing was published
  lora::stamp parent{};          // the version that it replaced; 0 for the first
  lora::stamp rolled_back_to{};  // not 0: a rollback, to the version with this stamp
  snapshot_payload<T, Traits> payload{};
};

namespace detail {

/** One version. Everything but `owners` and the collector's two fields is written before it is published, and never again. */
template <class T, class Traits>
struct snapshot_node {
  template <class U>
  using var = typename Traits::template var<U>;

  snapshot_node(snapshot_payload<T, Traits> what, lora::stamp back_to) noexcept
      : payload(std::move(what)), value(payload.get()), rolled_back_to(back_to) {}

  [[nodiscard]] snapshot_version<T, Traits> version() const noexcept { return {stamp.get(), parent.get(), rolled_back_to.get(), payload}; }

  snapshot_payload<T, Traits> payload;
  var<const T*> value;  // payload.get(), one load nearer to the readers
  var<lora::stamp> stamp;
  var<lora::stamp> parent;
  var<lora::stamp> rolled_back_to;

  typename Traits::template atomic<std::uint32_t> owners{0};  // shares

  // Only touched under the publishers' lock, and by whoever took the node out of the retired list.
  var<snapshot_node*> next{nullptr};
  var<bool> used{false};
};

}  // namespace detail

}  // namespace lora::inline v0

#endif
