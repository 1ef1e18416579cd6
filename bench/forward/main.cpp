// SPDX-License-Identifier: Apache-2.0
//
// bench_forward: the fused forward against its C++ peers and against the machine, without Python. Every peer is checked against float64
// first; a wrong one is named and left out. Then all run interleaved (Google Benchmark's random interleaving of repetitions) over layers
// larger than the caches, with the two limits measured in between, and a table of ratios is printed at the end. forward.py measures the same
// tasks with PyTorch, PEFT, NumPy and oneMKL beside them, over several process starts, and writes JSON.
//
//   bench_forward                          M = 1, 4, 8, 16, 32, 64, about two minutes
//   bench_forward --tokens 1 16 --in 1024 --out 1024 --rank 8 --type bf16
//   bench_forward -- --benchmark_out=forward.json
#include "forward_tasks.hpp"

#include <benchmark/benchmark.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

namespace {

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

double middle(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v[v.size() / 2];
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"y = x W^T + s (x A^T) B^T: lora, its peers, and the limits of the machine"};
  std::vector<long> tokens{1, 4, 8, 16, 32, 64};
  long in = 4096;
  long out = 4096;
  long rank = 16;
  int threads = 1;
  double megabytes = 400;
  int repetitions = 9;
  bool tiers = false;
  bool huge = false;
  std::string type = "f32";
  std::vector<std::string> rest;
  app.add_option("--tokens", tokens, "batch sizes M")->capture_default_str();
  app.add_option("--in", in)->capture_default_str();
  app.add_option("--out", out)->capture_default_str();
  app.add_option("--rank", rank)->capture_default_str();
  app.add_option("--type", type)->check(CLI::IsMember({"f32", "bf16"}))->capture_default_str();
  app.add_option("--threads", threads)->capture_default_str();
  app.add_option("--repetitions", repetitions, "rounds of interleaving; medians are printed")->capture_default_str();
  app.add_option("--rotate-mb", megabytes, "layers are made up to this many MB, so that W comes from memory")->capture_default_str();
  app.add_flag("--huge", huge, "2 MiB pages");
  app.add_flag("--tiers", tiers, "also time lora's lower tiers");
  app.add_option("benchmark", rest, "after --: options of Google Benchmark");
  CLI11_PARSE(app, argc, argv);

  const auto context = nlohmann::json::parse(forward_context());
  std::printf("%s; %s, flags %s; tier %s\n", context["cpu"].get<std::string>().c_str(), context["compiler"].get<std::string>().c_str(),
              context["flags"].get<std::string>().c_str(), context["tier"].get<std::string>().c_str());
  bool header = false;
  std::map<std::string, std::string> legend;
  for (const long n : tokens) {
    const int layers = forward_open(type == "bf16", n, in, out, rank, 1, 0, threads, huge, 0, megabytes * 1e6);
    if (layers == 0) {
      std::fprintf(stderr, "not enough memory for %.0f MB of W\n", megabytes);
      return 1;
    }
    const char* const way = forward_calibrate();
    const auto peers = nlohmann::json::parse(forward_peers());
    std::vector<std::string> names;
    std::vector<double> stream;
    std::vector<double> fma;
    benchmark::ClearRegisteredBenchmarks();
    int round = 0;
    for (std::size_t i = 0; i < peers.size(); ++i) {
      const auto name = peers[i]["name"].get<std::string>();
      const int number = static_cast<int>(i);
      const bool lower = name == "lora avx2" || name.find("generic") != std::string::npos || name.find("-O2") != std::string::npos;
      if ((lower && !tiers) || name == "lora base" || name == "lora native base") continue;
      forward_prepare(number);
      forward_soil();
      forward_run(number);
      if (const std::string problem = forward_check(peers[i]["rounds_between"].get<bool>(), 0); !problem.empty()) {
        std::printf("%s differs from float64 at M = %ld and is left out: %s\n", name.c_str(), n, problem.c_str());
        continue;
      }
      names.push_back(name);
      legend[name] = peers[i]["how"].get<std::string>();
      benchmark::RegisterBenchmark(name.c_str(),
                                   [number, &round, &stream, &fma](benchmark::State& state) {
                                     stream.push_back(forward_stream(1));
                                     fma.push_back(forward_burst(0));
                                     for (auto _ : state) state.SetIterationTime(forward_time(number, 1, 1 + round % (forward_sets - 1)));
                                     ++round;
                                   })
          ->Unit(benchmark::kMillisecond)
          ->UseManualTime();
    }
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
    if (!header) {
      std::printf("%s, %d thread%s, in %ld, out %ld, rank %ld, %d layers in turn (%.0f MB of W), median of %d\n", type.c_str(), threads,
                  threads == 1 ? "" : "s", in, out, rank, layers, megabytes, repetitions);
      std::printf("limits measured in the same run: multiply-adds %.0f GFLOP/s; stream read %.1f GB/s (%s)\n\n", middle(fma) * 1e-9,
                  middle(stream) * 1e-9, way);
      std::printf("%4s %9s %9s %6s", "M", "limit ms", "lora ms", "%");
      for (const std::string& name : names)
        if (name != "lora") std::printf(" %17s", name.c_str());
      std::printf("\n");
      header = true;
    }
    const double limit = 1e3 * std::max(forward_bytes() / middle(stream), forward_flops() / middle(fma));
    const double ours = results.median["lora"];
    std::printf("%4ld %9.3f %9.3f %6.0f", n, limit, ours, 100 * limit / ours);
    for (const std::string& name : names)
      if (name != "lora") std::printf(" %16.2fx", results.median[name] / ours);
    std::printf("\n");
    std::fflush(stdout);
  }
  forward_close();
  std::printf("\n%%: of the limit of f32 multiply-adds. Columns with x: the peer's time over lora's.\n");
  for (const auto& [name, how] : legend) std::printf("  %-18s %s\n", name.c_str(), how.c_str());
  return 0;
}
