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

using lora::simd::bfloat16_pair;
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

// Of each tier that has kernels of its own for this element type.
template <class W = float, class F>
void for_each_table(F f) {
  constexpr bool pairs = std::is_same_v<W, bfloat16_pair>;
  for (unsigned i = 0; i < lora::simd::tier_count; ++i) {
    const auto t = static_cast<tier>(i);
    if (pairs != (t == tier::avx512_bf16)) continue;
    if (lora::simd::usable_tier(t) == t)
      f(lora::simd::kernels<W>(t));
    else
      MESSAGE("skipped, not on this CPU: tier " << lora::simd::name_of(t));
  }
}

float widened(float f, float) { return f; }
float widened(std::uint16_t b, lora::bfloat16) { return static_cast<float>(lora::bfloat16::from_bits(b)); }
float widened(std::uint16_t b, lora::float16) { return static_cast<float>(lora::float16::from_bits(b)); }
float widened(std::uint16_t b, bfloat16_pair) { return static_cast<float>(lora::bfloat16::from_bits(b)); }
float narrowed(float f, float) { return f; }
std::uint16_t narrowed(float f, lora::bfloat16) { return lora::bfloat16(f).bits; }
std::uint16_t narrowed(float f, lora::float16) { return lora::float16(f).bits; }
std::uint16_t narrowed(float f, bfloat16_pair) { return lora::bfloat16(f).bits; }

template <class T>
T element_of(float f) {
  return T(f);
}
std::uint32_t bits(lora::bfloat16 b) { return b.bits; }
std::uint32_t bits(lora::float16 b) { return b.bits; }

/** Every form that a batch can be given, and every one that its last panel can. */
std::vector<const form*> forms_of(const kernel_table& k) {
  std::vector<const form*> all;
  const auto add = [&](const form* f) {
    if (std::find(all.begin(), all.end(), f) == all.end()) all.push_back(f);
  };
  for (count m = 1; m <= 130; ++m)
    for (const form* f : {k.form_for(m), k.row_form_for(m)}) {
      add(f);
      for (count rest = 1; rest <= f->tokens_lane * f->registers; ++rest) add(k.rest_form_for(*f, rest));
    }
  return all;
}

// W of one segment: odd row stride, NaN between the rows and behind the last element.
template <class W>
struct rows {
  using stored = lora::simd::row_element<W>;
  count depth;
  count stride;
  std::vector<stored> memory;
  rows(count r, count d, std::uint32_t seed)
      : depth(d), stride((d + 20) | 1), memory(static_cast<std::size_t>(r == 0 ? 1 : (r - 1) * stride + d + 1), narrowed(quiet_nan, W{})) {
    numbers n{seed};
    for (count i = 0; i < r; ++i)
      for (count j = 0; j < d; ++j) set(i, j, n.next());
  }
  stored* data() { return memory.data() + 1; }  // misaligned
  void set(count i, count k, float f) { data()[i * stride + k] = narrowed(f, W{}); }
  float at(count i, count k) { return widened(data()[i * stride + k], W{}); }
};

