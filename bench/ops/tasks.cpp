// SPDX-License-Identifier: Apache-2.0
//
// The list of tasks, their buffers, what their results must be, and the functions that Python calls.
#include "ops.hpp"

#include <lora/core/half.hpp>
#include <lora/simd/active.hpp>

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <random>

namespace bench {
namespace {

std::size_t size_of(type t) { return t == type::f64 || t == type::i64 ? 8 : t == type::f16 || t == type::bf16 ? 2 : 4; }
const char* name_of(type t) {
  constexpr const char* names[] = {"f32", "f64", "i32", "i64", "f16", "bf16"};
  return names[static_cast<int>(t)];
}
const char* name_of(op o) {
  constexpr const char* names[] = {"scale",   "transpose", "sum",        "max",   "argmax", "convert",
                                   "softmax", "gelu",      "layer_norm", "slice", "pass"};
  return names[static_cast<int>(o)];
}

/** A shape, the part of it that is looked at, and C order. */
task over(op what, std::string group, std::string name, std::vector<index> whole, std::vector<index> part = {}) {
  task t;
  t.what = what;
  t.group = std::move(group);
  t.name = std::move(name);
  t.rank = whole.size();
  if (part.empty()) part = whole;
  index step = 1;
  index size = 1;
  for (std::size_t k = t.rank; k-- > 0;) {
    t.shape[k] = part[k];
    t.from_stride[k] = t.to_stride[k] = step;
    step *= whole[k];
    size *= part[k];
  }
  t.from_count = t.to_count = step;
  t.bytes = 8.0 * static_cast<double>(size);
  return t;
}

task reduction(op what, type from, std::vector<index> shape, int axis, const char* size, bool cold) {
  std::string name = std::string(name_of(from)) + " (";
  for (std::size_t k = 0; k < shape.size(); ++k) name += (k ? ", " : "") + std::to_string(shape[k]);
  name += axis < 0 ? ") all axes" : ") axis " + std::to_string(axis);
  task t = over(what, name_of(what), name + ", " + size, shape);
  t.from_type = from;
  t.to_type = what == op::argmax || (what == op::sum && from == type::i32) ? type::i64 : from;
  t.axis = axis;
  t.cold = cold;
  t.to_count = axis < 0 ? 1 : t.from_count / t.shape[axis];
  t.bytes = static_cast<double>(t.from_count) * static_cast<double>(size_of(from));
  return t;
}

std::vector<task> make_tasks() {
  std::vector<task> all;
  const auto add = [&](task t, bool cold = false) {
    t.cold = cold;
    all.push_back(std::move(t));
  };
  add(over(op::scale, "scale", "contiguous, 16 KB", {4096}));
  add(over(op::scale, "scale", "contiguous, 512 KB", {131072}));
  add(over(op::scale, "scale", "contiguous, 64 MB", {16777216}), true);
  add(over(op::scale, "scale", "(64,8,16,32)", {64, 8, 16, 32}));
  add(over(op::scale, "scale", "(64,8,16,32)[:,:,:,0:30]", {64, 8, 16, 32}, {64, 8, 16, 30}));
  add(over(op::scale, "scale", "(64,8,16,32)[:,:,0:15,:]", {64, 8, 16, 32}, {64, 8, 15, 32}));
  add(over(op::scale, "scale", "(64,64,16,4)[:,0:63,:,:]", {64, 64, 16, 4}, {64, 63, 16, 4}));
  add(over(op::scale, "scale", "(64,64,16,4)[:,:,:,0:3]", {64, 64, 16, 4}, {64, 64, 16, 3}));
  add(over(op::transpose, "transpose", "f32 512 x 512", {512, 512}));
  add(over(op::transpose, "transpose", "f32 4096 x 4096", {4096, 4096}), true);

  // 32 KB, 1 MB and 64 MB, whatever the element.
  for (const op what : {op::sum, op::max, op::argmax}) {
    for (const type from : {type::f32, type::f64, type::i32}) {
      const index wide = from == type::f64 ? 2 : 1;
      for (const int axis : {-1, 1, 0}) {
        if (from == type::f32) all.push_back(reduction(what, from, {64, 128}, axis, "L1", false));
        all.push_back(reduction(what, from, {512, 512 / wide}, axis, "L2", false));
        all.push_back(reduction(what, from, {4096, 4096 / wide}, axis, "memory", true));
      }
      all.push_back(reduction(what, from, {64, 64, 64 / wide}, 1, "L2", false));
      if (from == type::f32) all.push_back(reduction(what, from, {256, 256, 256}, 1, "memory", true));
    }
  }

  const std::pair<type, type> pairs[] = {{type::f32, type::f16}, {type::f16, type::f32}, {type::f32, type::bf16}, {type::bf16, type::f32}};
  const std::pair<index, const char*> sizes[] = {{4096, "4096"}, {131072, "131072"}, {16777216, "16777216"}};
  for (const auto& [from, to] : pairs) {
    for (const auto& [n, text] : sizes) {
      task t = over(op::convert, "convert", std::string(name_of(from)) + " to " + name_of(to) + ", " + text + " elements", {n});
      t.from_type = from;
      t.to_type = to;
      t.bytes = static_cast<double>(n) * static_cast<double>(size_of(from) + size_of(to));
      add(std::move(t), n > 1000000);
    }
  }

  for (const op what : {op::softmax, op::gelu, op::layer_norm}) {
    add(over(what, "math", std::string(name_of(what)) + " f32 (32, 128)", {32, 128}));
    add(over(what, "math", std::string(name_of(what)) + " f32 (512, 1024)", {512, 1024}));
  }

  for (const bool strided : {false, true}) {
    task t = over(op::slice, "slice", strided ? "(8,16,32,64)[1:7:2, ..., ::-1, 5]" : "(8,16,32,64)[1:7, :, 2:30, 5]", {8, 16, 32, 64});
    t.to_type = type::i64;
    t.to_count = sizeof(slice_record) / 8;
    t.strided = strided;
    t.bytes = 0;
    add(std::move(t));
  }
  task pass = over(op::pass, "slice", "a 4-D view passed by value", {8, 16, 32, 64});
  pass.to_type = type::i64;
  pass.to_count = 1;
  pass.bytes = 0;
  add(std::move(pass));
  return all;
}

const std::vector<task>& tasks() {
  static const std::vector<task> all = make_tasks();
  return all;
}

peer_list peers_of(const task& t) {
  peer_list out;
  for (auto* add :
       {lora_apply, lora_reduce, lora_math, lora_slices, lora_again, native_loops, plain_loops, eigen, openblas, xtensor, mdspan})
    add(t, out);
  return out;
}

struct aligned_delete {
  void operator()(void* p) const { std::free(p); }
};
using buffer = std::unique_ptr<void, aligned_delete>;

buffer make_buffer(std::size_t bytes) {
  constexpr std::size_t page = 4096;
  void* p = std::aligned_alloc(page, (bytes + page - 1) / page * page);
  if (p == nullptr) std::abort();
  return buffer(p);
}

struct open_task {
  const task* t = nullptr;
  peer_list peers;
  std::vector<buffer> from;
  std::vector<buffer> to;
  std::size_t turn = 0;
};
open_task now;

/** Values with no pattern; never 0, NaN or infinite. Those of floats reach over a few powers of two, so that sums round. */
void fill(type t, void* p, index n, bool positive) {
  std::minstd_rand random(12345);
  for (index k = 0; k < n; ++k) {
    const auto whole = static_cast<std::int32_t>(random() % 200001) - (positive ? -1 : 100000);
    const double value = (whole == 0 ? 1 : whole) * 7e-5;
    switch (t) {
      case type::f32:
        static_cast<float*>(p)[k] = static_cast<float>(value);
        break;
      case type::f64:
        static_cast<double*>(p)[k] = value;
        break;
      case type::i32:
        static_cast<std::int32_t*>(p)[k] = whole;
        break;
      case type::i64:
        static_cast<std::int64_t*>(p)[k] = whole;
        break;
      case type::f16:
        static_cast<lora::float16*>(p)[k] = lora::float16(static_cast<float>(value));
        break;
      case type::bf16:
        static_cast<lora::bfloat16*>(p)[k] = lora::bfloat16(static_cast<float>(value));
        break;
    }
  }
}

double value_at(type t, const void* p, index k) {
  switch (t) {
    case type::f32:
      return static_cast<double>(static_cast<const float*>(p)[k]);
    case type::f64:
      return static_cast<const double*>(p)[k];
    case type::i32:
      return static_cast<const std::int32_t*>(p)[k];
    case type::i64:
      return static_cast<double>(static_cast<const std::int64_t*>(p)[k]);
    case type::f16:
      return static_cast<double>(static_cast<float>(static_cast<const lora::float16*>(p)[k]));
    case type::bf16:
      return static_cast<double>(static_cast<float>(static_cast<const lora::bfloat16*>(p)[k]));
  }
  return 0;
}

/** Rounded as the conversion of one element does it, which the tests compare with every float. */
double rounded_to(type t, double value) {
  if (t == type::f16) return static_cast<double>(static_cast<float>(lora::float16(static_cast<float>(value))));
  if (t == type::bf16) return static_cast<double>(static_cast<float>(lora::bfloat16(static_cast<float>(value))));
  return value;
}

std::string differs(index k, double got, double want) {
  char text[128];
  std::snprintf(text, sizeof text, "element %td is %.9g, not %.9g", k, got, want);
  return text;
}

// The bounds below are those of any order of f32 sums; a peer may be far better.
constexpr double u32 = 0x1p-24;
constexpr double u64 = 0x1p-53;
constexpr unsigned char soil = 0xA5;

std::string check_scale(const task& t, const float* from, const float* to) {
  std::vector<bool> covered(static_cast<std::size_t>(t.to_count));
  for (index i = 0; i < t.shape[0]; ++i)
    for (index j = 0; j < t.shape[1]; ++j)
      for (index k = 0; k < t.shape[2]; ++k)
        for (index l = 0; l < t.shape[3]; ++l) {
          const index at = i * t.from_stride[0] + j * t.from_stride[1] + k * t.from_stride[2] + l * t.from_stride[3];
          covered[static_cast<std::size_t>(at)] = true;
          if (!(to[at] == 2 * from[at])) return differs(at, double(to[at]), 2 * double(from[at]));
        }
  float untouched;
  std::memset(&untouched, soil, sizeof untouched);
  for (index at = 0; at < t.to_count; ++at)
    if (!covered[static_cast<std::size_t>(at)] && std::memcmp(&to[at], &untouched, sizeof untouched) != 0)
      return "writes outside its slice, at " + std::to_string(at);
  return "";
}

std::string check_transpose(const task& t, const float* from, const float* to) {
  for (index i = 0; i < t.shape[0]; ++i)
    for (index j = 0; j < t.shape[1]; ++j)
      if (to[j * t.shape[0] + i] != from[i * t.shape[1] + j])
        return differs(j * t.shape[0] + i, double(to[j * t.shape[0] + i]), double(from[i * t.shape[1] + j]));
  return "";
}

std::string check_reduction(const task& t, const void* from, const void* to) {
  const std::size_t axis = static_cast<std::size_t>(t.axis);
  const index n = t.axis < 0 ? t.from_count : t.shape[axis];
  const index inner = t.axis < 0 ? 1 : t.from_stride[axis];
  const bool floats = t.from_type != type::i32;
  for (index r = 0; r < t.to_count; ++r) {
    const index start = r / inner * n * inner + r % inner;
    double sum = 0;
    double lost = 0;  // Kahan's: the reference is to be far more exact than the f64 peers
    double magnitude = 0;
    index best = 0;
    for (index k = 0; k < n; ++k) {
      const double x = value_at(t.from_type, from, start + k * inner);
      const double y = x - lost;
      const double next = sum + y;
      lost = (next - sum) - y;
      sum = next;
      magnitude += std::abs(x);
      if (x > value_at(t.from_type, from, start + best * inner)) best = k;
    }
    const double got = value_at(t.to_type, to, r);
    const double want = t.what == op::sum ? sum : t.what == op::max ? value_at(t.from_type, from, start + best * inner) : double(best);
    const double u = !floats ? 0 : t.from_type == type::f32 ? u32 : u64;
    // The worst case, n u, allows anything at n = 2^24 in f32. Roundings of such values are as good as random, and then 6 sqrt(n) u holds but
    // once in 10^7 (Higham and Mary, "A new approach to probabilistic rounding error analysis", 2019).
    const double bound = t.what == op::sum ? 6 * std::sqrt(double(n)) * u * magnitude : 0;
    if (!(std::abs(got - want) <= bound)) return differs(r, got, want);
  }
  return "";
}

std::string check_convert(const task& t, const void* from, const void* to) {
  for (index k = 0; k < t.to_count; ++k) {
    const double want = rounded_to(t.to_type, value_at(t.from_type, from, k));
    if (!(value_at(t.to_type, to, k) == want)) return differs(k, value_at(t.to_type, to, k), want);
  }
  return "";
}

std::string check_math(const task& t, const float* from, const float* to) {
  const index d = t.shape[1];
  const auto n = static_cast<double>(d);
  for (index r = 0; r < t.shape[0]; ++r) {
    const float* x = from + r * d;
    double largest = double(x[0]);
    double smallest = largest;
    double mean = 0;
    double magnitude = 0;
    for (index k = 0; k < d; ++k) {
      largest = std::max(largest, double(x[k]));
      smallest = std::min(smallest, double(x[k]));
      mean += double(x[k]) / n;
      magnitude += std::abs(double(x[k])) / n;
    }
    double total = 0;
    double variance = 0;
    for (index k = 0; k < d; ++k) {
      total += std::exp(double(x[k]) - largest);
      variance += (double(x[k]) - mean) * (double(x[k]) - mean) / n;
    }
    const double s = std::sqrt(variance + epsilon);
    for (index k = 0; k < d; ++k) {
      const double v = double(x[k]);
      double want = 0;
      double bound = 0;
      if (t.what == op::softmax) {
        want = std::exp(v - largest) / total;
        bound = (n + 16 + 2 * (largest - smallest)) * u32 * want;  // the argument of exp carries its own rounding
      } else if (t.what == op::gelu) {
        want = v * 0.5 * std::erfc(-v * 0.70710678118654752440);
        bound = 8 * u32 * std::abs(v);  // 1 + erf cancels for negative v, in the textbook's form
      } else {
        const double w = double(weight(k));
        want = (v - mean) / s * w + double(bias(k));
        bound = (n + 8) * u32 * (std::abs((v - mean) / s * w) + w * magnitude / s + double(bias(k)));
      }
      if (!(std::abs(double(to[r * d + k]) - want) <= bound)) return differs(r * d + k, double(to[r * d + k]), want);
    }
  }
  return "";
}

std::string check_slice(const task& t, const void* to) {
  // (8,16,32,64) has strides 32768, 2048, 64, 1.
  const slice_record want = t.strided ? slice_record{32768 + 31 * 64 + 5, {3, 16, 32, 0}, {65536, 2048, -64, 0}}
                                      : slice_record{32768 + 2 * 64 + 5, {6, 16, 28, 0}, {32768, 2048, 64, 0}};
  return std::memcmp(to, &want, sizeof want) == 0 ? "" : "another slice";
}

std::string check(const task& t, const void* from, const void* to) {
  switch (t.what) {
    case op::scale:
      return check_scale(t, static_cast<const float*>(from), static_cast<const float*>(to));
    case op::transpose:
      return check_transpose(t, static_cast<const float*>(from), static_cast<const float*>(to));
    case op::sum:
    case op::max:
    case op::argmax:
      return check_reduction(t, from, to);
    case op::convert:
      return check_convert(t, from, to);
    case op::softmax:
    case op::gelu:
    case op::layer_norm:
      return check_math(t, static_cast<const float*>(from), static_cast<const float*>(to));
    case op::slice:
      return check_slice(t, to);
    case op::pass: {
      std::int64_t got = 0;
      std::memcpy(&got, to, sizeof got);
      return got == t.shape[3] * nanosecond_batch ? "" : "another sum";
    }
  }
  return "";
}

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    if (static_cast<unsigned char>(c) >= 32) out += c;
  }
  return out + '"';
}

