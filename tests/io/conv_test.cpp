// SPDX-License-Identifier: Apache-2.0
//
// PEFT's own answers for convolutions and for parameters with a matrix for each expert, and torch's for kohya's and diffusers' files of
// convolutions (tests/data/conv). Against an oracle in float64 that reads the stored tensors and forms W + s B A whole.
#include "support/oracle.hpp"

#include "files.hpp"

#include <lora/adapter/adapter_set.hpp>
#include <lora/adapter/compose.hpp>
#include <lora/io/contract.hpp>
#include <lora/io/diffusers.hpp>
#include <lora/io/gguf_adapter_writer.hpp>
#include <lora/io/json_adapter_writer.hpp>
#include <lora/io/kohya.hpp>
#include <lora/io/kohya_writer.hpp>
#include <lora/io/npy.hpp>
#include <lora/io/peft.hpp>
#include <lora/io/peft_writer.hpp>
#include <lora/io/sharded.hpp>
#include <lora/linalg/conv2d.hpp>
#include <lora/linalg/merge.hpp>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

using lora::index_t;

namespace {

namespace fs = std::filesystem;
const std::string data = LORA_TEST_DATA_DIR "/conv/";

/** Element i of a tensor in C order. */
double flat(const lora::any_view& v, index_t i) {
  const auto get = [&](auto zero) { return static_cast<double>(static_cast<float>(static_cast<const decltype(zero)*>(v.data())[i])); };
  REQUIRE(v.is_contiguous());
  return v.type() == lora::dtype::f16 ? get(lora::float16()) : get(0.0f);
}
double at(const lora::any_view& v, index_t i, index_t j) {
  return lora::dispatch<2, float, lora::float16>(v, [&](auto m) { return static_cast<double>(static_cast<float>(m(i, j))); });
}

struct geometry {
  lora::conv2d_geometry g;
  explicit geometry(const nlohmann::json& j) {
    for (const std::size_t i : {0u, 1u}) {
      g.stride[i] = j["stride"][i].get<index_t>();
      g.padding[i] = j["padding"][i].get<index_t>();
      g.dilation[i] = j["dilation"][i].get<index_t>();
    }
    g.dilated_terms = true;
  }
};

/** What position `token` of the kernel sees, from the definition. x [n, c, h, w]. */
std::vector<double> seen(const lora::any_view& x, index_t token, index_t oh, index_t ow, const index_t* kernel,
                         const lora::conv2d_geometry& g) {
  std::vector<double> patch;
  const index_t image = token / (oh * ow);
  const index_t row = token / ow % oh;
  const index_t column = token % ow;
  for (index_t c = 0; c < x.extent(1); ++c)
    for (index_t i = 0; i < kernel[0]; ++i)
      for (index_t j = 0; j < kernel[1]; ++j) {
        const index_t r = row * g.stride[0] - g.padding[0] + i * g.dilation[0];
        const index_t q = column * g.stride[1] - g.padding[1] + j * g.dilation[1];
        const bool inside = r >= 0 && r < x.extent(2) && q >= 0 && q < x.extent(3);
        patch.push_back(inside ? flat(x, ((image * x.extent(1) + c) * x.extent(2) + r) * x.extent(3) + q) : 0.0);
      }
  return patch;
}

/** One module in float64 from the stored tensors. */
struct oracle {
  index_t out = 0;
  index_t in = 0;
  index_t rank = 0;
  double scale = 0;
  lora::low_rank weights;
  lora::any_view w;
  index_t w_first = 0;  // where its matrix begins, and steps in it
  index_t w_row = 0;
  index_t w_column = 1;
  lora::any_view bias;

