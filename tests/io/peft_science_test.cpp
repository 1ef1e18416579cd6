// SPDX-License-Identifier: Apache-2.0
//
// PEFT's own answers for what is more than A, B and a scale: biases of B, trained biases, DoRA, weights stored as [in, out]. Against an oracle in
// float64 that is written from the formulas, W + s B A formed whole, and against PEFT within the bounds of both sides.
#include "elements.hpp"
#include "support/oracle.hpp"

#include <lora/adapter/linear.hpp>
#include <lora/io/contract.hpp>
#include <lora/io/npy.hpp>
#include <lora/io/peft.hpp>
#include <lora/linalg/merge.hpp>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>

using lora::index_t;
using test::element;

namespace {

namespace fs = std::filesystem;
const std::string data = LORA_TEST_DATA_DIR "/peft/";

struct fixture {
  explicit fixture(const std::string& name)
      : folder(data + name),
        base(lora::io::safetensors::open(folder + "/base.safetensors")),
        file(lora::io::load_peft(folder)),
        model(lora::io::contract_of(base, file.adapter)),
        bound(std::make_shared<const lora::bound_adapter>(lora::bind(file.adapter, model, {.require_finite = true}))) {
    std::ifstream in(folder + "/expect.json");
    const nlohmann::json expect = nlohmann::json::parse(in);
    if (expect.contains("weight")) weight = expect["weight"].get<float>();
  }
  std::string folder;
  lora::io::safetensors base;
  lora::io::peft_adapter file;
  lora::model_contract model;
  std::shared_ptr<const lora::bound_adapter> bound;
  float weight = 1.0f;
};

/** One module in float64, from the tensors as they are stored: y, what our bound allows, and what PEFT's side may err by. */
struct oracle {
  oracle(const fixture& f, const lora::adapted_module& m) {
    const auto at = f.model.find(m.name);
    const bool turned = f.model[at].layout == lora::weight_layout::in_out;
    out = f.model[at].out;
    in = f.model[at].in;
    w_of = [&f, turned, name = m.name + ".weight"](index_t o, index_t k) {
      return turned ? element(f.base[name], k, o) : element(f.base[name], o, k);
    };
    weights = m.weights;
    scale = static_cast<double>(m.weights.scale * f.weight);
    rank = m.weights.a.data() == nullptr ? 0 : m.weights.a.extent(0);
    if (const auto* t = f.base.find(m.name + ".bias")) base_bias = t->view();
  }
  void run(const lora::any_view& x, index_t n, index_t o, double& y, double& ours, double& theirs) const {
    double magnitude = 0;
    double sum = 0;
    double squares = 0;
    double spread = 0;  // what PEFT's element of W + s B A may err by, relative, squared
    const double steps = static_cast<double>(in + rank);
    for (index_t k = 0; k < in; ++k) {
      double e = w_of(o, k);
      double size = std::abs(e);
      for (index_t j = 0; j < rank; ++j) {
        const double p = scale * element(weights.b, o, j) * element(weights.a, j, k);
        e += p;
        size += std::abs(p);
      }
      sum += e * element(x, n, k);
      magnitude += size * std::abs(element(x, n, k));
      squares += e * e;
      spread += size * size;
    }
    double factor = 1;
    double norm_error = 0;
    if (weights.magnitude.size() != 0) {
      factor = element(weights.magnitude, o) / std::sqrt(squares);
      norm_error = test::gamma(static_cast<double>(rank) + 3) * std::sqrt(spread / squares) + test::gamma(static_cast<double>(in) + 4);
    }
    double bias = base_bias.size() != 0 ? element(base_bias, o) : 0;
    if (weights.trained_bias.size() != 0) bias = element(weights.trained_bias, o);
    double own = weights.bias.size() != 0 ? scale * element(weights.bias, o) : 0;
    y = factor * sum + bias + own;
    const double biases = std::abs(bias) + std::abs(own);
    ours = std::abs(factor) * (test::gamma(steps + 6) + 3 * test::u) * magnitude + 4 * test::u * biases + test::u * std::abs(y);
    // x W^T + b, x A^T and B, each a chain; (g - 1) (base - b) + g s low, all of it added up: g and 1 + g of everything, 8 roundings.
    theirs = test::gamma(2 * static_cast<double>(in) + steps + 8) * (2 + 2 * std::abs(factor)) * (magnitude + biases) +
             norm_error * std::abs(factor) * (magnitude + biases);
  }

