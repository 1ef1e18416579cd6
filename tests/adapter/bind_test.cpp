// SPDX-License-Identifier: Apache-2.0
//
// bind, adapter_set and linear: an adapter reaches the kernels only when it fits, and then computes what it says.
#include "support/oracle.hpp"

#include <lora/adapter/init.hpp>
#include <lora/adapter/linear.hpp>

#include <doctest/doctest.h>

#include <limits>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>

using lora::adapter;
using lora::adapter_set;
using lora::bound_adapter;
using lora::index_t;
using lora::model_contract;
using test::layout;
using test::matrix;

// The type state: there is no way to a bound_adapter but bind (and the move of one), and no way to a set but through bound ones.
static_assert(!std::is_default_constructible_v<bound_adapter>);
static_assert(!std::is_constructible_v<bound_adapter, adapter>);
static_assert(!std::is_constructible_v<bound_adapter, const adapter&, const model_contract&>);
static_assert(!std::is_convertible_v<adapter, bound_adapter>);
static_assert(!std::is_copy_constructible_v<bound_adapter>);  // it may own widened copies: shared, not copied
static_assert(std::is_nothrow_move_constructible_v<bound_adapter>);
static_assert(!std::is_aggregate_v<bound_adapter>);
static_assert(!std::is_constructible_v<lora::weighted_adapter, std::shared_ptr<const adapter>, float>);
static_assert(std::is_same_v<decltype(std::declval<const bound_adapter&>().modules()), std::span<const lora::bound_module>>);

namespace {

model_contract two_layers() {
  model_contract model;
  model.add("fc1", 20, 12);
  model.add("fc2", 7, 20);
  return model;
}

/** Arrays that live in the adapter's owner. */
struct owned {
  lora::ndarray<float, 2> a, b;
};

lora::adapted_module module_for(adapter& to, std::string name, index_t out, index_t in, index_t rank, float scale, std::uint64_t seed) {
  struct chain {
    owned here;
    std::shared_ptr<const void> rest;
  };
  auto kept = std::make_shared<chain>(chain{{lora::uninit<float>(rank, in), lora::uninit<float>(out, rank)}, to.owner});
  test::random numbers(seed);
  for (index_t i = 0; i < kept->here.a.size(); ++i) kept->here.a.data()[i] = numbers.number();
  for (index_t i = 0; i < kept->here.b.size(); ++i) kept->here.b.data()[i] = numbers.number();
  lora::adapted_module m{std::move(name), {std::as_const(kept->here.a).view(), std::as_const(kept->here.b).view(), scale}};
  to.owner = std::move(kept);
  return m;
}

adapter make_adapter(const char* source, float scale = 0.5f, index_t rank = 3, std::uint64_t seed = 1) {
  adapter a;
  a.source = source;
  a.modules.push_back(module_for(a, "fc2", 7, 20, rank, scale, seed));
  a.modules.push_back(module_for(a, "fc1", 20, 12, rank + 1, scale, seed + 1));
  return a;
}

template <class F>
std::string message_of(F f) {
#if LORA_HAS_EXCEPTIONS
  try {
    f();
  } catch (const lora::bind_error& e) {
    return std::string("bind_error: ") + e.what();
  } catch (const lora::value_error& e) {
    return std::string("value_error: ") + e.what();
  } catch (const lora::shape_error& e) {
    return std::string("shape_error: ") + e.what();
  }
#endif
  return "nothing was thrown";
}

bool same_bits(lora::ndview<const float, 2> a, lora::ndview<const float, 2> b) {
  for (index_t i = 0; i < a.extent(0); ++i)
    for (index_t j = 0; j < a.extent(1); ++j)
      if (test::bits(test::at(a, i, j)) != test::bits(test::at(b, i, j))) return false;
  return true;
}

}  // namespace

