// SPDX-License-Identifier: Apache-2.0
#include "trial.hpp"

#include "damage.hpp"

#include <lora/interop/history_svg.hpp>
#include <lora/interop/metrics_text.hpp>

#include <filesystem>
#include <fstream>
#include <system_error>

namespace hot_swap {

namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t stable_id = 1;
constexpr std::uint64_t salt = 2024;  // of the routes
constexpr std::size_t users_of_a_thread = 500;

// Few windows with few requests: this is a demo. Adapters of different ranks and threads that wait for cores differ in their times, which
// is not the question here, so only a tenfold latency would send a candidate back.
const lora::canary_rules rules{.least_requests = 200, .latency_ratio = 10};
const std::vector<double> shares{0.05, 0.25, 1.0};

/** What every payload must pass before it is published: nothing but finite logits for the whole test set. */
lora::validator<digit_model> gate() {
  return lora::validator<digit_model>({{"finite answers", [](const digit_model& m) -> std::string {
                                          for (const auto& logits : m.expected)
                                            for (lora::index_t i = 0; i < logits.extent(0); ++i)
                                              for (lora::index_t c = 0; c < logits.extent(1); ++c)
                                                if (!std::isfinite(logits(i, c)))
                                                  return "logit " + std::to_string(c) + " of image " + std::to_string(i) + " is not finite";
                                          return {};
                                        }}});
}

std::string percent(double part) { return format("%.1f %%", 100 * part); }

void write(const std::string& file, const std::string& content) {
  std::ofstream out(file, std::ios::binary | std::ios::trunc);
  out << content;
  out.close();
  if (!out) throw std::system_error(errno, std::generic_category(), "cannot write '" + file + "'");
}

}  // namespace

/** Threads that answer requests of users, each by the route of its user, and report how it went. */
class trial::clients {
 public:
  clients(trial& t, lora::canary<digit_model>& canary, std::uint64_t candidate_id) {
    for (std::size_t i = 0; i < t.options_.threads; ++i) threads_.push_back(std::make_unique<client>(t, canary, candidate_id, i));
    for (auto& c : threads_) c->thread = std::thread([this, &c = *c] { c.run(stopping_); });
  }
  clients(const clients&) = delete;
  clients& operator=(const clients&) = delete;
  ~clients() { stop(); }

  void stop() {
    stopping_.store(true, std::memory_order_relaxed);  // Relaxed: the results are handed over by join().
    for (auto& c : threads_)
      if (c->thread.joinable()) c->thread.join();
  }

  struct sums {
    std::uint64_t requests = 0;
    std::uint64_t to_candidate = 0;
    std::uint64_t mixed = 0;  // answers whose bits are not those of the version that was chosen
    std::uint64_t moved = 0;  // users that a growing share took away from the candidate
  };
  /** @pre stop() was called. */
  [[nodiscard]] sums total() const {
    sums all;
    for (const auto& c : threads_) {
      all.requests += c->own.requests;
      all.to_candidate += c->own.to_candidate;
      all.mixed += c->own.mixed;
      all.moved += c->own.moved;
    }
    return all;
  }

 private:
  struct alignas(64) client {
    client(trial& t, lora::canary<digit_model>& canary, std::uint64_t candidate, std::size_t number)
        : net(t.net_),
          test(t.test_),
          candidate_id(candidate),
          routes(t.routes_.reader()),
          meter(canary.meter()),
          buffers(t.net_, largest_batch),
          turn(number),
          has_candidate(users_of_a_thread) {
      for (std::size_t u = 0; u < users_of_a_thread; ++u)
        keys.push_back(lora::stable_hash("user " + std::to_string(number * users_of_a_thread + u), salt));
    }

    void run(const std::atomic<bool>& stopping) {
      while (!stopping.load(std::memory_order_relaxed)) {
        const std::size_t user = turn % users_of_a_thread;
        const std::size_t size = turn++ % batch_sizes.size();
        const lora::index_t first = position[size];
        const lora::index_t n = std::min(batch_sizes[size], test.size() - first);
        position[size] = first + n == test.size() ? 0 : first + n;
        answer(user, size, first, n);
      }
    }

