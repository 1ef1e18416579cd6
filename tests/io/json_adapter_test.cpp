// SPDX-License-Identifier: Apache-2.0
#include "formats.hpp"

#include <lora/adapter/bind.hpp>
#include <lora/io/json_adapter.hpp>
#include <lora/io/json_adapter_writer.hpp>

#include <clocale>
#include <cstdlib>
#include <limits>
#include <random>

namespace {

using lora::io::json_adapter;

json_adapter parsed(const std::string& json, const std::string& module = "m") {
  const test::exact_bytes bytes(json);
  return json_adapter::parse(bytes.span(), "j", {module});
}
std::string refused(const std::string& json, const std::string& module = "m") {
  return test::refusal<lora::io_error>([&] { (void)parsed(json, module); });
}
const std::string dims = R"("rank":2,"in_dim":3,"out_dim":1)";
const std::string pair = R"("a":[1,2,3,4,5,6],"b":[7,8])";

/** A's only number, read from this text. */
float one(const std::string& number) {
  return parsed(R"({"rank":1,"in_dim":1,"out_dim":1,"b":[0],"a":[)" + number + "]}")
      .adapter.modules[0]
      .weights.a.as<const float, 2>()(0, 0);
}
std::string text_of(float x) {
  std::string s;
  lora::detail::append_number(s, x);
  return s;
}

}  // namespace

TEST_CASE("io/json_adapter: files that Python wrote have Python's numbers, scales and outputs") {
  for (const char* file : {"alpha.json", "no_alpha.json", "zero_alpha.json"}) {
    CAPTURE(file);
    const json_adapter j = lora::io::load_json(test::formats_data + file, {"fc1"});
    test::check_expected(j.adapter, file);
    CHECK(j.adapter.source == test::formats_data + file);
    CHECK(j.has_alpha == (std::string_view(file) != "no_alpha.json"));
    CHECK(j.unknown_fields.size() == (std::string_view(file) == "zero_alpha.json" ? 1u : 0u));
    CHECK(j.adapter.modules[0].weights.a.is_aligned());
  }
}

TEST_CASE("io/json_adapter: the scale is 1 without alpha and alpha / rank with it") {
  CHECK(parsed("{" + pair + "," + dims + "}").adapter.modules[0].weights.scale == 1.0f);
  CHECK(parsed("{" + pair + ",\"alpha\":null," + dims + "}").adapter.modules[0].weights.scale == 1.0f);
  CHECK(parsed("{" + pair + ",\"alpha\":3," + dims + "}").adapter.modules[0].weights.scale == 1.5f);
  CHECK(parsed("{" + pair + ",\"alpha\":-0.5," + dims + "}").adapter.modules[0].weights.scale == -0.25f);
  CHECK(parsed("{" + pair + ",\"alpha\":0," + dims + "}").adapter.modules[0].weights.scale == 0.0f);
  CHECK(parsed("{" + pair + ",\"alpha\":-7," + dims + "}").adapter.modules[0].weights.scale == -3.5f);
}

TEST_CASE("io/json_adapter: keys may come in any order, and A and B are row by row") {
  for (const std::string& json :
       {"{" + dims + "," + pair + "}", "{" + pair + "," + dims + "}", R"({"b":[7,8],)" + dims + R"(,"a":[1,2,3,4,5,6]})"}) {
    const json_adapter j = parsed(json);
    const auto a = j.adapter.modules[0].weights.a.as<const float, 2>();
    const auto b = j.adapter.modules[0].weights.b.as<const float, 2>();
    CHECK(a.extent(0) == 2);
    CHECK(b.extent(0) == 1);
    CHECK(a(0, 2) == 3);
    CHECK(a(1, 0) == 4);
    CHECK(b(0, 1) == 8);
  }
}

