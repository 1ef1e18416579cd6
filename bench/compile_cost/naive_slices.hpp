// SPDX-License-Identifier: Apache-2.0
//
// The peer of slice_cost.py: slicing as one writes it first, with everything in the pack expansion. Each combination of words becomes
// its own function, checks and messages included. It answers as lora does, and is meant to be a fair piece of work, not a bad one.
#ifndef LORA_BENCH_COMPILE_COST_NAIVE_SLICES_HPP
#define LORA_BENCH_COMPILE_COST_NAIVE_SLICES_HPP

#include <array>
#include <cstddef>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>

namespace naive {

struct all_t {};
inline constexpr all_t all{};
struct omitted_t {};
inline constexpr omitted_t _{};

struct range {
  using bound = std::optional<std::ptrdiff_t>;
  static bound of(omitted_t) { return {}; }
  static bound of(std::ptrdiff_t i) { return i; }
  template <class Start, class Stop>
  range(Start from, Stop to, std::ptrdiff_t by = 1) : start(of(from)), stop(of(to)), step(by) {}
  bound start, stop;
  std::ptrdiff_t step;
};

template <class T, std::size_t R>
struct view {
  T* data{};
  std::array<std::ptrdiff_t, R> shape{};
  std::array<std::ptrdiff_t, R> stride{};

  std::string shape_text() const {
    std::string s = "[";
    for (std::size_t i = 0; i < R; ++i) s += (i != 0 ? ", " : "") + std::to_string(shape[i]);
    return s + "]";
  }

  template <class... Words>
  auto operator()(Words... words) const {
    static_assert(sizeof...(Words) <= R, "more words than axes");
    constexpr std::size_t indices = (std::size_t{0} + ... + (std::is_integral_v<Words> ? 1u : 0u));
    view<T, R - indices> out;
    std::ptrdiff_t offset = 0;
    std::size_t axis = 0;
    std::size_t kept = 0;
    const auto keep = [&](std::ptrdiff_t extent, std::ptrdiff_t step) {
      out.shape[kept] = extent;
      out.stride[kept++] = step;
    };
    const auto take = [&](const auto& word) {
      using word_type = std::decay_t<decltype(word)>;
      const std::ptrdiff_t n = shape[axis];
      if constexpr (std::is_integral_v<word_type>) {
        if (word < -n || word >= n)
          throw std::out_of_range("index " + std::to_string(word) + " is out of bounds for axis " + std::to_string(axis) + " of shape " +
                                  shape_text());
        offset += (word < 0 ? word + n : word) * stride[axis];
      } else if constexpr (std::is_same_v<word_type, range>) {
        if (word.step == 0) throw std::out_of_range("slice step 0 for axis " + std::to_string(axis));
        const std::ptrdiff_t low = word.step < 0 ? -1 : 0;
        const std::ptrdiff_t high = word.step < 0 ? n - 1 : n;
        const auto resolve = [&](const range::bound& b, std::ptrdiff_t otherwise) {
          if (!b) return otherwise;
          if (*b < -n || *b > n)
            throw std::out_of_range("slice bound " + std::to_string(*b) + " is out of bounds for axis " + std::to_string(axis) +
                                    " of shape " + shape_text());
          const std::ptrdiff_t i = *b < 0 ? *b + n : *b;
          return i > high ? high : i;
        };
        const std::ptrdiff_t start = resolve(word.start, word.step < 0 ? high : low);
        const std::ptrdiff_t stop = resolve(word.stop, word.step < 0 ? low : high);
        const std::ptrdiff_t distance = word.step < 0 ? start - stop : stop - start;
        const std::ptrdiff_t width = word.step < 0 ? -word.step : word.step;
        offset += start * stride[axis];
        keep(distance <= 0 ? 0 : (distance - 1) / width + 1, stride[axis] * word.step);
      } else {
        keep(n, stride[axis]);
      }
      ++axis;
    };
    (take(words), ...);
    for (; axis < R; ++axis) keep(shape[axis], stride[axis]);
    out.data = data + offset;
    return out;
  }
};

}  // namespace naive

#endif
