// SPDX-License-Identifier: Apache-2.0
//
// The kernels of every tier on raw pointers: each form against float64 within the bound of docs/numerics.md, with NaN wherever nothing may
// be read; packing and storing against plain loops, bit for bit.
#include <lora/simd/dispatch.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

using lora::simd::block_job;
using lora::simd::count;
using lora::simd::form;
using lora::simd::kernel_table;
using lora::simd::segment;
using lora::simd::tier;

namespace {

constexpr float quiet_nan = std::numeric_limits<float>::quiet_NaN();
constexpr float sentinel = -123456.0f;
constexpr double u = 0x1p-24;

std::uint32_t bits(float f) {
  std::uint32_t b = 0;
  std::memcpy(&b, &f, sizeof b);
  return b;
}

struct numbers {
  std::uint32_t state;
  float next() {
    state = state * 1664525u + 1013904223u;
    return static_cast<float>(static_cast<int>(state >> 7) - (1 << 24)) * 0x1p-24f;
  }
};

template <class F>
void for_each_table(F f) {
  for (unsigned i = 0; i < lora::simd::tier_count; ++i) {
    const auto t = static_cast<tier>(i);
    const kernel_table& k = lora::simd::kernels(t);
    if (k.which == t)
      f(k);
    else
      MESSAGE("skipped, not on this CPU: tier " << lora::simd::name_of(t));
  }
}

/** Every form that a batch can be given, and every one that its last panel can. */
std::vector<const form*> forms_of(const kernel_table& k) {
  std::vector<const form*> all;
  const auto add = [&](const form* f) {
    if (std::find(all.begin(), all.end(), f) == all.end()) all.push_back(f);
  };
  for (count m = 1; m <= 130; ++m) {
    const form* f = k.form_for(m);
    add(f);
    for (count rest = 1; rest <= f->tokens_lane * f->registers; ++rest) add(k.rest_form_for(*f, rest));
  }
  return all;
}

// W of one segment: odd row stride, NaN between the rows and behind the last element.
struct rows {
  count depth;
  count stride;
  std::vector<float> memory;
  rows(count r, count d, std::uint32_t seed)
      : depth(d), stride((d + 20) | 1), memory(static_cast<std::size_t>(r == 0 ? 1 : (r - 1) * stride + d + 1), quiet_nan) {
    numbers n{seed};
    for (count i = 0; i < r; ++i)
      for (count j = 0; j < d; ++j) memory[static_cast<std::size_t>(1 + i * stride + j)] = n.next();
  }
  float* data() { return memory.data() + 1; }  // misaligned
  float& at(count i, count k) { return data()[i * stride + k]; }
};

// Packed by the definition in kernel.hpp. `tokens` lanes hold numbers, the others `unused`.
std::vector<float> packed(const form& f, int lanes, count tokens, count depth, float unused, std::uint32_t seed, std::vector<float>& x) {
  const count T = f.tokens_lane;
  const count P = lanes / T;
  const count C = f.registers;
  const count steps = (depth + P - 1) / P;
  numbers n{seed};
  x.assign(static_cast<std::size_t>(tokens * depth), 0.0f);
  for (float& v : x) v = n.next();
  std::vector<float> out(static_cast<std::size_t>(steps * C * lanes));
  for (count s = 0; s < steps; ++s)
    for (count c = 0; c < C; ++c)
      for (count t = 0; t < T; ++t)
        for (count p = 0; p < P; ++p) {
          const count token = c * T + t;
          const count k = s * P + p;
          float v = k < depth ? unused : 0.0f;
          if (token < tokens && k < depth) v = x[static_cast<std::size_t>(token * depth + k)];
          out[static_cast<std::size_t>(((s * C + c) * T + t) * P + p)] = v;
        }
  return out;
}

}  // namespace

TEST_CASE("simd/kernel: the tables of forms make sense for every batch size") {
  for_each_table([](const kernel_table& k) {
    CHECK((k.lanes == 4 || k.lanes == 8 || k.lanes == 16));
    for (count m = 1; m <= 2000; ++m) {
      const form& f = *k.form_for(m);
      CAPTURE(m);
      REQUIRE(k.lanes % f.tokens_lane == 0);
      REQUIRE(f.rows >= 1);
      const count panel = static_cast<count>(f.tokens_lane) * f.registers;
      // Only forms with one token a lane are cut into panels: elsewhere the batch fits one.
      if (f.tokens_lane < k.lanes) REQUIRE(panel >= m);
      const count rest = (m - 1) % panel + 1;
      const form& last = *k.rest_form_for(f, rest);
      REQUIRE(last.tokens_lane == f.tokens_lane);  // else a row's bits would depend on its panel
      REQUIRE(last.rows == f.rows);
      REQUIRE(static_cast<count>(last.tokens_lane) * last.registers >= rest);
      REQUIRE(last.registers <= f.registers);
    }
  });
}

