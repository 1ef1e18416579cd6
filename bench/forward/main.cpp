// SPDX-License-Identifier: Apache-2.0
//
// bench_forward: the fused forward against its peers and against the machine. Every peer is checked against float64 first; a wrong one is
// named and left out. Then all run interleaved (Google Benchmark's random interleaving of repetitions) over W copies larger than the
// caches, with the two limits of the core measured in between, and a table of ratios is printed at the end.
//
//   bench_forward                          M = 1, 4, 8, 16, 32, 64, about two minutes
//   bench_forward --tokens 1 16 --in 1024 --out 1024 --rank 8
//   bench_forward -- --benchmark_out=forward.json
#include "forward.hpp"

#include <benchmark/benchmark.h>
#include <CLI/CLI.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <memory>
#include <random>

namespace {

using bench::peer;
using bench::problem;

struct matrix {
  std::vector<float> values;
  matrix(std::ptrdiff_t rows, std::ptrdiff_t columns, unsigned seed) : values(static_cast<std::size_t>(rows * columns)) {
    std::minstd_rand random(seed + 1);
    for (float& v : values) v = static_cast<float>(static_cast<int>(random() % 2001) - 1000) * 1e-3f;
  }
};

/** Compares 200 elements with float64, within the worst-case bound of f32 sums in any order. */
bool matches(const problem& p, std::size_t w) {
  std::minstd_rand random(7);
  std::vector<double> h(static_cast<std::size_t>(p.rank));
  for (int sample = 0; sample < 200; ++sample) {
    const auto m = static_cast<std::ptrdiff_t>(random()) % p.n;
    const auto n = sample == 0 ? p.out - 1 : static_cast<std::ptrdiff_t>(random()) % p.out;
    double want = 0;
    double magnitude = 0;
    for (std::ptrdiff_t k = 0; k < p.in; ++k) {
      const double t = double(p.w[w][n * p.in + k]) * double(p.x[m * p.in + k]);
      want += t;
      magnitude += std::abs(t);
    }
    for (std::ptrdiff_t j = 0; j < p.rank; ++j) {
      double sum = 0;
      double size = 0;
      for (std::ptrdiff_t k = 0; k < p.in; ++k) {
        const double t = double(p.a[j * p.in + k]) * double(p.x[m * p.in + k]);
        sum += t;
        size += std::abs(t);
      }
      const double b = double(p.scale) * double(p.b[n * p.rank + j]);
      want += b * sum;
      magnitude += std::abs(b) * size;
    }
    const double gamma = double(p.in + p.rank + 8) * 0x1p-24;
    if (!(std::abs(double(p.y[m * p.out + n]) - want) <= gamma * magnitude)) return false;
  }
  return true;
}

/** Prints nothing while running; keeps the median time of each benchmark. */
class table : public benchmark::BenchmarkReporter {
 public:
  bool ReportContext(const Context&) override { return true; }
  void ReportRuns(const std::vector<Run>& runs) override {
    for (const Run& r : runs)
      if (r.run_type == Run::RT_Aggregate && r.aggregate_name == "median") median[r.run_name.function_name] = r.GetAdjustedRealTime();
    std::fputc('.', stderr);
  }
  std::map<std::string, double> median;  // milliseconds
};

std::string label(const std::string& what, std::ptrdiff_t n) { return what + "/" + std::to_string(n); }

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"y = x W^T + s (x A^T) B^T in f32, one thread: lora, its peers, and the limits of the machine"};
  std::vector<std::ptrdiff_t> tokens{1, 4, 8, 16, 32, 64};
  std::ptrdiff_t in = 4096;
  std::ptrdiff_t out = 4096;
  std::ptrdiff_t rank = 16;
  std::size_t megabytes = 768;
  int repetitions = 9;
  bool tiers = false;
  std::vector<std::string> rest;
  app.add_option("--tokens", tokens, "batch sizes M")->capture_default_str();
  app.add_option("--in", in)->capture_default_str();
  app.add_option("--out", out)->capture_default_str();
  app.add_option("--rank", rank)->capture_default_str();
  app.add_option("--repetitions", repetitions, "rounds of interleaving; medians are printed")->capture_default_str();
  app.add_option("--rotate-mb", megabytes, "copies of W are made up to this many MB, so that W comes from memory")->capture_default_str();
  app.add_flag("--tiers", tiers, "also time lora's lower tiers");
  app.add_option("benchmark", rest, "after --: options of Google Benchmark");
  CLI11_PARSE(app, argc, argv);
  bench::openblas_at_its_best(argv);

  const std::size_t bytes = static_cast<std::size_t>(in * out) * sizeof(float);
  const std::size_t copies = std::max<std::size_t>(2, megabytes * 1000 * 1000 / std::max<std::size_t>(bytes, 1));
  std::vector<matrix> w;
  for (std::size_t i = 0; i < std::min<std::size_t>(copies, 64); ++i) w.emplace_back(out, in, static_cast<unsigned>(i));
  const matrix a(rank, in, 100);
  const matrix b(out, rank, 101);

  std::vector<peer> peers;
  for (auto list : {bench::lora_peers(), bench::eigen_peers(), bench::openblas_peers(), bench::onednn_peers()})
    for (peer& p : list)
      if (tiers || (p.name != "lora avx2" && p.name != "lora generic")) peers.push_back(std::move(p));

  std::vector<std::unique_ptr<problem>> problems;
  std::vector<matrix> buffers;
  buffers.reserve(2 * tokens.size());
  for (const std::ptrdiff_t n : tokens) {
    const matrix& x = buffers.emplace_back(n, in, static_cast<unsigned>(200 + n));
    matrix& y = buffers.emplace_back(n, out, 0);
    auto p =
        std::make_unique<problem>(problem{n, in, out, rank, 0.5f, x.values.data(), a.values.data(), b.values.data(), {}, y.values.data()});
    for (const matrix& m : w) p->w.push_back(m.values.data());
    problems.push_back(std::move(p));
  }

  std::map<std::string, std::size_t> turn;
  for (const auto& p : problems) {
    for (const peer& who : peers) {
      const problem* task = p.get();
      const auto body = [task, &who, &turn](benchmark::State& state) {
        void* prepared = who.prepare(*task);
        std::fill_n(task->y, task->n * task->out, NAN);
        who.run(prepared, *task, 0);
        if (!matches(*task, 0)) {
          state.SkipWithError("differs from float64");
        } else {
          std::size_t& i = turn[who.name];
          for (auto _ : state) {
            who.run(prepared, *task, i);
            benchmark::DoNotOptimize(task->y);
            benchmark::ClobberMemory();
            i = (i + 1) % task->w.size();
          }
        }
        who.discard(prepared);
      };
      benchmark::RegisterBenchmark(label(who.name, p->n).c_str(), body)->Unit(benchmark::kMillisecond);
    }
    const problem* task = p.get();
    benchmark::RegisterBenchmark(label("stream", p->n).c_str(), [task, &turn](benchmark::State& state) {
      std::size_t& i = turn["stream"];
      for (auto _ : state) {
        benchmark::DoNotOptimize(bench::stream_read(task->w[i], static_cast<std::size_t>(task->in * task->out)));
        i = (i + 1) % task->w.size();
      }
    })->Unit(benchmark::kMillisecond);
  }
  constexpr std::size_t burst = 200000;
  double burst_flops = 0;
  benchmark::RegisterBenchmark("fma/0", [&](benchmark::State& state) {
    for (auto _ : state) burst_flops = bench::fma_burst(burst);
  })->Unit(benchmark::kMillisecond);

  std::vector<std::string> words{argv[0], "--benchmark_enable_random_interleaving=true", "--benchmark_min_time=0.03",
                                 "--benchmark_repetitions=" + std::to_string(repetitions)};
  words.insert(words.end(), rest.begin(), rest.end());
  std::vector<char*> pointers;
  for (std::string& s : words) pointers.push_back(s.data());
  int count = static_cast<int>(pointers.size());
  benchmark::Initialize(&count, pointers.data());
  table results;
  benchmark::RunSpecifiedBenchmarks(&results);
  std::fputc('\n', stderr);

  std::printf("f32, one thread, in %td, out %td, rank %td, W rotated over %zu copies (%.0f MB), median of %d\n", in, out, rank, w.size(),
              double(bytes * w.size()) * 1e-6, repetitions);
  const double peak = burst_flops / (results.median["fma/0"] * 1e-3);
  std::printf("limits measured in the same run: FMA %.0f GFLOP/s; stream read %.1f GB/s (flags:%s)\n\n", peak * 1e-9,
              double(bytes) / (results.median[label("stream", tokens.front())] * 1e-3) * 1e-9, bench::roofline_flags());
  std::printf("%4s %9s %9s %6s", "M", "limit ms", "lora ms", "%");
  for (const peer& p : peers)
    if (p.name != "lora") std::printf(" %14s", p.name.c_str());
  std::printf("\n");
  for (const auto& p : problems) {
    const double stream = results.median[label("stream", p->n)] * p->bytes() / double(bytes);
    const double limit = std::max(stream, p->flops() / peak * 1e3);
    const double ours = results.median[label("lora", p->n)];
    std::printf("%4td %9.3f %9.3f %6.0f", p->n, limit, ours, 100 * limit / ours);
    for (const peer& q : peers) {
      if (q.name == "lora") continue;
      const auto found = results.median.find(label(q.name, p->n));
      if (found == results.median.end())
        std::printf(" %14s", "wrong");
      else
        std::printf(" %13.2fx", found->second / ours);
    }
    std::printf("\n");
  }
  std::printf("\n%%: of the limit. Columns with x: the peer's time over lora's.\n");
  for (const peer& p : peers) std::printf("  %-14s %s\n", p.name.c_str(), p.how.c_str());
  return 0;
}
