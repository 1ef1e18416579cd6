// SPDX-License-Identifier: Apache-2.0
//
// The limits on several threads, and the memory they are measured on.
#include "limits.hpp"

#include <lora/parallel/thread_pool.hpp>

#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>
#include <vector>

namespace bench {
namespace {

constexpr std::size_t huge_page = std::size_t{2} << 20;
std::size_t whole_pages(std::size_t bytes) { return (std::max<std::size_t>(bytes, 1) + huge_page - 1) / huge_page * huge_page; }

lora::thread_pool& pool(int threads) {
  static std::vector<std::unique_ptr<lora::thread_pool>> all;
  const auto wanted = static_cast<std::size_t>(threads);
  for (auto& p : all)
    if (p->concurrency() == wanted) return *p;
  return *all.emplace_back(std::make_unique<lora::thread_pool>(wanted));
}

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

}  // namespace

void* take(std::size_t bytes, pages kind) {
  // One huge page more than needed, so that the start can be moved to a huge page's: a copy of W then never shares one with its neighbour.
  const std::size_t size = whole_pages(bytes) + huge_page;
  void* const all = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (all == MAP_FAILED) return nullptr;
  auto* const begin = static_cast<char*>(all);
  auto* const start = reinterpret_cast<char*>(whole_pages(reinterpret_cast<std::size_t>(begin)));
  if (start != begin) munmap(begin, static_cast<std::size_t>(start - begin));
  char* const end = start + whole_pages(bytes);
  if (end != begin + size) munmap(end, static_cast<std::size_t>(begin + size - end));
  madvise(start, whole_pages(bytes), kind == pages::huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
  std::memset(start, 0, whole_pages(bytes));
  return start;
}

void give_back(void* p, std::size_t bytes) {
  if (p != nullptr) munmap(p, whole_pages(bytes));
}

double seconds_to_read(int way, const void* p, std::size_t bytes, int threads) {
  const auto parts = static_cast<std::size_t>(threads);
  const std::size_t part = bytes / parts / 4096 * 4096;
  std::size_t sum[64] = {};
  const auto body = [&](std::size_t i) {
    const std::size_t size = i + 1 == parts ? bytes - part * i : part;
    sum[i] = read_once(way, static_cast<const char*>(p) + part * i, size);
  };
  const double start = now();
  if (threads == 1)
    body(0);
  else
    pool(threads).run(parts, body);
  const double taken = now() - start;
  asm volatile("" ::"r"(sum) : "memory");
  return taken;
}

double flops_per_second(arithmetic kind, int threads) {
  // A millisecond or two: the clock of wide registers takes some microseconds to settle. Pairs run at down to a quarter of the rate.
  const std::size_t rounds = kind == arithmetic::bf16_pairs ? 150000 : 500000;
  double done[64] = {};
  const auto parts = static_cast<std::size_t>(threads);
  const auto body = [&](std::size_t i) { done[i] = burst(kind, rounds); };
  const double start = now();
  if (threads == 1)
    body(0);
  else
    pool(threads).run(parts, body);
  const double taken = now() - start;
  double all = 0;
  for (const double d : done) all += d;
  return all / taken;
}

int fastest_way(const void* const* parts, std::size_t count, std::size_t bytes, int threads) {
  std::vector<std::pair<double, int>> found;
  std::size_t turn = 0;
  std::vector<std::vector<double>> samples(static_cast<std::size_t>(ways_to_read()));
  for (int round = 0; round < 3; ++round)
    for (int way = 0; way < ways_to_read(); ++way)
      samples[static_cast<std::size_t>(way)].push_back(seconds_to_read(way, parts[turn++ % count], bytes, threads));
  for (int way = 0; way < ways_to_read(); ++way) {
    auto& s = samples[static_cast<std::size_t>(way)];
    std::sort(s.begin(), s.end());
    found.emplace_back(s[1], way);
  }
  return std::min_element(found.begin(), found.end())->second;
}

}  // namespace bench