TEST_CASE("adapter/bind: modules come by index, in the order of the file, used where they lie") {
  const adapter file = make_adapter("style");
  const model_contract model = two_layers();
  const bound_adapter bound = lora::bind(file, model);
  CHECK(bound.source() == "style");
  REQUIRE(bound.modules().size() == 2);
  CHECK(bound.modules()[0].module == 1);
  CHECK(bound.modules()[1].module == 0);
  CHECK(bound.modules()[0].name == "fc2");
  CHECK(static_cast<const void*>(bound.modules()[0].term.a.data()) == file.modules[0].weights.a.data());
  CHECK(static_cast<const void*>(bound.modules()[0].term.b.data()) == file.modules[0].weights.b.data());
  CHECK(bound.modules()[0].term.scale == 0.5f);
  CHECK(bound.modules()[1].term.a.extent(0) == 4);
}

TEST_CASE("adapter/bind: 16-bit elements are used where they lie") {
  const model_contract model = two_layers();
  lora::ndarray<lora::float16, 2> a({2, 12});
  lora::ndarray<lora::bfloat16, 2> b({20, 2});
  lora::ndarray<float, 2> a2 = lora::full<float>(lora::extents{2, 20}, 1.0f);
  lora::ndarray<lora::bfloat16, 2> b2({2, 7});  // seen transposed: strides count
  // From subnormals up.
  for (index_t i = 0; i < a.size(); ++i) a.data()[i] = lora::float16::from_bits(static_cast<std::uint16_t>(0x0001 + 977 * i));
  for (index_t i = 0; i < b.size(); ++i) b.data()[i] = lora::bfloat16(0.37f * static_cast<float>(i) - 3);
  for (index_t i = 0; i < b2.size(); ++i) b2.data()[i] = lora::bfloat16(static_cast<float>(i));
  adapter file;
  file.source = "half";
  file.modules.push_back({"fc1", {std::as_const(a).view(), std::as_const(b).view(), 2.0f}});
  file.modules.push_back({"fc2", {std::as_const(a2).view(), std::as_const(b2).view().transpose(), 1.0f}});
  const bound_adapter first = lora::bind(file, model);
  std::vector<bound_adapter> moved;  // moving keeps the views valid
  moved.push_back(lora::bind(file, model));
  moved.push_back(lora::bind(file, model));
  for (const bound_adapter* bound : {&first, &std::as_const(moved)[0]}) {
    const auto& term = bound->modules()[0].term;
    CHECK(term.a.data() == a.data());
    CHECK(term.b.data() == b.data());
    CHECK(term.a.type() == lora::dtype::f16);
    CHECK(term.b.type() == lora::dtype::bf16);
    for (index_t i = 0; i < 2; ++i)
      for (index_t j = 0; j < 12; ++j) CHECK(test::bits(term.a(i, j)) == test::bits(static_cast<float>(a(i, j))));
    for (index_t i = 0; i < 20; ++i)
      for (index_t j = 0; j < 2; ++j) CHECK(test::bits(term.b(i, j)) == test::bits(static_cast<float>(b(i, j))));
    for (index_t i = 0; i < 7; ++i)
      for (index_t j = 0; j < 2; ++j) CHECK(bound->modules()[1].term.b(i, j) == static_cast<float>(7 * j + i));
    CHECK(static_cast<const void*>(bound->modules()[1].term.a.data()) == a2.data());
  }
}

TEST_CASE("adapter/bind: the owner of the file's memory lives as long as what was bound from it") {
  const model_contract model = two_layers();
  std::weak_ptr<const void> memory;
  std::shared_ptr<const bound_adapter> bound;
  {
    const adapter file = make_adapter("style");
    memory = file.owner;
    bound = std::make_shared<const bound_adapter>(lora::bind(file, model));
  }
  CHECK(!memory.expired());
  auto set = std::make_unique<adapter_set>(model, std::vector<lora::weighted_adapter>{{bound, 1.0f}});
  bound.reset();
  CHECK(!memory.expired());  // the set keeps it
  CHECK(std::isfinite((*set)[0][0].a(0, 0)));
  auto copy = std::make_unique<adapter_set>(*set);
  set.reset();
  CHECK(!memory.expired());
  CHECK(std::isfinite((*copy)[0][0].a(0, 0)));
  copy.reset();
  CHECK(memory.expired());
}

