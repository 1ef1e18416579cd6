// SPDX-License-Identifier: Apache-2.0
//
// What the tests of the adapter formats share: adapters made by a rule, comparison of two adapters, and of one with expect.json of
// tests/data/formats, whose numbers come from NumPy and PEFT.
#ifndef LORA_TESTS_IO_FORMATS_HPP
#define LORA_TESTS_IO_FORMATS_HPP

#include "elements.hpp"
#include "files.hpp"

#include <lora/adapter/adapter.hpp>
#include <lora/nd/array.hpp>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <cmath>

namespace test {

const std::string formats_data = LORA_TEST_DATA_DIR "/formats/";

/** Every module of the file in expect.json, with its rank, its scale and d = s B (A x), and no other. */
inline void check_expected(const lora::adapter& a, const std::string& file, const std::string& prefix = "") {
  const nlohmann::json all = nlohmann::json::parse(read_file(formats_data + "expect.json"));
  std::size_t expected = 0;
  for (const auto& item : all.at(file).items()) expected += item.key().starts_with(prefix) ? 1 : 0;
  REQUIRE(a.modules.size() == expected);
  REQUIRE(expected != 0);
  for (const auto& m : a.modules) {
    CAPTURE(m.name);
    const nlohmann::json& want = all.at(file).at(prefix + m.name);
    const lora::any_view& down = m.weights.a;
    const lora::any_view& up = m.weights.b;
    REQUIRE(down.extent(0) == want["rank"].get<lora::index_t>());
    CHECK(double{m.weights.scale} == want["scale"].get<double>());
    REQUIRE(static_cast<std::size_t>(up.extent(0)) == want["d"].size());
    for (lora::index_t o = 0; o < up.extent(0); ++o) {
      double sum = 0;
      double magnitude = 0;
      for (lora::index_t r = 0; r < down.extent(0); ++r)
        for (lora::index_t i = 0; i < down.extent(1); ++i) {
          const double term = double{m.weights.scale} * element(up, o, r) * element(down, r, i) * (static_cast<double>(i % 7 - 3) / 4);
          sum += term;
          magnitude += std::abs(term);
        }
      // Both sides are sums of the same exact numbers in double: at most rank * in + 4 roundings on each.
      const double bound = 2 * static_cast<double>(down.size() + 4) * 0x1p-53 * magnitude;
      REQUIRE(std::abs(sum - want["d"][static_cast<std::size_t>(o)].get<double>()) <= bound);
    }
  }
}

/** The same modules in the same order, and every element and scale the same; types too unless `widened`. */
inline void check_same(const lora::adapter& got, const lora::adapter& want, bool widened = false) {
  REQUIRE(got.modules.size() == want.modules.size());
  for (const auto& w : want.modules) {
    CAPTURE(w.name);
    const lora::adapted_module* g = nullptr;  // safetensors files put the widest types first
    for (const auto& m : got.modules)
      if (m.name == w.name) g = &m;
    REQUIRE(g != nullptr);
    CHECK(g->weights.scale == w.weights.scale);
    for (const bool first : {true, false}) {
      const lora::any_view& x = first ? g->weights.a : g->weights.b;
      const lora::any_view& y = first ? w.weights.a : w.weights.b;
      CHECK((widened || x.type() == y.type()));
      REQUIRE(x.rank() == 2);
      REQUIRE(x.extent(0) == y.extent(0));
      REQUIRE(x.extent(1) == y.extent(1));
      std::size_t different = 0;
      for (lora::index_t i = 0; i < x.extent(0); ++i)
        for (lora::index_t j = 0; j < x.extent(1); ++j) different += element(x, i, j) == element(y, i, j) ? 0 : 1;
      CHECK(different == 0);
    }
  }
}

/** Modules of all three types, odd sizes, different ranks, and factors with gaps, reversed and transposed. Scale = alpha / rank. */
class made_adapter {
 public:
  explicit made_adapter(double alpha, bool plain = false)
      : small_(lora::extents{9, 14}), wide_(lora::extents{7, 6}), half_(lora::extents{5, 8}) {
    fill(small_.view(), 1);
    fill(wide_.view(), 2);
    fill(half_.view(), 3);
    adapter.source = "made";
    using lora::_, lora::range, lora::all;
    const auto f = small_.view();
    const auto h = wide_.view();
    const auto b = half_.view();
    add("down.0.q", plain ? lora::any_view(f(range(0, 3), range(0, 8))) : lora::any_view(f(range(0, 6, 2), range(_, _, -2))),
        h(all, range(0, 3)), alpha);
    add("down.0.v_proj", b(range(0, 4), all), lora::any_view(f(range(0, 4), all)).transpose(), alpha);
    add("lm_head", h(range(0, 1), range(1, 6)), b(all, range(2, 3)), alpha);
  }
  made_adapter(const made_adapter&) = delete;
  made_adapter& operator=(const made_adapter&) = delete;

  lora::adapter adapter;

 private:
  template <class T>
  static void fill(lora::ndview<T, 2> v, unsigned seed) {
    for (lora::index_t i = 0; i < v.extent(0); ++i)
      for (lora::index_t j = 0; j < v.extent(1); ++j) {
        seed = seed * 1664525u + 1013904223u;
        v(i, j) = T(static_cast<float>(static_cast<int>(seed >> 9) - (1 << 22)) / 3e6f);
      }
  }
  void add(const char* name, const lora::any_view& a, const lora::any_view& b, double alpha) {
    adapter.modules.push_back({name, {a, b, lora::scale_for(alpha, a.extent(0))}});
  }

  lora::ndarray<float, 2> small_;
  lora::ndarray<lora::float16, 2> wide_;
  lora::ndarray<lora::bfloat16, 2> half_;
};

inline std::size_t files_in(const std::string& folder) {
  std::size_t n = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder)) ++n;
  return n;
}

}  // namespace test

#endif