  [[nodiscard]] double element(index_t o, index_t k, double& size) const {
    double e = flat(w, w_first + o * w_row + k * w_column);
    size = std::abs(e);
    for (index_t j = 0; j < rank; ++j) {
      const double p = scale * at(weights.b, o, j) * at(weights.a, j, k);
      e += p;
      size += std::abs(p);
    }
    return e;
  }
  /** The factor of DoRA, and what PEFT's may err by, relative: as in peft_science_test.cpp. */
  [[nodiscard]] double factor(index_t o, double& error) const {
    error = 0;
    if (weights.magnitude.size() == 0) return 1;
    double squares = 0;
    double spread = 0;
    for (index_t k = 0; k < in; ++k) {
      double size = 0;
      const double e = element(o, k, size);
      squares += e * e;
      spread += size * size;
    }
    error = test::gamma(static_cast<double>(rank) + 3) * std::sqrt(spread / squares) + test::gamma(static_cast<double>(in) + 4);
    return flat(weights.magnitude, o) / std::sqrt(squares);
  }
  void run(const std::vector<double>& x, index_t o, double& y, double& ours, double& theirs) const {
    double sum = 0;
    double magnitude = 0;
    for (index_t k = 0; k < in; ++k) {
      double size = 0;
      sum += element(o, k, size) * x[static_cast<std::size_t>(k)];
      magnitude += size * std::abs(x[static_cast<std::size_t>(k)]);
    }
    double norm_error = 0;
    const double f = factor(o, norm_error);
    const double base = weights.trained_bias.size() != 0 ? flat(weights.trained_bias, o) : bias.size() != 0 ? flat(bias, o) : 0;
    const double own = weights.bias.size() != 0 ? scale * flat(weights.bias, o) : 0;
    y = f * sum + base + own;
    const double biases = std::abs(base) + std::abs(own);
    const double steps = static_cast<double>(in + rank);
    ours = std::abs(f) * (test::gamma(steps + 6) + 3 * test::u) * magnitude + 4 * test::u * biases + test::u * std::abs(y);
    theirs =
        (test::gamma(2 * static_cast<double>(in) + steps + 8) * (2 + 2 * std::abs(f)) + norm_error * std::abs(f)) * (magnitude + biases);
  }
};

struct fixture {
  explicit fixture(const std::string& name)
      : folder(data + name + "/"),
        base(lora::io::safetensors::open(folder + "base.safetensors")),
        expect(nlohmann::json::parse(test::read_file(folder + "expect.json"))) {
    if (expect.contains("weight")) weight = expect["weight"].get<float>();
  }
  std::string folder;
  lora::io::safetensors base;
  nlohmann::json expect;
  float weight = 1.0f;
};

struct largest {
  double ours = 0;
  double peft = 0;
  int modules = 0;
};

/** Every module of `a` that has an answer, for each tier, and against the merged weights that PEFT gives. */
void check_modules(const fixture& f, const lora::adapter& a, bool has_merged, largest& worst) {
  const lora::model_contract model = lora::io::contract_of(f.base, a);
  const auto bound = std::make_shared<const lora::bound_adapter>(lora::bind(a, model, {.require_finite = true}));
  const std::vector<lora::float_view<2>> matrices = lora::io::weights_of(f.base, model);
  const lora::adapter_set set(model, {{bound, f.weight}}, matrices);
  for (const lora::adapted_module& m : a.modules) {
    CAPTURE(m.name);
    const lora::module_contract& contract = model[model.find(m.name)];
    const std::size_t bracket = m.name.find('[');
    const std::string file = m.name.substr(0, bracket);
    const index_t expert = bracket == std::string::npos ? 0 : std::stoll(m.name.substr(bracket + 1));
    const std::string tensor = contract.tensor.empty() ? m.name + ".weight" : file;
    const auto x_file = lora::io::npy::open(f.folder + "x_" + file + ".npy");
    const auto y_file = lora::io::npy::open(f.folder + "y_" + file + ".npy");
    const lora::any_view x = x_file.view();
    const lora::any_view y = y_file.view();

    oracle want;
    want.weights = m.weights;
    want.w = f.base[tensor];
    want.out = m.weights.b.extent(0);
    want.in = m.weights.a.extent(1);
    want.rank = m.weights.a.extent(0);
    want.scale = static_cast<double>(m.weights.scale * f.weight);
    want.w_first = expert * want.out * want.in;
    want.w_row = want.in;
    if (tensor == "mlp.experts.gate_up_proj" || tensor == "mlp.experts.down_proj")
      if (f.folder.ends_with("experts_turned/")) {
        want.w_row = 1;
        want.w_column = want.out;
      }
    if (const auto* t = f.base.find(m.name + ".bias")) want.bias = t->view();
    REQUIRE(contract.out == want.out);
    REQUIRE(contract.in == want.in);
    lora::float_view<1> bias;
    if (want.bias.size() != 0) bias = want.bias.as<const float, 1>();
    const lora::low_rank_update update = set[model.find(m.name)];
    const auto w = matrices[model.find(m.name)].as<float>();

    const bool convolution = m.kind == lora::module_kind::conv2d;
    const index_t tokens = convolution ? y.extent(0) * y.extent(2) * y.extent(3) : y.extent(-2);
    std::vector<std::vector<double>> inputs;
    std::vector<double> answers;
    for (index_t t = 0; t < tokens; ++t) {
      if (convolution) {
        const geometry g(f.expect["modules"][m.name]);
        inputs.push_back(seen(x, t, y.extent(2), y.extent(3), m.kernel, g.g));
        const index_t pixels = y.extent(2) * y.extent(3);
        for (index_t o = 0; o < want.out; ++o) answers.push_back(flat(y, (t / pixels * want.out + o) * pixels + t % pixels));
      } else {
        inputs.emplace_back();
        for (index_t k = 0; k < want.in; ++k) inputs.back().push_back(flat(x, (expert * tokens + t) * want.in + k));
        for (index_t o = 0; o < want.out; ++o) answers.push_back(flat(y, (expert * tokens + t) * want.out + o));
      }
    }

    lora::conv2d_workspace scratch;
    for (unsigned tier = 0; tier < lora::simd::tier_count; ++tier) {
      const lora::forward_options options{static_cast<lora::simd::tier>(tier)};
      lora::ndarray<float, 2> got({tokens, want.out});
      if (convolution) {
        // y through channels-last strides, so that the result is [tokens, out] here.
        const lora::ndview<float, 4> image(got.data(), lora::extents{y.extent(0), want.out, y.extent(2), y.extent(3)},
                                           lora::strides{want.out * y.extent(2) * y.extent(3), 1, want.out * y.extent(3), want.out});
        lora::conv2d(image, x.as<const float, 4>(), f.base[tensor].as<const float, 4>(), update, bias, scratch,
                     geometry(f.expect["modules"][m.name]).g, options);
      } else {
        const lora::ndview<const float, 2> rows(static_cast<const float*>(x.data()) + expert * tokens * want.in, {tokens, want.in});
        lora::forward(got, rows, w, update, bias, scratch.product, options);
      }
      for (index_t t = 0; t < tokens; ++t)
        for (index_t o = 0; o < want.out; ++o) {
          double exact = 0;
          double ours = 0;
          double theirs = 0;
          want.run(inputs[static_cast<std::size_t>(t)], o, exact, ours, theirs);
          const double error = std::abs(static_cast<double>(got(t, o)) - exact);
          const double apart = std::abs(static_cast<double>(got(t, o)) - answers[static_cast<std::size_t>(t * want.out + o)]);
          CAPTURE(t);
          CAPTURE(o);
          REQUIRE(error <= ours);
          REQUIRE(apart <= ours + theirs);
          worst.ours = std::max(worst.ours, error / ours);
          worst.peft = std::max(worst.peft, apart / (ours + theirs));
        }
    }
    ++worst.modules;
    if (!has_merged) continue;
    const auto merged_file = lora::io::safetensors::open(f.folder + "merged.safetensors");
    const lora::any_view theirs = merged_file[tensor];
    const lora::ndarray<float, 2> merged = lora::merged(w, update);
    for (index_t o = 0; o < want.out; ++o) {
      double norm_error = 0;
      const double factor = want.factor(o, norm_error);
      for (index_t k = 0; k < want.in; ++k) {
        double size = 0;
        const double exact = factor * want.element(o, k, size);
        const double ours = std::abs(factor) * (test::gamma(static_cast<double>(want.rank) + 4)) * size;
        const double given = flat(theirs, want.w_first + o * want.w_row + k * want.w_column);
        REQUIRE(std::abs(static_cast<double>(merged(o, k)) - exact) <= ours);
        REQUIRE(std::abs(static_cast<double>(merged(o, k)) - given) <=
                ours + std::abs(factor) * (test::gamma(static_cast<double>(want.rank) + 6) + norm_error) * size);
      }
    }
  }
}

template <class F>
std::string refusal(F f) {
  try {
    f();
  } catch (const lora::error& e) {
    return e.what();
  }
  return "";
}

}  // namespace

