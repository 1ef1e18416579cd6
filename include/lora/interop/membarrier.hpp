// SPDX-License-Identifier: Apache-2.0
//
// membarrier_snapshot_traits: a snapshot cell whose pins cost two plain stores. The reader's sequentially consistent store, most of the price of a
// pin, becomes a release store that only the compiler may not move; the publisher has the kernel run a full barrier on every core that runs a
// thread of this process, membarrier(2), between its exchange and its look at the slots. Worth it where pins are many and publications few.
// Not here: the protocol, which is the same (snapshot/control.hpp; docs/snapshots.md has the argument and the tests).
//
//   lora::snapshot_cell<model, lora::membarrier_snapshot_traits> cell(model{...});
//   auto reader = cell.reader();
//   auto pin = reader.pin();                  // as always
//
// Linux 4.14 or later. Where the kernel or a seccomp filter refuses the call when a cell is made, that cell works as with std_snapshot_traits; where it
// refuses later, versions are published and read as ever but none is freed until it is granted again or the cell and its readers are gone.
#ifndef LORA_INTEROP_MEMBARRIER_HPP
#define LORA_INTEROP_MEMBARRIER_HPP

#include <lora/snapshot/traits.hpp>

#include <atomic>

#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace lora::inline v0 {

/**
 * std_snapshot_traits with asymmetric fences (C++ paper P1202: a light fence and a heavy one are ordered as two sequentially consistent fences are).
 *
 * @par Cost     Readers: R2 and R3 without their barrier. Publishers: a system call and an interrupt on each core that runs a thread of this process,
 *               after the new version is visible and under the publishers' lock.
 * @par Threads  Thread sanitizers do not see the kernel's barrier; they have nothing to see, as the orders of all uses and destructions
 *               are those of release stores and acquire loads.
 */
struct membarrier_snapshot_traits : std_snapshot_traits {
  static constexpr bool has_asymmetric_fences = true;

  /** Announces to the kernel that this process will call; may be repeated. The kernel keeps that, the library no state. */
  [[nodiscard]] static bool may_use_fences() noexcept {
    return ::syscall(__NR_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0;
  }

  static void light_fence() noexcept { std::atomic_signal_fence(std::memory_order_seq_cst); }

  [[nodiscard]] static bool heavy_fence() noexcept { return ::syscall(__NR_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0; }
};

}  // namespace lora::inline v0

#endif
