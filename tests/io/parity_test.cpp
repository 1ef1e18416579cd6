// SPDX-License-Identifier: Apache-2.0
//
// Real adapters, real answers: what PEFT computed for each layer (tests/data/peft), against load_peft, bind and forward on the same files,
// for every tier. The two sides sum in different orders, so they agree within the sum of their bounds, and no better.
#include "support/oracle.hpp"

#include <lora/adapter/linear.hpp>
#include <lora/io/contract.hpp>
#include <lora/io/npy.hpp>
#include <lora/io/peft.hpp>

#include <doctest/doctest.h>

#include <filesystem>
#include <memory>
#include <string>

using lora::index_t;

namespace {

/**
 * What torch may err by: x W^T + b, x A^T and its product with B^T each one f32 chain in some order, the scale rounded to f32, the product
 * with it, the sum. Widening of 16-bit adapters is exact on both sides.
 */
double torch_bound(lora::ndview<const float, 2> x, lora::ndview<const float, 2> w, lora::ndview<const float, 1> bias,
                   const lora::low_rank_term& t, index_t m, index_t n) {
  const double in = static_cast<double>(w.extent(1));
  const double rank = static_cast<double>(t.a.extent(0));
  double base = bias.data() == nullptr ? 0 : std::abs(static_cast<double>(bias[n]));
  for (index_t k = 0; k < w.extent(1); ++k) base += std::abs(static_cast<double>(w(n, k)) * static_cast<double>(x(m, k)));
  double low = 0;
  for (index_t j = 0; j < t.a.extent(0); ++j) {
    double h = 0;
    for (index_t k = 0; k < w.extent(1); ++k) h += std::abs(static_cast<double>(t.a(j, k)) * static_cast<double>(x(m, k)));
    low += std::abs(static_cast<double>(t.b(n, j))) * h;
  }
  return test::gamma(in + 2) * base + test::gamma(in + rank + 3) * std::abs(static_cast<double>(t.scale)) * low;
}

}  // namespace

TEST_CASE("io/parity: every layer of every PEFT fixture agrees with PEFT's own output within the bounds of both sides") {
  namespace fs = std::filesystem;
  const std::string data = LORA_TEST_DATA_DIR "/peft/";
  double worst = 0;
  double smallest_change = HUGE_VAL;
  int layers = 0;
  lora::workspace scratch;
  for (const char* name : {"plain", "rslora", "pattern_regex_first", "pattern_specific_first", "f16", "bf16", "big_rank", "named"}) {
    const std::string folder = data + name;
    CAPTURE(folder);
    const auto base = lora::io::safetensors::open(folder + "/base.safetensors");
    const lora::model_contract model = lora::io::contract_of(base);
    const auto file = lora::io::load_peft(fs::exists(folder + "/second") ? folder + "/second" : folder);
    const auto bound = std::make_shared<const lora::bound_adapter>(lora::bind(file.adapter, model, {.require_finite = true}));
    for (std::size_t i = 0; i < bound->modules().size(); ++i) {  // 16-bit factors too are used where they lie
      CHECK(bound->modules()[i].term.a.data() == file.adapter.modules[i].weights.a.data());
      CHECK(bound->modules()[i].term.b.data() == file.adapter.modules[i].weights.b.data());
    }
    const lora::adapter_set set(model, {{bound, 1.0f}});

    std::size_t answers = 0;
    for (const auto& entry : fs::directory_iterator(folder)) answers += entry.path().filename().string().starts_with("y_");
    REQUIRE(answers == bound->modules().size());
    for (const lora::bound_module& m : bound->modules()) {
      CAPTURE(m.name);
      const auto x_file = lora::io::npy::open(folder + "/x_" + m.name + ".npy");
      const auto y_file = lora::io::npy::open(folder + "/y_" + m.name + ".npy");
      const auto x = x_file.view().as<const float, 2>();
      const auto peft = y_file.view().as<const float, 2>();
      const auto w = base[m.name + ".weight"].as<const float, 2>();
      lora::ndview<const float, 1> bias;
      if (base.find(m.name + ".bias") != nullptr) bias = base[m.name + ".bias"].as<const float, 1>();
      const lora::linear layer(w, bias);
      const test::expected want(x, w, set[m.module], bias);
      REQUIRE(set[m.module].size() == 1);
      REQUIRE(peft.extent(0) == x.extent(0));
      REQUIRE(peft.extent(1) == w.extent(0));
      ++layers;
      for (unsigned t = 0; t < lora::simd::tier_count; ++t)
        for (const index_t n : {x.extent(0), index_t{1}}) {
          lora::ndarray<float, 2> y({n, w.extent(0)});
          layer.forward(y, x(lora::range(0, n), lora::all), set[m.module], scratch, {static_cast<lora::simd::tier>(t)});
          double change = 0;
          for (index_t i = 0; i < n; ++i)
            for (index_t j = 0; j < w.extent(0); ++j) {
              const double allowed = want.bound(i, j) + torch_bound(x, w, bias, set[m.module][0], i, j);
              const double error = std::abs(static_cast<double>(y(i, j)) - static_cast<double>(peft(i, j)));
              worst = std::max(worst, error / allowed);
              REQUIRE(error <= allowed);
              double without = bias.data() == nullptr ? 0 : static_cast<double>(bias[j]);
              for (index_t k = 0; k < w.extent(1); ++k) without += static_cast<double>(w(j, k)) * static_cast<double>(x(i, k));
              change = std::max(change, std::abs(static_cast<double>(peft(i, j)) - without));
            }
          smallest_change = std::min(smallest_change, change);
        }
    }
  }
  CHECK(layers == 34);
  CHECK(smallest_change > 0.01);  // in each layer the adapter matters, so that leaving it out would be seen
  MESSAGE("largest difference " << worst << " of the bounds; the adapters change each layer by " << smallest_change << " or more");
}
