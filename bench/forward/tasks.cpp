// SPDX-License-Identifier: Apache-2.0
//
// The memory of a problem, what its result must be, and the functions that Python and main.cpp call (forward_tasks.hpp).
#include "forward_tasks.hpp"

#include "forward.hpp"

#include <lora/simd/active.hpp>
#include <lora/version.hpp>

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <memory>

namespace bench {
namespace {

/** A block of take(), given back in the end. */
struct block {
  void* p = nullptr;
  std::size_t bytes = 0;
  block(std::size_t size, pages kind) : p(take(size, kind)), bytes(size) {}
  block(block&& other) noexcept : p(other.p), bytes(other.bytes) { other.p = nullptr; }
  block& operator=(block&&) = delete;
  ~block() { give_back(p, bytes); }
};

std::uint64_t mixed(std::uint64_t i, std::uint64_t seed) {  // splitmix64
  std::uint64_t z = (i + seed * 0x10000001ull) * 0x9e3779b97f4a7c15ull;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

void put(type t, void* to, std::size_t i, float v) {
  if (t == type::f32)
    static_cast<float*>(to)[i] = v;
  else
    static_cast<std::uint16_t*>(to)[i] = to_bf16(v);
}
double get(type t, const void* from, std::ptrdiff_t i) {
  return t == type::f32 ? double(static_cast<const float*>(from)[i]) : double(from_bf16(static_cast<const std::uint16_t*>(from)[i]));
}

/**
 * Multiples of 1/4 between -1 and 1: every sum of their products is exact in f32, in any order, while the sum of magnitudes stays below
 * 2^24 units; so a peer that drops one element is found out, which a rounding bound for 4096 terms would let pass.
 */
void fill_exactly(type t, void* to, std::ptrdiff_t count, std::uint64_t seed) {
  for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) put(t, to, i, (float(mixed(i, seed) % 9) - 4) * 0.25f);
}
/** All bits of the significand in use: what is timed. */
void fill_freely(type t, void* to, std::ptrdiff_t count, std::uint64_t seed) {
  for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) put(t, to, i, float(mixed(i, seed) >> 40) * 0x1p-23f - 1.0f);
}
constexpr double unit = 1.0 / 128;  // of x W: 1/16; of s B (A x) with s = 1/2: 1/128

struct sample {
  std::ptrdiff_t m, n;
  double base, low_rank;      // exact
  double magnitude;           // of all terms of both sums
  double low_rank_magnitude;  // sum |s B| |A x|, with A x added up
};

struct opened {
  problem p;
  std::vector<block> blocks;        // of the layers; kept while only n changes
  std::vector<block> batch_blocks;  // of x and y
  std::string key;
  peer_list peers;
  std::vector<void*> states;
  std::vector<sample> samples;
  std::size_t turn = 0;
  int way = 0;  // to read
};
opened& now() {
  static opened o;
  return o;
}

void close_peers(opened& o) {
  for (std::size_t i = 0; i < o.states.size(); ++i)
    if (o.states[i] != nullptr) o.peers[i].discard(o.states[i]);
  o.states.clear();
  o.peers.clear();
}

/** Layer 0 and batch 0 are exact; at most eight tokens are looked at, so that the reference takes milliseconds. */
void find_samples(opened& o) {
  const problem& p = o.p;
  const layer& l = p.layers[0];
  o.samples.clear();
  if (p.n == 0 || p.out == 0) return;
  for (std::ptrdiff_t row = 0; row < std::min<std::ptrdiff_t>(p.n, 8); ++row) {
    const std::ptrdiff_t m =
        row == 0 ? p.n - 1 : static_cast<std::ptrdiff_t>(mixed(static_cast<std::uint64_t>(row), 77) % static_cast<std::uint64_t>(p.n));
    std::vector<double> h, size;
    for (const void* a : l.a)
      for (std::ptrdiff_t j = 0; j < p.rank; ++j) {
        double sum = 0, all = 0;
        for (std::ptrdiff_t k = 0; k < p.in; ++k) {
          const double t = get(p.element, a, j * p.in + k) * get(p.element, p.x[0], m * p.in + k);
          sum += t;
          all += std::abs(t);
        }
        h.push_back(sum);
        size.push_back(all);
      }
    for (int c = 0; c < 32; ++c) {
      const std::ptrdiff_t n =
          c == 0 ? p.out - 1
                 : static_cast<std::ptrdiff_t>(mixed(static_cast<std::uint64_t>(row * 32 + c), 78) % static_cast<std::uint64_t>(p.out));
      sample s{m, n, 0, 0, 0, 0};
      for (std::ptrdiff_t k = 0; k < p.in; ++k) {
        const double t = get(p.element, l.w, p.transposed ? k * p.out + n : n * p.in + k) * get(p.element, p.x[0], m * p.in + k);
        s.base += t;
        s.magnitude += std::abs(t);
      }
      for (std::size_t j = 0; j < h.size(); ++j) {
        const auto rank = static_cast<std::size_t>(p.rank);
        const double b = double(p.scale) * get(p.element, l.b[j / rank], n * p.rank + static_cast<std::ptrdiff_t>(j % rank));
        s.low_rank += b * h[j];
        s.magnitude += std::abs(b) * size[j];
        s.low_rank_magnitude += std::abs(b) * std::abs(h[j]);
      }
      o.samples.push_back(s);
    }
  }
}

/**
 * With u the roundoff of y's type. Sums in f32 are exact or within gamma of their magnitude (fill_exactly). Whoever rounds between the calls
 * rounds h (u of its share), B h, the scaled product and the base once each, and y after every adapter.
 */
std::string check(const opened& o, bool rounds_between, bool base_only) {
  const problem& p = o.p;
  const double u = p.element == type::f32 ? 0 : 0x1p-8;
  const double terms = double(p.in + p.rank * p.adapters + 8) * 0x1p-24;
  for (const sample& s : o.samples) {
    const double gamma = s.magnitude < 0x1p24 * unit ? 0 : terms / (1 - terms);
    const double want = base_only ? s.base : s.base + s.low_rank;
    double bound = gamma * s.magnitude + u * std::abs(want);
    // 1.1: roundings of what is rounded already.
    if (rounds_between) bound += 1.1 * u * (double(p.adapters + 1) * (std::abs(s.base) + s.low_rank_magnitude) + 3 * s.low_rank_magnitude);
    const double got = get(p.element, p.y[0], s.m * p.out + s.n);
    if (!(std::abs(got - want) <= bound)) {
      char text[160];
      std::snprintf(text, sizeof text, "y[%td, %td] is %.8g, not %.8g (bound %.3g)", s.m, s.n, got, want, bound);
      return text;
    }
  }
  return {};
}

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    if (static_cast<unsigned char>(c) >= 32) out += c;
  }
  return out + '"';
}