TEST_CASE("io/json_adapter: the module is named by the file, the caller or the model's only match") {
  const std::string named = "{" + pair + "," + dims + R"(,"module":"x.y"})";
  CHECK(parsed(named, "").adapter.modules[0].name == "x.y");
  CHECK(parsed(named, "x.y").adapter.modules[0].name == "x.y");
  CHECK(refused(named, "z") == "'j': it is for the module 'x.y', not for 'z'");
  lora::model_contract model;
  model.add("other", 3, 1);
  json_adapter j = parsed("{" + pair + "," + dims + "}", "");
  CHECK(test::refusal<lora::bind_error>([&] { j.place(model); }) ==
        "adapter 'j': it names no module, and the model has 0 modules of shape [1, 3]");
  model.add("first", 1, 3);
  j.place(model);
  CHECK(j.adapter.modules[0].name == "first");
  CHECK(lora::bind(j.adapter, model).modules().size() == 1);
  model.add("second", 1, 3);
  json_adapter k = parsed("{" + pair + "," + dims + "}", "");
  CHECK(test::contains(test::refusal<lora::bind_error>([&] { k.place(model); }), "the model has 2 modules"));
  CHECK(k.adapter.modules[0].name.empty());
}

TEST_CASE("io/json_adapter: what is wrong is refused by name") {
  const auto with = [&](const std::string& more) { return refused("{" + dims + "," + more + "}"); };
  CHECK(with(R"("a":[1,2,3,4,5,6])") == "'j': the key 'b' is missing");
  CHECK(refused("{" + pair + R"(,"rank":2,"in_dim":3})") == "'j': the key 'out_dim' is missing");
  CHECK(test::contains(with(R"("a":[1,2,3,4,5],"b":[1,2])"), "'a' holds 5 numbers, but rank x in_dim is 2 x 3"));
  CHECK(test::contains(with(R"("a":[1,2,3,4,5,6],"b":[1,2,3])"), "'b' holds 3 numbers, but out_dim x rank is 1 x 2"));
  CHECK(test::contains(refused(R"({"a":[1,2],"rank":2,"in_dim":3,"out_dim":1,"b":[1,2]})"), "'a' holds 2 numbers"));
  CHECK(test::contains(with(R"("a":[],"b":[])"), "'a' holds 0 numbers"));
  CHECK(test::contains(with(pair + R"(,"rank":2)"), "the key 'rank' occurs twice"));
  CHECK(test::contains(with(pair + R"(,"b":[7,8])"), "the key 'b' occurs twice"));
  CHECK(test::contains(with(pair + R"(,"\u0062":[7,8])"), "the key 'b' occurs twice"));
  CHECK(test::contains(with(pair + R"(,"note":"x","note":"y")"), "the key 'note' occurs twice"));
  CHECK(test::contains(with(R"("a":[1,2,3,4,5,"6"],"b":[1,2])"), "'a' holds something that is not a number"));
  CHECK(test::contains(with(R"("a":[1,2,3,4,5,[6]],"b":[1,2])"), "'a' holds something that is not a number"));
  CHECK(test::contains(with(R"("a":[1,2,3,4,5,null],"b":[1,2])"), "'a' holds something that is not a number"));
  CHECK(test::contains(with(R"("a":[1,2,3,4,5,1e39],"b":[1,2])"), "'a' holds a number that does not fit a float"));
  CHECK(test::contains(with(R"("a":[1,2,3,4,5,1e999],"b":[1,2])"), "holds a number that is out of range"));
  CHECK(test::contains(with(R"("a":[1,2,3,4,5,NaN],"b":[1,2])"), "is not valid JSON"));
  CHECK(test::contains(with(R"("a":{"x":1},"b":[1,2])"), "'a' is an object, not an array of numbers"));
  CHECK(test::contains(with(R"("a":"1","b":[1,2])"), "'a' is not an array of numbers"));
  CHECK(test::contains(with(pair + R"(,"alpha":"4")"), "'alpha' is not a number"));
  CHECK(test::contains(with(pair + R"(,"alpha":false)"), "'alpha' is not a number"));
  CHECK(test::contains(with(pair + R"(,"alpha":[4])"), "'alpha' is not a number"));
  CHECK(test::contains(with(pair + R"(,"alpha":1e60)"), "the alpha of module '' does not fit a float"));
  CHECK(test::contains(with(pair + R"(,"module":4)"), "'module' is not a string"));
  CHECK(test::contains(with(pair + R"(,"module":"")"), "'module' is empty"));
  CHECK(test::contains(with(pair + R"(,"module":"a\u0000b")"), "'module' contains a NUL"));
  CHECK(test::contains(with(pair + R"(,"use_rslora":true)"), "'use_rslora' is none of the protocol, and it is set"));
  CHECK(test::contains(with(pair + R"(,"bias":[0])"), "'bias' is none of the protocol, and it is set"));
  CHECK(test::contains(with(pair + R"(,"more":{"x":null})"), "'more' is none of the protocol"));
  CHECK(with(pair + R"(,"use_rslora":false,"bias":null,"more":{},"list":[],"text":"y")").empty());
  for (const char* bad : {"0", "-1", "1.5", "null", "true", "[1]", "\"2\"", "18446744073709551616"})
    CHECK(test::contains(refused(R"({"rank":)" + std::string(bad) + "}"), "'rank' is not a dimension, an integer of at least 1"));
  CHECK(refused("[]") == "'j': the adapter is a JSON array, not an object (byte 1)");
  CHECK(test::contains(refused("3"), "the adapter is not a JSON object"));
  CHECK(test::contains(refused(""), "is empty where JSON was expected"));
  CHECK(test::contains(refused("{" + dims + "," + pair + "} x"), "is not valid JSON"));
  CHECK(test::contains(refused("{" + dims + "," + pair), "is not valid JSON"));
}

