// SPDX-License-Identifier: Apache-2.0
#include "tour.hpp"

#include "damage.hpp"
#include "trial.hpp"

#include <filesystem>

namespace hot_swap {

namespace {

namespace fs = std::filesystem;

double seconds_until(nanoseconds end) { return static_cast<double>(end - now()) / 1e9; }

}  // namespace

tour::tour(const options& o) : options_(o), net_(o.data + "/base.safetensors"), test_(o.data), bytes_copied_(net_.bytes_copied()) {
  if (test_.x.extent(1) != net_.in()) throw lora::shape_error("the test images do not have the size that the base model reads");
  cell_.emplace();
  pool_.emplace(net_, test_, *cell_, o.threads);
}

bool tour::run() {
  const guarantee agreement = serve_all();
  return conclude(agreement);  // after the handles of serve_all() are gone
}

guarantee tour::serve_all() {
  screen_.text(
      format("%zu request %s test images, turned by 90 degrees, without pause, while adapters are swapped under them. Kernels: "
             "%s. Ranks: of fc1/fc2/fc3. First in: from the publication to the first answer.",
             options_.threads, format(options_.threads == 1 ? "thread classifies %td" : "threads classify %td", test_.size()).c_str(),
             lora::simd::tier_name()));
  screen_.blank();
  screen_.table_head();
  // The stretches of time between two events.
  const double stretch = options_.seconds / (options_.adapter.empty() ? 8 : 9);

  publish(build({}), "the base model alone");
  const version base = cell_->current();
  serve(stretch);
  publish(load_and_build(options_.data + "/adapter_v1"), "adapter_v1");
  const version v1 = cell_->current();
  serve(stretch);
  publish(load_and_build(options_.data + "/adapter_v2"), "adapter_v2");
  const version v2 = cell_->current();
  serve(stretch);
  {
    const temporary_folder folder;
    copy_truncated(options_.data + "/adapter_v2", folder.path());
    refuse("a truncated copy of adapter_v2", folder.path());
  }
  serve(stretch);
  refuse("adapter_other, which is for another model", options_.data + "/adapter_other");
  serve(stretch);
  roll_back(v1, "adapter_v1");
  serve(stretch);
  publish(v2.payload, "adapter_v2, published again");
  serve(stretch);
  if (!options_.adapter.empty()) {
    publish_own();
    serve(stretch);
  }
  swap_rapidly(v1, v2, stretch);
  finish_row();
  pool_->stop();
  screen_.blank();
  const served by_v1 = pool_->of(v1.stamp.value);
  released_ = trial(options_, net_, test_, screen_, ledger_)
                  .run({v1.payload, static_cast<double>(by_v1.right) / static_cast<double>(by_v1.images)}, v2.payload);
  return agreement_with_peft(base, v1, v2);
}

// ---- making versions --------------------------------------------------------------------------------------------------------------

tour::payload tour::build(std::vector<lora::weighted_adapter> adapters) {
  return lora::make_payload<digit_model>(net_, matrix_view(test_.x), std::move(adapters), ledger_);
}

tour::payload tour::load_and_build(const std::string& directory) {
  const loaded_adapter loaded = load(directory, net_);
  bytes_copied_ += loaded.bytes_copied;
  return build({{loaded.bound, 1.0f}});
}

// ---- publishing -------------------------------------------------------------------------------------------------------------------

/** One publication, timed; `how` makes it and gives the new stamp. */
template <class How>
lora::stamp tour::timed(How&& how) {
  const bool first = publish_times_.empty();
  published_at_ = first ? now() : pool_->swap_begins();
  const lora::stamp stamp = how();
  publish_times_.push_back(now() - published_at_);
  if (first) pool_->open();
  return stamp;
}

void tour::publish(const payload& what, const std::string& name) {
  finish_row();
  const lora::stamp stamp = timed([&] { return cell_->publish(what); });
  begin_row(stamp, name, ranks(net_, *what));
}

void tour::roll_back(const version& to, const std::string& name) {
  finish_row();
  const lora::stamp stamp = timed([&] { return cell_->rollback(to); });
  begin_row(stamp, name + ", back to " + std::to_string(to.stamp.value), ranks(net_, *to.payload));
}

/** Loads what must not be accepted. Nothing is published, so the version before goes on serving. */
void tour::refuse(const std::string& what, const std::string& directory) {
  const lora::stamp current = cell_->current().stamp;
  bool refused = false;
  try {
    (void)load(directory, net_);
    screen_.note("accepted, which is wrong: " + what);
  } catch (const lora::error& e) {
    refused = true;
    screen_.note("refused: " + what + ". " + e.what());
  }
  refusals_.push_back({current, pool_->of(current.value).requests, refused});
}

void tour::publish_own() {
  const fs::path given = fs::path(options_.adapter).lexically_normal();
  const std::string name = (given.has_filename() ? given : given.parent_path()).filename().string();
  try {
    const loaded_adapter own = load(options_.adapter, net_);
    publish(build({{own.bound, 1.0f}}), name);
    // Not a guarantee: an adapter in 16-bit floats is widened, and one that is not aligned is copied.
    if (own.bytes_copied != 0) screen_.note(grouped(own.bytes_copied) + " bytes of its tensors were copied");
    for (const std::string& pattern : own.unused_patterns) screen_.note("decides nothing: " + pattern);
  } catch (const lora::error& e) {
    own_refused_ = true;
    screen_.note("refused: " + name + ". " + e.what());
  }
}

/** Two payloads in turn, one swap a millisecond: many more occasions for a request to see two versions. */
void tour::swap_rapidly(const version& one, const version& other, double seconds) {
  constexpr int most_swaps = 500;
  finish_row();
  const nanoseconds end = now() + static_cast<nanoseconds>(seconds * 1e9);
  std::vector<nanoseconds> first_answers;
  for (int swaps = 0; swaps < most_swaps && now() < end; ++swaps) {
    const lora::stamp stamp = timed([&] { return cell_->publish(swaps % 2 == 0 ? one.payload : other.payload); });
    if (swaps == 0) begin_row(stamp, "both in turn, one a ms", "");
    last_stamp_ = stamp.value;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    const served answers = pool_->of(stamp.value);
    if (answers.first_answer != 0) first_answers.push_back(answers.first_answer - published_at_);
    if (swaps % 100 == 99) show_row();
  }
  serve(seconds_until(end));
  std::sort(first_answers.begin(), first_answers.end());
  if (!first_answers.empty()) row_.first_answer = first_answers[first_answers.size() / 2];
}

// ---- the table --------------------------------------------------------------------------------------------------------------------

void tour::begin_row(lora::stamp stamp, const std::string& what, const std::string& rank_text) {
  first_stamp_ = last_stamp_ = stamp.value;
  row_ = {"", what, rank_text, {}, -1};
  show_row();
}

void tour::show_row() {
  const bool one = first_stamp_ == last_stamp_;
  row_.stamps = std::to_string(first_stamp_) + (one ? "" : "-" + std::to_string(last_stamp_));
  row_.answers = {};
  for (std::uint64_t stamp = first_stamp_; stamp <= last_stamp_; ++stamp) {
    const served s = pool_->of(stamp);
    row_.answers.requests += s.requests;
    if (!one) continue;  // an accuracy of several versions would say nothing
    row_.answers.images += s.images;
    row_.answers.right += s.right;
    if (s.first_answer != 0) row_.first_answer = s.first_answer - published_at_;
  }
  screen_.update_row(row_);
}

void tour::finish_row() {
  if (row_.what.empty()) return;
  show_row();
  screen_.end_row();
  row_ = {};
}

/** Lets the request threads work, and keeps the row fresh. On a machine so busy that none of them got a turn, for longer. */
void tour::serve(double seconds) {
  constexpr double patience = 30;
  const nanoseconds end = now() + static_cast<nanoseconds>(seconds * 1e9);
  const std::uint64_t answered = pool_->of(last_stamp_).requests;
  for (double left = seconds; left > 0 || (left > -patience && pool_->of(last_stamp_).requests == answered); left = seconds_until(end)) {
    std::this_thread::sleep_for(std::chrono::duration<double>(std::clamp(left, 0.001, 0.1)));
    show_row();
  }
}

// ---- the end ----------------------------------------------------------------------------------------------------------------------

guarantee tour::agreement_with_peft(const version& base, const version& v1, const version& v2) {
  agreement worst;
  for (const auto& [v, file] : {std::pair{&base, "logits_base"}, {&v1, "logits_v1"}, {&v2, "logits_v2"}}) {
    const agreement a = compare_with_peft(net_, *v->payload, test_, options_.data + "/" + file + ".npy");
    if (!(a.worst_difference <= worst.worst_difference)) worst.worst_difference = a.worst_difference;
    if (!(a.worst_ratio <= worst.worst_ratio)) worst.worst_ratio = a.worst_ratio;
    worst.other_answers += a.other_answers;
  }
  return {worst.worst_ratio <= 1 && worst.other_answers == 0, "logits differ from PEFT's by less than the bound",
          format("%.1e, %.2g %% of it", worst.worst_difference, 100 * worst.worst_ratio)};
}

bool tour::conclude(const guarantee& agreement) {
  const std::unique_ptr<totals> sum = pool_->total();
  screen_.latencies(*sum);
  screen_.text(format("(%zu request threads and a loader on %u cores; waiting for a core is included)", options_.threads,
                      std::thread::hardware_concurrency()));
  screen_.blank();
  std::sort(publish_times_.begin(), publish_times_.end());
  screen_.text(format("publishing, %zu times: median %s, longest %s", publish_times_.size(),
                      duration(publish_times_[publish_times_.size() / 2]).c_str(), duration(publish_times_.back()).c_str()));
  screen_.blank();

  std::vector<guarantee> list;
  const auto none = [&](std::uint64_t n, const char* claim, const std::string& unit) {
    list.push_back({n == 0, claim, grouped(n) + " " + unit});
  };
  none(sum->mixed, "an answer's bits are those of one version", "mixed of " + grouped(sum->requests));
  none(sum->lost, "every request finds a version and is answered", "lost");
  none(sum->went_back, "no thread sees an older version again", "went back");
  none(sum->allocations, "requests allocate nothing", "allocations");
  none(bytes_copied_, "tensors are used where the files are mapped", "bytes copied");

  std::size_t kept = 0;
  for (const refusal& r : refusals_)
    if (r.refused && pool_->of(r.kept.value).requests > r.answered) ++kept;
  list.push_back(
      {kept == refusals_.size(), "bad adapters are refused, the last good serves", format("%zu of %zu", kept, refusals_.size())});
  list.push_back(agreement);
  list.insert(list.end(), released_.begin(), released_.end());

  // Nobody reads any more and this thread has let go of its handles: the collection must free every version but the current one, and
  // the end of the cell that one.
  (void)cell_->collect();
  const lora::snapshot_counters versions = cell_->counters();
  pool_.reset();
  cell_.reset();
  const bool all_freed = versions.retired == 0 && versions.destroyed + 1 == versions.published && ledger_.each_exactly_once();
  list.push_back({all_freed, "every version is freed exactly once",
                  format("%s, payloads %zu of %zu", grouped(versions.published).c_str(), ledger_.destroyed(), ledger_.built())});

  std::string failed;
  for (const guarantee& g : list)
    if (!g.held) failed += (failed.empty() ? "FAILED: " : "; ") + g.what;
  std::string summary = failed.empty() ? "all guarantees held" : failed;
  if (own_refused_) summary += ", but the adapter given was refused";
  screen_.guarantees(list, summary, failed.empty() && !own_refused_);
  return failed.empty() && !own_refused_;
}

bool take_the_tour(const options& o) { return tour(o).run(); }

}  // namespace hot_swap