TEST_CASE("adapter/adapter_set: terms of each module in list order, scales times weights") {
  const model_contract model = two_layers();
  const auto style = std::make_shared<const bound_adapter>(lora::bind(make_adapter("style", 0.5f, 3, 1), model));
  adapter only_fc1;
  only_fc1.source = "facts";
  only_fc1.modules.push_back(module_for(only_fc1, "fc1", 20, 12, 2, 3.0f, 9));
  const auto facts = std::make_shared<const bound_adapter>(lora::bind(only_fc1, model));

  const adapter_set none(model);
  CHECK(none.size() == 2);
  CHECK(none[0].empty());
  CHECK(none[1].empty());
  CHECK(none.rank(0) == 0);
  CHECK(none.adapters().empty());

  const adapter_set set(model, {{style, 0.5f}, {facts, -1.0f}, {style, 0.0f}});
  REQUIRE(set[0].size() == 3);
  REQUIRE(set[1].size() == 2);
  CHECK(set[0][0].scale == 0.25f);
  CHECK(set[0][1].scale == -3.0f);
  CHECK(set[0][2].scale == 0.0f);
  CHECK(set[0][0].a.data() == style->modules()[1].term.a.data());
  CHECK(set[0][1].a.data() == facts->modules()[0].term.a.data());
  CHECK(set[1][0].a.data() == style->modules()[0].term.a.data());
  CHECK(set.rank(0) == 4 + 2 + 4);
  CHECK(set.rank(1) == 3 + 3);
  REQUIRE(set.adapters().size() == 3);
  CHECK(set.adapters()[1].adapter == facts);
  CHECK(set.adapters()[1].weight == -1.0f);
  // Order counts: it is the order of summation.
  const adapter_set turned(model, {{facts, -1.0f}, {style, 0.5f}});
  CHECK(turned[0][0].scale == -3.0f);
  CHECK(turned[0][1].scale == 0.25f);
  // Terms point into the adapters, not into the set: a moved or copied set gives the same.
  adapter_set copy = set;
  const adapter_set moved = std::move(copy);
  CHECK(moved[0][1].a.data() == set[0][1].a.data());
}

TEST_CASE("adapter/linear: several adapters compute what they say, within the bound") {
  const model_contract model = two_layers();
  const auto style = std::make_shared<const bound_adapter>(lora::bind(make_adapter("style", 0.5f, 3, 1), model));
  const auto facts = std::make_shared<const bound_adapter>(lora::bind(make_adapter("facts", -1.5f, 8, 5), model));
  const adapter_set set(model, {{style, 1.0f}, {facts, 0.25f}, {style, 0.0f}});
  const matrix w(20, 12, layout::padded, 1);
  const matrix bias_row(1, 20, layout::plain, 2);
  const matrix x(9, 12, layout::transposed, 3);
  const auto bias = bias_row.view()(0, lora::all);
  const lora::linear fc1(w.view(), bias);
  CHECK(fc1.in() == 12);
  CHECK(fc1.out() == 20);
  CHECK(fc1.weight().data() == w.view().data());
  CHECK(fc1.bias().data() == bias.data());
  const test::expected want(x.view(), w.view(), set[0], bias);
  lora::workspace scratch;
  matrix y(9, 20, layout::plain);
  matrix z(9, 20, layout::padded);
  fc1.forward(y.view(), x.view(), set[0], scratch);
  CHECK(want.worst(y.view()) <= 1.0);
  test::backward_executor ex{3};
  fc1.forward(z.view(), x.view(), set[0], scratch, ex);
  CHECK(same_bits(y.view(), z.view()));
  lora::forward(z.view(), x.view(), w.view(), set[0], bias, scratch);
  CHECK(same_bits(y.view(), z.view()));
  fc1.forward(z.view(), x.view(), set[0], scratch, {.tier = lora::simd::tier::generic});
  CHECK(want.worst(z.view()) <= 1.0);
  // Other adapters, same module and weights: the base alone.
  fc1.forward(z.view(), x.view(), adapter_set(model)[0], scratch);
  CHECK(test::expected(x.view(), w.view(), {}, bias).worst(z.view()) <= 1.0);
  CHECK(!same_bits(y.view(), z.view()));
}