// Packed by the definition in kernel.hpp: as floats, or as pairs of bfloat16. `tokens` lanes hold numbers, the others `unused`.
template <class W>
std::vector<float> packed(const form& f, int lanes, count tokens, count depth, float unused, std::uint32_t seed, std::vector<float>& x) {
  constexpr count unit = lora::simd::unit_depth<W>;
  const count T = f.tokens_lane;
  const count P = lanes / T;
  const count C = f.registers;
  const count steps = (depth + P * unit - 1) / (P * unit);
  numbers n{seed};
  x.assign(static_cast<std::size_t>(tokens * depth), 0.0f);
  for (float& v : x) v = unit == 2 ? static_cast<float>(lora::bfloat16(n.next())) : n.next();
  std::vector<float> out(static_cast<std::size_t>(steps * C * lanes));
  for (count s = 0; s < steps; ++s)
    for (count c = 0; c < C; ++c)
      for (count t = 0; t < T; ++t)
        for (count p = 0; p < P; ++p) {
          const count token = c * T + t;
          float v[2] = {0.0f, 0.0f};
          for (count half = 0; half < unit; ++half) {
            const count k = (s * P + p) * unit + half;
            if (k < depth) v[half] = token < tokens ? x[static_cast<std::size_t>(token * depth + k)] : unused;
          }
          float& to = out[static_cast<std::size_t>(((s * C + c) * T + t) * P + p)];
          const std::uint16_t pair[2] = {lora::bfloat16(v[0]).bits, lora::bfloat16(v[1]).bits};
          if (unit == 2)
            std::memcpy(&to, pair, sizeof to);
          else
            to = v[0];
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
      // Only forms with one token a lane are cut into any number of panels: elsewhere the batch fits one, or two with no register empty.
      if (f.tokens_lane < k.lanes && panel < m) {
        REQUIRE(2 * panel >= m);
        const form& second = *k.rest_form_for(f, m - panel);
        REQUIRE(panel + static_cast<count>(second.tokens_lane) * second.registers - m < f.tokens_lane);
      }
      const count rest = (m - 1) % panel + 1;
      const form& last = *k.rest_form_for(f, rest);
      REQUIRE(last.tokens_lane == f.tokens_lane);  // else a row's bits would depend on its panel
      REQUIRE(last.rows == f.rows);
      REQUIRE(static_cast<count>(last.tokens_lane) * last.registers >= rest);
      REQUIRE(last.registers <= f.registers);
    }
  });
}

