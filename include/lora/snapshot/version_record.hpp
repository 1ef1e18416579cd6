// SPDX-License-Identifier: Apache-2.0
//
// What a history tells about itself, as plain values: its versions, its events, who pins what, and history_picture, all of it at one
// moment, which the writers of JSON and SVG take (interop/history_json.hpp, interop/history_svg.hpp). Also the options of a history and
// the answer of an attempt to publish. Not here: the history (history.hpp).
//
//   for (const lora::version_record& v : history.picture().versions) std::printf("%s\n", v.facts.source.c_str());
#ifndef LORA_SNAPSHOT_VERSION_RECORD_HPP
#define LORA_SNAPSHOT_VERSION_RECORD_HPP

#include <lora/snapshot/metrics.hpp>
#include <lora/snapshot/validated.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace lora::inline v0 {

/** Times are shown to people, so they come from the wall clock; durations never do. */
using wall_time = std::chrono::system_clock::time_point;

enum class version_status : std::uint8_t {
  current,  // what readers get
  kept,     // replaced; its payload is here to go back to
  dropped,  // replaced; only the record is left
};

[[nodiscard]] constexpr const char* name_of(version_status status) noexcept {
  constexpr const char* names[] = {"current", "kept", "dropped"};
  return names[static_cast<std::size_t>(status)];
}

/** One version of a history. */
struct version_record {
  lora::stamp stamp{};
  lora::stamp parent{};          // what it was made from: the version that was current, or the one gone back to; 0 for the first
  lora::stamp replaced{};        // what was current before
  lora::stamp rolled_back_to{};  // not 0: it holds the payload of this version again
  wall_time created{};
  version_facts facts{};
  std::optional<double> health{};  // 0 bad .. 1 good; nothing: never judged
  version_status status = version_status::kept;
  bool keep = false;           // retention leaves it alone
  std::size_t named_pins = 0;  // of this version, not of others with the same payload
  std::size_t holders = 0;     // handles on the payload beside the history's: the cell's while readers may use it, pins, the callers' own
};

enum class history_event_kind : std::uint8_t {
  published,
  rolled_back,
  lost_race,    // `version`: what was current instead
  load_failed,  // `version`: what was current and stays so
  dropped,
  judged,    // health was set
  decision,  // of a canary or an operator, in the text
};

[[nodiscard]] constexpr const char* name_of(history_event_kind kind) noexcept {
  constexpr const char* names[] = {"published", "rolled_back", "lost_race", "load_failed", "dropped", "judged", "decision"};
  return names[static_cast<std::size_t>(kind)];
}

struct history_event {
  std::uint64_t number = 0;  // from 1, without gaps
  wall_time at{};
  history_event_kind kind = history_event_kind::decision;
  lora::stamp version{};
  std::string source{};  // of what was published, lost or failed
  std::string text{};
};

/** A named pin: who holds which version since when. The cell's own pins have no names: they show in version_record::holders alone. */
struct pin_record {
  std::string who;
  lora::stamp version{};
  wall_time since{};
};

/** Everything at one moment. */
struct history_picture {
  std::vector<version_record> versions;  // by stamp
  std::vector<history_event> events;     // by number; the oldest may have been forgotten
  std::vector<pin_record> pins;          // by time
  lora::stamp current{};
  std::optional<version_facts> standby;
  std::size_t held_bytes = 0;
  std::size_t budget_bytes = 0;
};

struct history_options {
  std::size_t keep_last = 8;        // versions with a payload, the current one included; at least 1
  std::size_t byte_budget = 0;      // for all payloads that are alive; 0: none
  std::size_t keep_records = 1024;  // of versions; those that hold a payload are never forgotten
  std::size_t keep_events = 1024;
  double healthy = 0.5;  // a score from here on makes a version one to go back to
  std::function<wall_time()> now = [] { return std::chrono::system_clock::now(); };
  stage_clock::ticks ticks = stage_clock::steady;  // for durations
  // Bytes that the heap holds: mallinfo2().uordblks, jemalloc's stats.allocated, ... Asked before and after each load(); as the clocks,
  // it must not use the history, nor throw.
  std::function<std::size_t()> heap{};
};

enum class publish_outcome : std::uint8_t {
  published,
  on_standby,       // checked and held, one exchange away: the answer of set_standby()
  lost_race,        // another version is current than the expected one
  unknown_version,  // no record of that stamp
  payload_dropped,  // retention let go of it
  none_healthy,     // nothing to go back to
  over_budget,
  nothing_on_standby,
  load_failed,
};

/** The answer to an attempt to publish. True if it did what was asked for; otherwise nothing changed and `what` says why. */
struct publish_result {
  publish_outcome outcome = publish_outcome::published;
  lora::stamp stamp{};    // the new version's; 0 if there is none
  lora::stamp current{};  // at that moment
  std::string what{};
  [[nodiscard]] explicit operator bool() const noexcept {
    return outcome == publish_outcome::published || outcome == publish_outcome::on_standby;
  }
};

struct publish_options {
  std::optional<lora::stamp> expected{};  // publish only if this one is current; stamp 0: if nothing is
  std::optional<lora::stamp> parent{};    // what it was made from, if not from the current version: a branch
};

}  // namespace lora::inline v0

#endif
