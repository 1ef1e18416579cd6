// SPDX-License-Identifier: Apache-2.0
//
// tour: what the loader thread does. It loads, checks and publishes versions one after another, some of them bad on purpose, while a
// request_pool serves; then it has two candidates tried out on a few users each (trial.hpp); at the end it adds up what the requests saw and says
// which guarantees held.
#ifndef HOT_SWAP_TOUR_HPP
#define HOT_SWAP_TOUR_HPP

#include "options.hpp"
#include "report.hpp"
#include "serve.hpp"

#include <optional>

namespace hot_swap {

class tour {
 public:
  /** @throws lora::error when the base model or the test set cannot be used. */
  explicit tour(const options& o);

  /** Serves, prints, and tells whether everything held. @throws lora::error when one of the good adapters or a file of logits is bad. */
  bool run();

 private:
  using payload = lora::snapshot_payload<digit_model>;
  using version = lora::snapshot_version<digit_model>;

  [[nodiscard]] guarantee serve_all();

  // Making versions: all of it on this thread, beside the requests, and before anything is published.
  [[nodiscard]] payload build(std::vector<lora::weighted_adapter> adapters);
  [[nodiscard]] payload load_and_build(const std::string& directory);

  // Publishing. Each of these begins a new row, except refuse(), which adds a note to the current one.
  void publish(const payload& what, const std::string& name);
  void roll_back(const version& to, const std::string& name);
  void refuse(const std::string& what, const std::string& directory);
  void publish_own();
  void swap_rapidly(const version& one, const version& other, double seconds);
  template <class How>
  lora::stamp timed(How&& how);

  // The table.
  void begin_row(lora::stamp stamp, const std::string& what, const std::string& rank_text);
  void show_row();
  void finish_row();
  void serve(double seconds);

  // The end.
  [[nodiscard]] guarantee agreement_with_peft(const version& base, const version& v1, const version& v2);
  bool conclude(const guarantee& agreement);

  const options options_;
  life_ledger ledger_;  // outlives every payload
  digit_net net_;
  test_set test_;
  screen screen_;
  std::optional<cell_type> cell_;  // optional: the last guarantee is about what its end leaves behind
  std::optional<request_pool> pool_;

  std::size_t bytes_copied_ = 0;
  std::vector<nanoseconds> publish_times_;
  nanoseconds published_at_ = 0;  // the last time

  version_row row_;  // being served
  std::uint64_t first_stamp_ = 0;
  std::uint64_t last_stamp_ = 0;

  struct refusal {
    lora::stamp kept;        // the version before
    std::uint64_t answered;  // its requests at that time
    bool refused;
  };
  std::vector<refusal> refusals_;
  std::vector<guarantee> released_;  // of the gray release
  bool own_refused_ = false;
};

}  // namespace hot_swap

#endif
