// SPDX-License-Identifier: Apache-2.0
//
// bench_ops: the operations on views against C++ peers, without Python. ops.py measures the same tasks with NumPy beside them, and writes JSON.
//
//   bench_ops                     every task, about a minute
//   bench_ops --quick --only transpose
#include "ops.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include <unistd.h>

namespace {

double median(std::vector<double> v) {
  std::nth_element(v.begin(), v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2), v.end());
  return v[v.size() / 2];
}

}  // namespace

int main(int argc, char** argv) {
  bool quick = false;
  std::string only;
  for (int k = 1; k < argc; ++k) {
    if (std::strcmp(argv[k], "--quick") == 0) {
      quick = true;
    } else if (std::strcmp(argv[k], "--only") == 0 && k + 1 < argc) {
      only = argv[++k];
    } else {
      std::printf("bench_ops [--quick] [--only TEXT]   tasks whose group or name holds TEXT; see bench/ops/ops.py for NumPy and JSON\n");
      return std::strcmp(argv[k], "--help") == 0 ? 0 : 2;
    }
  }
  const auto context = nlohmann::json::parse(ops_context());
  // OpenBLAS 0.3.21 runs CPUs it does not know with its oldest kernels; it reads a better choice when it is loaded.
  if (context["openblas_core"] == "Prescott" && __builtin_cpu_supports("avx512dq") && setenv("OPENBLAS_CORETYPE", "SkylakeX", 0) == 0)
    execv("/proc/self/exe", argv);

  const int rounds = quick ? 5 : 15;
  const double sample = quick ? 0.3e-3 : 2e-3;
  const double l3 = std::max(0.0, context["l3"].get<double>());
  const double rotate = quick ? 128e6 : std::clamp(1.5 * l3, 256e6, 768e6);
  std::printf("%s, %s, flags: %s, tier %s\n", context["cpu"].get<std::string>().c_str(), context["compiler"].get<std::string>().c_str(),
              context["flags"].get<std::string>().c_str(), context["tier"].get<std::string>().c_str());
  std::minstd_rand random(1);
  for (int number = 0; number < ops_tasks(); ++number) {
    const auto task = nlohmann::json::parse(ops_task(number));
    const std::string name = task["group"].get<std::string>() + ": " + task["name"].get<std::string>();
    if (name.find(only) == std::string::npos) continue;
    ops_open(number, rotate);
    const auto& peers = task["peers"];
    std::vector<int> right;
    std::vector<long> calls(peers.size());
    std::vector<std::vector<double>> times(peers.size());
    std::printf("%s\n", name.c_str());
    for (int p = 0; p < static_cast<int>(peers.size()); ++p) {
      const auto at = static_cast<std::size_t>(p);
      const std::string who = peers[at]["name"];
      ops_soil();
      ops_run(p);
      const std::string wrong = who == "memcpy" ? "" : ops_check();
      if (!wrong.empty()) {
        std::printf("  %-28s WRONG, not timed: %s\n", who.c_str(), wrong.c_str());
        continue;
      }
      right.push_back(p);
      const double once = ops_time(p, 1);
      calls[at] = std::clamp(static_cast<long>(sample / std::max(once, 1e-9)), 1L, 100000L);
    }
    for (int round = 0; round < rounds; ++round) {
      std::shuffle(right.begin(), right.end(), random);
      for (const int p : right) times[static_cast<std::size_t>(p)].push_back(ops_time(p, calls[static_cast<std::size_t>(p)]));
    }
    for (std::size_t at = 0; at < peers.size(); ++at) {
      if (times[at].empty()) continue;
      const double seconds = median(times[at]);
      std::printf("  %-28s %12.3f us", peers[at]["name"].get<std::string>().c_str(), seconds * 1e6);
      if (!times[0].empty()) {
        std::vector<double> ratios;
        for (std::size_t r = 0; r < times[at].size(); ++r) ratios.push_back(times[at][r] / times[0][r]);
        std::printf(" %7.2f x lora", median(ratios));
      }
      if (task["bytes"].get<double>() > 0) std::printf(" %8.1f GB/s", task["bytes"].get<double>() / seconds * 1e-9);
      std::printf("\n");
    }
    std::fflush(stdout);
  }
  ops_close();
  return 0;
}
