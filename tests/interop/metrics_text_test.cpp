// SPDX-License-Identifier: Apache-2.0
//
// The two text formats: line by line against what was counted, and through promtool (Debian's package prometheus) where it is installed.
#include <lora/interop/metrics_text.hpp>
#include <lora/snapshot/history.hpp>

#include "io/files.hpp"

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <stdexcept>
#include <string>

using std::chrono::nanoseconds;

namespace {

std::chrono::nanoseconds tick_by_tick() noexcept {
  static long long now = 0;
  return nanoseconds(now += 2000);  // each stage takes 2 us
}

lora::snapshot_metrics counted() {
  lora::history<int> h(lora::validator<int>({{"positive", [](const int& v) { return v > 0 ? "" : "it is not"; }}}),
                       {.keep_last = 1,
                        .byte_budget = 1000,
                        .now = [t = lora::wall_time{}]() mutable { return t += std::chrono::milliseconds(500); },
                        .ticks = tick_by_tick});
  const auto put = [&](int v, lora::publish_options how = {}) {
    return h.load(
        {.source = "v", .bytes = 100},
        [&](auto& clock) {
          clock.begin(lora::reload_stage::parse);
          return v;
        },
        how);
  };
  (void)put(1);
  const auto pin = h.pin("tenant");
  (void)put(2);
  (void)put(-1);
  (void)put(3, {.expected = lora::stamp{1}});
  (void)h.rollback(lora::stamp{1});
  return h.metrics();
}

bool has(const std::string& text, const std::string& line) { return ("\n" + text).find("\n" + line + "\n") != std::string::npos; }

template <class F>
std::string message_of(F f) {
#if LORA_HAS_EXCEPTIONS
  try {
    f();
  } catch (const lora::value_error& e) {
    return e.what();
  }
#endif
  return "nothing was thrown";
}

/** Exit code of `promtool check metrics` on the text, or -1 when there is no promtool. */
int promtool(const std::string& text, std::string& said) {
  if (std::system("command -v promtool > /dev/null 2>&1") != 0) return -1;
  const test::temporary_folder folder;
  const std::string file = folder.path() + "/metrics";
  std::ofstream(file, std::ios::binary) << text;
  std::FILE* p = popen(("promtool check metrics < " + file + " 2>&1").c_str(), "r");
  REQUIRE(p != nullptr);
  for (int c = std::fgetc(p); c != EOF; c = std::fgetc(p)) said += static_cast<char>(c);
  return pclose(p);
}

}  // namespace

TEST_CASE("interop/metrics_text: the bounds of the buckets are 1 us, four times as much each, and 60 s") {
  using h = lora::duration_histogram;
  CHECK(h::bound(0) == nanoseconds(1000));
  CHECK(h::bound(1) == nanoseconds(4000));
  CHECK(h::bound(h::buckets - 2) == std::chrono::seconds(60));
  for (std::size_t i = 0; i + 1 < h::buckets; ++i) {
    CHECK(h::bucket_of(h::bound(i)) == i);
    CHECK(h::bucket_of(h::bound(i) + nanoseconds(1)) == i + 1);
    if (i != 0) CHECK(h::bound(i - 1) < h::bound(i));
  }
  CHECK(h::bucket_of(nanoseconds(0)) == 0);
}

TEST_CASE("interop/metrics_text: Prometheus 0.0.4 says what was counted") {
  const std::string text = lora::prometheus_text(counted(), {{"model", "a\"b\\c\nd"}});
  const std::string l = "model=\"a\\\"b\\\\c\\nd\"";
  CHECK(has(text, "# TYPE lora_hot_reload_duration_seconds histogram"));
  const std::string own = "{" + l + ",stage=\"parse\",result=\"ok\"";
  CHECK(has(text, "lora_hot_reload_duration_seconds_bucket" + own + ",le=\"0.000001\"} 0"));
  CHECK(has(text, "lora_hot_reload_duration_seconds_bucket" + own + ",le=\"0.000004\"} 4"));
  CHECK(has(text, "lora_hot_reload_duration_seconds_bucket" + own + ",le=\"16.777216\"} 4"));
  CHECK(has(text, "lora_hot_reload_duration_seconds_bucket" + own + ",le=\"60.0\"} 4"));
  CHECK(has(text, "lora_hot_reload_duration_seconds_bucket" + own + ",le=\"+Inf\"} 4"));
  CHECK(has(text, "lora_hot_reload_duration_seconds_count" + own + "} 4"));
  CHECK(has(text, "lora_hot_reload_duration_seconds_sum" + own + "} 0.000008"));
  CHECK(has(text, "lora_hot_reload_duration_seconds_count{" + l + ",stage=\"validate\",result=\"failed\"} 1"));
  CHECK(has(text, "lora_hot_reload_duration_seconds_count{" + l + ",stage=\"swap\",result=\"ok\"} 3"));
  CHECK(text.find("stage=\"open\"") == std::string::npos);
  CHECK(has(text, "# TYPE lora_reloads_total counter"));
  CHECK(has(text, "lora_reloads_total{" + l + ",result=\"ok\"} 2"));
  CHECK(has(text, "lora_reloads_total{" + l + ",result=\"failed\"} 1"));
  CHECK(has(text, "lora_reloads_total{" + l + ",result=\"lost\"} 1"));
  CHECK(has(text, "lora_rollbacks_total{" + l + "} 1"));
  CHECK(has(text, "lora_current_stamp{" + l + "} 3"));
  CHECK(has(text, "lora_live_versions{" + l + "} 1"));
  CHECK(has(text, "lora_live_bytes{" + l + "} 100"));
  CHECK(has(text, "lora_budget_bytes{" + l + "} 1000"));
  CHECK(has(text, "lora_named_pins{" + l + "} 1"));
  CHECK(text.find("# EOF") == std::string::npos);
  const std::string plain = lora::prometheus_text({});
  CHECK(has(plain, "lora_current_stamp 0"));
  CHECK(has(plain, "lora_oldest_pin_seconds 0.0"));
  CHECK(has(plain, "lora_reloads_total{result=\"ok\"} 0"));
}

