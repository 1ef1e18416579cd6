// SPDX-License-Identifier: Apache-2.0
//
// The designs that programs begin with: a pointer behind a mutex, weights that are overwritten under a readers-writer lock (what the
// cell replaces), and the standard's atomic pointer.
#include "snapshot.hpp"

#include <mutex>
#include <shared_mutex>
#include <utility>

namespace bench {
namespace {

struct mutex_peer {
  static constexpr const char* name = "mutex + shared_ptr";
  static constexpr const char* kind = "lock, copy the pointer, unlock, use, drop";
  explicit mutex_peer(std::unique_ptr<version> first) : current(std::move(first)) {}
  void publish(std::unique_ptr<version> next) {
    std::shared_ptr<const version> fresh = std::move(next);
    std::lock_guard lock(m);
    current.swap(fresh);
  }
  struct reader {
    explicit reader(mutex_peer& peer) : p(peer) {}
    std::uint64_t use() {
      std::shared_ptr<const version> mine;
      {
        std::lock_guard lock(p.m);
        mine = p.current;
      }
      return mine->use();
    }
    mutex_peer& p;
  };
  std::mutex m;
  std::shared_ptr<const version> current;
};

struct copying_peer {
  static constexpr const char* name = "shared_mutex, copied into";
  static constexpr const char* kind = "lock shared, use, unlock";
  explicit copying_peer(std::unique_ptr<version> first) : current(*first) {}
  void publish(std::unique_ptr<version> next) {
    std::unique_lock lock(m);
    current = *next;
  }
  struct reader {
    explicit reader(copying_peer& peer) : p(peer) {}
    std::uint64_t use() {
      std::shared_lock lock(p.m);
      return p.current.use();
    }
    copying_peer& p;
  };
  std::shared_mutex m;
  version current;
};

struct atomic_peer {
  static constexpr const char* name = "atomic<shared_ptr>";
  static constexpr const char* kind = "load, use, drop";
  explicit atomic_peer(std::unique_ptr<version> first) : current(std::shared_ptr<const version>(std::move(first))) {}
  void publish(std::unique_ptr<version> next) { current.store(std::move(next)); }
  struct reader {
    explicit reader(atomic_peer& peer) : p(peer) {}
    std::uint64_t use() { return p.current.load()->use(); }
    atomic_peer& p;
  };
  std::atomic<std::shared_ptr<const version>> current;
};

}  // namespace

void add_locks(std::vector<peer>& to) {
  to.push_back(reads_of<mutex_peer>());
  to.push_back(reads_of<copying_peer>());
  to.push_back(reads_of<atomic_peer>());
}

}  // namespace bench