TEST_CASE("simd/kernel: blocks of every form stay inside the bound, whatever lies in unused lanes, tails and gaps") {
  double worst = 0;
  for_each_table([&](const kernel_table& k) {
    for (const form* f : forms_of(k)) {
      const count T = f->tokens_lane;
      const count P = k.lanes / T;
      const count wide = T * f->registers;
      CAPTURE(lora::simd::name_of(k.which));
      CAPTURE(T);
      CAPTURE(f->rows);
      CAPTURE(f->registers);
      for (const count depth : {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 15, 16, 17, 18, 19, 20, 31, 32, 33, 47, 64, 65, 100})
        for (count segments = 0; segments <= 3; ++segments) {
          const count tokens = depth % 3 == 0 ? wide : (depth * 7 + segments) % wide + 1;
          const count panel = depth % 2;
          const count first = 2;
          // Segments of different depths, so that tails meet everywhere; two panels, the other one full of NaN.
          const count depths[3] = {depth, (depth * 5 + 3) % 37, depth == 0 ? 0 : 1};
          std::vector<rows> w;
          std::vector<std::vector<float>> x(3);
          std::vector<std::vector<float>> panels;
          std::vector<segment> s;
          for (count i = 0; i < segments; ++i) {
            const auto seed = static_cast<std::uint32_t>(100 * depth + i);
            w.emplace_back(first + f->rows, depths[i], seed);
            const auto one = packed(*f, k.lanes, tokens, depths[i], quiet_nan, seed + 50, x[static_cast<std::size_t>(i)]);
            const std::size_t stride = one.size() + 5;
            std::vector<float> two(panel == 0 ? one.size() : stride + one.size(), quiet_nan);
            std::copy(one.begin(), one.end(), two.begin() + static_cast<count>(panel == 0 ? 0 : stride));
            panels.push_back(two);
            s.push_back({nullptr, 0, depths[i], nullptr, static_cast<count>(stride)});
          }
          double roundings = static_cast<double>(1);
          for (count i = 0; i < segments; ++i) {
            const auto at = static_cast<std::size_t>(i);
            s[at].w = w[at].data();
            s[at].row_stride = w[at].stride;
            s[at].packed = panels[at].data();
            roundings += static_cast<double>((depths[i] + P - 1) / P);
          }
          for (count p = P; p > 1; p /= 2) roundings += 1;  // the fold
          roundings -= 1;
          const double gamma = roundings * u / (1 - roundings * u);

          const count stride = wide + 3;
          std::vector<float> out(static_cast<std::size_t>(f->rows * stride), sentinel);
          f->run({s.data(), segments, first, panel, out.data(), stride, nullptr});
          std::vector<float> walked(out.size(), sentinel);
          const char* walk = segments > 0 ? reinterpret_cast<const char*>(w[0].data()) : nullptr;
          f->run({s.data(), segments, first, panel, walked.data(), stride, walk});
          for (count r = 0; r < f->rows; ++r) {
            for (count t = 0; t < tokens; ++t) {
              double value = 0;
              double magnitude = 0;
              for (count i = 0; i < segments; ++i) {
                const auto at = static_cast<std::size_t>(i);
                for (count j = 0; j < depths[i]; ++j) {
                  const double p =
                      static_cast<double>(w[at].at(first + r, j)) * static_cast<double>(x[at][static_cast<std::size_t>(t * depths[i] + j)]);
                  value += p;
                  magnitude += std::abs(p);
                }
              }
              const float got = out[static_cast<std::size_t>(r * stride + t)];
              const double error = std::abs(static_cast<double>(got) - value);
              if (magnitude > 0) worst = std::max(worst, error / (gamma * magnitude));
              CAPTURE(depth);
              CAPTURE(segments);
              CAPTURE(r);
              CAPTURE(t);
              REQUIRE(error <= gamma * magnitude);
              REQUIRE(bits(walked[static_cast<std::size_t>(r * stride + t)]) == bits(got));
            }
            for (count t = wide; t < stride; ++t) REQUIRE(out[static_cast<std::size_t>(r * stride + t)] == sentinel);
          }
          // The end of a matrix, with fewer rows than the block has: those there are keep their bits, in whatever place of the block.
          for (count left = 1; left <= f->rows; ++left) {
            const count at = first + f->rows - left;
            std::vector<float> few(static_cast<std::size_t>(f->rows * stride), sentinel);
            f->run({s.data(), segments, at, panel, few.data(), stride, nullptr, left});
            for (count r = 0; r < left; ++r)
              for (count t = 0; t < tokens; ++t)
                REQUIRE(bits(few[static_cast<std::size_t>(r * stride + t)]) ==
                        bits(out[static_cast<std::size_t>((f->rows - left + r) * stride + t)]));
          }
        }
    }
  });
  MESSAGE("largest error " << worst << " of the bound");
}

