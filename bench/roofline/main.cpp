// SPDX-License-Identifier: Apache-2.0
//
// bench_roofline: the limits alone, on one thread and on all, on small and on huge pages, and what each step from reading W to multiplying
// it costs on one thread. Reads 1.5 GB for each line, 5.6 or half as much for each form.
#include "limits.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <thread>
#include <vector>

namespace {

double median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v[v.size() / 2];
}

/** Milliseconds of each step of each form. W is zeros, in turn from all of `parts` (of whole layers of floats, or of two of 16 bits). */
void print_steps(const std::vector<void*>& parts, const char* pages) {
  alignas(64) static float tokens[16 * bench::steps_in];
  alignas(64) static float sums[512];
  for (std::size_t i = 0; i < sizeof tokens / sizeof *tokens; ++i) tokens[i] = 0.5f - static_cast<float>(i % 13) * 0.0625f;
  for (const bench::form_steps& form : bench::forms_in_steps()) {
    std::vector<const void*> layers;
    for (const void* p : parts)
      for (std::size_t at = 0; at < sizeof(float); at += form.element_bytes)
        layers.push_back(static_cast<const char*>(p) + at * bench::steps_in * bench::steps_out);
    std::size_t turn = 0;
    std::vector<double> seconds[bench::step_count];
    for (int round = 0; round < 21; ++round, ++turn)  // one more a round, or each step would meet the same layers again and again
      for (int s = 0; s < bench::step_count; ++s) {
        const auto start = std::chrono::steady_clock::now();
        form.run[s](layers[turn++ % layers.size()], tokens, sums);
        seconds[s].push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
      }
    std::printf("%2d tokens, %s, %s pages: rows alone %.3f ms, multiplied %.3f, tokens from L1 %.3f, from where they are packed %.3f\n",
                form.tokens, form.name, pages, median(seconds[0]) * 1e3, median(seconds[1]) * 1e3, median(seconds[2]) * 1e3,
                median(seconds[3]) * 1e3);
  }
}

}  // namespace

int main() {
  constexpr std::size_t bytes = std::size_t{64} << 20;
  constexpr std::size_t count = 8;  // together more than most caches hold
  const int all = std::min(64, static_cast<int>(std::max(1u, std::thread::hardware_concurrency())));
  std::printf("flags: %s\n", bench::limits_flags());
  for (const bench::pages kind : {bench::pages::small, bench::pages::huge}) {
    std::vector<void*> parts(count);
    for (void*& p : parts) p = bench::take(bytes, kind);
    if (std::find(parts.begin(), parts.end(), nullptr) != parts.end()) {
      std::fprintf(stderr, "no memory for %zu MB\n", count * bytes >> 20);
      return 1;
    }
    for (int threads = 1; threads <= all; threads = threads == 1 && all > 1 ? all : all + 1) {
      const int way = bench::fastest_way(parts.data(), count, bytes, threads);
      std::vector<double> seconds;
      for (std::size_t i = 0; i < 24; ++i) seconds.push_back(bench::seconds_to_read(way, parts[i % count], bytes, threads));
      std::printf("%d thread%s, %s pages: stream read %5.1f GB/s (%s)\n", threads, threads == 1 ? "" : "s",
                  kind == bench::pages::huge ? "2 MiB" : "4 KiB", double(bytes) / median(seconds) * 1e-9, bench::way_to_read(way));
    }
    print_steps(parts, kind == bench::pages::huge ? "2 MiB" : "4 KiB");
    for (void* p : parts) bench::give_back(p, bytes);
  }
  constexpr struct {
    bench::arithmetic kind;
    const char* name;
  } kinds[] = {{bench::arithmetic::f32, "f32 multiply-adds"},
               {bench::arithmetic::f32_ymm, "f32 multiply-adds in 256 bits"},
               {bench::arithmetic::bf16_pairs, "bf16 pairs (VDPBF16PS)"}};
  for (const auto& [kind, name] : kinds)
    for (int threads = 1; threads <= all && bench::has(kind); threads = threads == 1 && all > 1 ? all : all + 1) {
      std::vector<double> rates;
      for (int i = 0; i < 15; ++i) rates.push_back(bench::flops_per_second(kind, threads));
      std::printf("%d thread%s: %s %.0f GFLOP/s\n", threads, threads == 1 ? "" : "s", name, median(rates) * 1e-9);
    }
  return 0;
}
