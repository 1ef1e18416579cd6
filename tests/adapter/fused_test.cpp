// SPDX-License-Identifier: Apache-2.0
//
// q, k and v in one tensor: adapters of the parts over it, and an adapter of the whole over separate tensors. Against the separate layers, bit
// for bit, and against PEFT's outputs of an unfused model (tests/data/peft, dora: q_proj and v_proj of 12 inputs).
#include "io/files.hpp"

#include <lora/adapter/adapter_set.hpp>
#include <lora/adapter/fused.hpp>
#include <lora/io/contract.hpp>
#include <lora/io/npy.hpp>
#include <lora/io/peft.hpp>
#include <lora/io/safetensors_writer.hpp>
#include <lora/linalg/merge.hpp>
#include <lora/ops/copy.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <memory>

using lora::all;
using lora::index_t;
using lora::range;

namespace {

const std::string peft = LORA_TEST_DATA_DIR "/peft/";

lora::adapter_set set_of(const lora::adapter& a, const lora::model_contract& model, const std::vector<lora::float_view<2>>& weights) {
  return {model, {lora::bind(a, model, {.require_finite = true})}, weights};
}

std::string layer(int i, const char* name) { return "model.layers." + std::to_string(i) + "." + name; }

}  // namespace

TEST_CASE("adapter/fused: PEFT's q_proj and v_proj over one tensor, both ways it can lie, have the bits of the separate layers") {
  for (const char* fixture : {"lora_bias", "dora"})
    for (const bool turned : {false, true}) {
      CAPTURE(fixture);
      CAPTURE(turned);
      const auto base = lora::io::safetensors::open(peft + fixture + "/base.safetensors");
      const auto file = lora::io::load_peft(peft + fixture);
      const lora::model_contract apart = lora::io::contract_of(base, file.adapter);
      const auto weights = lora::io::weights_of(base, apart);
      const lora::adapter_set want = set_of(file.adapter, apart, weights);

      // The same base with [q; v] in one tensor a layer.
      const test::temporary_folder folder;
      std::vector<lora::ndarray<float, 2>> memory;
      std::vector<lora::io::named_view> tensors;
      for (const int i : {0, 1}) {
        memory.push_back(turned ? lora::zeros<float>(12, 27) : lora::zeros<float>(27, 12));
        const lora::ndview<float, 2> w = turned ? memory.back().view().transpose() : memory.back().view();
        lora::copy(base[layer(i, "q_proj.weight")].as<const float, 2>(), w(range(0, 20), all));
        lora::copy(base[layer(i, "v_proj.weight")].as<const float, 2>(), w(range(20, 27), all));
        tensors.push_back({layer(i, "qv.weight"), memory.back().view()});
      }
      tensors.push_back({"lm.head.weight", base["lm.head.weight"]});
      lora::io::save_safetensors(folder.path() + "/fused.safetensors", tensors);
      const auto fused = lora::io::safetensors::open(folder.path() + "/fused.safetensors");
      lora::model_contract whole;
      const lora::weight_layout lies = turned ? lora::weight_layout::in_out : lora::weight_layout::out_in;
      for (const int i : {0, 1}) whole.add(layer(i, "qv"), 27, 12, lies);
      whole.add("lm.head", 5, 20);
      const lora::model_contract model = lora::split_fused(whole, "qv", {{"q_proj", 20}, {"v_proj", 7}});
      REQUIRE(model.size() == 5);
      const auto slices = lora::io::weights_of(fused, model);
      const lora::adapter_set set = set_of(file.adapter, model, slices);

      lora::workspace scratch;
      for (const int i : {0, 1}) {
        lora::ndarray<float, 2> y({3, 27});
        const auto x_file = lora::io::npy::open(peft + fixture + "/x_" + layer(i, "q_proj") + ".npy");
        const auto x = x_file.view().as<const float, 2>();
        for (const char* name : {"q_proj", "v_proj"}) {
          CAPTURE(name);
          const std::size_t at = model.find(layer(i, name));
          const std::size_t there = apart.find(layer(i, name));
          REQUIRE(at != lora::model_contract::not_found);
          const lora::module_contract& m = model[at];
          CHECK(m.first_row == (m.out == 20 ? 0 : 20));
          CHECK(m.tensor == layer(i, "qv.weight"));
          const auto* const from = static_cast<const char*>(fused[m.tensor].data());
          CHECK(slices[at].data() == from + m.first_row * (turned ? 1 : 12) * 4);  // in place
          lora::float_view<1> bias;
          if (base.find(layer(i, name) + ".bias") != nullptr) bias = base[layer(i, name) + ".bias"].as<const float, 1>();
          const auto part = y(all, range(m.first_row, m.first_row + m.out));
          lora::forward(part, x, slices[at].as<float>(), set[at], bias, scratch);
          lora::ndarray<float, 2> separate({3, m.out});
          // As the slice lies: a transposed W is summed in another order.
          const auto w = weights[there].as<float>();
          auto turned_w = lora::contiguous(w.transpose());
          lora::forward(separate, x, turned ? lora::ndview<const float, 2>(turned_w.view().transpose()) : w, want[there], bias, scratch);
          int different = 0;
          for (index_t n = 0; n < 3; ++n)
            for (index_t o = 0; o < m.out; ++o) different += part(n, o) == separate(n, o) ? 0 : 1;
          CHECK(different == 0);
          // Against PEFT, whose input of v_proj is another one.
          const auto px_file = lora::io::npy::open(peft + fixture + "/x_" + layer(i, name) + ".npy");
          const auto py_file = lora::io::npy::open(peft + fixture + "/y_" + layer(i, name) + ".npy");
          const auto weight = std::string(fixture) == "lora_bias" ? -0.75f : 1.0f;
          const lora::adapter_set weighted(model, {{lora::bind(file.adapter, model), weight}}, slices);
          lora::forward(part, px_file.view().as<const float, 2>(), slices[at].as<float>(), weighted[at], bias, scratch);
          const auto py = py_file.view().as<const float, 2>();
          for (index_t n = 0; n < 3; ++n)
            for (index_t o = 0; o < m.out; ++o) {
              // 12 inputs, rank 4, all of size 1 to 4: the bounds of both sides are derived in peft_science_test.cpp, this is above their sum.
              REQUIRE(std::abs(static_cast<double>(part(n, o) - py(n, o))) <= 1e-5 * (1 + std::abs(static_cast<double>(py(n, o)))));
            }
        }
      }
    }
}

