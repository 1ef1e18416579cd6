// SPDX-License-Identifier: Apache-2.0
#include "report.hpp"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <utility>

#include <sys/ioctl.h>
#include <unistd.h>

namespace hot_swap {

namespace {

constexpr std::size_t width = 79;

constexpr const char* green = "\033[32m";
constexpr const char* red = "\033[1;31m";
constexpr const char* bold = "\033[1m";
constexpr const char* dim = "\033[2m";

/** Cuts a paragraph into lines at blanks; a word that is longer than a line is cut, too. */
std::vector<std::string> wrapped(const std::string& paragraph, std::size_t indent) {
  std::vector<std::string> lines;
  std::string rest = paragraph;
  while (true) {
    const std::size_t room = width - indent;
    std::size_t cut = rest.size();
    if (cut > room) {
      cut = rest.rfind(' ', room);
      if (cut == std::string::npos || cut == 0) cut = room;
    }
    lines.push_back(std::string(indent, ' ') + rest.substr(0, cut));
    if (cut >= rest.size()) return lines;
    rest.erase(0, rest[cut] == ' ' ? cut + 1 : cut);
  }
}

std::string microseconds(nanoseconds t) {
  return t < 100'000 ? format("%.1f", static_cast<double>(t) / 1e3) : grouped(static_cast<std::uint64_t>(t / 1000));
}

}  // namespace

std::string format(const char* pattern, ...) {
  char buffer[512];
  std::va_list arguments;
  va_start(arguments, pattern);
  std::vsnprintf(buffer, sizeof buffer, pattern, arguments);
  va_end(arguments);
  return buffer;
}

std::string grouped(std::uint64_t n) {
  const std::string digits = std::to_string(n);
  std::string text;
  for (std::size_t i = 0; i < digits.size(); ++i) {
    if (i != 0 && (digits.size() - i) % 3 == 0) text += ',';
    text += digits[i];
  }
  return text;
}

std::string duration(nanoseconds t) {
  const auto ns = static_cast<double>(t);
  if (t < 1'000) return format("%.0f ns", ns);
  if (t < 1'000'000) return format("%.*f us", t < 100'000 ? 1 : 0, ns / 1e3);
  return format("%.*f ms", t < 100'000'000 ? 1 : 0, ns / 1e6);
}

screen::screen() {
  const char* term = std::getenv("TERM");
  const bool terminal = ::isatty(STDOUT_FILENO) == 1 && term != nullptr && std::string_view(term) != "dumb";
  // Rewriting counts lines, so it needs a terminal that breaks none of them. One that does not tell its width is taken at its word.
  winsize size{};
  const bool narrow = ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col != 0 && size.ws_col <= width;
  const char* no_color = std::getenv("NO_COLOR");
  live_ = terminal && !narrow;
  colour_ = terminal && (no_color == nullptr || *no_color == '\0');
}

void screen::put(const std::string& line) {
  std::fwrite(line.data(), 1, line.size(), stdout);
  std::fputc('\n', stdout);
}

std::string screen::coloured(const std::string& text, const char* code) const { return colour_ ? code + text + "\033[0m" : text; }

void screen::text(const std::string& paragraph) {
  for (const std::string& line : wrapped(paragraph, 0)) put(line);
}

void screen::blank() { put(""); }

void screen::heading(const std::string& line) {
  put(coloured(line, bold));
  std::fflush(stdout);
}

void screen::aside(const std::string& paragraph) {
  for (const std::string& line : wrapped(paragraph, 9)) put(coloured(line, dim));
}

void screen::table_head() {
  heading(format("%7s  %-30s %-9s %10s %9s %9s", "stamp", "version", "ranks", "requests", "accuracy", "first in"));
}

void screen::redraw() {
  std::string what = row_.what;
  if (what.size() > 30) what = what.substr(0, 27) + "...";
  const std::string accuracy =
      row_.answers.images == 0
          ? ""
          : format("%.1f %%", 100.0 * static_cast<double>(row_.answers.right) / static_cast<double>(row_.answers.images));
  const std::string first = row_.first_answer < 0 ? "" : duration(row_.first_answer);
  if (drawn_ != 0) std::printf("\033[%zuA", drawn_);
  const char* clear = live_ ? "\033[2K" : "";
  std::printf("%s%7s  %-30s %-9s %10s %9s %9s\n", clear, row_.stamps.c_str(), what.c_str(), row_.ranks.c_str(),
              grouped(row_.answers.requests).c_str(), accuracy.c_str(), first.c_str());
  for (const std::string& line : notes_) std::printf("%s%s\n", clear, coloured(line, dim).c_str());
  std::fflush(stdout);
  if (live_) drawn_ = 1 + notes_.size();
}

void screen::update_row(const version_row& row) {
  row_ = row;
  if (live_) redraw();
}

void screen::note(const std::string& paragraph) {
  if (live_) redraw();  // ends below the row, where the new lines go
  for (std::string& line : wrapped(paragraph, 9)) {
    if (live_) {
      put(coloured(line, dim));
      ++drawn_;
    }
    notes_.push_back(std::move(line));
  }
  std::fflush(stdout);
}

void screen::end_row() {
  redraw();
  notes_.clear();
  drawn_ = 0;
}

void screen::latencies(const totals& sum) {
  put(coloured(format("%-15s %30s %30s", "latency in us", "steady", "within 5 ms after a swap"), bold));
  put(format("%-15s %9s %6s %6s %6s %9s %6s %6s %6s", "rows a request", "requests", "p50", "p99", "max", "requests", "p50", "p99", "max"));
  latency_histogram steady, after;
  const auto line = [&](const std::string& name, const latency_histogram& a, const latency_histogram& b) {
    const auto part = [](const latency_histogram& h) {
      if (h.count() == 0) return format(" %9s %6s %6s %6s", "0", "-", "-", "-");
      return format(" %9s %6s %6s %6s", grouped(h.count()).c_str(), microseconds(h.quantile(0.5)).c_str(),
                    microseconds(h.quantile(0.99)).c_str(), microseconds(h.max()).c_str());
    };
    put(format("%14s ", name.c_str()) + part(a) + part(b));
  };
  for (std::size_t s = 0; s < batch_sizes.size(); ++s) {
    line(std::to_string(batch_sizes[s]), sum.steady[s], sum.after_swap[s]);
    steady.add(sum.steady[s]);
    after.add(sum.after_swap[s]);
  }
  line("all", steady, after);
}

void screen::guarantees(const std::vector<guarantee>& list, const std::string& summary, bool good) {
  for (const guarantee& g : list)
    put(coloured(g.held ? "  held  " : "FAILED  ", g.held ? green : red) + format("%-48s %s", g.what.c_str(), g.evidence.c_str()));
  blank();
  put(coloured(summary, good ? green : red));
  std::fflush(stdout);
}

}  // namespace hot_swap
