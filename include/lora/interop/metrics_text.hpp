// SPDX-License-Identifier: Apache-2.0
//
// metrics_text: what a history counted, as text for a scraper: Prometheus' format 0.0.4, or OpenMetrics 1.0. Pulled: call it when a scrape
// comes. No server here, and no library: hand the text to whatever answers HTTP.
//
//   reply(lora::prometheus_text(h.metrics(), {{"model", "digits"}}), lora::prometheus_content_type);
//   reply(lora::openmetrics_text(h.metrics(), {{"model", "digits"}}), lora::openmetrics_content_type);
#ifndef LORA_INTEROP_METRICS_TEXT_HPP
#define LORA_INTEROP_METRICS_TEXT_HPP

#include <lora/core/error.hpp>
#include <lora/interop/detail/escape.hpp>
#include <lora/snapshot/metrics.hpp>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lora::inline v0 {

inline constexpr const char* prometheus_content_type = "text/plain; version=0.0.4; charset=utf-8";
inline constexpr const char* openmetrics_content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/** A label on every sample, such as {"model", "digits"}. The name is [a-zA-Z_][a-zA-Z0-9_]*, does not begin with "__" and is not one of ours. */
using metric_label = std::pair<std::string, std::string>;

namespace detail {

class metrics_writer {
 public:
  metrics_writer(const std::vector<metric_label>& labels, bool open) : open_(open) {
    for (std::size_t i = 0; i < labels.size(); ++i) {
      check(labels, i);
      if (i != 0) common_ += ',';
      pair(common_, labels[i].first, labels[i].second);
    }
  }

  [[nodiscard]] std::string write(const snapshot_metrics& m) && {
    durations(m);
    counter("lora_reloads", "Attempts to publish a new payload.");
    sample("lora_reloads_total", "result=\"failed\"", m.reloads_failed);
    sample("lora_reloads_total", "result=\"lost\"", m.reloads_lost);
    sample("lora_reloads_total", "result=\"ok\"", m.reloads_ok);
    counter("lora_rollbacks", "Publications of an earlier payload.");
    sample("lora_rollbacks_total", "", m.rollbacks);
    gauge("lora_current_stamp", "Stamp of the version that readers get; 0 before the first.", m.current.value);
    gauge("lora_live_versions", "Payloads that can be served or gone back to.", m.live_versions);
    gauge("lora_live_bytes", "Bytes of the live payloads.", m.live_bytes);
    gauge("lora_retired_versions", "Payloads that were dropped but are still in use.", m.retired_versions);
    gauge("lora_retired_bytes", "Bytes of the retired payloads.", m.retired_bytes);
    if (m.budget_bytes != 0) gauge("lora_budget_bytes", "What all payloads together may occupy.", m.budget_bytes);
    gauge("lora_named_pins", "Named pins that are held.", m.named_pins);
    family("lora_oldest_pin_seconds", "gauge", "Age of the oldest named pin; 0 without one.");
    seconds("lora_oldest_pin_seconds", "", m.oldest_pin);
    if (m.heap_probed) {
      family("lora_reload_heap_delta_bytes", "gauge", "How much more the heap held after the last load than before it.");
      name_and_labels("lora_reload_heap_delta_bytes", "");
      (out_ += std::to_string(m.heap_delta_bytes)) += '\n';
    }
    if (open_) out_ += "# EOF\n";
    return std::move(out_);
  }

 private:
  static void check(const std::vector<metric_label>& labels, std::size_t i) {
    const std::string& name = labels[i].first;
    bool good = !name.empty() && name.substr(0, 2) != "__" && !(name[0] >= '0' && name[0] <= '9');
    for (const char c : name) good = good && ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_');
    if (!good)
      raise<value_error>(text() << "metrics: " << quote(name) << " is not a label name ([a-zA-Z_][a-zA-Z0-9_]*, not beginning with __)");
    for (const std::string_view ours : {"stage", "result", "le"})
      if (name == ours) raise<value_error>(text() << "metrics: the label " << quote(name) << " is the library's own");
    for (std::size_t k = 0; k < i; ++k)
      if (labels[k].first == name) raise<value_error>(text() << "metrics: the label " << quote(name) << " comes twice");
  }

