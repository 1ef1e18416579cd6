// SPDX-License-Identifier: Apache-2.0
//
// route_table: which version answers which request. It owns its versions, so it can never name one that is gone, and it is immutable: publish it
// through a cell, or through a history<route_table<T>>, whose rollback then brings the previous shares back.
// Not here: deciding about shares (canary.hpp), the versions themselves (history.hpp).
//
//   lora::route_table<model> table({{.id = 1, .payload = h.payload(s1)},
//                                   {.id = 2, .payload = h.payload(s2), .status = lora::route_status::staging, .weight = 0.05}}, {}, salt);
//   const auto* route = pinned_table->choose(lora::stable_hash(user, salt));     // use *route->payload while the table is pinned
#ifndef LORA_SNAPSHOT_ROUTES_HPP
#define LORA_SNAPSHOT_ROUTES_HPP

#include <lora/core/error.hpp>
#include <lora/snapshot/payload.hpp>
#include <lora/snapshot/stable_hash.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

namespace lora::inline v0 {

enum class route_status : std::uint8_t {
  staging,     // takes traffic only by a weight that is written down
  active,      // takes weight 1 unless another one is given
  deprecated,  // finishes what it began; takes nothing new
};

/** An entry of a route_table. */
template <class T, class Traits = std_snapshot_traits>
struct route {
  std::uint64_t id = 0;  // decides, with the key, who goes here: keep it when the payload or the weight changes
  snapshot_payload<T, Traits> payload{};
  lora::stamp version{};  // of the payload in its history; for logs
  route_status status = route_status::active;
  std::optional<double> weight{};  // 0 .. 1, and only relative to the other weights; none: 1 if active, else 0
};

/** All requests of one tenant go to one entry, whatever the weights. */
struct tenant_route {
  std::uint64_t tenant = 0;  // stable_hash of its name
  std::uint64_t id = 0;      // of the entry
};

enum class route_refusal : std::uint8_t { none, unknown, deprecated };

/** The answer to a request for one entry. */
template <class T, class Traits = std_snapshot_traits>
struct route_choice {
  const route<T, Traits>* chosen = nullptr;  // null when refused; valid as long as the table
  route_refusal refusal = route_refusal::none;
  [[nodiscard]] explicit operator bool() const noexcept { return chosen != nullptr; }
  [[nodiscard]] const char* what() const noexcept {
    return refusal == route_refusal::unknown      ? "routes: the table has no entry of this id"
           : refusal == route_refusal::deprecated ? "routes: this entry is deprecated and takes no new requests; those under way finish"
                                                  : "";
  }
};

/**
 * Entries with weights. A key chooses by weighted rendezvous (Thaler, Ravishankar 1998; with logarithms after Schindelhauer, Schomaker 2005): entry i
 * draws e_i = -log2(u_i), u_i = hash(key, id_i) / 2^64, and the smallest e_i / w_i wins, which is entry i with probability
 * w_i / (sum of the weights).
 *
 * Sticky: the same key and weights, the same entry. Monotone: e_i does not depend on the weights, so raising w_i lowers e_i / w_i and changes no
 * other quotient; the order among the others stays, and a key moves to i or not at all. Likewise a key leaves only i when w_i falls.
 * All of it in integers, ties by id, so this holds exactly.
 *
 * @par Threads  Immutable.
 */
template <class T, class Traits = std_snapshot_traits>
class route_table {
 public:
  using route_type = route<T, Traits>;
  using choice_type = route_choice<T, Traits>;