TEST_CASE("adapter/linear: without a bias, and default constructed") {
  const matrix w(5, 3, layout::plain, 1);
  const matrix x(2, 3, layout::plain, 2);
  matrix y(2, 5, layout::plain);
  lora::workspace scratch;
  const lora::linear no_bias(w.view());
  no_bias.forward(y.view(), x.view(), {}, scratch);
  CHECK(test::expected(x.view(), w.view(), {}, {}).worst(y.view()) <= 1.0);
  const lora::linear nothing;
  CHECK(nothing.in() == 0);
  CHECK(nothing.out() == 0);
}

TEST_CASE("adapter/init: a fresh adapter changes nothing, bit for bit, by every rule and batch size") {
  const model_contract model = two_layers();
  const matrix w(20, 12, layout::plain, 1);
  const matrix x(64, 12, layout::plain, 3);
  const lora::linear fc1(w.view());
  lora::workspace scratch;
  for (const auto rule : {lora::init_rule::normal, lora::init_rule::gaussian, lora::init_rule::kaiming_uniform}) {
    const auto fresh = lora::fresh_adapter(20, 12, 5, rule, 11);
    adapter file;
    file.source = "fresh";
    file.modules.push_back({"fc1", {fresh.a.view(), fresh.b.view(), 2.0f}});
    const auto bound = std::make_shared<const bound_adapter>(lora::bind(file, model));
    const adapter_set set(model, {{bound, 1.0f}});
    for (const index_t n : {1, 2, 4, 8, 16, 33, 64}) {
      const auto rows = x.view()(lora::range(0, n), lora::all);
      matrix y(n, 20, layout::plain);
      matrix z(n, 20, layout::plain);
      fc1.forward(y.view(), rows, {}, scratch);
      fc1.forward(z.view(), rows, set[0], scratch);
      CHECK(same_bits(y.view(), z.view()));
    }
  }
}

#if LORA_HAS_EXCEPTIONS

