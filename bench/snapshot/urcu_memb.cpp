// SPDX-License-Identifier: Apache-2.0
//
// liburcu's general flavour; its inline functions (URCU_INLINE_SMALL_FUNCTIONS), as its manual recommends for programs that may use them.
#include "snapshot.hpp"

#if defined(LORA_BENCH_HAVE_URCU)
#define URCU_INLINE_SMALL_FUNCTIONS
#include <urcu/urcu-memb.h>
#endif

namespace bench {

#if defined(LORA_BENCH_HAVE_URCU)
namespace {

struct memb_peer {
  static constexpr const char* name = "liburcu memb";
  static constexpr const char* kind = "read_lock, use, read_unlock";
  explicit memb_peer(std::unique_ptr<version> first) : current(first.release()) {}
  memb_peer(const memb_peer&) = delete;
  memb_peer& operator=(const memb_peer&) = delete;
  ~memb_peer() { delete current; }
  void publish(std::unique_ptr<version> next) {
    version* old = rcu_xchg_pointer(&current, next.release());
    urcu_memb_synchronize_rcu();
    delete old;
  }
  struct reader {
    explicit reader(memb_peer& peer) : p(peer) { urcu_memb_register_thread(); }
    reader(const reader&) = delete;
    reader& operator=(const reader&) = delete;
    ~reader() { urcu_memb_unregister_thread(); }
    std::uint64_t use() {
      urcu_memb_read_lock();
      const std::uint64_t v = rcu_dereference(p.current)->use();
      urcu_memb_read_unlock();
      return v;
    }
    memb_peer& p;
  };
  version* current;
};

}  // namespace

void add_urcu_memb(std::vector<peer>& to) { to.push_back(reads_of<memb_peer>()); }
#else
void add_urcu_memb(std::vector<peer>&) {}
#endif

}  // namespace bench