TEST_CASE("interop/metrics_text: OpenMetrics names families without _total and ends in # EOF") {
  const std::string text = lora::openmetrics_text(counted());
  CHECK(has(text, "# TYPE lora_reloads counter"));
  CHECK(has(text, "lora_reloads_total{result=\"ok\"} 2"));
  CHECK(has(text, "# TYPE lora_rollbacks counter"));
  CHECK(has(text, "lora_rollbacks_total 1"));
  CHECK(text.substr(text.size() - 6) == "# EOF\n");
}

TEST_CASE("interop/metrics_text: a label that the formats do not allow is refused") {
  const auto with = [](const char* name) { return message_of([&] { (void)lora::prometheus_text({}, {{name, "x"}}); }); };
  CHECK(with("model") == "nothing was thrown");
  CHECK(with("_m1") == "nothing was thrown");
  for (const char* bad : {"", "1a", "a-b", "__name__", "a b", "\xc3\xa4"})
    CHECK(with(bad).find("is not a label name") != std::string::npos);
  for (const char* ours : {"stage", "result", "le"}) CHECK(with(ours).find("is the library's own") != std::string::npos);
  CHECK(message_of([] { (void)lora::openmetrics_text({}, {{"a", "1"}, {"a", "2"}}); }) == "metrics: the label 'a' comes twice");
}

TEST_CASE("interop/metrics_text: how the heap changed around a load, when a probe is given") {
  std::size_t heap = 1000;
  lora::history<int> h(lora::validator<int>::proven_by_type(), {.heap = [&] { return heap; }});
  CHECK(lora::prometheus_text(h.metrics()).find("heap") == std::string::npos);  // nothing was loaded yet
  const auto load = [&](std::ptrdiff_t change) {
    (void)h.load({.source = "v"}, [&](auto&) {
      heap = static_cast<std::size_t>(static_cast<std::ptrdiff_t>(heap) + change);
      return 1;
    });
  };
  load(300);
  CHECK(h.metrics().heap_delta_bytes == 300);
  CHECK(has(lora::prometheus_text(h.metrics()), "lora_reload_heap_delta_bytes 300"));
  CHECK(has(lora::prometheus_text(h.metrics()), "# TYPE lora_reload_heap_delta_bytes gauge"));
  load(-700);
  CHECK(has(lora::openmetrics_text(h.metrics(), {{"m", "x"}}), "lora_reload_heap_delta_bytes{m=\"x\"} -700"));
  (void)h.rollback(lora::stamp{1});  // loads nothing
  CHECK(h.metrics().heap_delta_bytes == -700);
#if LORA_HAS_EXCEPTIONS
  (void)h.load({.source = "bad"}, [&](auto&) -> int {
    heap += 5;
    throw std::runtime_error("broken");
  });
  CHECK(h.metrics().heap_delta_bytes == 5);  // what a failed load leaves behind is what one wants to see
#endif
}

TEST_CASE("interop/metrics_text: promtool finds nothing to mend") {
  std::string said;
  const int code = promtool(lora::prometheus_text(counted(), {{"model", "di\"gi\\ts\n"}}), said);
  if (code == -1) {
    MESSAGE("SKIPPED: promtool is not installed (Debian: apt-get install prometheus)");
    return;
  }
  CAPTURE(said);
  CHECK(code == 0);
  CHECK(said.empty());
  std::string complaint;
  CHECK(promtool("# TYPE broken counter\nbroken{a=\"1} 2\n", complaint) != 0);  // it does look
}