TEST_CASE("adapter/bind: an adapter that does not fit is refused whole, naming source, module and shapes") {
  const model_contract model = two_layers();
  const auto refused = [&](const char* message, auto change) {
    adapter file = make_adapter("style");
    change(file);
    CHECK(message_of([&] { (void)lora::bind(file, model, {.require_finite = true}); }) == std::string("bind_error: ") + message);
  };
  const float numbers[400] = {};
  const double doubles[4] = {};
  const std::uint16_t halves[1000] = {};
  const auto view = [&](index_t rows, index_t columns) { return lora::ndview<const float, 2>(numbers, {rows, columns}); };
  const auto at = [](adapter& a) -> lora::low_rank& { return a.modules[1].weights; };

  refused("adapter 'style' has no modules: it would change nothing", [](adapter& a) { a.modules.clear(); });
  refused("adapter 'style', module 'fc3': the model has no module of this name", [](adapter& a) { a.modules[1].name = "fc3"; });
  refused("adapter 'style', module 'fc2': is adapted twice", [](adapter& a) { a.modules[1] = a.modules[0]; });
  refused("adapter 'style', module 'fc1': lora_A [3, 13] and lora_B [20, 3] do not fit the weight [20, 12]", [&](adapter& a) {
    at(a) = {view(3, 13), view(20, 3), 1.0f};
  });
  refused("adapter 'style', module 'fc1': lora_A [3, 12] and lora_B [19, 3] do not fit the weight [20, 12]", [&](adapter& a) {
    at(a) = {view(3, 12), view(19, 3), 1.0f};
  });
  refused("adapter 'style', module 'fc1': lora_A [3, 12] and lora_B [20, 4] do not fit the weight [20, 12]", [&](adapter& a) {
    at(a) = {view(3, 12), view(20, 4), 1.0f};
  });
  refused("adapter 'style', module 'fc1': lora_A [12, 3] and lora_B [20, 3] do not fit the weight [20, 12]",  // stored transposed
          [&](adapter& a) {
            at(a) = {view(12, 3), view(20, 3), 1.0f};
          });
  refused("adapter 'style', module 'fc1': has rank 0", [&](adapter& a) { at(a) = {view(0, 12), view(20, 0), 1.0f}; });
  refused("adapter 'style', module 'fc1': lora_A has shape [3, 12, 1], not two axes", [&](adapter& a) {
    at(a).a = lora::ndview<const float, 3>(numbers, {3, 12, 1});
  });
  refused("adapter 'style', module 'fc1': lora_B has shape [60], not two axes",
          [&](adapter& a) { at(a).b = lora::ndview<const float, 1>(numbers, {60}); });
  refused("adapter 'style', module 'fc1': lora_A has shape [0], not two axes", [&](adapter& a) { at(a).a = lora::any_view(); });
  refused("adapter 'style', module 'fc1': lora_A has dtype f64; supported: f32 f16 bf16", [&](adapter& a) {
    at(a).a = lora::ndview<const double, 2>(doubles, {2, 2});
  });
  refused("adapter 'style', module 'fc1': lora_B is not aligned for its elements", [&](adapter& a) {
    const index_t shape[] = {20, 4};
    at(a).b = lora::any_view(reinterpret_cast<const char*>(halves) + 2, lora::dtype::f32, shape, 2);
  });
  for (const float scale : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()})
    refused("adapter 'style', module 'fc1': the scale is not finite", [&](adapter& a) { at(a).scale = scale; });

  float bad[4 * 12] = {};
  bad[2 * 12 + 5] = std::numeric_limits<float>::infinity();
  refused("adapter 'style', module 'fc1': lora_A holds a NaN or an infinity at [2, 5]", [&](adapter& a) {
    at(a).a = lora::ndview<const float, 2>(bad, {4, 12});
  });
  float bad_b[20 * 4] = {};
  bad_b[79] = std::numeric_limits<float>::quiet_NaN();
  refused("adapter 'style', module 'fc1': lora_B holds a NaN or an infinity at [19, 3]", [&](adapter& a) {
    at(a).b = lora::ndview<const float, 2>(bad_b, {20, 4});
  });
  // An infinity in half precision is found after widening; without the option it is taken.
  lora::ndarray<lora::float16, 2> half({4, 12});
  for (index_t i = 0; i < half.size(); ++i) half.data()[i] = lora::float16::from_bits(i == 0 ? 0x7c00 : 0);
  refused("adapter 'style', module 'fc1': lora_A holds a NaN or an infinity at [0, 0]",
          [&](adapter& a) { at(a).a = std::as_const(half).view(); });
  adapter infinite = make_adapter("style");
  at(infinite).a = lora::ndview<const float, 2>(bad, {4, 12});
  CHECK(message_of([&] { (void)lora::bind(infinite, model); }) == "nothing was thrown");
}

TEST_CASE("adapter/bind: names from outside cannot break a message") {
  const model_contract model = two_layers();
  adapter file = make_adapter("a\nb\x01");
  file.modules[0].name = std::string(5000, 'x') + "end";
  const std::string message = message_of([&] { (void)lora::bind(file, model); });
  CHECK(message.find("adapter 'a?b?', module '...xxx") != std::string::npos);
  CHECK(message.find("xend': the model has no module of this name") != std::string::npos);
}

TEST_CASE("adapter/adapter_set: what is refused") {
  const model_contract model = two_layers();
  const auto style = std::make_shared<const bound_adapter>(lora::bind(make_adapter("style", 2.0f), model));
  const auto build = [&](const model_contract& m, std::vector<lora::weighted_adapter> list) {
    return message_of([&] { (void)adapter_set(m, std::move(list)); });
  };
  CHECK(build(model, {{nullptr, 1.0f}}) == "bind_error: adapter_set: a null adapter");
  for (const float weight : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()})
    CHECK(build(model, {{style, weight}}) == "value_error: adapter_set: the weight of 'style' is not finite");
  CHECK(build(model, {{style, 3e38f}}) == "value_error: adapter_set: scale times weight of 'style' is not finite");
  CHECK(build(model, {{style, 1e38f}}) == "nothing was thrown");

  const char* other = "bind_error: adapter_set: 'style' was bound to another model";
  model_contract smaller;
  smaller.add("fc1", 20, 12);
  CHECK(build(smaller, {{style, 1.0f}}) == other);
  model_contract wider;
  wider.add("fc1", 20, 13);
  wider.add("fc2", 7, 20);
  CHECK(build(wider, {{style, 1.0f}}) == other);
  model_contract taller;
  taller.add("fc1", 21, 12);
  taller.add("fc2", 7, 20);
  CHECK(build(taller, {{style, 1.0f}}) == other);
  model_contract renamed;  // equal shapes, other modules: the adapter would change the wrong ones
  renamed.add("q_proj", 20, 12);
  renamed.add("fc2", 7, 20);
  CHECK(build(renamed, {{style, 1.0f}}) == other);
  model_contract longer = two_layers();
  longer.add("fc3", 1, 1);
  CHECK(build(longer, {{style, 1.0f}}) == "nothing was thrown");  // every module it names is where it was
}