TEST_CASE_TEMPLATE("simd/kernel: blocks of every form stay inside the bound, whatever lies in unused lanes, tails and gaps", W, float,
                   lora::bfloat16, lora::float16, bfloat16_pair) {
  constexpr count unit = lora::simd::unit_depth<W>;
  double worst = 0;
  for_each_table<W>([&](const kernel_table& k) {
    for (const form* f : forms_of(k)) {
      const count T = f->tokens_lane;
      const count P = k.lanes / T;
      const count wide = T * f->registers;
      CAPTURE(lora::simd::name_of(k.which));
      CAPTURE(T);
      CAPTURE(f->rows);
      CAPTURE(f->registers);
      for (const count depth : {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 15, 16, 17, 18, 19, 20, 31, 32, 33, 47, 63, 64, 65, 100, 191, 192})
        for (count segments = 0; segments <= 3; ++segments) {
          const count tokens = depth % 3 == 0 ? wide : (depth * 7 + segments) % wide + 1;
          const count panel = depth % 2;
          const count first = 2;
          // Segments of different depths, so that tails meet everywhere; two panels, the other one full of NaN.
          const count depths[3] = {depth, (depth * 5 + 3) % 37, depth == 0 ? 0 : 1};
          std::vector<rows<W>> w;
          std::vector<rows<float>> floats;  // segments behind W's may be of floats; here the second one is
          std::vector<std::vector<float>> x(3);
          std::vector<std::vector<float>> panels;
          std::vector<segment> s;
          for (count i = 0; i < segments; ++i) {
            const auto seed = static_cast<std::uint32_t>(100 * depth + i);
            const bool is_w = i != 1;
            w.emplace_back(first + f->rows, depths[i], seed);
            floats.emplace_back(first + f->rows, depths[i], seed);
            auto& tokens_of = x[static_cast<std::size_t>(i)];
            const auto one = is_w ? packed<W>(*f, k.lanes, tokens, depths[i], quiet_nan, seed + 50, tokens_of)
                                  : packed<float>(*f, k.lanes, tokens, depths[i], quiet_nan, seed + 50, tokens_of);
            const std::size_t stride = one.size() + 5;
            std::vector<float> two(panel == 0 ? one.size() : stride + one.size(), quiet_nan);
            std::copy(one.begin(), one.end(), two.begin() + static_cast<count>(panel == 0 ? 0 : stride));
            panels.push_back(two);
            s.push_back({nullptr, 0, depths[i], nullptr, static_cast<count>(stride), is_w});
          }
          double roundings = static_cast<double>(1);
          for (count i = 0; i < segments; ++i) {
            const auto at = static_cast<std::size_t>(i);
            s[at].w = s[at].is_w ? static_cast<const void*>(w[at].data()) : floats[at].data();
            s[at].row_stride = w[at].stride;
            s[at].packed = panels[at].data();
            const count a_step = s[at].is_w ? P * unit : P;
            // Both products of a pair may be rounded into the sum one after the other.
            roundings += static_cast<double>((depths[i] + a_step - 1) / a_step * (s[at].is_w ? unit : 1));
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
          // Fetching ahead looks past the row, the block and the matrix, and changes nothing.
          std::vector<float> ahead(out.size(), sentinel);
          f->run({s.data(), segments, first, panel, ahead.data(), stride, nullptr, PTRDIFF_MAX, {.l1 = 512, .l2 = 0}, 100000});
          std::vector<float> twice(out.size(), sentinel);
          f->run({s.data(), segments, first, panel, twice.data(), stride, nullptr, PTRDIFF_MAX, {.l1 = 640, .l2 = 1280}, -100000});
          for (count r = 0; r < f->rows; ++r) {
            for (count t = 0; t < tokens; ++t) {
              double value = 0;
              double magnitude = 0;
              for (count i = 0; i < segments; ++i) {
                const auto at = static_cast<std::size_t>(i);
                for (count j = 0; j < depths[i]; ++j) {
                  const float element = s[at].is_w ? w[at].at(first + r, j) : floats[at].at(first + r, j);
                  const double p = static_cast<double>(element) * static_cast<double>(x[at][static_cast<std::size_t>(t * depths[i] + j)]);
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
              REQUIRE(bits(ahead[static_cast<std::size_t>(r * stride + t)]) == bits(got));
              REQUIRE(bits(twice[static_cast<std::size_t>(r * stride + t)]) == bits(got));
            }
            for (count t = wide; t < stride; ++t) REQUIRE(out[static_cast<std::size_t>(r * stride + t)] == sentinel);
          }
          // Summed in two runs of k, with the sums waiting in between: the same bits, and nothing written before the last.
          if (segments != 0 && depths[0] > P * unit) {
            const count before = (depths[0] / 2 + P * unit - 1) / (P * unit) * (P * unit);
            std::vector<float> waiting(static_cast<std::size_t>(f->rows * f->registers * k.lanes) + 1, sentinel);
            std::vector<float> resumed(out.size(), sentinel);
            std::vector<segment> half = s;
            half[0].depth = before;
            block_job job{half.data(), 1, first, panel, resumed.data(), stride, nullptr};
            job.partial = waiting.data();
            job.suspends = true;
            f->run(job);
            REQUIRE(std::count(resumed.begin(), resumed.end(), sentinel) == static_cast<count>(resumed.size()));
            half[0].depth = depths[0] - before;
            half[0].w = s[0].is_w ? static_cast<const void*>(w[0].data() + before) : floats[0].data() + before;
            half[0].packed = s[0].packed + before / (P * unit) * f->registers * k.lanes;
            job.segment_count = segments;
            job.suspends = false;
            job.resumes = true;
            f->run(job);
            for (count r = 0; r < f->rows; ++r)
              for (count t = 0; t < tokens; ++t) {
                const auto at = static_cast<std::size_t>(r * stride + t);
                REQUIRE(bits(resumed[at]) == bits(out[at]));
              }
            REQUIRE(waiting.back() == sentinel);
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

TEST_CASE_TEMPLATE("simd/kernel: NaN and Inf in W reach their row only, in x their token only", W, float, lora::bfloat16, lora::float16) {
  for_each_table<W>([](const kernel_table& k) {
    for (const form* f : forms_of(k)) {
      const count wide = static_cast<count>(f->tokens_lane) * f->registers;
      const count depth = 85;  // a strip of 16-bit elements, and a tail
      for (const float special : {quiet_nan, std::numeric_limits<float>::infinity()})
        for (count where = 0; where < depth; where += 4) {
          rows<W> w(f->rows, depth, 1);
          const count bad_row = where % f->rows;
          w.set(bad_row, where, special);
          std::vector<float> x;
          std::vector<float> p = packed<W>(*f, k.lanes, wide, depth, 0, 2, x);
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

TEST_CASE_TEMPLATE("simd/kernel: packing follows its definition bit for bit: strides, scale, tails, zeros beyond", X, float, lora::bfloat16,
                   lora::float16) {
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
              std::vector<X> memory(static_cast<std::size_t>(2 * reach + 1), element_of<X>(quiet_nan));
              X* x = memory.data() + reach;
              numbers n{static_cast<std::uint32_t>(depth + 1)};
              for (count i = 0; i < tokens; ++i)
                for (count j = 0; j < depth; ++j) x[i * s.row + j * s.column] = element_of<X>(n.next());
              const count steps_of_k = (depth + P - 1) / P;
              const auto size = static_cast<std::size_t>(steps_of_k * C * k.lanes);
              std::vector<float> out(size + 16, sentinel);
              lora::simd::packer<X>(k.which)({x, s.row, s.column, tokens, depth, scale, f->tokens_lane, f->registers, out.data()});
              bool equal = true;
              for (count step = 0; step < steps_of_k; ++step)
                for (count c = 0; c < C; ++c)
                  for (count t = 0; t < T; ++t)
                    for (count p = 0; p < P; ++p) {
                      const count token = c * T + t;
                      const count at = step * P + p;
                      const float want = token < tokens && at < depth ? static_cast<float>(x[token * s.row + at * s.column]) * scale : 0.0f;
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

TEST_CASE("simd/kernel: packing pairs moves their bits, pads with zeros and reads nothing behind an odd depth") {
  for_each_table<bfloat16_pair>([](const kernel_table& k) {
    for (const form* f : forms_of(k)) {
      const count T = f->tokens_lane;
      const count P = k.lanes / T;
      const count C = f->registers;
      for (const count depth : {0, 1, 2, 3, 5, 16, 31, 32, 33, 63, 64, 65})
        for (const count tokens : {count{1}, T, T * C - 1, T * C})
          for (const bool transposed : {false, true}) {
            if (tokens < 1) continue;
            const count row = transposed ? 1 : depth + 1;
            const count column = transposed ? tokens : 1;
            // Exactly as long as it must be: a sanitizer sees a read behind it. All bit patterns, NaN and subnormals too.
            std::vector<lora::bfloat16> x(static_cast<std::size_t>(depth == 0 ? 0 : (tokens - 1) * row + (depth - 1) * column + 1));
            std::uint32_t state = 7;
            for (auto& v : x) v = lora::bfloat16::from_bits(static_cast<std::uint16_t>((state = state * 1664525u + 1013904223u) >> 16));
            const count steps = (depth + 2 * P - 1) / (2 * P);
            const auto size = static_cast<std::size_t>(steps * C * k.lanes);
            std::vector<float> out(size + 16, sentinel);
            lora::simd::packer<bfloat16_pair>()({x.data(), row, column, tokens, depth, 1.0f, f->tokens_lane, f->registers, out.data()});
            bool equal = true;
            for (count step = 0; step < steps; ++step)
              for (count c = 0; c < C; ++c)
                for (count t = 0; t < T; ++t)
                  for (count p = 0; p < P; ++p)
                    for (count half = 0; half < 2; ++half) {
                      const count token = c * T + t;
                      const count at = (step * P + p) * 2 + half;
                      const std::uint16_t want =
                          token < tokens && at < depth ? x[static_cast<std::size_t>(token * row + at * column)].bits : std::uint16_t{0};
                      std::uint16_t got = 0;
                      std::memcpy(
                          &got, reinterpret_cast<const char*>(&out[static_cast<std::size_t>(((step * C + c) * T + t) * P + p)]) + 2 * half,
                          sizeof got);
                      equal = equal && got == want;
                    }
            CAPTURE(T);
            CAPTURE(C);
            CAPTURE(depth);
            CAPTURE(tokens);
            CAPTURE(transposed);
            REQUIRE(equal);
            for (std::size_t i = size; i < out.size(); ++i) REQUIRE(out[i] == sentinel);
          }
    }
  });
}

TEST_CASE_TEMPLATE("simd/kernel: widening a row is exact and touches nothing behind it", X, float, lora::bfloat16, lora::float16) {
  for_each_table([](const kernel_table& k) {
    const auto widen = k.widen[std::is_same_v<X, float> ? 0 : std::is_same_v<X, lora::bfloat16> ? 1 : 2];
    for (count n = 0; n <= 70; ++n) {
      std::vector<X> from(static_cast<std::size_t>(n));
      numbers r{static_cast<std::uint32_t>(n)};
      for (auto& v : from) v = element_of<X>(r.next());
      std::vector<float> to(static_cast<std::size_t>(n + 1), sentinel);
      widen(from.data(), to.data(), n);
      bool equal = to.back() == sentinel;
      for (std::size_t i = 0; i < from.size(); ++i) equal = equal && bits(to[i]) == bits(static_cast<float>(from[i]));
      CAPTURE(n);
      REQUIRE(equal);
    }
  });
}

TEST_CASE_TEMPLATE(
    "simd/kernel: storing sums applies the row factor, adds the bias once, rounds once, keeps the order, and writes nothing else", Y, float,
    lora::bfloat16, lora::float16) {
  const Y unwritten = element_of<Y>(sentinel);
  for_each_table([&](const kernel_table& k) {
    for (const count rows : {1, 2, 5, 15, 16, 17, 31, 32, 33, 47, 48})
      for (const count tokens : {1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 48, 64})
        for (int way = 0; way < 4; ++way)
          for (const int with : {0, 1, 2, 3}) {
            const bool with_bias = with % 2 != 0;
            const bool with_factor = with / 2 != 0;
            const count stride = tokens + 3;
            std::vector<float> sums(static_cast<std::size_t>(rows * stride), quiet_nan);
            std::vector<float> bias(static_cast<std::size_t>(rows));
            numbers n{static_cast<std::uint32_t>(rows * 100 + tokens)};
            for (float& b : bias) b = n.next();
            std::vector<float> factor(static_cast<std::size_t>(rows));
            for (float& f : factor) f = n.next();
            for (count r = 0; r < rows; ++r)
              for (count m = 0; m < tokens; ++m) sums[static_cast<std::size_t>(r * stride + m)] = n.next();
            // Row-major with a gap; transposed; every third; rows and columns backwards.
            const count row_stride = way == 0 ? rows + 2 : way == 1 ? 1 : way == 2 ? 3 * rows + 1 : -(rows + 1);
            const count column_stride = way == 0 ? 1 : way == 1 ? tokens + 1 : way == 2 ? 3 : -1;
            const count reach =
                (row_stride < 0 ? -row_stride : row_stride) * tokens + (column_stride < 0 ? -column_stride : column_stride) * rows;
            std::vector<Y> memory(static_cast<std::size_t>(2 * reach + 1), unwritten);
            Y* y = memory.data() + reach;
            lora::simd::storer<Y>(k.which)({sums.data(), stride, rows, tokens, with_bias ? bias.data() : nullptr, y, row_stride,
                                            column_stride, with_factor ? factor.data() : nullptr});
            bool equal = true;
            for (count m = 0; m < tokens; ++m)
              for (count r = 0; r < rows; ++r) {
                volatile float product = sums[static_cast<std::size_t>(r * stride + m)];  // rounded, whatever this file is compiled for
                if (with_factor) product = product * factor[static_cast<std::size_t>(r)];
                const float sum = product;
                const Y want = element_of<Y>(with_bias ? sum + bias[static_cast<std::size_t>(r)] : sum);
                Y& got = y[m * row_stride + r * column_stride];
                equal = equal && bits(got) == bits(want);
                got = unwritten;
              }
            CAPTURE(lora::simd::name_of(k.which));
            CAPTURE(rows);
            CAPTURE(tokens);
            CAPTURE(way);
            CAPTURE(with);
            REQUIRE(equal);
            REQUIRE(std::count(memory.begin(), memory.end(), unwritten) == static_cast<count>(memory.size()));
          }
  });
}

TEST_CASE("simd/kernel: merging a row stays inside the bound, in place or not, and reads nothing behind it") {
  for_each_table([](const kernel_table& k) {
    for (const count depth : {0, 1, 3, 4, 15, 16, 17, 31, 32, 33, 63, 64, 65, 130})
      for (const count rank : {0, 1, 2, 7, 16})
        for (const count b_stride : {count{1}, count{5}, count{-2}}) {
          rows<float> w(1, depth, 1);
          rows<float> a(rank, depth, 2);
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