  /**
   * @param entries    ids differ
   * @param overrides  tenants differ, each names an entry that is not deprecated
   * @throws value_error naming the entry: an empty payload, a weight outside [0, 1] or not a number, a weight on a deprecated entry, an id that comes
   *         twice, an override of nothing; also when no entry takes traffic.
   */
  explicit route_table(std::vector<route_type> entries, std::vector<tenant_route> overrides = {}, std::uint64_t salt = 0)
      : entries_(std::move(entries)), overrides_(std::move(overrides)), salt_(salt) {
    std::sort(entries_.begin(), entries_.end(), [](const route_type& a, const route_type& b) { return a.id < b.id; });
    std::uint64_t total = 0;
    for (std::size_t i = 0; i < entries_.size(); ++i) {
      const route_type& e = entries_[i];
      if (i != 0 && e.id == entries_[i - 1].id) refuse(e.id, "comes twice");
      if (!e.payload) refuse(e.id, "has no payload (its history may have dropped it)");
      if (e.weight && !(*e.weight >= 0 && *e.weight <= 1)) refuse(e.id, "has a weight outside [0, 1]");
      if (e.status == route_status::deprecated && e.weight.value_or(0) > 0) refuse(e.id, "is deprecated and cannot have a weight");
      draws_.push_back({fixed(e.weight.value_or(e.status == route_status::active ? 1.0 : 0.0)), mix64(e.id + 0x9e3779b97f4a7c15u)});
      total += draws_.back().weight;
    }
    if (total == 0)
      detail::raise<value_error>(detail::text() << "routes: no entry takes traffic; give an active or staging entry a weight above 0");
    std::sort(overrides_.begin(), overrides_.end(), [](const tenant_route& a, const tenant_route& b) { return a.tenant < b.tenant; });
    for (std::size_t i = 0; i < overrides_.size(); ++i) {
      const tenant_route& o = overrides_[i];
      if (i != 0 && o.tenant == overrides_[i - 1].tenant) refuse(o.id, "is one of two overrides of the same tenant");
      const choice_type c = find(o.id);
      if (!c)
        refuse(o.id, c.refusal == route_refusal::unknown ? "is the override of a tenant, but not in the table"
                                                         : "is deprecated and the override of a tenant");
    }
  }

  /** The entry for a key: never one with weight 0. @param key  stable_hash(name, salt()). @par Cost  About 30 multiplications an entry. */
  [[nodiscard]] const route_type* choose(std::uint64_t key) const noexcept {
    std::size_t best = draws_.size();
    std::uint64_t best_draw = 0;
    for (std::size_t i = 0; i < draws_.size(); ++i) {
      if (draws_[i].weight == 0) continue;  // it could not win anyway; this saves its logarithm
      const std::uint64_t draw = detail::minus_log2(mix64(key ^ draws_[i].seed));
      // draw / weight < best_draw / best_weight, without division: at most 65 * 2^26 * 2^30 < 2^63. Entries are by id, so a tie stays.
      if (best == draws_.size() || draw * draws_[best].weight < best_draw * draws_[i].weight) {
        best = i;
        best_draw = draw;
      }
    }
    return &entries_[best];
  }

  /** The tenant's own entry if it has one, else by key. @param tenant  stable_hash(name). */
  [[nodiscard]] const route_type* choose(std::uint64_t tenant, std::uint64_t key) const noexcept {
    const auto at =
        std::lower_bound(overrides_.begin(), overrides_.end(), tenant, [](const tenant_route& o, std::uint64_t t) { return o.tenant < t; });
    if (at == overrides_.end() || at->tenant != tenant) return choose(key);
    return find(at->id).chosen;
  }

  /** The entry of an id, for a client that asks for it by name; a deprecated one is refused, and the answer says so. */
  [[nodiscard]] choice_type find(std::uint64_t id) const noexcept {
    const auto at = std::lower_bound(entries_.begin(), entries_.end(), id, [](const route_type& e, std::uint64_t i) { return e.id < i; });
    if (at == entries_.end() || at->id != id) return {nullptr, route_refusal::unknown};
    if (at->status == route_status::deprecated) return {nullptr, route_refusal::deprecated};
    return {&*at, route_refusal::none};
  }