TEST_CASE("adapter/linear: a bias that does not fit, and wrong shapes in forward") {
  const matrix w(5, 3, layout::plain, 1);
  const matrix x(2, 4, layout::plain, 2);
  matrix y(2, 5, layout::plain);
  lora::workspace scratch;
  CHECK(message_of([&] { (void)lora::linear(w.view(), x.view()(0, lora::all)); }) ==
        "shape_error: linear: bias is [4] but weight is [5, 3]");
  CHECK(message_of([&] { lora::linear(w.view()).forward(y.view(), x.view(), {}, scratch); }) ==
        "shape_error: forward: w is [5, 3] but x is [2, 4]");
}

#endif

TEST_CASE("adapter/bind: a tensor that leaves the adapter's memory is refused, at either end, by one byte") {
  model_contract model;
  model.add("fc1", 4, 3);
  std::vector<float> memory(64, 1.0f);
  const auto with = [&](const lora::any_view& a, const lora::any_view& b, std::size_t first, std::size_t last) {
    adapter file;
    file.source = "mapped";
    file.modules.push_back({"fc1", {a, b, 1.0f}});
    file.region = std::as_bytes(std::span(memory)).subspan(first, last - first);
    return message_of([&] { (void)lora::bind(file, model); });
  };
  const float* p = memory.data() + 8;
  const lora::ndview<const float, 2> a(p, {2, 3});                                          // bytes 32 .. 56
  const lora::ndview<const float, 2> b(p + 6, {4, 2});                                      // bytes 56 .. 88
  const lora::ndview<const float, 2> up = a(lora::range(lora::_, lora::_, -1), lora::all);  // the same bytes from the last row
  CHECK(with(a, b, 32, 88) == "nothing was thrown");
  CHECK(with(up, b, 32, 88) == "nothing was thrown");
  CHECK(with(a, b, 0, 256) == "nothing was thrown");
  CHECK(with(a, b, 33, 88) ==
        "bind_error: adapter 'mapped', module 'fc1': lora_A [2, 3] takes 24 bytes, not all of them inside the 55 bytes that the adapter "
        "owns");
  CHECK(with(up, b, 33, 88) == with(a, b, 33, 88));
  CHECK(with(a, b, 32, 87) ==
        "bind_error: adapter 'mapped', module 'fc1': lora_B [4, 2] takes 32 bytes, not all of them inside the 55 bytes that the adapter "
        "owns");
  CHECK(with(a, b, 100, 256).find("lora_A") != std::string::npos);  // wholly before
  CHECK(with(a, b, 0, 16).find("lora_A") != std::string::npos);     // wholly behind
}

TEST_CASE("adapter/bind: an adapter of another base is refused when both say which") {
  model_contract model = two_layers();
  adapter file = make_adapter("style");
  lora::content_hash mine, other;
  mine.bytes.fill(0x11);
  other.bytes.fill(0x22);
  file.base = mine;
  CHECK_NOTHROW((void)lora::bind(file, model));  // the model does not say
  model.set_identity(mine);
  CHECK_NOTHROW((void)lora::bind(file, model));
  model.set_identity(other);
  CHECK(message_of([&] { (void)lora::bind(file, model); }) ==
        std::string("bind_error: adapter 'style' was trained on the base ") + mine.hex().data() + ", this one is " + other.hex().data());
  file.base = {};
  CHECK_NOTHROW((void)lora::bind(file, model));
}
