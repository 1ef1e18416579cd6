// SPDX-License-Identifier: Apache-2.0
#include "snapshot.hpp"
#include "tasks.hpp"

#include <lora/adapter/bind.hpp>
#include <lora/linalg/forward.hpp>
#include <lora/snapshot/cell.hpp>

#include <algorithm>
#include <cstring>
#include <shared_mutex>
#include <utility>

namespace bench {

namespace {

/** `size` bytes, all written once; the first eight say which version it is. */
struct blob {
  blob(std::size_t size, std::uint64_t n) : bytes(new unsigned char[size]) {
    std::memset(bytes.get(), 1, size);
    std::memcpy(bytes.get(), &n, sizeof n);
  }
  std::uint64_t number() const {
    std::uint64_t n = 0;
    std::memcpy(&n, bytes.get(), sizeof n);
    return n;
  }
  std::unique_ptr<unsigned char[]> bytes;
};

double ns(clock::duration d) { return 1e9 * seconds(d); }

}  // namespace

nlohmann::json visibility(std::size_t most) {
  nlohmann::json rows = nlohmann::json::array();
  for (std::size_t size = 1024; size <= most; size *= 32) {
    const bool large = size > (std::size_t{64} << 20);
    const int swaps = large ? 40 : 400;
    std::vector<double> seen, published, reclaimed, copied;
    {
      lora::snapshot_cell<blob> cell;
      // Two payloads in turn, so that nothing is freed inside the interval; numbers alternate, the stamp tells the versions apart.
      auto a = lora::make_payload<blob>(size, 1u), b = lora::make_payload<blob>(size, 2u);
      cell.publish(a);
      std::atomic<std::uint64_t> saw{1}, at{0};
      std::atomic<bool> stop{false};
      std::thread reader([&] {
        auto r = cell.reader();
        for (lora::stamp last{1}; !stop.load(std::memory_order_relaxed);) {
          r.read();
          if (r.stamp() == last) continue;
          const auto now = clock::now();
          last = r.stamp();
          at.store(static_cast<std::uint64_t>(now.time_since_epoch().count()), std::memory_order_relaxed);
          saw.store(last.value, std::memory_order_release);
        }
      });
      for (int i = 0; i < swaps; ++i) {
        const auto begin = clock::now();
        const lora::stamp s = cell.publish(i % 2 == 0 ? b : a);
        const auto end = clock::now();
        while (saw.load(std::memory_order_acquire) != s.value) {
        }
        published.push_back(ns(end - begin));
        seen.push_back(static_cast<double>(at.load()) - static_cast<double>(begin.time_since_epoch().count()));
        std::this_thread::sleep_for(std::chrono::microseconds(50));
      }
      stop = true;
      reader.join();
      // Reclaiming: the same bytes, as the only holder lets go of them.
      for (int i = 0; i < (large ? 3 : 20); ++i) {
        cell.publish(lora::make_payload<blob>(size, 3u));
        auto pin = cell.reader();
        pin.read();
        cell.publish(a);
        pin.release();
        const auto begin = clock::now();
        cell.collect();
        reclaimed.push_back(ns(clock::now() - begin));
      }
      // The copying design: the time that its readers are shut out.
      std::shared_mutex m;
      for (int i = 0; i < (large ? 3 : 20); ++i) {
        const auto begin = clock::now();
        std::unique_lock lock(m);
        std::memcpy(b.get()->bytes.get(), a.get()->bytes.get(), size);
        lock.unlock();
        copied.push_back(ns(clock::now() - begin));
      }
    }
    rows.push_back(
        {{"bytes", size}, {"visible_ns", seen}, {"publish_ns", published}, {"reclaim_ns", reclaimed}, {"copy_under_lock_ns", copied}});
  }
  return rows;
}

nlohmann::json first_read() {
  lora::snapshot_cell<version> cell(version{1});
  std::vector<double> nothing, steady, own, other;
  auto r = cell.reader();
  volatile std::uint64_t sink = 0;
  const auto timed = [&](std::vector<double>& to) {
    const auto begin = clock::now();
    sink = r.read()->use();
    to.push_back(ns(clock::now() - begin));
  };
  for (int i = 0; i < 20000; ++i) {
    const auto begin = clock::now();
    nothing.push_back(ns(clock::now() - begin));
    timed(steady);
    cell.publish(version{2});
    timed(own);
  }
  std::atomic<int> turn{0};
  std::thread publisher([&] {
    for (int i = 0; i < 20000; ++i) {
      while (turn.load(std::memory_order_acquire) != 1) {
      }
      cell.publish(version{3});
      turn.store(0, std::memory_order_release);
    }
  });
  for (int i = 0; i < 20000; ++i) {
    turn.store(1, std::memory_order_release);
    while (turn.load(std::memory_order_acquire) != 0) {
    }
    timed(other);
  }
  publisher.join();
  return {{"clock_ns", nothing}, {"steady_ns", steady}, {"same_core_ns", own}, {"other_core_ns", other}};
}

// ---- the layer --------------------------------------------------------------------------------------------------------------------

namespace {

constexpr lora::index_t width = 4096, rank = 16;

struct factors {
  explicit factors(float v) : a(lora::extents{rank, width}), b(lora::extents{width, rank}) {
    std::fill(a.data(), a.data() + a.size(), v);
    std::fill(b.data(), b.data() + b.size(), v);
  }
  lora::ndarray<float, 2> a, b;
};

enum class mode { none, swapped, locked };

}  // namespace

nlohmann::json layer(int windows, int calls) {
  lora::ndarray<lora::bfloat16, 2> w(lora::extents{width, width});
  for (lora::index_t i = 0; i < w.size(); ++i) w.data()[i] = lora::bfloat16(static_cast<float>(i % 97) * 0x1p-12f);
  lora::ndarray<float, 2> x(lora::extents{lora::index_t{1}, width}), y(lora::extents{lora::index_t{1}, width});
  std::fill(x.data(), x.data() + width, 0x1p-6f);
  lora::workspace scratch;
  lora::snapshot_cell<factors> cell(factors(0.5f));
  const auto one = lora::make_payload<factors>(0.25f), two = lora::make_payload<factors>(0.75f);
  std::shared_mutex m;
  factors overwritten(0.5f);
  auto reader = cell.reader("layer");

  const auto window_of = [&](mode how) {
    std::atomic<bool> stop{false};
    std::uint64_t swaps = 0;
    std::thread publisher;
    if (how != mode::none)
      publisher = std::thread([&] {
        for (auto next = clock::now(); !stop; ++swaps) {
          next += std::chrono::milliseconds(1);
          std::this_thread::sleep_until(next);
          const auto& from = swaps % 2 == 0 ? one : two;
          if (how == mode::swapped) {
            cell.publish(from);
          } else {
            std::unique_lock lock(m);
            std::memcpy(overwritten.a.data(), from->a.data(), static_cast<std::size_t>(from->a.size()) * sizeof(float));
            std::memcpy(overwritten.b.data(), from->b.data(), static_cast<std::size_t>(from->b.size()) * sizeof(float));
          }
        }
      });
    std::vector<double> times;
    for (int i = 0; i < calls; ++i) {
      const auto begin = clock::now();
      if (how == mode::locked) {
        std::shared_lock lock(m);
        const lora::low_rank_term term{overwritten.a, overwritten.b, 1.0f};
        lora::forward(y, x, w, {&term, 1}, {}, scratch);
      } else {
        const auto pin = reader.pin();
        const lora::low_rank_term term{pin->a, pin->b, 1.0f};
        lora::forward(y, x, w, {&term, 1}, {}, scratch);
      }
      times.push_back(1e6 * seconds(clock::now() - begin));
    }
    stop = true;
    if (publisher.joinable()) publisher.join();
    std::sort(times.begin(), times.end());
    const auto at = [&](double q) { return times[static_cast<std::size_t>(q * static_cast<double>(times.size() - 1))]; };
    return nlohmann::json{{"p50_us", at(0.5)}, {"p99_us", at(0.99)}, {"max_us", times.back()}, {"swaps", swaps}};
  };
  nlohmann::json none = nlohmann::json::array(), again = none, swapped = none, locked = none;
  for (int i = 0; i < windows; ++i)
    for (int k = 0; k < 4; ++k) switch ((i + k) % 4) {  // none goes first as often as the others
        case 0:
          none.push_back(window_of(mode::none));
          break;
        case 1:
          swapped.push_back(window_of(mode::swapped));
          break;
        case 2:
          again.push_back(window_of(mode::none));
          break;
        default:
          locked.push_back(window_of(mode::locked));
      }
  return {{"calls", calls}, {"none", none}, {"none_again", again}, {"swapped", swapped}, {"locked", locked}};
}

}  // namespace bench
