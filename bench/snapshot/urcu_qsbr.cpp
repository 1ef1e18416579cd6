// SPDX-License-Identifier: Apache-2.0
//
// liburcu's quiescent-state flavour. A read is a bare load: nothing holds the version but the promise to say, now and then, that none is in use.
#include "snapshot.hpp"

#if defined(LORA_BENCH_HAVE_URCU)
#define URCU_INLINE_SMALL_FUNCTIONS
#include <urcu/urcu-qsbr.h>
#endif

namespace bench {

#if defined(LORA_BENCH_HAVE_URCU)
namespace {

struct qsbr_peer {
  static constexpr const char* name = "liburcu qsbr";
  static constexpr const char* kind = "use; a quiescent state every 256 uses";
  explicit qsbr_peer(std::unique_ptr<version> first) : current(first.release()) {}
  qsbr_peer(const qsbr_peer&) = delete;
  qsbr_peer& operator=(const qsbr_peer&) = delete;
  ~qsbr_peer() { delete current; }
  void publish(std::unique_ptr<version> next) {
    version* old = rcu_xchg_pointer(&current, next.release());
    urcu_qsbr_synchronize_rcu();
    delete old;
  }
  struct reader {
    explicit reader(qsbr_peer& peer) : p(peer) { urcu_qsbr_register_thread(); }
    reader(const reader&) = delete;
    reader& operator=(const reader&) = delete;
    ~reader() { urcu_qsbr_unregister_thread(); }
    std::uint64_t use() {
      if (++since == 256) {
        urcu_qsbr_quiescent_state();
        since = 0;
      }
      return rcu_dereference(p.current)->use();
    }
    qsbr_peer& p;
    int since = 0;
  };
  version* current;
};

}  // namespace

void add_urcu_qsbr(std::vector<peer>& to) { to.push_back(reads_of<qsbr_peer>()); }
#else
void add_urcu_qsbr(std::vector<peer>&) {}
#endif

}  // namespace bench