TEST_CASE("io/json_adapter: hostile sizes are refused before they are believed") {
  // The product overflows 64 bits; the dimensions alone ask for 2^90 numbers.
  CHECK(test::contains(refused(R"({"rank":536870912,"in_dim":4611686018427387904,"out_dim":1,"a":[1],"b":[1]})"), "'a' holds 1 numbers"));
  CHECK(test::contains(refused(R"({"rank":536870913,"in_dim":1,"out_dim":1})"), "'rank' is not a dimension"));
  // 30 million brackets, commas and keys: each text is refused at its first wrong token, or has a limit on what is kept.
  CHECK(test::contains(refused("{\"a\":" + std::string(30'000'000, '[')), "'a' holds something that is not a number"));
  CHECK(test::contains(refused("{\"a\":[" + std::string(30'000'000, ',')), "is not valid JSON"));
  CHECK(test::contains(refused("{\"x\":" + std::string(30'000'000, '[')), "'x' is none of the protocol"));
  std::string keys = "{";
  for (int i = 0; i < 2000; ++i) keys += "\"k" + std::to_string(i) + "\":0,";
  CHECK(test::contains(refused(keys), "is none of the protocol, and it is set"));
  for (std::size_t at = keys.find(":0"); at != std::string::npos; at = keys.find(":0")) keys.replace(at, 2, ":[]");
  CHECK(test::contains(refused(keys), "more than 1000 keys outside the protocol"));
  // With the dimensions in front a long array is refused before its numbers are read.
  std::string numbers = "{" + dims + ",\"a\":[0";
  for (int i = 0; i < 1'000'000; ++i) numbers += ",0";
  CHECK(test::contains(refused(numbers + "]}"), "'a' holds 1000001 numbers, but rank x in_dim is 2 x 3 (byte 38)"));
}

TEST_CASE("io/json_adapter: numbers are rounded to float once") {
  // Exactly between two floats in double, but the digits lie a little above or below: 1 + 2^-24 -+ 1e-20, and the two ends of the range.
  CHECK(one("1.000000059604644775390625") == 1.0f);
  CHECK(one("1.00000005960464477539") == 1.0f);
  CHECK(one("1.0000000596046447753907") == std::nextafter(1.0f, 2.0f));
  CHECK(one("-1.0000000596046447753907") == -std::nextafter(1.0f, 2.0f));
  CHECK(one("1.00000017881393432617187499") == std::nextafter(1.0f, 2.0f));
  CHECK(one("3.4028235677973366e38") == std::numeric_limits<float>::max());  // below FLT_MAX and half a step, in digits
  CHECK(test::contains(refused(R"({"rank":1,"in_dim":1,"out_dim":1,"b":[0],"a":[340282356779733661637539395458142568448]})"),
                       "does not fit a float"));
  CHECK(one("340282356779733661637539395458142568447.9") == std::numeric_limits<float>::max());
  CHECK(one("7.006492321624085354618e-46") == 0.0f);
  CHECK(one("7.006492321624085354619e-46") == std::numeric_limits<float>::denorm_min());
  CHECK(one("1e-999") == 0.0f);
  CHECK(std::signbit(one("-0")));
  CHECK(std::signbit(one("-0.0")));
  CHECK(one("16777217") == 16777216.0f);
  CHECK(one("-9007199791611905") == std::strtof("-9007199791611905", nullptr));  // through a double it would round twice
  CHECK(one("18446744073709551615") == 0x1p64f);
  std::mt19937 random(1);
  for (int i = 0; i < 20000; ++i) {  // digits cut off from the points between floats: the hardest ones
    const auto bits = static_cast<std::uint32_t>(random()) & 0x7f7fffffu;
    float f;
    std::memcpy(&f, &bits, sizeof f);
    char digits[200];
    const double between = (double{f} + double{std::nextafter(f, INFINITY)}) / 2;
    std::snprintf(digits, sizeof digits, "%.*e", static_cast<int>(random() % 60 + 6), between);
    const float want = std::strtof(digits, nullptr);
    CAPTURE(digits);
    if (std::isinf(want)) continue;
    REQUIRE(one(digits) == want);
  }
}

