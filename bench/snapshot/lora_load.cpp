// SPDX-License-Identifier: Apache-2.0
//
// Three ways from a file to a version that serves. The reader works all the time; the longest time between two of its answers is what a
// user of the server sees.
#include "snapshot.hpp"
#include "tasks.hpp"

#include <lora/adapter/adapter_set.hpp>
#include <lora/io/json_adapter.hpp>
#include <lora/io/json_adapter_writer.hpp>
#include <lora/io/peft.hpp>
#include <lora/io/peft_writer.hpp>
#include <lora/snapshot/cell.hpp>

#if defined(LORA_BENCH_HAVE_OPENSSL)
#include <lora/interop/sha256.hpp>
#endif

#include <benchmark/benchmark.h>

#include <sched.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <functional>
#include <shared_mutex>
#include <utility>

namespace bench {

namespace {

constexpr lora::index_t width = 4096, rank = 64;  // A and B of a module: 2 MiB

long page_faults() {
  rusage u{};
  getrusage(RUSAGE_THREAD, &u);
  return u.ru_minflt + u.ru_majflt;
}

/** A core for each of the two threads, so that a pause is the design's and not the scheduler's. */
void stay_on(unsigned core) {
  if (std::thread::hardware_concurrency() < 2) return;
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(core, &one);
  sched_setaffinity(0, sizeof one, &one);  // refused in some containers: then the scheduler's pauses are in the numbers
}

/** Runs `load` while a thread calls `answer` without pause; the longest of its intervals that lies in that time, in whole or in part. */
nlohmann::json observed(const std::function<std::uint64_t()>& answer, const std::function<std::size_t()>& load) {
  std::atomic<bool> stop{false}, answering{false};
  std::vector<std::pair<clock::time_point, clock::time_point>> gaps;  // those above 1 us
  gaps.reserve(1 << 20);
  std::thread reader([&] {
    stay_on(0);
    std::uint64_t sink = 0;
    for (auto last = clock::now(); !stop.load(std::memory_order_relaxed);) {
      sink += answer();
      const auto now = clock::now();
      if (now - last > std::chrono::microseconds(1) && gaps.size() < gaps.capacity()) gaps.emplace_back(last, now);
      last = now;
      answering.store(true, std::memory_order_relaxed);
    }
    benchmark::DoNotOptimize(sink);
  });
  stay_on(1);
  while (!answering) std::this_thread::yield();
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  const long faults = page_faults();
  const auto begin = clock::now();
  const std::size_t copied = load();
  const auto end = clock::now();
  const long more = page_faults() - faults;
  std::this_thread::sleep_for(std::chrono::milliseconds(1));  // an answer after the end, too
  stop = true;
  reader.join();
  double longest = 0;
  for (const auto& [from, to] : gaps)
    if (to > begin && from < end) longest = std::max(longest, seconds(to - from));
  return {{"total_ms", 1e3 * seconds(end - begin)}, {"pause_us", 1e6 * longest}, {"bytes_copied", copied}, {"page_faults", more}};
}

}  // namespace

nlohmann::json loading(const std::string& folder, std::size_t bytes, int rounds) {
  const std::size_t modules = std::max<std::size_t>(1, bytes / (2 * width * rank * sizeof(float)));
  lora::model_contract model;
  lora::adapter made;
  made.source = "made";
  lora::ndarray<float, 2> a(lora::extents{rank, width}), b(lora::extents{width, rank});
  for (lora::index_t i = 0; i < a.size(); ++i) {
    a.data()[i] = static_cast<float>(i % 1013) * 0x1p-14f;
    b.data()[i] = static_cast<float>(i % 1019) * 0x1p-14f;
  }
  for (std::size_t i = 0; i < modules; ++i) {
    const std::string name = "model.layers." + std::to_string(i) + ".self_attn.q_proj";
    model.add(name, width, width);
    made.modules.push_back(
        {name, {lora::any_view(lora::ndview<const float, 2>(a)), lora::any_view(lora::ndview<const float, 2>(b)), 1.0f}});
  }
  const std::string peft = folder + "/peft", json = folder + "/adapter.json";
  lora::io::save_peft(peft, made);
  const std::string tensors = peft + "/adapter_model.safetensors";
  const std::size_t payload = modules * 2 * width * rank * sizeof(float);

  lora::snapshot_cell<lora::adapter_set> cell{lora::adapter_set(model)};
  auto reader = cell.reader("the request");
  const auto from_cell = [&] { return static_cast<std::uint64_t>(reader.pin()->rank(0)); };
  const auto publish = [&](lora::adapter&& loaded) { cell.publish(lora::adapter_set(model, {lora::bind(loaded, model)})); };

  // The copying design: one buffer that serves, overwritten under the lock.
  std::vector<float> serving(payload / sizeof(float));
  std::shared_mutex m;
  const auto from_lock = [&] {
    std::shared_lock lock(m);
    return static_cast<std::uint64_t>(serving[0]);
  };

  nlohmann::json ways;
  for (int i = 0; i < rounds; ++i) {
    ways["nothing, for 0.2 s"].push_back(observed(from_cell, [&] {  // what the machine itself does to the reader
      std::this_thread::sleep_for(std::chrono::milliseconds(200));
      return std::size_t{0};
    }));
    ways["map, check, publish"].push_back(observed(from_cell, [&] {
      auto loaded = lora::io::load_peft(peft);
      const std::size_t copied = loaded.bytes_copied;
      publish(std::move(loaded.adapter));
      return copied;
    }));
#if defined(LORA_BENCH_HAVE_OPENSSL)
    ways["map, check, SHA-256, publish"].push_back(observed(from_cell, [&] {
      auto loaded = lora::io::load_peft(peft);
      const std::size_t copied = loaded.bytes_copied;
      benchmark::DoNotOptimize(lora::sha256(loaded.adapter.region));
      publish(std::move(loaded.adapter));
      return copied;
    }));
#endif
    ways["read, copy under a lock"].push_back(observed(from_lock, [&] {
      std::ifstream in(tensors, std::ios::binary);
      in.seekg(0, std::ios::end);
      std::vector<char> all(static_cast<std::size_t>(in.tellg()));
      in.seekg(0);
      in.read(all.data(), static_cast<std::streamsize>(all.size()));
      std::uint64_t header = 0;
      std::memcpy(&header, all.data(), sizeof header);
      std::unique_lock lock(m);
      std::memcpy(serving.data(), all.data() + 8 + header, payload);
      return all.size() + payload;
    }));
  }
  // A file of JSON holds one module; the same one is parsed for each.
  made.modules.resize(1);
  lora::io::save_json(json, made);
  ways["JSON, publish"].push_back(observed(from_cell, [&] {
    lora::adapter all;
    all.source = json;
    auto owners = std::make_shared<std::vector<std::shared_ptr<const void>>>();
    for (std::size_t i = 0; i < modules; ++i) {
      auto one = lora::io::load_json(json).adapter;
      one.modules[0].name = model[i].name;
      all.modules.push_back(std::move(one.modules[0]));
      owners->push_back(std::move(one.owner));
    }
    all.owner = owners;
    publish(std::move(all));
    return payload;
  }));
  return {{"bytes", payload}, {"ways", ways}};
}

}  // namespace bench