TEST_CASE("io/peft: convolutions and experts have PEFT's outputs, for every tier, and its merged weights") {
  largest worst;
  for (const char* name : {"plain", "f16", "bias", "dora", "dora_weighted", "dilated", "experts", "experts_turned", "parameters"}) {
    CAPTURE(name);
    const fixture f(name);
    const auto file = lora::io::load_peft(data + name);
    std::size_t answers = 0;
    for (const auto& entry : fs::directory_iterator(f.folder)) answers += entry.path().filename().string().starts_with("y_");
    CHECK(answers == f.expect["modules"].size());
    check_modules(f, file.adapter, true, worst);
  }
  CHECK(worst.modules == 5 * 4 + 4 + 1 + 6 + 6 + 6);
  CHECK(worst.ours < 0.5);
  CHECK(worst.peft < 0.1);  // a rounding to 16 bits anywhere on the way would be far outside
  MESSAGE("largest error " << worst.ours << " of the bound; from PEFT " << worst.peft << " of both sides' bounds");
}

TEST_CASE("io/kohya, io/diffusers: convolutions have torch's outputs") {
  const fixture f("kohya");
  const lora::model_contract model = lora::io::contract_of(f.base);
  REQUIRE(model[model.find("down.0.conv1")].kind == lora::module_kind::conv2d);
  REQUIRE(model[model.find("down.0.conv1")].in == 36);
  largest worst;
  const auto kohya = lora::io::load_kohya(f.folder + "kohya.safetensors", model);
  check_modules(f, kohya.adapter, false, worst);
  check_modules(f, lora::io::load_diffusers(f.folder + "diffusers.safetensors", {.component = "unet"}).adapter, false, worst);
  CHECK(worst.modules == 6);
  CHECK(worst.peft < 0.1);
  CHECK(refusal([&] {
          (void)lora::io::load_kohya(f.folder + "tucker.safetensors", model);
        }).find("is the core of a Tucker decomposition (LoCon), which is not supported") != std::string::npos);
  // Written, they have their four axes again, in both formats.
  const test::temporary_folder out;
  lora::io::save_kohya(out.path() + "/k.safetensors", kohya.adapter);
  lora::io::save_peft(out.path() + "/p", kohya.adapter);
  check_modules(f, lora::io::load_kohya(out.path() + "/k.safetensors", model).adapter, false, worst);
  check_modules(f, lora::io::load_peft(out.path() + "/p").adapter, false, worst);
  const auto table = lora::io::safetensors::open(out.path() + "/p/adapter_model.safetensors");
  const lora::any_view a = table["base_model.model.down.0.conv1.lora_A.weight"];
  const lora::any_view b = table["base_model.model.down.0.conv1.lora_B.weight"];
  REQUIRE(a.rank() == 4);
  CHECK((a.extent(0) == 3 && a.extent(1) == 4 && a.extent(2) == 3 && a.extent(3) == 3));
  REQUIRE(b.rank() == 4);
  CHECK((b.extent(0) == 6 && b.extent(1) == 3 && b.extent(2) == 1 && b.extent(3) == 1));
}

