// SPDX-License-Identifier: Apache-2.0
//
// liburcu's general flavour and its quiescent-state one, with their readers inlined (_LGPL_SOURCE: this file is for measuring, and its licence lets it).
// URCU_INLINE_SMALL_FUNCTIONS is not enough: with liburcu 0.13 read_lock and read_unlock of the general flavour stay calls, at ten times the price.
// A read of the second is a bare load: nothing holds the version but the promise to say, now and then, that none is in use.
#include "snapshot.hpp"

#if defined(LORA_BENCH_HAVE_URCU)
#define _LGPL_SOURCE
#include <urcu/urcu-memb.h>
#include <urcu/urcu-qsbr.h>
#endif

namespace bench {

#if defined(LORA_BENCH_HAVE_URCU)
namespace {

struct memb {
  static constexpr const char* name = "liburcu memb";
  static constexpr const char* kind = "read_lock, use, read_unlock";
  static void synchronize() { urcu_memb_synchronize_rcu(); }
  memb() { urcu_memb_register_thread(); }
  memb(const memb&) = delete;
  memb& operator=(const memb&) = delete;
  ~memb() { urcu_memb_unregister_thread(); }
  std::uint64_t use(version*& current) {
    urcu_memb_read_lock();
    const std::uint64_t v = rcu_dereference(current)->use();
    urcu_memb_read_unlock();
    return v;
  }
};

struct qsbr {
  static constexpr const char* name = "liburcu qsbr";
  static constexpr const char* kind = "use; a quiescent state every 256 uses";
  static void synchronize() { urcu_qsbr_synchronize_rcu(); }
  qsbr() { urcu_qsbr_register_thread(); }
  qsbr(const qsbr&) = delete;
  qsbr& operator=(const qsbr&) = delete;
  ~qsbr() { urcu_qsbr_unregister_thread(); }
  std::uint64_t use(version*& current) {
    if (++since == 256) {
      urcu_qsbr_quiescent_state();
      since = 0;
    }
    return rcu_dereference(current)->use();
  }
  int since = 0;
};

/** A flavour is what a thread has while it is registered. */
template <class Flavour>
struct urcu_peer {
  static constexpr const char* name = Flavour::name;
  static constexpr const char* kind = Flavour::kind;
  explicit urcu_peer(std::unique_ptr<version> first) : current(first.release()) {}
  urcu_peer(const urcu_peer&) = delete;
  urcu_peer& operator=(const urcu_peer&) = delete;
  ~urcu_peer() { delete current; }
  void publish(std::unique_ptr<version> next) {
    version* old = rcu_xchg_pointer(&current, next.release());
    Flavour::synchronize();
    delete old;
  }
  struct reader {
    explicit reader(urcu_peer& peer) : p(peer) {}
    std::uint64_t use() { return thread.use(p.current); }
    urcu_peer& p;
    Flavour thread;
  };
  version* current;
};

}  // namespace

void add_urcu(std::vector<peer>& to) {
  to.push_back(reads_of<urcu_peer<memb>>());
  to.push_back(reads_of<urcu_peer<qsbr>>());
}
#else
void add_urcu(std::vector<peer>&) {}
#endif

}  // namespace bench
