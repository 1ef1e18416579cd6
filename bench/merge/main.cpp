// SPDX-License-Identifier: Apache-2.0
//
// What merging costs and saves, measured beside what lora::merge_cost_of says: the time of merged(), and of forward with and without the
// terms, over sizes, ranks, element types and tokens a call. The two numbers of the machine are measured in the same process first.
//
//   bench_merge                      # a table
//   bench_merge --json measured.json
//
// Several copies of W, A and B are used in turn, so that all come from memory, as those of a model's many layers do.
#include <lora/adapter/merge_cost.hpp>
#include <lora/linalg/merge.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

namespace {

using lora::index_t;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

double median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v[v.size() / 2];
}

/** Small numbers that depend on the place. */
template <class T>
lora::ndarray<T, 2> matrix(index_t rows, index_t columns) {
  lora::ndarray<T, 2> m(lora::extents{rows, columns});
  std::uint32_t state = 1;
  for (index_t i = 0; i < m.size(); ++i) {
    state = state * 1664525u + 1013904223u;
    m.data()[i] = T((static_cast<float>(state >> 16) - 32768.0f) * 0x1p-20f);
  }
  return m;
}

/** How fast W is read: one token, W from memory. */
double stream_bytes_per_second() {
  constexpr index_t size = 4096;
  std::vector<lora::ndarray<float, 2>> w;
  for (int i = 0; i < 6; ++i) w.push_back(matrix<float>(size, size));
  const auto x = matrix<float>(1, size);
  auto y = matrix<float>(1, size);
  lora::workspace scratch;
  std::vector<double> times;
  for (std::size_t i = 0; i < 18; ++i) {
    const double begin = now();
    lora::forward(y, x, w[i % w.size()], {}, {}, scratch);
    times.push_back(now() - begin);
  }
  return static_cast<double>(size * size) * sizeof(float) / median(times);
}

/** How fast products go: 64 tokens, W in L2. */
double flops_per_second() {
  const auto w = matrix<float>(480, 512);
  const auto x = matrix<float>(64, 512);
  auto y = matrix<float>(64, 480);
  lora::workspace scratch;
  std::vector<double> times;
  for (int i = 0; i < 400; ++i) {
    const double begin = now();
    lora::forward(y, x, w, {}, {}, scratch);
    times.push_back(now() - begin);
  }
  return 2.0 * 64 * 480 * 512 / median(times);
}

struct measurement {
  lora::merge_question question;
  double merge_seconds = 0;
  double call_seconds = 0;
  double merged_call_seconds = 0;
  double extra_seconds = 0;  // median of the differences round by round: drifts of the machine's speed cancel
  double again_seconds = 0;  // the same of the merged form against itself: what a difference of nothing looks like here
};

template <class W, class F>
void measure(index_t out, index_t in, std::vector<measurement>& results, const char* progress) {
  const std::size_t bytes = static_cast<std::size_t>(out * in) * sizeof(W);
  const std::size_t copies = std::max<std::size_t>(4, (std::size_t{400} << 20) / bytes);
  std::vector<lora::ndarray<W, 2>> w;
  for (std::size_t i = 0; i < copies; ++i) w.push_back(matrix<W>(out, in));
  for (const index_t rank : {4, 16, 64, 256}) {
    std::vector<lora::ndarray<F, 2>> a;
    std::vector<lora::ndarray<F, 2>> b;
    for (std::size_t i = 0; i < copies; ++i) {
      a.push_back(matrix<F>(rank, in));
      b.push_back(matrix<F>(out, rank));
    }
    const auto term = [&](std::size_t i) { return lora::low_rank_term{a[i % copies], b[i % copies], 0.5f}; };
    std::vector<double> merge;
    for (std::size_t i = 0; i < 5; ++i) {
      const lora::low_rank_term t = term(i);
      const double begin = now();
      const auto m = lora::merged(w[i % copies], {&t, 1});
      merge.push_back(now() - begin);
    }
    lora::workspace scratch;
    for (const index_t n : {1, 4, 16, 64}) {
      const auto x = matrix<float>(n, in);
      auto y = matrix<float>(n, out);
      std::vector<double> times[3];
      std::size_t next = 0;
      for (int round = 0; round < 15; ++round)
        for (int which = 0; which < 3; ++which) {
          const int form = (which + round) % 3;
          const lora::low_rank_term t = term(next);
          const double begin = now();
          lora::forward(y, x, w[next % copies], {&t, form == 0 ? 1u : 0u}, {}, scratch);
          times[form].push_back(now() - begin);
          ++next;
        }
      const auto difference = [&](int form) {
        std::vector<double> d;
        for (std::size_t i = 0; i < times[1].size(); ++i) d.push_back(times[form][i] - times[1][i]);
        return median(d);
      };
      results.push_back({{.in = in, .out = out, .rank = rank, .n = n, .weight = lora::dtype_of<W>, .factor = lora::dtype_of<F>},
                         median(merge),
                         median(times[0]),
                         median(times[1]),
                         difference(0),
                         difference(2)});
    }
  }
  std::fprintf(stderr, "%s done\n", progress);
}

