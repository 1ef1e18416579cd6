// SPDX-License-Identifier: Apache-2.0
//
// publish_within: publishes into a cell with a limit (limits.hpp), waiting for readers to let go if there is no room. The wait is the
// loader's; readers neither wait nor notice. A header of its own because of <thread> and <chrono>.
//
//   lora::publish_within(cell, payload, std::chrono::seconds(5));
#ifndef LORA_SNAPSHOT_PATIENCE_HPP
#define LORA_SNAPSHOT_PATIENCE_HPP

#include <lora/snapshot/cell.hpp>

#include <algorithm>
#include <chrono>
#include <thread>

namespace lora::inline v0 {

/**
 * cell.publish(payload), as soon as the cell's limit leaves room.
 *
 * @param patience  how long to wait for that
 * @return the new version's stamp
 * @throws pinned_error naming a holder of the oldest version that is in the way, when patience is over; std::bad_alloc. Nothing is published
 *         then and `payload` is still the caller's.
 * @par Cost  While it waits, one attempt after 50 us, then at intervals twice as long each, up to 10 ms: readers do not tell when they
 *            let go, which would cost each of them a shared operation.
 */
template <class T, class Traits>
lora::stamp publish_within(snapshot_cell<T, Traits>& cell, const snapshot_payload<T, Traits>& payload, std::chrono::nanoseconds patience) {
  using clock = std::chrono::steady_clock;
  const clock::time_point begin = clock::now();
  std::chrono::nanoseconds pause = std::chrono::microseconds(50);
  for (;;) {
    const snapshot_attempt attempt = cell.publish_if_room(payload);
    if (attempt) return attempt.given;
    const std::chrono::nanoseconds left = patience - (clock::now() - begin);
    if (left <= std::chrono::nanoseconds::zero()) detail::refuse_publication(cell.limits().max_retired, attempt.in_the_way);
    std::this_thread::sleep_for(std::min(pause, left));
    pause = std::min<std::chrono::nanoseconds>(2 * pause, std::chrono::milliseconds(10));
  }
}

}  // namespace lora::inline v0

#endif