  index_t out = 0;
  index_t in = 0;
  index_t rank = 0;
  double scale = 0;
  std::function<double(index_t, index_t)> w_of;
  lora::low_rank weights;
  lora::any_view base_bias;
};

const char* const cases[] = {"lora_bias", "bias_all",  "bias_lora_only", "dora",        "dora_weighted",
                             "dora_off",  "dora_bias", "conv1d",         "conv1d_dora", "conv1d_head"};

}  // namespace

TEST_CASE("io/peft: biases, DoRA and Conv1D have PEFT's outputs, for every tier, merged and not") {
  double worst = 0;
  double worst_peft = 0;
  int layers = 0;
  lora::workspace scratch;
  for (const char* name : cases) {
    const fixture f(name);
    CAPTURE(name);
    const std::vector<lora::float_view<2>> weights = lora::io::weights_of(f.base, f.model);
    const lora::adapter_set set(f.model, {{f.bound, f.weight}}, weights);
    std::size_t answers = 0;
    for (const auto& entry : fs::directory_iterator(f.folder)) answers += entry.path().filename().string().starts_with("y_");
    for (const lora::adapted_module& m : f.file.adapter.modules) {
      CAPTURE(m.name);
      const std::size_t at = f.model.find(m.name);
      REQUIRE(at != lora::model_contract::not_found);
      if (!fs::exists(f.folder + "/x_" + m.name + ".npy")) continue;  // a norm: nothing to multiply
      --answers;
      ++layers;
      const auto x_file = lora::io::npy::open(f.folder + "/x_" + m.name + ".npy");
      const auto y_file = lora::io::npy::open(f.folder + "/y_" + m.name + ".npy");
      const auto x = x_file.view().as<const float, 2>();
      const auto w = weights[at].as<float>();
      lora::float_view<1> bias;
      if (f.base.find(m.name + ".bias") != nullptr) bias = f.base[m.name + ".bias"].as<const float, 1>();
      const lora::linear layer(w, bias);
      const oracle want(f, m);
      const lora::ndarray<float, 2> w_merged = lora::merged(w, set[at]);
      lora::ndarray<float, 1> b_merged;
      if (bias.data() != nullptr) b_merged = lora::merged_bias(bias, set[at]);
      for (unsigned t = 0; t < lora::simd::tier_count; ++t)
        for (const index_t n : {x.extent(0), index_t{1}}) {
          lora::ndarray<float, 2> y({n, w.extent(0)});
          lora::ndarray<float, 2> z({n, w.extent(0)});
          const auto rows = x(lora::range(0, n), lora::all);
          layer.forward(y, rows, set[at], scratch, {static_cast<lora::simd::tier>(t)});
          const bool can_merge = bias.data() != nullptr || set[at].bias.empty();
          if (can_merge)
            lora::forward(z, rows, w_merged, {}, bias.data() == nullptr ? lora::float_view<1>{} : lora::float_view<1>(b_merged.view()),
                          scratch);
          for (index_t i = 0; i < n; ++i)
            for (index_t o = 0; o < w.extent(0); ++o) {
              double exact = 0;
              double ours = 0;
              double theirs = 0;
              want.run(x_file.view(), i, o, exact, ours, theirs);
              const double error = std::abs(static_cast<double>(y(i, o)) - exact);
              const double apart = std::abs(static_cast<double>(y(i, o)) - element(y_file.view(), i, o));
              CAPTURE(o);
              REQUIRE(error <= ours);
              REQUIRE(apart <= ours + theirs);
              if (can_merge) REQUIRE(std::abs(static_cast<double>(z(i, o)) - exact) <= 2 * ours);
              worst = std::max(worst, error / ours);
              worst_peft = std::max(worst_peft, apart / (ours + theirs));
            }
        }
    }
    CHECK(answers == 0);
  }
  CHECK(layers == 33);
  CHECK(worst < 0.5);
  CHECK(worst_peft < 0.1);  // a rounding to 16 bits anywhere on the way would be far outside
  MESSAGE("largest error " << worst << " of the bound; from PEFT " << worst_peft << " of both sides' bounds");
}

