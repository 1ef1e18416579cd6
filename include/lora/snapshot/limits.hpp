// SPDX-License-Identifier: Apache-2.0
//
// What a cell holds on to, and how much it may: back-pressure for loaders that are faster than the slowest reader. Only publishers look
// here; a reader neither waits nor counts because of a limit. Not here: waiting (patience.hpp), budgets in bytes over versions that are
// kept on purpose (history.hpp).
//
//   lora::snapshot_cell<model> cell(lora::snapshot_limits{.max_retired = 2});
//   auto reader = cell.reader("nightly evaluation");              // the name is for the sentence of the error
//   lora::publish_within(cell, next, std::chrono::seconds(5));    // patience.hpp: waits, then pinned_error says who holds which version
#ifndef LORA_SNAPSHOT_LIMITS_HPP
#define LORA_SNAPSHOT_LIMITS_HPP

#include <lora/core/error.hpp>
#include <lora/snapshot/payload.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace lora::inline v0 {

/** What a cell did so far, and what it holds now. One consistent picture, taken under the publishers' lock. */
struct snapshot_counters {
  std::uint64_t published = 0;  // versions published since the cell was made
  std::uint64_t destroyed = 0;  // versions taken out for destruction; the last of them may still be on its way
  std::size_t retired = 0;      // replaced, but still pinned or shared, or not collected yet
  std::size_t live = 0;         // retired, and the current one if there is one
};

/** What publications of a cell must leave room for. */
struct snapshot_limits {
  std::size_t max_retired = 0;  // replaced versions that somebody still uses; 0: any number
};

/** A publication that was refused because readers still use too many replaced versions. Nothing changed; try again later. */
class pinned_error : public error {
 public:
  using error::error;
};

/** Who uses a replaced version, as of a moment ago. */
struct snapshot_hold {
  lora::stamp version{};         // 0: a reader in the middle of a read, which may get hold of any
  const char* reader = nullptr;  // the name that it was registered with; null: it has none, or it is shares that hold the version
  std::uint32_t shares = 0;      // not 0: no reader, but so many shares
};

/** The answer of snapshot_cell::publish_if_room(). */
struct snapshot_attempt {
  lora::stamp given{};         // 0: there was no room, nothing changed
  snapshot_hold in_the_way{};  // then
  [[nodiscard]] explicit operator bool() const noexcept { return given != lora::stamp{}; }
};

namespace detail {

// The parameter only tags the symbol, as that of raise().
template <bool Throws = static_cast<bool>(LORA_HAS_EXCEPTIONS)>
[[noreturn, gnu::cold, gnu::noinline]] void refuse_publication(std::size_t max_retired, const snapshot_hold& by) {
  text t;
  t << "publish: " << max_retired << (max_retired == 1 ? " replaced version is" : " replaced versions are")
    << " still in use, which is all that max_retired allows; ";
  if (by.version == lora::stamp{})
    t << "a read is under way in";
  else
    t << "version " << by.version.value << " is held by";
  if (by.shares != 0)
    t << " " << by.shares << (by.shares == 1 ? " share" : " shares");
  else if (by.reader != nullptr)
    t << " reader " << quoted{by.reader, std::strlen(by.reader)};
  else
    t << " a reader without a name (name it: cell.reader(\"...\"))";
  t << "; nothing was published";
  raise<pinned_error, Throws>(t);
}

}  // namespace detail

}  // namespace lora::inline v0

#endif