TEST_CASE("adapter/fused: an adapter of the fused module, split, has its rows' bits; merges too") {
  // A, B, magnitude and biases of [27, 12], rank 3, with strides of their own.
  auto a = lora::zeros<float>(3, 12);
  auto b = lora::zeros<float>(3, 27);  // transposed below
  auto vectors = lora::zeros<float>(2, 27, 2);
  auto w = lora::zeros<float>(27, 12);
  unsigned seed = 1;
  const auto fill = [&](auto& v) {
    for (index_t i = 0; i < v.size(); ++i) {
      seed = seed * 1664525u + 1013904223u;
      v.data()[i] = static_cast<float>(static_cast<int>(seed >> 9) - (1 << 22)) / 3e6f;
    }
  };
  fill(a), fill(b), fill(vectors), fill(w);
  const auto x = lora::full(lora::extents{2, 12}, 0.5f);
  for (const bool dora : {false, true}) {
    lora::adapter whole;
    whole.source = "fused";
    lora::low_rank weights{a.view(), lora::any_view(b.view().transpose()), -0.5f};
    (dora ? weights.magnitude : weights.bias) = lora::any_view(vectors(0, all, 1));
    weights.trained_bias = lora::any_view(vectors(1, all, 0));
    whole.modules.push_back({"h.0.qkv", weights});
    whole.modules.push_back({"h.0.o", {b.view(), lora::any_view(a.view().transpose()), 1.0f}});
    const lora::adapter parts = lora::split_rows(whole, "qkv", {{"q", 10}, {"k", 8}, {"v", 9}});
    REQUIRE(parts.modules.size() == 4);
    CHECK(parts.modules[3].name == "h.0.o");
    CHECK(parts.modules[1].weights.a.data() == a.data());

    lora::model_contract one, apart;
    one.add("h.0.qkv", 27, 12), one.add("h.0.o", 12, 27);
    for (const auto& [name, out] : {std::pair<const char*, index_t>{"h.0.q", 10}, {"h.0.k", 8}, {"h.0.v", 9}}) apart.add(name, out, 12);
    apart.add("h.0.o", 12, 27);
    const std::vector<lora::float_view<2>> w_one{w.view(), w.view().transpose()};
    const std::vector<lora::float_view<2>> w_apart{w(range(0, 10)), w(range(10, 18)), w(range(18, 27)), w.view().transpose()};
    const lora::adapter_set set_one = set_of(whole, one, w_one);
    const lora::adapter_set set_apart = set_of(parts, apart, w_apart);
    lora::workspace scratch;
    lora::ndarray<float, 2> y({2, 27}), z({2, 27});
    lora::forward(y, x, w, set_one[0], {}, scratch);
    const lora::ndarray<float, 2> merged = lora::merged(w, set_one[0]);
    index_t first = 0;
    for (std::size_t i = 0; i < 3; ++i) {
      const index_t rows = apart[i].out;
      lora::forward(z(all, range(first, first + rows)), x, w(range(first, first + rows)), set_apart[i], {}, scratch);
      const lora::ndarray<float, 2> part = lora::merged(w(range(first, first + rows)), set_apart[i]);
      for (index_t o = 0; o < rows; ++o)
        for (index_t k = 0; k < 12; ++k) REQUIRE(part(o, k) == merged(first + o, k));
      first += rows;
    }
    for (index_t n = 0; n < 2; ++n)
      for (index_t o = 0; o < 27; ++o) REQUIRE(y(n, o) == z(n, o));
  }
}

