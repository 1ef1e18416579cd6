// SPDX-License-Identifier: Apache-2.0
//
// validated: a payload that passed every check of a validator, together with what is known about it. A history publishes nothing else, so
// an unchecked payload cannot reach a reader: there is no way to a validated<T> but validator<T>::validate.
// Not here: the checks of adapters (adapter/bind.hpp has them; an adapter_set is proven by its type), publishing (history.hpp).
//
//   const lora::validator<model> gate({{"finite", [](const model& m) { return m.finite() ? "" : "holds a NaN"; }}});
//   auto checked = gate.validate(lora::make_payload<model>(...), {.source = "v2", .bytes = 4096});   // throws value_error
#ifndef LORA_SNAPSHOT_VALIDATED_HPP
#define LORA_SNAPSHOT_VALIDATED_HPP

#include <lora/core/content_hash.hpp>
#include <lora/core/error.hpp>
#include <lora/snapshot/metrics.hpp>
#include <lora/snapshot/payload.hpp>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace lora::inline v0 {

/** What is said about a payload when it is validated. */
struct version_facts {
  std::string source{};   // where it came from; names it in every message
  std::size_t bytes = 0;  // what it occupies; counts against the budget of a history
  content_hash hash{};    // of its content; all zero: not known
  std::string note{};     // free text
};

/** A condition on a T: the empty string accepts it, anything else says what is wrong. */
template <class T>
struct payload_check {
  std::string name;
  std::function<std::string(const T&)> verdict;
};

template <class T, class Traits>
class validator;
template <class T, class Traits>
class history;

/** A payload that passed. Copies share the payload. */
template <class T, class Traits = std_snapshot_traits>
class validated {
 public:
  [[nodiscard]] const snapshot_payload<T, Traits>& payload() const noexcept { return payload_; }
  [[nodiscard]] const version_facts& facts() const noexcept { return facts_; }

 private:
  friend class validator<T, Traits>;
  friend class history<T, Traits>;
  validated(snapshot_payload<T, Traits> payload, version_facts facts, std::shared_ptr<const void> gate)
      : payload_(std::move(payload)), facts_(std::move(facts)), gate_(std::move(gate)) {}

  snapshot_payload<T, Traits> payload_;
  version_facts facts_;
  std::shared_ptr<const void> gate_;  // the identity of the validator; kept alive, so that no later one has its address
};

/**
 * A fixed list of checks and, if wanted, a hash function. Copies are the same validator.
 *
 * @par Threads  Immutable; any number of threads may validate, if the callables given to it allow that.
 */
template <class T, class Traits = std_snapshot_traits>
class validator {
 public:
  using payload_type = snapshot_payload<T, Traits>;
  using hash_function = std::function<content_hash(const T&)>;

  /**
   * @param checks  run in this order, at least one
   * @param hash    gives facts().hash; when the caller says a hash too, the two must agree
   * @throws value_error when the list is empty or a check has no function.
   */
  explicit validator(std::vector<payload_check<T>> checks, hash_function hash = {})
      : rules_(std::make_shared<const rules>(rules{std::move(checks), std::move(hash)})) {
    if (rules_->checks.empty())
      detail::raise<value_error>(detail::text()
                                 << "validator: no checks; if the type alone proves a payload, say validator::proven_by_type()");
    for (const payload_check<T>& c : rules_->checks)
      if (!c.verdict) detail::raise<value_error>(detail::text() << "validator: check " << detail::quote(c.name) << " has no function");
  }

  /** For a T that cannot exist unchecked, as adapter_set, which is made of bound adapters only. */
  [[nodiscard]] static validator proven_by_type(hash_function hash = {}) {
    validator v;
    v.rules_ = std::make_shared<const rules>(rules{{}, std::move(hash)});
    return v;
  }

  /**
   * Runs the hash function, then every check.
   *
   * @throws value_error naming the source, the check and what it found; whatever a check throws.
   * @par Cost  That of the callables, and a copy of the facts.
   */
  [[nodiscard]] validated<T, Traits> validate(payload_type payload, version_facts facts) const {
    std::string problem;
    auto passed = try_validate(std::move(payload), std::move(facts), problem);
    if (!passed) detail::raise<value_error>(detail::text() << problem.c_str());
    return std::move(*passed);
  }

  /**
   * The same without a throw of its own: nothing, and a sentence in `problem`, when a check refuses.
   * @param clock  if given, times the stages checksum and validate.
   */
  [[nodiscard]] std::optional<validated<T, Traits>> try_validate(payload_type payload, version_facts facts, std::string& problem,
                                                                 stage_clock* clock = nullptr) const {
    if (clock != nullptr && rules_->hash) clock->begin(reload_stage::checksum);
    bool good = check_hash(payload, facts, problem);
    if (good) {
      if (clock != nullptr) clock->begin(reload_stage::validate);
      good = check_content(payload, facts, problem);
    }
    if (clock != nullptr) clock->end(good);
    if (!good) return std::nullopt;
    return validated<T, Traits>(std::move(payload), std::move(facts), rules_);
  }

 private:
  friend class history<T, Traits>;

  struct rules {
    std::vector<payload_check<T>> checks;
    hash_function hash;
  };

  validator() noexcept = default;

  [[nodiscard]] bool check_hash(const payload_type& payload, version_facts& facts, std::string& problem) const {
    if (!payload) {
      problem = refusal(facts) + "the payload is empty";
      return false;
    }
    if (!rules_->hash) return true;
    const content_hash found = rules_->hash(*payload);
    if (facts.hash.known() && facts.hash != found) {
      problem = refusal(facts) + "the content has hash " + found.hex().data() + ", expected " + facts.hash.hex().data();
      return false;
    }
    facts.hash = found;
    return true;
  }

  [[nodiscard]] bool check_content(const payload_type& payload, const version_facts& facts, std::string& problem) const {
    for (const payload_check<T>& c : rules_->checks) {
      const std::string verdict = c.verdict(*payload);
      if (verdict.empty()) continue;
      problem = refusal(facts) + c.name + ": " + verdict;
      return false;
    }
    return true;
  }

  [[nodiscard]] static std::string refusal(const version_facts& facts) { return "validation refuses '" + facts.source + "': "; }

  std::shared_ptr<const rules> rules_;
};

}  // namespace lora::inline v0

#endif