TEST_CASE("io/peft: what is refused of convolutions") {
  CHECK(refusal([] { (void)lora::io::load_peft(data + "grouped"); })
            .find("'base_model.model.body.grouped.lora_A.weight': shape [4, 4, 3, 3] has 2 times the rank of "
                  "'base_model.model.body.grouped.lora_B.weight' [6, 2, 1, 1], as for a convolution in groups, which is not supported") !=
        std::string::npos);
  CHECK(refusal([] {
          (void)lora::io::load_peft(data + "one_axis");
        }).find("shape [3, 4, 3] is that of a Conv1d or Conv3d; of convolutions only Conv2d is supported") != std::string::npos);
  // [2, 3] and [3, 2] are as many elements.
  const fixture f("plain");
  auto file = lora::io::load_peft(data + "plain");
  const lora::model_contract model = lora::io::contract_of(f.base, file.adapter);
  for (const auto& [height, width] : {std::pair<index_t, index_t>{3, 2}, {4, 3}, {2, 6}}) {
    for (auto& m : file.adapter.modules) {
      if (m.name != "body.uneven") continue;
      m.kernel[0] = height;
      m.kernel[1] = width;
    }
    const std::string kernel = "[" + std::to_string(height) + ", " + std::to_string(width) + "]";
    CHECK(refusal([&] {
            (void)lora::bind(file.adapter, model);
          }).find("module 'body.uneven': its kernel is " + kernel + " but the base's is [2, 3]") != std::string::npos);
  }
}