TEST_CASE("io/peft: what a set with DoRA or trained biases refuses") {
  const fixture dora("dora");
  const fixture other("plain");
  const auto build = [](const auto&... arguments) {
    try {
      const lora::adapter_set set(arguments...);
    } catch (const lora::value_error& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  using list = std::vector<lora::weighted_adapter>;
  const std::vector<lora::float_view<2>> weights = lora::io::weights_of(dora.base, dora.model);
  const std::vector<lora::float_view<2>> absent(weights.size());
  CHECK(build(dora.model, list{{dora.bound, 1.0f}}).find("which needs the weight: pass the weights of all modules") != std::string::npos);
  CHECK(build(dora.model, list{{dora.bound, 1.0f}}, std::span<const lora::float_view<2>>(absent)).find("is missing, which DoRA needs") !=
        std::string::npos);
  const auto plain = std::make_shared<const lora::bound_adapter>(lora::bind(other.file.adapter, dora.model));
  CHECK(build(dora.model, list{{dora.bound, 1.0f}, {plain, 1.0f}}, std::span<const lora::float_view<2>>(weights))
            .find("has an adapter with DoRA and another one; their sum is not defined") != std::string::npos);
  const fixture biased("bias_lora_only");
  CHECK(build(biased.model, list{{biased.bound, 1.0f}, {biased.bound, 1.0f}}).find("both replace the bias of module") != std::string::npos);
  // Zero rows have no direction.
  const lora::ndarray<float, 2> zero = lora::zeros<float>(20, 12);
  std::vector<lora::float_view<2>> zeros = weights;
  for (std::size_t i = 0; i < zeros.size(); ++i)
    if (dora.model[i].out == 20) zeros[i] = zero.view();
  CHECK(
      build(dora.model, list{{dora.bound, 0.0f}}, std::span<const lora::float_view<2>>(zeros)).find("has norm 0, which DoRA divides by") !=
      std::string::npos);
}

TEST_CASE("io/contract: which way W lies is read off the shapes; the flag decides for square W, unless it is seen to be wrong") {
  const fixture plain("conv1d");
  CHECK(plain.model[plain.model.find("attn")].layout == lora::weight_layout::in_out);
  CHECK(plain.model[plain.model.find("proj")].layout == lora::weight_layout::in_out);
  CHECK(plain.model[plain.model.find("attn")].out == 18);
  const fixture head("conv1d_head");  // the flag is false
  CHECK(head.model[head.model.find("attn")].layout == lora::weight_layout::in_out);
  CHECK(head.model[head.model.find("head")].layout == lora::weight_layout::out_in);
  lora::adapter wrong = plain.file.adapter;
  wrong.fan_in_fan_out = false;
  wrong.source = "gpt2";
  CHECK_THROWS_WITH_AS(
      (void)lora::io::contract_of(plain.base, wrong),
      "'gpt2': fan_in_fan_out is false, but the weight of 'attn' lies the other way; how the square weight of 'proj' lies cannot "
      "be told, so the contract must be made by hand",
      lora::io_error);
  // The same when 'attn' is not adapted: the length of its bias tells. (PEFT writes false when a Linear was wrapped after 'proj'.)
  std::erase_if(wrong.modules, [](const lora::adapted_module& m) { return m.name == "attn"; });
  REQUIRE(wrong.modules.size() == 1);
  CHECK_THROWS_WITH_AS(
      (void)lora::io::contract_of(plain.base, wrong),
      "'gpt2': fan_in_fan_out is false, but the weight of 'attn' lies the other way; how the square weight of 'proj' lies cannot "
      "be told, so the contract must be made by hand",
      lora::io_error);
  // Of 'proj' a bias alone, which was trained: its length does not tell how a square weight lies either.
  lora::adapter biased = wrong;
  const lora::ndarray<float, 1> bias(lora::extents{6});
  biased.modules.front().weights = {};
  biased.modules.front().weights.trained_bias = lora::any_view(bias.view());
  CHECK_THROWS_WITH_AS(
      (void)lora::io::contract_of(plain.base, biased),
      "'gpt2': fan_in_fan_out is false, but the weight of 'attn' lies the other way; how the square weight of 'proj' lies cannot "
      "be told, so the contract must be made by hand",
      lora::io_error);
  wrong.fan_in_fan_out = true;
  const lora::model_contract believed = lora::io::contract_of(plain.base, wrong);
  CHECK(believed[believed.find("proj")].layout == lora::weight_layout::in_out);
}
