// SPDX-License-Identifier: Apache-2.0
//
// Tenants do not see each other: many tenants on few threads, each request one context, while versions and routes are replaced without
// pause. The references are computed beforehand, one thread, one adapter at a time, and lie outside everything that is published.
#include <lora/linalg/forward.hpp>
#include <lora/nd/array.hpp>
#include <lora/snapshot/cell.hpp>
#include <lora/snapshot/routes.hpp>

#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

using lora::index_t;

constexpr std::size_t tenants = 64, versions = 4, layers = 2;
constexpr index_t width = 40, rank = 3;
constexpr std::array<index_t, 2> batch_sizes{1, 5};

lora::ndarray<float, 2> noise(index_t rows, index_t columns, std::uint64_t seed) {
  lora::ndarray<float, 2> m(lora::extents{rows, columns});
  for (index_t i = 0; i < m.size(); ++i) {
    const std::uint64_t h = lora::mix64(seed * 1000003 + static_cast<std::uint64_t>(i));
    m.data()[i] = static_cast<float>(static_cast<std::int64_t>(h >> 40) - (std::int64_t{1} << 23)) * 0x1p-24f;
  }
  return m;
}

/** The adapter of one tenant in one version. */
struct model {
  model(std::size_t owner, std::size_t number) : tenant(owner), version(number) {
    for (std::size_t l = 0; l < layers; ++l) {
      a.push_back(noise(rank, width, 1 + 8 * (owner * versions + number) + 2 * l));
      b.push_back(noise(width, rank, 2 + 8 * (owner * versions + number) + 2 * l));
    }
  }
  std::size_t tenant, version;
  std::vector<lora::ndarray<float, 2>> a, b;
};

/** The base, the same for all, and what one thread needs to run it. */
struct net {
  net() : first(noise(width, width, 7)), second(noise(width, width, 9)) {}
  lora::ndarray<float, 2> first, second;

  struct buffers {
    buffers(index_t n) : between(lora::extents{n, width}), y(lora::extents{n, width}) {}
    lora::ndarray<float, 2> between, y;
    lora::workspace scratch;
  };
  template <class Pause>
  void run(const model& m, const lora::ndarray<float, 2>& x, buffers& to, Pause pause) const {
    const lora::low_rank_term one{m.a[0], m.b[0], 0.5f}, two{m.a[1], m.b[1], 2.0f};
    lora::forward(to.between, x, first, {&one, 1}, {}, to.scratch);
    pause();  // between two layers of one request
    lora::forward(to.y, to.between, second, {&two, 1}, {}, to.scratch);
  }
};

}  // namespace

TEST_CASE("snapshot/tenants: 64 tenants on 4 threads, each answer its own tenant's bit for bit, while versions churn") {
  using table = lora::route_table<model>;
  const net base;
  std::vector<lora::ndarray<float, 2>> inputs;
  for (const index_t n : batch_sizes) inputs.push_back(noise(n, width, 11 + static_cast<std::uint64_t>(n)));

  std::vector<lora::snapshot_payload<model>> made;
  std::vector<lora::ndarray<float, 2>> reference;  // [tenant][version][batch size]
  for (std::size_t t = 0; t < tenants; ++t)
    for (std::size_t v = 0; v < versions; ++v) {
      made.push_back(lora::make_payload<model>(t, v));
      for (std::size_t s = 0; s < batch_sizes.size(); ++s) {
        net::buffers out(batch_sizes[s]);
        base.run(*made.back(), inputs[s], out, [] {});
        reference.push_back(std::move(out.y));
      }
    }
  const auto bytes = [](const lora::ndarray<float, 2>& m) { return static_cast<std::size_t>(m.size()) * sizeof(float); };
  for (std::size_t i = 2; i < reference.size(); i += 2)  // a mistaken identity would show
    REQUIRE(std::memcmp(reference[i].data(), reference[0].data(), bytes(reference[0])) != 0);

  std::vector<std::uint64_t> keys;
  std::vector<lora::tenant_route> overrides;
  std::vector<lora::route<model>> entries;
  for (std::size_t t = 0; t < tenants; ++t) {
    keys.push_back(lora::stable_hash("tenant " + std::to_string(t)));
    overrides.push_back({keys.back(), t + 1});
    entries.push_back({.id = t + 1, .payload = made[t * versions], .version = lora::stamp{1}});
  }
  lora::snapshot_cell<table> cell(table(entries, overrides));

  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> answers{0}, wrong_tenant{0}, wrong_bits{0};
  std::array<std::atomic<std::uint32_t>, versions> seen{};
  std::vector<std::thread> threads;
  for (std::uint64_t id = 0; id < 4; ++id)
    threads.emplace_back([&, id] {
      auto reader = cell.reader();
      std::vector<net::buffers> out;
      for (const index_t n : batch_sizes) out.emplace_back(n);
      for (std::uint64_t i = 0; !stop; ++i) {
        const std::uint64_t h = lora::mix64(i * 4 + id);
        const std::size_t tenant = h % tenants, size = (h >> 32) % batch_sizes.size();
        const auto context = reader.pin();  // the table, and with it every version that it names
        const model& mine = *context->choose(keys[tenant], h)->payload;
        base.run(mine, inputs[size], out[size], [&] {
          if (h % 8 == 0) std::this_thread::yield();
        });
        if (mine.tenant != tenant) ++wrong_tenant;
        const auto& want = reference[(tenant * versions + mine.version) * batch_sizes.size() + size];
        if (std::memcmp(out[size].y.data(), want.data(), bytes(want)) != 0) ++wrong_bits;
        seen[mine.version].fetch_add(1, std::memory_order_relaxed);
        ++answers;
      }
    });
  std::uint64_t swaps = 0;
  for (const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(800);
       std::chrono::steady_clock::now() < end || answers < 2000; ++swaps) {
    const std::size_t t = lora::mix64(swaps) % tenants;
    const std::size_t v = (swaps / tenants + t) % versions;
    entries[t].payload = made[t * versions + v];
    entries[t].version = lora::stamp{swaps + 2};
    cell.publish(table(entries, overrides));
    if (swaps % 16 == 0) std::this_thread::yield();
  }
  stop = true;
  for (auto& t : threads) t.join();
  MESSAGE(answers.load() << " answers, " << swaps << " swaps");
  CHECK(wrong_tenant == 0);
  CHECK(wrong_bits == 0);
  for (const auto& n : seen) CHECK(n > 0);  // the answers came from every version
}