TEST_CASE("adapter/bind, adapter/compose, writers: a kernel belongs to a convolution, and a 1x1 one is a product") {
  const fixture f("plain");
  const auto file = lora::io::load_peft(data + "plain");
  const lora::model_contract model = lora::io::contract_of(lora::io::sharded::open(f.folder + "base.safetensors"));
  CHECK(model[model.find("body.uneven")].kind == lora::module_kind::conv2d);
  CHECK(model[model.find("body.uneven")].in == 24);
  lora::adapter one;
  one.source = "one";
  for (const auto& m : file.adapter.modules)
    if (m.name == "body.one" || m.name == "body.uneven") one.modules.push_back(m);
  CHECK(lora::bind(one, model).modules().size() == 2);
  for (auto& m : one.modules) m.kind = lora::module_kind::linear;  // as formats without kernels would say it
  for (auto& m : one.modules) m.kernel[0] = m.kernel[1] = 1;
  CHECK(refusal([&] { (void)lora::bind(one, model); }).find("'body.uneven': its kernel is [1, 1] but the base's is [2, 3]") !=
        std::string::npos);
  std::erase_if(one.modules, [](const auto& m) { return m.name == "body.uneven"; });
  CHECK(lora::bind(one, model).modules().size() == 1);

  const lora::composed_part twice[] = {{&file.adapter, 1.0f}, {&file.adapter, -0.5f}};
  const lora::adapter sum = lora::composed(twice);
  const lora::bound_adapter bound = lora::bind(sum, model);  // kinds and kernels are kept
  CHECK(bound.modules().size() == 5);
  lora::adapter turned = file.adapter;
  for (auto& m : turned.modules) std::swap(m.kernel[0], m.kernel[1]);
  const lora::composed_part wrong[] = {{&file.adapter, 1.0f}, {&turned, 1.0f}};
  CHECK(refusal([&] { (void)lora::composed(wrong); }).find("module 'body.uneven': its kernel is [3, 2] but that of") != std::string::npos);

  lora::adapter convolution = one;
  convolution.modules[0].kind = lora::module_kind::conv2d;
  const test::temporary_folder out;
  CHECK(refusal([&] { lora::io::save_json(out.path() + "/a.json", convolution); }).find("it is a convolution") != std::string::npos);
  convolution.modules[0].name = "blk.0.attn_q";
  CHECK(refusal([&] {
          lora::io::save_gguf(out.path() + "/a.gguf", convolution, {.architecture = "llama", .name = ""});
        }).find("it is a convolution") != std::string::npos);
  CHECK(fs::is_empty(out.path()));
}

