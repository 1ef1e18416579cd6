// SPDX-License-Identifier: Apache-2.0
//
// merge_cost_of: its properties, its refusals, and its figures against every measurement in bench/merge/measured.json.
#include <lora/adapter/merge_cost.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <limits>
#include <string>
#include <vector>

using lora::dtype;
using lora::index_t;
using lora::merge_cost_of;
using lora::merge_question;

namespace {

constexpr merge_question typical{.in = 4096, .out = 4096, .rank = 16, .n = 1};
constexpr lora::machine_limits round_machine{16e9, 160e9};

/** The measurements are written by our own benchmark, one field a line: no more of JSON is understood here. */
class lines {
 public:
  explicit lines(const std::string& path) {
    std::ifstream in(path);
    text_.assign(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
  }
  /** Moves behind the next such key; false when there is none. */
  bool next(const std::string& key) {
    const std::size_t found = text_.find('"' + key + "\": ", at_);
    if (found == std::string::npos) return false;
    at_ = found + key.size() + 4;
    return true;
  }
  double number(const std::string& key) {
    REQUIRE(next(key));
    return std::strtod(text_.c_str() + at_, nullptr);
  }
  dtype type(const std::string& key) {
    REQUIRE(next(key));
    return value_type();
  }
  /** The type named where the last key was found. */
  [[nodiscard]] dtype value_type() const {
    return text_.compare(at_, 5, "\"f32\"") == 0 ? dtype::f32 : text_.compare(at_, 6, "\"bf16\"") == 0 ? dtype::bf16 : dtype::f16;
  }

 private:
  std::string text_;
  std::size_t at_ = 0;
};

double ratio(double a, double b) { return a > b ? a / b : b / a; }

template <class Error>
std::string refused(const merge_question& q, const lora::machine_limits& limits = {}) {
  try {
    (void)merge_cost_of(q, limits);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

}  // namespace

TEST_CASE("adapter/merge_cost: by hand, 4096 x 4096 of floats, rank 16, one token") {
  const auto c = merge_cost_of(typical, round_machine);
  const double w = 4096.0 * 4096.0;
  CHECK(c.merged_call_seconds == doctest::Approx(4 * w / 16e9));
  const double extra = 16 * 8192.0 * (4 / 16e9 + 2 / 160e9);
  CHECK(c.extra_seconds_per_token == doctest::Approx(extra));
  CHECK(c.call_seconds == doctest::Approx(4 * w / 16e9 + extra));
  CHECK(c.merge_seconds == doctest::Approx(16 * w / 16e9 + 32 * w / (0.33 * 160e9)));
  CHECK(c.tokens_to_break_even == doctest::Approx(c.merge_seconds / extra));
  CHECK(c.extra_bytes == std::size_t{64} << 20);
  CHECK(merge_cost_of({.in = 3, .out = 5, .rank = 1, .weight = dtype::bf16}).extra_bytes == 30);
}

TEST_CASE("adapter/merge_cost: a large batch is bound by arithmetic, a small one by memory") {
  merge_question q = typical;
  CHECK(merge_cost_of(q, round_machine).merged_call_seconds ==
        merge_cost_of({.in = 4096, .out = 4096, .n = 2}, round_machine).merged_call_seconds);
  q.n = 512;
  CHECK(merge_cost_of(q, round_machine).merged_call_seconds == doctest::Approx(2.0 * 512 * 4096 * 4096 / 160e9));
}

TEST_CASE("adapter/merge_cost: monotone in rank, tokens, extents and limits") {
  for (const index_t n : {1, 3, 8, 64, 300})
    for (const index_t in : {64, 1000, 4096, 20000})
      for (const dtype weight : {dtype::f32, dtype::bf16, dtype::f16}) {
        merge_question q{.in = in, .out = 777, .rank = 1, .n = n, .weight = weight};
        auto last = merge_cost_of(q);
        for (q.rank = 2; q.rank < 600; q.rank *= 2) {
          const auto c = merge_cost_of(q);
          CHECK(c.merge_seconds > last.merge_seconds);
          CHECK(c.call_seconds > last.call_seconds);
          CHECK(c.extra_seconds_per_token > last.extra_seconds_per_token);
          CHECK(c.tokens_to_break_even < last.tokens_to_break_even);  // the copy's bytes are shared by more rank
          CHECK(c.merged_call_seconds == last.merged_call_seconds);
          CHECK(c.extra_bytes == last.extra_bytes);
          last = c;
        }
        merge_question more = q;
        more.n = n + 1;
        CHECK(merge_cost_of(more).extra_seconds_per_token < merge_cost_of(q).extra_seconds_per_token);
        CHECK(merge_cost_of(more).tokens_to_break_even > merge_cost_of(q).tokens_to_break_even);
        more = q;
        more.in = in + 100;
        CHECK(merge_cost_of(more).merge_seconds > merge_cost_of(q).merge_seconds);
        CHECK(merge_cost_of(more).extra_seconds_per_token > merge_cost_of(q).extra_seconds_per_token);
        // Twice the machine: half the seconds, the same tokens.
        const auto here = merge_cost_of(q, {10e9, 100e9});
        const auto faster = merge_cost_of(q, {20e9, 200e9});
        CHECK(faster.merge_seconds == doctest::Approx(here.merge_seconds / 2));
        CHECK(faster.tokens_to_break_even == doctest::Approx(here.tokens_to_break_even));
      }
}

TEST_CASE("adapter/merge_cost: nothing to merge never pays") {
  const double never = std::numeric_limits<double>::infinity();
  CHECK(merge_cost_of({.in = 10, .out = 10, .rank = 0}).tokens_to_break_even == never);
  CHECK(merge_cost_of({.in = 0, .out = 0, .rank = 4}).tokens_to_break_even == never);
  CHECK(merge_cost_of({}).tokens_to_break_even == never);
  CHECK(merge_cost_of({}).extra_bytes == 0);
}

TEST_CASE("adapter/merge_cost: refuses what has no answer") {
  CHECK(refused<lora::value_error>({.in = -1, .out = 2, .rank = 3}) ==
        "merge_cost_of: in -1, out 2 and rank 3 must not be negative, n 1 must be positive");
  CHECK(refused<lora::value_error>({.in = 1, .out = -2, .rank = 3}) != "");
  CHECK(refused<lora::value_error>({.in = 1, .out = 2, .rank = -3}) != "");
  CHECK(refused<lora::value_error>({.in = 1, .out = 2, .rank = 3, .n = 0}) != "");
  CHECK(refused<lora::value_error>({.in = 1, .out = 1, .rank = 1, .weight = dtype::i8}) != "");
  CHECK(refused<lora::value_error>({.in = 1, .out = 1, .rank = 1, .factor = dtype::f64}) ==
        "merge_cost_of: weight f32 and factor f64 must be f32, bf16 or f16");
  for (const double bad : {0.0, -1.0, std::numeric_limits<double>::infinity(), std::nan("")}) {
    CHECK(refused<lora::value_error>(typical, {bad, 1e9}) == "merge_cost_of: both limits of the machine must be finite and at least 1");
    CHECK(refused<lora::value_error>(typical, {1e9, bad}) != "");
  }
  CHECK(refused<lora::shape_error>({.in = index_t{1} << 31, .out = index_t{1} << 31, .rank = 1}) ==
        "merge_cost_of: a copy of w [2147483648, 2147483648] does not fit the address space");
  CHECK(refused<lora::shape_error>({.in = index_t{1} << 30, .out = index_t{1} << 30, .rank = 1}) == "");
}

TEST_CASE("adapter/merge_cost: within its stated factors of every measurement") {
  lines file(std::string(LORA_SOURCE_DIR) + "/bench/merge/measured.json");
  const lora::machine_limits limits{file.number("stream_bytes_per_second"), file.number("flops_per_second")};
  int measurements = 0;
  double worst_merge = 1;
  std::vector<double> calls;
  std::vector<double> tokens;
  while (file.next("weight")) {
    ++measurements;
    merge_question q;
    q.weight = file.value_type();
    q.factor = file.type("factor");
    q.out = static_cast<index_t>(file.number("out"));
    q.in = static_cast<index_t>(file.number("in"));
    q.rank = static_cast<index_t>(file.number("rank"));
    q.n = static_cast<index_t>(file.number("n"));
    const double merge = file.number("merge_seconds");
    const double call = file.number("call_seconds");
    (void)file.number("merged_call_seconds");
    const double extra = file.number("extra_seconds");
    const double again = file.number("again_seconds");
    const auto said = merge_cost_of(q, limits);
    worst_merge = std::max(worst_merge, ratio(said.merge_seconds, merge));
    calls.push_back(ratio(said.call_seconds, call));
    // A difference that is not well above what the same call differs from itself by, or above 5 % of the call, says nothing.
    if (extra <= 8 * std::abs(again) || extra <= 0.05 * call) continue;
    tokens.push_back(ratio(said.tokens_to_break_even, merge / extra * static_cast<double>(q.n)));
  }
  std::sort(calls.begin(), calls.end());
  std::sort(tokens.begin(), tokens.end());
  REQUIRE(measurements == 64);
  REQUIRE(tokens.size() >= 16);
  const auto half_within = [](const std::vector<double>& v) { return v[v.size() / 2]; };
  MESSAGE("merge_seconds: all within " << worst_merge << "; call_seconds: half within " << half_within(calls) << ", all within "
                                       << calls.back() << "; tokens_to_break_even of " << tokens.size() << ": half within "
                                       << half_within(tokens) << ", all within " << tokens.back());
  CHECK(worst_merge <= 2.5);
  CHECK(half_within(calls) <= 1.5);
  CHECK(calls.back() <= 4.5);
  CHECK(half_within(tokens) <= 2.0);
  CHECK(tokens.back() <= 5.0);
}
