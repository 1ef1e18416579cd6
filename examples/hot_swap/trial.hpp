// SPDX-License-Identifier: Apache-2.0
//
// trial: a gray release. Each user is sent to a version by a table of routes; a new version begins with a few users, and what their requests tell
// decides, window by window, whether it gets more of them or goes back. One candidate is refused before anybody sees it, one passes every
// check but answers badly, one is good. Versions and decisions are kept by a history, which can be drawn and counted.
#ifndef HOT_SWAP_TRIAL_HPP
#define HOT_SWAP_TRIAL_HPP

#include "options.hpp"
#include "report.hpp"
#include "serve.hpp"

#include <lora/snapshot/canary.hpp>
#include <lora/snapshot/history.hpp>
#include <lora/snapshot/routes.hpp>

#include <string>
#include <vector>

namespace hot_swap {

class trial {
 public:
  using payload = lora::snapshot_payload<digit_model>;

  /** What a version of the tour brings along. */
  struct tried {
    payload model;
    double accuracy = 0;  // of its requests
  };

  /** @pre All of these outlive the trial. */
  trial(const options& o, const digit_net& net, const test_set& test, screen& out, life_ledger& ledger);

  /** Serves, prints, writes the files asked for. @return what must hold. @throws lora::error, std::system_error when a file cannot be read or written. */
  [[nodiscard]] std::vector<guarantee> run(const tried& stable, const payload& good);

 private:
  using table = lora::route_table<digit_model>;
  class clients;

  enum class ending { promoted, sent_back, undecided };

  [[nodiscard]] lora::publish_result load(const std::string& source, const std::string& directory);
  void publish(const table& routes, const std::string& why);
  [[nodiscard]] ending try_out(lora::stamp stable, lora::stamp candidate, const std::string& name);
  void write_files() const;

  const options& options_;
  const digit_net& net_;
  const test_set& test_;
  screen& screen_;
  life_ledger& ledger_;
  lora::history<digit_model> models_;
  lora::history<table> routes_;

  // Sums over all trials.
  std::uint64_t requests_ = 0, mixed_ = 0, moved_ = 0;
  std::uint64_t bad_answers_ = 0;  // requests that the candidate that was sent back has answered
};

}  // namespace hot_swap

#endif