std::string cpu() {
  std::ifstream in("/proc/cpuinfo");
  std::string line;
  std::string name;
  std::string model;
  while (std::getline(in, line) && (name.empty() || model.empty())) {
    if (line.rfind("model name", 0) == 0) name = line.substr(line.find(':') + 2);
    if (line.rfind("model\t", 0) == 0) model = line.substr(line.find(':') + 2);
  }
  return name + ", model " + model;
}

}  // namespace

int main(int argc, char** argv) {
  const char* json_path = argc == 3 && std::strcmp(argv[1], "--json") == 0 ? argv[2] : nullptr;
  if (argc != 1 && json_path == nullptr) {
    std::fprintf(stderr, "usage: %s [--json FILE]\n", argv[0]);
    return 2;
  }
  const lora::machine_limits limits{stream_bytes_per_second(), flops_per_second()};
  std::printf("%s, tier %s: W is read at %.1f GB/s, products run at %.0f GFLOP/s\n\n", cpu().c_str(), lora::simd::tier_name(),
              limits.stream_bytes_per_second / 1e9, limits.flops_per_second / 1e9);

  std::vector<measurement> results;
  measure<float, float>(4096, 4096, results, "float 4096 x 4096");
  measure<float, float>(4096, 11008, results, "float 4096 x 11008");
  measure<float, float>(1024, 1024, results, "float 1024 x 1024");
  measure<lora::bfloat16, lora::bfloat16>(4096, 4096, results, "bfloat16 4096 x 4096");

  std::printf("%-9s %5s %6s %5s %3s | %8s %8s | %9s %9s %7s | %9s %9s\n", "W", "out", "in", "rank", "n", "merge ms", "said", "extra us",
              "said", "A/A us", "tokens", "said");
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const measurement& m : results) {
    const lora::merge_cost said = lora::merge_cost_of(m.question, limits);
    const lora::merge_question& q = m.question;
    const double tokens = m.extra_seconds > 0 ? m.merge_seconds / m.extra_seconds * static_cast<double>(q.n) : 0;
    const double said_extra = said.extra_seconds_per_token * static_cast<double>(q.n);
    std::printf("%-9s %5td %6td %5td %3td | %8.2f %8.2f | %9.1f %9.1f %7.1f | %9.0f %9.0f\n", lora::name_of(q.weight), q.out, q.in, q.rank,
                q.n, m.merge_seconds * 1e3, said.merge_seconds * 1e3, m.extra_seconds * 1e6, said_extra * 1e6, m.again_seconds * 1e6,
                tokens, said.tokens_to_break_even);
    rows.push_back({{"weight", lora::name_of(q.weight)},
                    {"factor", lora::name_of(q.factor)},
                    {"out", q.out},
                    {"in", q.in},
                    {"rank", q.rank},
                    {"n", q.n},
                    {"merge_seconds", m.merge_seconds},
                    {"call_seconds", m.call_seconds},
                    {"merged_call_seconds", m.merged_call_seconds},
                    {"extra_seconds", m.extra_seconds},
                    {"again_seconds", m.again_seconds}});
  }
  if (json_path != nullptr) {
    nlohmann::ordered_json all;
    all["cpu"] = cpu();
    all["compiler"] = __VERSION__;
    all["flags"] = LORA_BENCH_FLAGS;
    all["tier"] = lora::simd::tier_name();
    all["threads"] = 1;
    all["stream_bytes_per_second"] = limits.stream_bytes_per_second;
    all["flops_per_second"] = limits.flops_per_second;
    all["measured"] = rows;
    std::ofstream(json_path) << all.dump(1) << '\n';
  }
  return 0;
}