TEST_CASE("io/json_adapter_writer: every float reads back, bit by bit, from the fewest digits") {
  CHECK(text_of(0.1f) == "0.1");
  CHECK(text_of(16.0f) == "16");
  CHECK(one(text_of(-0.0f)) == 0.0f);
  CHECK(std::signbit(one(text_of(-0.0f))));
  std::mt19937 random(2);
  for (int i = 0; i < 20000; ++i) {
    const auto bits = static_cast<std::uint32_t>(random());
    float f;
    std::memcpy(&f, &bits, sizeof f);
    if (!std::isfinite(f)) continue;
    const float back = one(text_of(f));
    REQUIRE(std::memcmp(&back, &f, sizeof f) == 0);
  }
}

TEST_CASE("io/json_adapter_writer: an adapter reads back the same, whatever its types and strides, and twice gives the same bytes") {
  const test::temporary_folder folder;
  for (const double alpha : {8.0, 7.0, 0.1, 0.0, -3.0, 1e-30}) {
    const test::made_adapter made(alpha);
    for (const auto& m : made.adapter.modules) {
      lora::adapter one_module;
      one_module.modules.push_back(m);
      one_module.modules[0].name = "ü \"\\\n/" + m.name;
      const std::string path = folder.path() + "/x.json";
      lora::io::save_json(path, one_module);
      const std::string bytes = test::read_file(path);
      CHECK(nlohmann::json::parse(bytes)["module"] == one_module.modules[0].name);
      test::check_same(lora::io::load_json(path).adapter, one_module, true);
      lora::io::save_json(path, one_module);
      CHECK(test::read_file(path) == bytes);
      CHECK(test::files_in(folder.path()) == 1);
    }
  }
}

TEST_CASE("io/json_adapter_writer: what the protocol cannot hold is refused, and the old file stays") {
  const test::temporary_folder folder;
  const std::string path = folder.write("x.json", "old");
  test::made_adapter made(8);
  const auto refused_to_save = [&](const lora::adapter& a) {
    const std::string what = test::refusal<lora::value_error>([&] { lora::io::save_json(path, a); });
    CHECK(test::read_file(path) == "old");
    CHECK(test::files_in(folder.path()) == 1);
    return what;
  };
  CHECK(test::contains(refused_to_save(made.adapter), "has 3 modules; the JSON protocol holds exactly one"));
  lora::adapter one_module;
  one_module.modules.push_back(made.adapter.modules[0]);
  one_module.modules[0].name = "\xff";
  CHECK(test::contains(refused_to_save(one_module), "is not UTF-8"));
  one_module.modules[0].name = "m";
  auto a = lora::full(lora::extents{2, 3}, 1.0f);
  auto b = lora::full(lora::extents{4, 2}, 1.0f);
  one_module.modules[0].weights = {a, b, 1.0f};
  b(3, 1) = INFINITY;
  CHECK(test::contains(refused_to_save(one_module), "module 'm': B holds a NaN or an infinity at [3, 1]"));
  one_module.modules[0].weights.scale = NAN;
  CHECK(test::contains(refused_to_save(one_module), "the scale is not finite"));
  one_module.modules[0].weights = {b, a, 1.0f};
  CHECK(test::contains(refused_to_save(one_module), "A [4, 2] [rank, in] and B [2, 3] [out, rank] do not fit together"));
}