template <class Number>
std::string list(const Number* values, std::size_t n) {
  std::string out = "[";
  for (std::size_t k = 0; k < n; ++k) out += (k ? "," : "") + std::to_string(values[k]);
  return out + "]";
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

std::vector<float> table(float (*f)(index)) {
  std::vector<float> out(4096);
  for (std::size_t k = 0; k < out.size(); ++k) out[k] = f(static_cast<index>(k));
  return out;
}

}  // namespace

const float* weights() {
  static const std::vector<float> all = table(weight);
  return all.data();
}
const float* biases() {
  static const std::vector<float> all = table(bias);
  return all.data();
}

}  // namespace bench

using namespace bench;

extern "C" {

const char* ops_context() {
  static std::string text;
  text = "{\"cpu\":" + quoted(cpu()) + ",\"cpus\":" + std::to_string(sysconf(_SC_NPROCESSORS_ONLN)) +
         ",\"l1d\":" + std::to_string(sysconf(_SC_LEVEL1_DCACHE_SIZE)) + ",\"l2\":" + std::to_string(sysconf(_SC_LEVEL2_CACHE_SIZE)) +
         ",\"l3\":" + std::to_string(sysconf(_SC_LEVEL3_CACHE_SIZE)) + ",\"compiler\":" +
#if defined(__clang__)
         quoted("clang " __clang_version__)
#else
         quoted("g++ " __VERSION__)
#endif
         + ",\"flags\":" + quoted(LORA_BENCH_FLAGS) + ",\"tier\":" + quoted(lora::simd::tier_name()) +
         ",\"openblas_core\":" + quoted(openblas_core()) + "}";
  return text.c_str();
}

int ops_tasks() { return static_cast<int>(tasks().size()); }

const char* ops_task(int number) {
  static std::string text;
  const task& t = tasks()[static_cast<std::size_t>(number)];
  text = "{\"group\":" + quoted(t.group) + ",\"name\":" + quoted(t.name) + ",\"op\":" + quoted(name_of(t.what)) +
         ",\"from_type\":" + quoted(name_of(t.from_type)) + ",\"to_type\":" + quoted(name_of(t.to_type)) +
         ",\"shape\":" + list(t.shape, t.rank) + ",\"from_stride\":" + list(t.from_stride, t.rank) +
         ",\"to_stride\":" + list(t.to_stride, t.rank) + ",\"from_count\":" + std::to_string(t.from_count) +
         ",\"to_count\":" + std::to_string(t.to_count) + ",\"axis\":" + std::to_string(t.axis) +
         ",\"strided\":" + (t.strided ? "true" : "false") + ",\"cold\":" + (t.cold ? "true" : "false") +
         ",\"bytes\":" + std::to_string(t.bytes) + ",\"peers\":[";
  bool first = true;
  for (const peer& p : peers_of(t)) {
    text += (first ? "" : ",") + std::string("{\"name\":") + quoted(p.name) + ",\"how\":" + quoted(p.how) + "}";
    first = false;
  }
  text += "]}";
  return text.c_str();
}

int ops_open(int number, double rotate_bytes) {
  ops_close();
  const task& t = tasks()[static_cast<std::size_t>(number)];
  now.t = &t;
  now.peers = peers_of(t);
  const std::size_t from_bytes = static_cast<std::size_t>(t.from_count) * size_of(t.from_type);
  const std::size_t to_bytes = static_cast<std::size_t>(t.to_count) * size_of(t.to_type);
  const double pair = static_cast<double>(from_bytes + to_bytes);
  const int sets = t.cold ? std::clamp(static_cast<int>(std::ceil(rotate_bytes / pair)), 2, 64) : 1;
  for (int k = 0; k < sets; ++k) {
    // Room for memcpy, which moves half of the bytes each way where a conversion moves a third and two thirds.
    now.from.push_back(make_buffer(std::max(from_bytes, to_bytes)));
    now.to.push_back(make_buffer(std::max(from_bytes, to_bytes)));
    if (k == 0)
      fill(t.from_type, now.from[0].get(), t.from_count, t.what == op::sum);  // a sum near 0 could not be checked
    else
      std::memcpy(now.from.back().get(), now.from[0].get(), from_bytes);
    std::memset(now.to.back().get(), soil, std::max(from_bytes, to_bytes));
    if (to_bytes > from_bytes) std::memset(static_cast<char*>(now.from.back().get()) + from_bytes, 0, to_bytes - from_bytes);
  }
  return sets;
}

const void* ops_from(int set) { return now.from[static_cast<std::size_t>(set)].get(); }
void* ops_to(int set) { return now.to[static_cast<std::size_t>(set)].get(); }
void ops_soil() { std::memset(now.to[0].get(), soil, static_cast<std::size_t>(now.t->to_count) * size_of(now.t->to_type)); }

const char* ops_check() {
  static std::string text;
  text = check(*now.t, now.from[0].get(), now.to[0].get());
  return text.c_str();
}

void ops_run(int number) { now.peers[static_cast<std::size_t>(number)].run(*now.t, now.from[0].get(), now.to[0].get()); }

double ops_time(int number, long calls) {
  const peer& p = now.peers[static_cast<std::size_t>(number)];
  const std::size_t sets = now.from.size();
  const auto start = std::chrono::steady_clock::now();
  for (long k = 0; k < calls; ++k) {
    p.run(*now.t, now.from[now.turn].get(), now.to[now.turn].get());
    if (++now.turn == sets) now.turn = 0;
  }
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
  return taken.count() / static_cast<double>(calls) / p.batch;
}

void ops_close() { now = open_task{}; }

}  // extern "C"