TEST_CASE("adapter/fused: names, and what is refused") {
  lora::model_contract model;
  model.add("h.0.attn.qkv_proj", 9, 4);
  model.add("h.0.attn.my_qkv_proj", 9, 4);
  model.add("experts.gate_up[0]", 6, 4);
  model.add("experts.gate_up[1]", 6, 4);
  model.set_identity(lora::content_hash{});
  const auto split = lora::split_fused(model, "attn.qkv_proj", {{"q_proj", 5}, {"k_proj", 4}});
  REQUIRE(split.size() == 5);
  CHECK(split[0].name == "h.0.attn.q_proj");
  CHECK(split[1].name == "h.0.attn.k_proj");
  CHECK(split[1].first_row == 5);
  CHECK(split[1].tensor == "h.0.attn.qkv_proj.weight");
  CHECK(split[2].name == "h.0.attn.my_qkv_proj");
  const auto gates = lora::split_fused(model, "gate_up", {{"gate", 3}, {"up", 3}});
  REQUIRE(gates.size() == 6);
  CHECK(gates[5].name == "experts.up[1]");
  // Twice: a part of a part.
  const auto again = lora::split_fused(split, "k_proj", {{"k0", 1}, {"k1", 3}});
  CHECK(again[2].first_row == 6);
  CHECK(again[2].tensor == "h.0.attn.qkv_proj.weight");

  CHECK_THROWS_WITH_AS((void)lora::split_fused(model, "qkv", {{"q", 9}}),
                       "split_fused: the contract has no module that is called 'qkv' or ends in it", lora::value_error);
  CHECK_THROWS_WITH_AS((void)lora::split_fused(model, "qkv_proj", {{"q", 5}, {"k", 3}}),
                       "split_fused: the parts of module 'h.0.attn.qkv_proj' have 5 + 3 rows, but the module has 9", lora::shape_error);
  CHECK_THROWS_AS((void)lora::split_fused(model, "qkv_proj", {{"q", 10}, {"k", -1}}), lora::shape_error);
  CHECK_THROWS_AS((void)lora::split_fused(model, "qkv_proj", {{"q", PTRDIFF_MAX}, {"k", PTRDIFF_MAX}}), lora::shape_error);
  CHECK_THROWS_AS((void)lora::split_fused(model, "qkv_proj", {{"q", 5}, {"q", 4}}), lora::value_error);

  const auto a = lora::zeros<float>(2, 4);
  const auto b = lora::zeros<float>(9, 2);
  lora::adapter source;
  source.modules.push_back({"h.0.qkv", {a.view(), b.view(), 1.0f}});
  CHECK_THROWS_WITH_AS((void)lora::split_rows(source, "kv", {{"q", 9}}),
                       "split_rows: the adapter has no module that is called 'kv' or ends in it", lora::value_error);
  CHECK_THROWS_AS((void)lora::split_rows(source, "qkv", {{"q", 8}}), lora::shape_error);
  source.modules[0].weights.bias = a.view()(0, all);
  CHECK_THROWS_AS((void)lora::split_rows(source, "qkv", {{"q", 9}}), lora::shape_error);
  source.modules[0].weights.bias = {};
  source.modules[0].weights.weight = b.view();
  CHECK_THROWS_AS((void)lora::split_rows(source, "qkv", {{"q", 9}}), lora::value_error);

  // A part that is not in the tensor, and an expert that is not.
  const test::temporary_folder folder;
  const auto three = lora::zeros<float>(2, 3, 4);
  lora::io::save_safetensors(folder.path() + "/b.safetensors", {{"m.weight", b.view()}, {"e", three.view()}});
  const auto file = lora::io::safetensors::open(folder.path() + "/b.safetensors");
  const auto with = [&](lora::module_contract m) {
    lora::model_contract c;
    c.add(std::move(m));
    return lora::io::weights_of(file, c);
  };
  lora::module_contract part{"q", 5, 2};
  part.tensor = "m.weight";
  part.first_row = 4;
  CHECK(with(part)[0].data() == static_cast<const char*>(file["m.weight"].data()) + 4 * 2 * 4);
  part.first_row = 5;
  CHECK_THROWS_WITH_AS((void)with(part), "weights_of: module 'q' has rows 5 to 10 of the tensor 'm.weight', which has shape [9, 2]",
                       lora::shape_error);
  lora::module_contract expert{"e[1]", 3, 4};
  expert.tensor = "e";
  expert.matrix = 1;
  CHECK(with(expert)[0].data() == static_cast<const char*>(file["e"].data()) + 48);
  expert.matrix = 2;
  CHECK_THROWS_AS((void)with(expert), lora::shape_error);
}
