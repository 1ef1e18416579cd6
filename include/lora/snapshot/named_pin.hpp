// SPDX-License-Identifier: Apache-2.0
//
// named_pin: one version, held by somebody with a name: a tenant, a job, a long request. The history lists the names, so that "who keeps
// version 7, since when" has an answer. It takes a lock, so it is not for each request: those take the cell's wait-free pins.
//
//   auto pin = history.pin("tenant acme");  use(*pin);  pin.stamp();
#ifndef LORA_SNAPSHOT_NAMED_PIN_HPP
#define LORA_SNAPSHOT_NAMED_PIN_HPP

#include <lora/snapshot/version_record.hpp>

#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace lora::inline v0 {

namespace detail {

/** The names of all pins of one history; outlives it while a pin does. */
class pin_registry {
 public:
  using place = std::list<pin_record>::iterator;

  [[nodiscard]] place add(pin_record pin) {
    std::list<pin_record> one;
    one.push_back(std::move(pin));
    std::lock_guard<std::mutex> lock(mutex_);
    pins_.splice(pins_.end(), one);
    return std::prev(pins_.end());
  }
  void remove(place at) noexcept {
    std::list<pin_record> gone;
    std::lock_guard<std::mutex> lock(mutex_);
    gone.splice(gone.end(), pins_, at);
  }
  [[nodiscard]] std::vector<pin_record> all() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return {pins_.begin(), pins_.end()};
  }
  [[nodiscard]] std::size_t count(lora::stamp version) const noexcept {
    std::lock_guard<std::mutex> lock(mutex_);
    std::size_t n = 0;
    for (const pin_record& p : pins_) n += p.version == version ? 1u : 0u;
    return n;
  }

 private:
  mutable std::mutex mutex_;
  std::list<pin_record> pins_;
};

}  // namespace detail

/**
 * Holds a version under a name until it goes. Made by history::pin(). May outlive the history; while that lives, a pin never destroys
 * the payload: the history keeps it until collect() or a publication finds it unused.
 *
 * @par Threads  As any plain object; may be moved to another thread.
 */
template <class T, class Traits = std_snapshot_traits>
class named_pin {
 public:
  named_pin(named_pin&& other) noexcept
      : registry_(std::move(other.registry_)), place_(other.place_), payload_(std::move(other.payload_)), stamp_(other.stamp_) {}
  named_pin& operator=(named_pin&& other) noexcept {
    if (this != &other) {
      unpin();
      registry_ = std::move(other.registry_);
      place_ = other.place_;
      payload_ = std::move(other.payload_);
      stamp_ = other.stamp_;
    }
    return *this;
  }
  ~named_pin() { unpin(); }

  /** nullptr after a move. */
  [[nodiscard]] const T* get() const noexcept { return payload_.get(); }
  [[nodiscard]] const T& operator*() const noexcept { return *payload_; }
  [[nodiscard]] const T* operator->() const noexcept { return payload_.get(); }
  [[nodiscard]] lora::stamp stamp() const noexcept { return stamp_; }

 private:
  template <class, class>
  friend class history;
  named_pin(std::shared_ptr<detail::pin_registry> registry, pin_record pin, snapshot_payload<T, Traits> payload)
      : registry_(std::move(registry)), payload_(std::move(payload)), stamp_(pin.version) {
    place_ = registry_->add(std::move(pin));
  }

  void unpin() noexcept {
    payload_ = {};  // first: who sees no name sees no hold either
    if (registry_ != nullptr) registry_->remove(place_);
    registry_.reset();
  }

  std::shared_ptr<detail::pin_registry> registry_;
  detail::pin_registry::place place_{};
  snapshot_payload<T, Traits> payload_;
  lora::stamp stamp_{};
};

}  // namespace lora::inline v0

#endif