TEST_CASE("simd/kernel: NaN and Inf in W reach their row only, in x their token only") {
  for_each_table([](const kernel_table& k) {
    for (const form* f : forms_of(k)) {
      const count wide = static_cast<count>(f->tokens_lane) * f->registers;
      const count depth = 21;
      for (const float special : {quiet_nan, std::numeric_limits<float>::infinity()})
        for (count where = 0; where < depth; where += 4) {
          rows w(f->rows, depth, 1);
          const count bad_row = where % f->rows;
          w.at(bad_row, where) = special;
          std::vector<float> x;
          std::vector<float> p = packed(*f, k.lanes, wide, depth, 0, 2, x);
          const count bad_token = (where * 5) % wide;
          const count P = k.lanes / f->tokens_lane;
          const count T = f->tokens_lane;
          p[static_cast<std::size_t>((((where / P) * f->registers + bad_token / T) * T + bad_token % T) * P + where % P)] = special;
          std::vector<float> out(static_cast<std::size_t>(f->rows * wide), 0.0f);
          const segment s{w.data(), w.stride, depth, p.data(), 0};
          f->run({&s, 1, 0, 0, out.data(), wide, nullptr});
          for (count r = 0; r < f->rows; ++r)
            for (count t = 0; t < wide; ++t)
              REQUIRE(std::isfinite(out[static_cast<std::size_t>(r * wide + t)]) == (r != bad_row && t != bad_token));
        }
    }
  });
}

TEST_CASE("simd/kernel: packing follows its definition bit for bit: strides, scale, tails, zeros beyond") {
  for_each_table([](const kernel_table& k) {
    for (const form* f : forms_of(k)) {
      const count T = f->tokens_lane;
      const count P = k.lanes / T;
      const count C = f->registers;
      struct steps {
        count row, column;
      };
      for (const count depth : {0, 1, 2, 3, 5, 8, 13, 15, 16, 17, 31, 32, 33, 40})
        for (const count tokens : {count{1}, T, T * C / 2 + 1, T * C - 1, T * C})
          for (const steps s : {steps{depth + 3, 1}, steps{1, T * C + 1}, steps{3 * depth + 1, 3}, steps{-(depth + 2), 1},
                                steps{depth + 2, -1}, steps{0, 1}})
            for (const float scale : {1.0f, -0.7f}) {
              if (tokens < 1) continue;
              // NaN around the elements; x points at element (0, 0).
              const count reach = (s.row < 0 ? -s.row : s.row) * tokens + (s.column < 0 ? -s.column : s.column) * depth + 2;
              std::vector<float> memory(static_cast<std::size_t>(2 * reach + 1), quiet_nan);
              float* x = memory.data() + reach;
              numbers n{static_cast<std::uint32_t>(depth + 1)};
              for (count i = 0; i < tokens; ++i)
                for (count j = 0; j < depth; ++j) x[i * s.row + j * s.column] = n.next();
              const count steps_of_k = (depth + P - 1) / P;
              const auto size = static_cast<std::size_t>(steps_of_k * C * k.lanes);
              std::vector<float> out(size + 16, sentinel);
              k.pack_panel({x, s.row, s.column, tokens, depth, scale, f->tokens_lane, f->registers, out.data()});
              bool equal = true;
              for (count step = 0; step < steps_of_k; ++step)
                for (count c = 0; c < C; ++c)
                  for (count t = 0; t < T; ++t)
                    for (count p = 0; p < P; ++p) {
                      const count token = c * T + t;
                      const count at = step * P + p;
                      const float want = token < tokens && at < depth ? x[token * s.row + at * s.column] * scale : 0.0f;
                      equal = equal && bits(out[static_cast<std::size_t>(((step * C + c) * T + t) * P + p)]) == bits(want);
                    }
              CAPTURE(lora::simd::name_of(k.which));
              CAPTURE(T);
              CAPTURE(C);
              CAPTURE(depth);
              CAPTURE(tokens);
              CAPTURE(s.row);
              CAPTURE(s.column);
              REQUIRE(equal);
              for (std::size_t i = size; i < out.size(); ++i) REQUIRE(out[i] == sentinel);
            }
    }
  });
}