  /** name="value", escaped as both formats ask: backslash, quote, line feed. */
  static void pair(std::string& out, std::string_view name, std::string_view value) {
    (out += name) += "=\"";
    append_escaped(out, value, [](std::string& o, char c) {
      if (c == '\\' || c == '"')
        (o += '\\') += c;
      else if (c == '\n')
        o += "\\n";
      else
        return false;
      return true;
    });
    out += '"';
  }

  void family(const char* name, const char* type, const char* help) {
    ((((out_ += "# HELP ") += name) += ' ') += help) += '\n';
    ((((out_ += "# TYPE ") += name) += ' ') += type) += '\n';
  }
  /** OpenMetrics names the family without the suffix that its sample has; 0.0.4 names the sample. */
  void counter(const std::string& base, const char* help) { family((open_ ? base : base + "_total").c_str(), "counter", help); }

  void name_and_labels(std::string_view name, std::string_view own) {
    out_ += name;
    if (!common_.empty() || !own.empty()) (((((out_ += '{') += common_) += common_.empty() || own.empty() ? "" : ",") += own) += '}');
    out_ += ' ';
  }
  void sample(std::string_view name, std::string_view own, std::uint64_t value) {
    name_and_labels(name, own);
    (out_ += std::to_string(value)) += '\n';
  }
  void seconds(std::string_view name, std::string_view own, std::chrono::nanoseconds value) {
    name_and_labels(name, own);
    decimal(out_, value);
    out_ += '\n';
  }
  void gauge(const char* name, const char* help, std::uint64_t value) {
    family(name, "gauge", help);
    sample(name, "", value);
  }

  void durations(const snapshot_metrics& m) {
    family("lora_hot_reload_duration_seconds", "histogram", "Duration of each stage of a reload.");
    for (std::size_t s = 0; s < reload_stages; ++s)
      for (const std::size_t ok : {std::size_t{0}, std::size_t{1}}) {
        const duration_histogram& h = m.durations[s][ok];
        if (h.count == 0) continue;  // what never ran has no series
        const std::string own =
            std::string("stage=\"") + name_of(static_cast<reload_stage>(s)) + "\",result=\"" + (ok != 0 ? "ok" : "failed") + '"';
        std::uint64_t below = 0;
        for (std::size_t b = 0; b < duration_histogram::buckets; ++b) {
          below += h.counts[b];
          std::string le = own + ",le=\"";
          if (b + 1 == duration_histogram::buckets)
            le += "+Inf";
          else
            decimal(le, duration_histogram::bound(b));
          sample("lora_hot_reload_duration_seconds_bucket", le += '"', below);
        }
        seconds("lora_hot_reload_duration_seconds_sum", own, h.sum);
        sample("lora_hot_reload_duration_seconds_count", own, h.count);
      }
  }

  /** Seconds in decimal digits, exactly; OpenMetrics wants a point in the bounds. */
  static void decimal(std::string& out, std::chrono::nanoseconds d) {
    const auto ns = static_cast<std::uint64_t>(d.count());
    std::string fraction = std::to_string(1000000000 + ns % 1000000000).substr(1);
    while (fraction.size() > 1 && fraction.back() == '0') fraction.pop_back();
    ((out += std::to_string(ns / 1000000000)) += '.') += fraction;
  }

  bool open_;
  std::string common_;
  std::string out_;
};

}  // namespace detail

/** Prometheus' text format 0.0.4. @throws value_error naming a label that may not be used. */
[[nodiscard]] inline std::string prometheus_text(const snapshot_metrics& m, const std::vector<metric_label>& labels = {}) {
  return detail::metrics_writer(labels, false).write(m);
}

/** OpenMetrics 1.0. @throws value_error likewise. */
[[nodiscard]] inline std::string openmetrics_text(const snapshot_metrics& m, const std::vector<metric_label>& labels = {}) {
  return detail::metrics_writer(labels, true).write(m);
}

}  // namespace lora::inline v0

#endif