  /** The same table with another weight of one entry. @throws value_error as the constructor, and when there is no such entry. */
  [[nodiscard]] route_table with_weight(std::uint64_t id, double weight) const {
    return changed(id, [&](route_type& e, std::vector<route_type>&) { e.weight = weight; });
  }

  /**
   * The same table with one entry taking `share` of all keys, 0 .. 1, and the others sharing the rest as they did. At 1 nobody else takes any.
   * Keys move to the entry, or from it, alone: exactly so while its weight beside theirs need not exceed 1, else up to the rounding of theirs
   * (2^-30). Overrides of tenants stay.
   * @throws value_error as the constructor, when there is no such entry, and when a share below 1 leaves nobody for the rest.
   */
  [[nodiscard]] route_table with_share(std::uint64_t id, double share) const {
    if (!(share >= 0 && share <= 1)) refuse(id, "cannot have a share outside [0, 1]");
    double others = 0;
    for (std::size_t i = 0; i < entries_.size(); ++i)
      if (entries_[i].id != id) others += static_cast<double>(draws_[i].weight) / one;
    if (share < 1 && others == 0) refuse(id, "takes all traffic: with less, nobody would take the rest");
    const double beside = share < 1 ? others * share / (1 - share) : 2;  // its weight, the others' unchanged
    return changed(id, [&](route_type& e, std::vector<route_type>& list) {
      e.weight = beside <= 1 ? beside : share;
      for (std::size_t i = 0; beside > 1 && i < list.size(); ++i)
        if (list[i].id != id && draws_[i].weight != 0) list[i].weight = static_cast<double>(draws_[i].weight) / one * (1 - share) / others;
    });
  }

  /**
   * The same table with another status of one entry. A deprecated entry loses its weight and the tenants that were sent to it, who then choose
   * by key as everybody does. @throws value_error likewise.
   */
  [[nodiscard]] route_table with_status(std::uint64_t id, route_status status) const {
    route_table copy = *this;
    if (status == route_status::deprecated) std::erase_if(copy.overrides_, [&](const tenant_route& o) { return o.id == id; });
    return copy.changed(id, [&](route_type& e, std::vector<route_type>&) {
      e.status = status;
      if (status == route_status::deprecated) e.weight.reset();
    });
  }

  [[nodiscard]] const std::vector<route_type>& entries() const noexcept { return entries_; }
  [[nodiscard]] const std::vector<tenant_route>& overrides() const noexcept { return overrides_; }
  [[nodiscard]] std::uint64_t salt() const noexcept { return salt_; }

 private:
  struct draw_of_entry {
    std::uint64_t weight;  // in 2^-30
    std::uint64_t seed;    // from the id, so that entries draw independently
  };

  static constexpr double one = 1073741824.0;  // 2^30: weight 1

  // The smallest weight is not rounded to "none".
  [[nodiscard]] static std::uint64_t fixed(double w) noexcept {
    return w > 0 ? std::max<std::uint64_t>(1, static_cast<std::uint64_t>(w * one + 0.5)) : 0;
  }

  [[noreturn, gnu::cold, gnu::noinline]] static void refuse(std::uint64_t id, const char* problem) {
    detail::raise<value_error>(detail::text() << "routes: entry " << id << " " << problem);
  }

  template <class Change>
  [[nodiscard]] route_table changed(std::uint64_t id, Change change) const {
    std::vector<route_type> entries = entries_;
    const auto at = std::find_if(entries.begin(), entries.end(), [&](const route_type& e) { return e.id == id; });
    if (at == entries.end()) refuse(id, "is not in the table");
    change(*at, entries);
    return route_table(std::move(entries), overrides_, salt_);
  }

  std::vector<route_type> entries_;  // by id
  std::vector<draw_of_entry> draws_;
  std::vector<tenant_route> overrides_;  // by tenant
  std::uint64_t salt_;
};

}  // namespace lora::inline v0

#endif