TEST_CASE("simd/kernel: storing sums adds the bias once, keeps the order, and writes nothing else") {
  for_each_table([](const kernel_table& k) {
    for (const count rows : {1, 2, 5, 15, 16, 17, 31, 32, 33, 47, 48})
      for (const count tokens : {1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 48, 64})
        for (int way = 0; way < 4; ++way)
          for (const bool with_bias : {false, true}) {
            const count stride = tokens + 3;
            std::vector<float> sums(static_cast<std::size_t>(rows * stride), quiet_nan);
            std::vector<float> bias(static_cast<std::size_t>(rows));
            numbers n{static_cast<std::uint32_t>(rows * 100 + tokens)};
            for (float& b : bias) b = n.next();
            for (count r = 0; r < rows; ++r)
              for (count m = 0; m < tokens; ++m) sums[static_cast<std::size_t>(r * stride + m)] = n.next();
            // Row-major with a gap; transposed; every third; rows and columns backwards.
            const count row_stride = way == 0 ? rows + 2 : way == 1 ? 1 : way == 2 ? 3 * rows + 1 : -(rows + 1);
            const count column_stride = way == 0 ? 1 : way == 1 ? tokens + 1 : way == 2 ? 3 : -1;
            const count reach =
                (row_stride < 0 ? -row_stride : row_stride) * tokens + (column_stride < 0 ? -column_stride : column_stride) * rows;
            std::vector<float> memory(static_cast<std::size_t>(2 * reach + 1), sentinel);
            float* y = memory.data() + reach;
            k.store_sums({sums.data(), stride, rows, tokens, with_bias ? bias.data() : nullptr, y, row_stride, column_stride});
            bool equal = true;
            for (count m = 0; m < tokens; ++m)
              for (count r = 0; r < rows; ++r) {
                const float sum = sums[static_cast<std::size_t>(r * stride + m)];
                const float want = with_bias ? sum + bias[static_cast<std::size_t>(r)] : sum;
                float& got = y[m * row_stride + r * column_stride];
                equal = equal && bits(got) == bits(want);
                got = sentinel;
              }
            CAPTURE(lora::simd::name_of(k.which));
            CAPTURE(rows);
            CAPTURE(tokens);
            CAPTURE(way);
            CAPTURE(with_bias);
            REQUIRE(equal);
            REQUIRE(std::count(memory.begin(), memory.end(), sentinel) == static_cast<count>(memory.size()));
          }
  });
}

TEST_CASE("simd/kernel: merging a row stays inside the bound, in place or not, and reads nothing behind it") {
  for_each_table([](const kernel_table& k) {
    for (const count depth : {0, 1, 3, 4, 15, 16, 17, 31, 32, 33, 63, 64, 65, 130})
      for (const count rank : {0, 1, 2, 7, 16})
        for (const count b_stride : {count{1}, count{5}, count{-2}}) {
          rows w(1, depth, 1);
          rows a(rank, depth, 2);
          std::vector<float> b_memory(static_cast<std::size_t>(12 * rank + 1), quiet_nan);
          float* b = b_memory.data() + 6 * rank;
          numbers n{3};
          for (count j = 0; j < rank; ++j) b[j * b_stride] = n.next();
          std::vector<float> out(static_cast<std::size_t>(depth + 1), sentinel);
          const float scale = -0.6f;
          k.merge({w.data(), b, b_stride, a.data(), a.stride, rank, scale, depth, out.data()});
          CHECK(out.back() == sentinel);
          const double to_w = static_cast<double>(rank) * u * 1.0001;
          const double to_terms = static_cast<double>(rank + 2) * u * 1.0001;
          for (count i = 0; i < depth; ++i) {
            double value = static_cast<double>(w.at(0, i));
            double bound = to_w * std::abs(value);
            for (count j = 0; j < rank; ++j) {
              const double p = static_cast<double>(scale) * static_cast<double>(b[j * b_stride]) * static_cast<double>(a.at(j, i));
              value += p;
              bound += to_terms * std::abs(p);
            }
            REQUIRE(std::abs(static_cast<double>(out[static_cast<std::size_t>(i)]) - value) <= bound);
          }
          k.merge({w.data(), b, b_stride, a.data(), a.stride, rank, scale, depth, w.data()});
          for (count i = 0; i < depth; ++i) REQUIRE(bits(w.at(0, i)) == bits(out[static_cast<std::size_t>(i)]));
        }
  });
}