    void answer(std::size_t user, std::size_t size, lora::index_t first, lora::index_t n) {
      const nanoseconds begin = now();
      const auto table = routes.pin();  // and with it every version that it names, until the request is answered
      const lora::route<digit_model>& route = *table->choose(keys[user]);
      const digit_model& version = *route.payload;
      const matrix_view logits = net.logits(test.x(lora::range(first, first + n), lora::all), version.adapters, buffers);
      lora::index_t right = 0;
      for (lora::index_t i = 0; i < n; ++i) right += argmax(logits(i, lora::all)) == test.labels[first + i] ? 1 : 0;
      const nanoseconds end = now();

      const lora::ndview<const float, 2> expected = version.expected[size](lora::range(first, first + n), lora::all);
      const bool same = std::memcmp(logits.data(), expected.data(), static_cast<std::size_t>(expected.size()) * sizeof(float)) == 0;
      const bool candidate = route.id == candidate_id;
      meter.report(candidate ? lora::canary_arm::candidate : lora::canary_arm::stable, same, std::chrono::nanoseconds(end - begin),
                   static_cast<double>(right) / static_cast<double>(n));
      ++own.requests;
      own.to_candidate += candidate ? 1u : 0u;
      own.mixed += same ? 0u : 1u;
      // A candidate that went back is deprecated, and then everybody leaves it.
      if (has_candidate[user] && !candidate && table->find(candidate_id)) ++own.moved;
      has_candidate[user] = candidate;
    }

    const digit_net& net;
    const test_set& test;
    std::uint64_t candidate_id;
    lora::snapshot_reader<table> routes;
    lora::canary_meter meter;
    forward_buffers buffers;
    std::size_t turn;
    std::array<lora::index_t, batch_sizes.size()> position{};
    std::vector<std::uint64_t> keys;
    std::vector<bool> has_candidate;  // by user, at its last request
    sums own;
    std::thread thread;
  };

  std::atomic<bool> stopping_{false};
  std::vector<std::unique_ptr<client>> threads_;
};

trial::trial(const options& o, const digit_net& net, const test_set& test, screen& out, life_ledger& ledger)
    : options_(o),
      net_(net),
      test_(test),
      screen_(out),
      ledger_(ledger),
      models_(gate(), {.byte_budget = std::size_t{16} << 20}),
      routes_(lora::validator<table>::proven_by_type()) {}  // a table checks itself

std::vector<guarantee> trial::run(const tried& stable, const payload& good) {
  screen_.text(
      format("Gray release: %zu users, each sent to a version by the table of routes. A candidate begins with %s of them; more, or back, "
             "by its accuracy.",
             users_of_a_thread * options_.threads, percent(shares[0]).c_str()));

  const auto add = [&](const std::string& name, const payload& model) {
    const std::size_t bytes = fs::file_size(options_.data + "/" + name + "/adapter_model.safetensors");
    return models_.load({.source = name, .bytes = bytes}, [&](lora::stage_clock&) { return model; });
  };
  const lora::stamp v1 = add("adapter_v1", stable.model).stamp;
  models_.set_health(v1, stable.accuracy, "its accuracy in the tour");
  publish(table({{.id = stable_id, .payload = stable.model, .version = v1}}, {}, salt), "adapter_v1 alone");

  const temporary_folder folder;
  const std::string v2 = options_.data + "/adapter_v2";
  copy_with_nan(v2, folder.path() + "/nan");
  const auto refused = load("v2 with a NaN", folder.path() + "/nan");
  screen_.aside("refused: " + refused.what);
  const bool nan_kept_out = refused.outcome == lora::publish_outcome::load_failed && models_.current() == v1;

  screen_.heading(format("%-22s %7s %10s %9s %9s  %s", "candidate", "share", "requests", "accuracy", "stable", "decision"));
  copy_with_alpha(v2, folder.path() + "/alpha", 8);
  const auto wrong = load("v2, alpha times 8", folder.path() + "/alpha");
  ending bad = ending::undecided;
  lora::stamp served = v1;
  if (wrong) {
    bad = try_out(v1, wrong.stamp, "v2, alpha times 8");
    if (bad == ending::sent_back) served = models_.rollback_to_healthy({}, "its canary went back").stamp;
  } else {
    screen_.aside("refused: " + wrong.what);
  }
  const bool bad_sent_back = bad == ending::sent_back && models_.payload(models_.current()) == stable.model;

  const lora::stamp candidate = add("adapter_v2", good).stamp;
  const bool good_promoted = try_out(served, candidate, "adapter_v2") == ending::promoted;

  std::size_t decisions = 0;
  for (const lora::history_event& e : models_.picture().events) decisions += e.kind == lora::history_event_kind::decision ? 1u : 0u;
  screen_.blank();
  write_files();
  return {
      {mixed_ == 0, "each user's answer has the bits of its version", grouped(mixed_) + " mixed of " + grouped(requests_)},
      {moved_ == 0, "users stay with a candidate whose share grows", grouped(moved_) + " moved back"},
      {nan_kept_out, "a NaN is refused before anybody sees it", nan_kept_out ? "refused by the load" : "published"},
      {bad_sent_back, "a bad candidate goes back, the stable one serves", grouped(bad_answers_) + " requests saw it"},
      {good_promoted && decisions >= shares.size() + 1, "a good candidate gets everybody", format("%zu decisions on record", decisions)}};
}