std::string cpu() {
  std::ifstream info("/proc/cpuinfo");
  std::string line, name = "unknown", family, model;
  while (std::getline(info, line) && !line.empty()) {
    const std::string value = line.substr(std::min(line.size(), line.find(':') + 2));
    if (line.rfind("model name", 0) == 0) name = value;
    if (line.rfind("cpu family", 0) == 0) family = value;
    if (line.rfind("model\t", 0) == 0) model = value;
  }
  return name + (family.empty() ? "" : " (family " + family + ", model " + model + ")");
}

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

}  // namespace
}  // namespace bench

using namespace bench;

extern "C" {

const char* forward_context() {
  static std::string text;
  const auto size = [](int name) { return std::to_string(std::max(0L, sysconf(name))); };
  text = "{\"cpu\":" + quoted(cpu()) + ",\"cpus\":" + size(_SC_NPROCESSORS_ONLN) + ",\"l1d\":" + size(_SC_LEVEL1_DCACHE_SIZE) +
         ",\"l2\":" + size(_SC_LEVEL2_CACHE_SIZE) + ",\"l3\":" + size(_SC_LEVEL3_CACHE_SIZE) + ",\"compiler\":" +
#if defined(__clang__)
         quoted("clang " __clang_version__)
#else
         quoted("g++ " __VERSION__)
#endif
         + ",\"flags\":" + quoted(LORA_BENCH_FLAGS) + ",\"peer_flags\":" + quoted(limits_flags()) +
         ",\"tier\":" + quoted(lora::simd::tier_name()) + ",\"lora\":" +
         quoted(std::to_string(LORA_VERSION_MAJOR) + "." + std::to_string(LORA_VERSION_MINOR) + "." + std::to_string(LORA_VERSION_PATCH)) +
         "}";
  return text.c_str();
}

const char* forward_load(const char* kind, const char* path) {
  static std::string text;
  text = load_blas(kind, path);
  return text.c_str();
}

int forward_open(int element, long n, long in, long out, long rank, long adapters, int transposed, int threads, int huge, int swap,
                 double rotate_bytes) {
  opened& o = now();
  close_peers(o);
  o.batch_blocks.clear();
  problem p;
  p.element = element == 0 ? type::f32 : type::bf16;
  p.n = n;
  p.in = in;
  p.out = out;
  p.rank = rank;
  p.adapters = rank == 0 ? 0 : adapters;
  p.transposed = transposed != 0;
  p.threads = threads;
  p.kind = huge != 0 ? pages::huge : pages::small;
  p.swap = swap != 0;
  char key[160];
  std::snprintf(key, sizeof key, "%d %ld %ld %ld %ld %d %g", element, in, out, rank, adapters, huge, rotate_bytes);
  if (o.key == key) {
    p.layers = std::move(o.p.layers);
  } else {
    o.blocks.clear();
    o.key.clear();
    const std::size_t size = size_of(p.element);
    const std::size_t w_bytes = static_cast<std::size_t>(out * in) * size;
    const std::size_t a_bytes = static_cast<std::size_t>(rank * in) * size;
    const std::size_t b_bytes = static_cast<std::size_t>(out * rank) * size;
    // Whole lines, so that every matrix starts on one.
    const auto lines = [](std::size_t bytes) { return (bytes + 63) / 64 * 64; };
    const std::size_t bytes = lines(w_bytes) + static_cast<std::size_t>(p.adapters) * (lines(a_bytes) + lines(b_bytes));
    const int count =
        rotate_bytes <= 0 ? 1 : std::clamp(static_cast<int>(std::ceil(rotate_bytes / double(std::max<std::size_t>(w_bytes, 1)))), 2, 512);
    for (int i = 0; i < count; ++i) {
      const block& memory = o.blocks.emplace_back(bytes, p.kind);
      if (memory.p == nullptr) {
        o.blocks.clear();
        return 0;
      }
      auto* at = static_cast<char*>(memory.p);
      layer l;
      const auto fill = i == 0 ? fill_exactly : fill_freely;
      const bool first = i < 2;  // the rest are copies of layer 1
      l.w = at;
      if (first) fill(p.element, at, out * in, 1);
      at += lines(w_bytes);
      for (std::size_t k = 0; k < static_cast<std::size_t>(p.adapters); ++k) {
        l.a.push_back(at);
        if (first) fill(p.element, at, rank * in, 10 + k);
        at += lines(a_bytes);
        l.b.push_back(at);
        if (first) fill(p.element, at, out * rank, 20 + k);
        at += lines(b_bytes);
      }
      if (!first) std::memcpy(memory.p, o.blocks[1].p, bytes);
      p.layers.push_back(std::move(l));
    }
    o.key = key;
  }
  for (int set = 0; set < forward_sets; ++set) {
    void* const x = o.batch_blocks.emplace_back(static_cast<std::size_t>(n * in) * size_of(p.element), p.kind).p;
    void* const y = o.batch_blocks.emplace_back(static_cast<std::size_t>(n * out) * size_of(p.element), p.kind).p;
    if (x == nullptr || y == nullptr) return 0;
    (set == 0 ? fill_exactly : fill_freely)(p.element, x, n * in, 30);
    p.x.push_back(x);
    p.y.push_back(y);
  }
  o.p = std::move(p);
  for (auto* list : {lora_peers, eigen_peers, blas_peers, onednn_peers, ggml_peers}) list(o.peers);
#if defined(LORA_BENCH_HAVE_O2)
  o2_peers(o.peers);
#endif
  o.peers.erase(std::remove_if(o.peers.begin(), o.peers.end(), [&](const peer& who) { return !who.takes(o.p); }), o.peers.end());
  o.states.assign(o.peers.size(), nullptr);
  find_samples(o);
  return static_cast<int>(o.p.layers.size());
}

void forward_close() {
  opened& o = now();
  close_peers(o);
  o.blocks.clear();
  o.batch_blocks.clear();
  o.key.clear();
  o.p = {};
}

const char* forward_peers() {
  static std::string text;
  text = "[";
  for (const peer& who : now().peers) {
    constexpr const char* forms[] = {"ours", "plain", "reordered"};
    text += (text.size() == 1 ? "" : ",") + std::string("{\"name\":") + quoted(who.name) + ",\"how\":" + quoted(who.how) + ",\"form\":\"" +
            forms[static_cast<int>(who.w)] + "\",\"rounds_between\":" + (who.rounds_between ? "true" : "false") +
            ",\"base_only\":" + (who.base_only ? "true" : "false") + "}";
  }
  text += "]";
  return text.c_str();
}

void forward_prepare(int number) {
  opened& o = now();
  const auto i = static_cast<std::size_t>(number);
  if (o.states[i] == nullptr) o.states[i] = o.peers[i].prepare(o.p);
}

const void* forward_x(int set) { return now().p.x[static_cast<std::size_t>(set)]; }
void* forward_y(int set) { return now().p.y[static_cast<std::size_t>(set)]; }
const void* forward_w(int at) { return now().p.layers[static_cast<std::size_t>(at)].w; }
const void* forward_a(int at, int adapter) { return now().p.layers[static_cast<std::size_t>(at)].a[static_cast<std::size_t>(adapter)]; }
const void* forward_b(int at, int adapter) { return now().p.layers[static_cast<std::size_t>(at)].b[static_cast<std::size_t>(adapter)]; }
double forward_scale() { return double(now().p.scale); }

void forward_soil() {  // all bits set is a NaN of either type
  const problem& p = now().p;
  std::memset(p.y[0], 0xff, static_cast<std::size_t>(p.n * p.out) * size_of(p.element));
}

const char* forward_check(int rounds_between, int base_only) {
  static std::string text;
  text = check(now(), rounds_between != 0, base_only != 0);
  return text.c_str();
}

void forward_run(int number) {
  opened& o = now();
  const auto i = static_cast<std::size_t>(number);
  if (o.p.swap && o.peers[i].reorder != nullptr) o.peers[i].reorder(o.states[i], o.p, 0);
  o.peers[i].run(o.states[i], o.p, 0, 0);
}

double forward_time(int number, long calls, int set) {
  opened& o = now();
  const auto i = static_cast<std::size_t>(number);
  const peer& who = o.peers[i];
  const auto again = o.p.swap ? who.reorder : nullptr;
  const std::size_t layers = o.p.layers.size();
  const double start = seconds();
  for (long k = 0; k < calls; ++k) {
    if (++o.turn >= layers) o.turn = 0;
    if (again != nullptr) again(o.states[i], o.p, o.turn);
    who.run(o.states[i], o.p, o.turn, static_cast<std::size_t>(set));
  }
  return (seconds() - start) / double(calls);
}

int forward_turn() {
  opened& o = now();
  if (++o.turn >= o.p.layers.size()) o.turn = 0;
  return static_cast<int>(o.turn);
}

double forward_bytes() { return now().p.bytes(); }
double forward_flops() { return now().p.flops(); }

const char* forward_calibrate() {
  opened& o = now();
  std::vector<const void*> parts;
  for (const layer& l : o.p.layers) parts.push_back(l.w);
  const std::size_t bytes = static_cast<std::size_t>(o.p.in * o.p.out) * size_of(o.p.element);
  o.way = fastest_way(parts.data(), parts.size(), bytes, o.p.threads);
  return way_to_read(o.way);
}

double forward_stream(long calls) {
  opened& o = now();
  const std::size_t bytes = static_cast<std::size_t>(o.p.in * o.p.out) * size_of(o.p.element);
  double taken = 0;
  for (long k = 0; k < calls; ++k)
    taken += seconds_to_read(o.way, o.p.layers[static_cast<std::size_t>(forward_turn())].w, bytes, o.p.threads);
  return double(bytes) * double(calls) / taken;
}

double forward_burst(int kind) {
  const auto k = static_cast<arithmetic>(kind);
  return has(k) ? flops_per_second(k, std::max(1, now().p.threads)) : 0;
}

}  // extern "C"
