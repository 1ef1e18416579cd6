// SPDX-License-Identifier: Apache-2.0
//
// Snapshots beside other designs: reads under swaps, publications, a layer's tail latency, loading a file. Everything that is compared runs in
// turn within one process, many times over; tools/plot_snapshot.py makes tables and a plot from the samples.
//
//   bench_snapshot --json measured.json                  # all parts, about three minutes
//   bench_snapshot --part reads --rounds 5 --json reads.json
//   bench_snapshot --part loading --folder /var/tmp/some-folder
#include "snapshot.hpp"
#include "tasks.hpp"

#include <lora/simd/dispatch.hpp>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>

namespace {

std::string cpu() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);)
    if (line.rfind("model name", 0) == 0) return line.substr(line.find(':') + 2);
  return "unknown";
}

/** Nanoseconds a use, on one core: with more readers than cores the cores are what is shared. */
double ns_per_use(const bench::window& w, int readers) {
  const int cores = std::min(readers, static_cast<int>(std::thread::hardware_concurrency()));
  return w.reads == 0 ? 0 : 1e9 * w.elapsed * cores / static_cast<double>(w.reads);
}

nlohmann::json reads(int rounds, double length) {
  std::vector<bench::peer> peers;
  bench::add_lora(peers);
  bench::add_locks(peers);
  bench::add_urcu(peers);
  nlohmann::json rows = nlohmann::json::array();
  for (const int readers : {1, 2, 4})
    for (const double swaps : {0.0, 10.0, 1000.0}) {
      std::map<std::string, std::vector<double>> samples;
      std::map<std::string, std::uint64_t> wrong;
      for (int round = 0; round < rounds; ++round)
        for (std::size_t i = 0; i < peers.size(); ++i) {
          const bench::peer& p = peers[(i + static_cast<std::size_t>(round)) % peers.size()];  // nobody is always first
          const bench::window w = p.run(readers, swaps, length);
          samples[p.name].push_back(ns_per_use(w, readers));
          wrong[p.name] += w.wrong;
        }
      for (const bench::peer& p : peers) {
        if (wrong[p.name] != 0) {
          std::fprintf(stderr, "%s gave mixtures or went back; it is not measured\n", p.name.c_str());
          continue;
        }
        rows.push_back({{"peer", p.name}, {"kind", p.kind}, {"readers", readers}, {"swaps", swaps}, {"ns", samples[p.name]}});
      }
    }
  return rows;
}

const char* option(int argc, char** argv, const char* name, const char* otherwise) {
  for (int i = 1; i + 1 < argc; ++i)
    if (std::strcmp(argv[i], name) == 0) return argv[i + 1];
  return otherwise;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string part = option(argc, argv, "--part", "all");
  const int rounds = std::atoi(option(argc, argv, "--rounds", "5"));
  const double length = std::atof(option(argc, argv, "--window", "0.03"));
  const std::string json = option(argc, argv, "--json", "");
  const std::size_t most = static_cast<std::size_t>(std::atof(option(argc, argv, "--most", "1073741824")));
  const auto is = [&](const char* name) { return part == "all" || part == name; };
  nlohmann::json out = {{"cpu", cpu()},
                        {"cores", std::thread::hardware_concurrency()},
                        {"compiler", __VERSION__},
                        {"flags", LORA_BENCH_FLAGS},
                        {"tier", lora::simd::tier_name()}};
  if (is("reads")) out["reads"] = reads(rounds, length);
  if (is("visibility")) out["visibility"] = bench::visibility(most);
  if (is("first")) out["first_read"] = bench::first_read();
  if (is("layer"))
    out["layer"] = bench::layer(std::atoi(option(argc, argv, "--windows", "20")), std::atoi(option(argc, argv, "--calls", "200")));
  if (is("loading")) {
    namespace fs = std::filesystem;
    const std::string given = option(argc, argv, "--folder", "");
    std::string folder = given.empty() ? (fs::temp_directory_path() / "lora-bench-XXXXXX").string() : given;
    if (given.empty() && ::mkdtemp(folder.data()) == nullptr) {
      std::perror(folder.c_str());
      return 1;
    }
    fs::create_directories(folder);
    out["loading"] = bench::loading(folder, std::size_t{128} << 20, rounds);
    if (given.empty()) fs::remove_all(folder);
  }
  if (json.empty())
    std::printf("%s\n", out.dump(1).c_str());
  else
    std::ofstream(json) << out.dump(1) << '\n';
}