/** Loads beside the requests; the history puts a failure on record. */
lora::publish_result trial::load(const std::string& source, const std::string& directory) {
  const std::size_t bytes = fs::file_size(directory + "/adapter_model.safetensors");
  return models_.load({.source = source, .bytes = bytes}, [&](lora::stage_clock& clock) {
    clock.begin(lora::reload_stage::parse);
    const loaded_adapter loaded = hot_swap::load(directory, net_);
    clock.begin(lora::reload_stage::prefault);  // what its answers should be: that reads every page
    return lora::make_payload<digit_model>(net_, matrix_view(test_.x), std::vector<lora::weighted_adapter>{{loaded.bound, 1.0f}}, ledger_);
  });
}

void trial::publish(const table& routes, const std::string& why) {
  (void)routes_.publish(routes_.validate(lora::make_payload<table>(routes), {.source = why}));
}

/** One candidate, from its first users to everybody, or back. */
trial::ending trial::try_out(lora::stamp stable, lora::stamp candidate, const std::string& name) {
  constexpr double patience = 30;
  lora::canary<digit_model> canary(models_, candidate, rules, shares);
  const std::uint64_t id = candidate.value + 1;  // 1 is the stable version's
  const table start({{.id = stable_id, .payload = models_.payload(stable), .version = stable},
                     {.id = id, .payload = models_.payload(candidate), .version = candidate, .status = lora::route_status::staging}},
                    {}, salt);
  double share = canary.share();
  publish(start.with_share(id, share), name + ", " + percent(share));
  clients users(*this, canary, id);
  double length = std::max(0.05, options_.seconds / 40);
  lora::canary_decision d;
  for (const nanoseconds begin = now(); !d.finished && static_cast<double>(now() - begin) < patience * 1e9;) {
    std::this_thread::sleep_for(std::chrono::duration<double>(length));
    d = canary.decide();
    screen_.text(format("%-22s %7s %10s %9s %9s  %s", name.c_str(), percent(share).c_str(), grouped(d.window.candidate.requests).c_str(),
                        percent(d.window.candidate.mean_score()).c_str(), percent(d.window.stable.mean_score()).c_str(),
                        lora::name_of(d.verdict)));
    if (d.verdict == lora::canary_verdict::hold) length *= 2;  // too few requests: a longer window next
    // Each table comes from the first one: one in which the candidate has everybody knows no shares to go back to.
    if (d.verdict == lora::canary_verdict::roll_back)
      publish(start.with_status(id, lora::route_status::deprecated), name + " goes back");
    else if (d.share != share)
      publish(start.with_share(id, d.share), name + ", " + percent(d.share));
    share = d.share;
  }
  users.stop();
  const clients::sums sum = users.total();
  requests_ += sum.requests;
  mixed_ += sum.mixed;
  moved_ += sum.moved;
  if (!d.finished) return ending::undecided;
  if (d.verdict == lora::canary_verdict::promote) return ending::promoted;
  bad_answers_ += sum.to_candidate;
  return ending::sent_back;
}

void trial::write_files() const {
  if (!options_.tree.empty()) write(options_.tree, lora::history_svg(models_.picture()));
  if (options_.metrics.empty()) return;
  const std::string suffix = fs::path(options_.metrics).extension();
  const std::vector<lora::metric_label> labels{{"model", "digits"}};
  write(options_.metrics, suffix == ".om" || suffix == ".openmetrics" ? lora::openmetrics_text(models_.metrics(), labels)
                                                                      : lora::prometheus_text(models_.metrics(), labels));
}

}  // namespace hot_swap