TEST_CASE("io/peft: experts are views of the file's two factors, A by blocks of rows, B by columns") {
  const auto file = lora::io::load_peft(data + "experts");
  const auto table = lora::io::safetensors::open(data + "experts/adapter_model.safetensors");
  const lora::any_view a = table["base_model.model.mlp.experts.lora_A.weight"];  // of down_proj, registered last: outermost
  const lora::any_view b = table["base_model.model.mlp.experts.lora_B.weight"];
  int found = 0;
  for (const auto& m : file.adapter.modules)
    for (index_t e = 0; e < 3; ++e) {
      if (m.name != "mlp.experts.down_proj[" + std::to_string(e) + "]") continue;
      ++found;
      REQUIRE(m.weights.a.extent(0) == 4);  // rank_pattern, whose key has the parameter's name
      CHECK(m.weights.scale == 6.0f / 4);
      for (index_t r = 0; r < 4; ++r) {
        CHECK(at(m.weights.a, r, 1) == at(a, e * 4 + r, 1));
        CHECK(at(m.weights.b, 5, r) == at(b, 5, r * 3 + e));
      }
    }
  CHECK(found == 3);
  CHECK(file.report.unused_patterns.empty());
  CHECK(file.bytes_copied == 0);
}

TEST_CASE("io/peft: what cannot be told of experts is refused") {
  // Names that are in no known order: the caller says it.
  const test::temporary_folder out;
  const std::string config = test::read_file(data + "experts/adapter_config.json");
  const auto changed = [&](const std::string& from, const std::string& to) {
    std::string text = config;
    for (std::size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size()) text.replace(at, from.size(), to);
    REQUIRE(text != config);
    out.write("adapter_config.json", text);
    return out.path();
  };
  fs::copy_file(data + "experts/adapter_model.safetensors", out.path() + "/adapter_model.safetensors");
  changed("down_proj", "second");
  CHECK(refusal([&] { (void)lora::io::load_peft(out.path()); }).find("say it in peft_options::parameter_order") != std::string::npos);
  const auto named = lora::io::load_peft(out.path(), {.parameter_order = {"gate_up_proj", "second"}});
  CHECK(named.adapter.modules.back().name == "mlp.experts.second[2]");
  CHECK(named.adapter.modules.front().name == "mlp.experts.gate_up_proj[0]");
  CHECK(refusal([&] {
          (void)lora::io::load_peft(changed("    \"mlp.experts.down_proj\",\n", ""));
        }).find("is one of 2 pairs for the parameters of its module, but target_parameters of adapter_config.json name 1") !=
        std::string::npos);
  CHECK(refusal([&] { (void)lora::io::load_peft(changed("\"r\": 2", "\"r\": 4")); }).find("[experts x rank, in]") != std::string::npos);
  CHECK(refusal([&] { (void)lora::io::load_peft(changed("\"mlp.experts.down_proj\"", "1")); }).find("holds more than strings") !=
        std::string::npos);

  // Square matrices without a neighbour that tells, and another number of experts.
  const fixture turned("experts_turned");
  auto file = lora::io::load_peft(data + "experts_turned");
  auto& modules = file.adapter.modules;
  std::erase_if(modules, [](const auto& m) { return m.name.find("gate") != std::string::npos; });
  CHECK(refusal([&] { (void)lora::io::contract_of(turned.base, file.adapter); }).find("cannot be told") != std::string::npos);
  modules.pop_back();
  CHECK(refusal([&] {
          (void)lora::io::contract_of(turned.base, file.adapter);
        }).find("adapts 2 experts of 'mlp.experts.down_proj', but in the base it has shape [3, 6, 6]") != std::string::npos);
  CHECK(refusal([&] { lora::io::save_peft(out.path() + "/written", file.adapter); }).find("one of the experts of a parameter") !=
        std::string::npos);
}
