// SPDX-License-Identifier: Apache-2.0
#include "snapshot.hpp"

#include <lora/interop/membarrier.hpp>
#include <lora/snapshot/cell.hpp>

#include <utility>

namespace bench {
namespace {

template <class Traits>
struct cell_peer {
  explicit cell_peer(std::unique_ptr<version> first) : cell(std::move(*first)) {}
  void publish(std::unique_ptr<version> next) { cell.publish(std::move(*next)); }
  lora::snapshot_cell<version, Traits> cell;
};

struct sticky : cell_peer<lora::std_snapshot_traits> {
  using cell_peer::cell_peer;
  static constexpr const char* name = "lora read()";
  static constexpr const char* kind = "read, use";
  struct reader {
    explicit reader(sticky& s) : r(s.cell.reader()) {}
    std::uint64_t use() { return r.read()->use(); }
    lora::snapshot_reader<version> r;
  };
};

struct again : sticky {  // the same once more: what a difference of nothing looks like
  using sticky::sticky;
  static constexpr const char* name = "lora read() again";
};

template <class Traits>
struct pinning : cell_peer<Traits> {
  using cell_peer<Traits>::cell_peer;
  static constexpr const char* name = Traits::has_asymmetric_fences ? "lora pin(), membarrier" : "lora pin()";
  static constexpr const char* kind = "pin, use, unpin";
  struct reader {
    explicit reader(pinning& s) : r(s.cell.reader()) {}
    std::uint64_t use() { return r.pin()->use(); }
    lora::snapshot_reader<version, Traits> r;
  };
};

}  // namespace

void add_lora(std::vector<peer>& to) {
  to.push_back(reads_of<sticky>());
  to.push_back(reads_of<again>());
  to.push_back(reads_of<pinning<lora::std_snapshot_traits>>());
  to.push_back(reads_of<pinning<lora::membarrier_snapshot_traits>>());
}

}  // namespace bench
