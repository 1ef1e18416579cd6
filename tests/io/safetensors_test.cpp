// SPDX-License-Identifier: Apache-2.0
#include "files.hpp"

#include <lora/io/contract.hpp>
#include <lora/io/safetensors.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <set>

namespace {

using lora::io::safetensors;

safetensors parse(const test::exact_bytes& b) { return safetensors::parse(b.span(), "f", {}); }

std::string refused(std::string_view bytes) {
  const test::exact_bytes exact(bytes);
  return test::refusal<lora::io_error>([&] { (void)parse(exact); });
}
std::string refused_json(std::string_view json, std::string_view data = "1234") { return refused(test::safetensors_bytes(json, data)); }

/** Reads every byte of every tensor, through the view; a reader that lies about bounds is caught by the sanitizers. */
unsigned touch(const safetensors& f) {
  unsigned sum = 0;
  for (const safetensors::tensor& t : f.tensors()) {
    const lora::any_view v = t.view();
    REQUIRE(v.is_aligned());
    REQUIRE(v.size_bytes() == t.size_bytes());
    const auto* const p = static_cast<const unsigned char*>(v.data());
    for (std::size_t i = 0; i < v.size_bytes(); ++i) sum += p[i];
    REQUIRE(f.find(t.name()) == &t);
  }
  return sum;
}

std::string entry(std::string_view dtype, std::string_view shape, std::string_view offsets) {
  return "{\"a\":{\"dtype\":\"" + std::string(dtype) + "\",\"shape\":" + std::string(shape) + ",\"data_offsets\":" + std::string(offsets) +
         "}}";
}

std::string hex(std::string_view s) {
  std::string out;
  for (const char c : s) {
    out += "0123456789abcdef"[static_cast<unsigned char>(c) >> 4];
    out += "0123456789abcdef"[static_cast<unsigned char>(c) & 15];
  }
  return out;
}
std::string unhex(std::string_view s) {
  std::string out;
  const auto digit = [](char c) { return c <= '9' ? c - '0' : c - 'a' + 10; };
  for (std::size_t i = 0; i + 1 < s.size(); i += 2) out += static_cast<char>(digit(s[i]) * 16 + digit(s[i + 1]));
  return out;
}

std::vector<std::string> split(const std::string& s, char at) {
  std::vector<std::string> out(1);
  for (const char c : s) {
    if (c == at)
      out.emplace_back();
    else
      out.back() += c;
  }
  return out;
}

/** A valid file with everything in it: metadata, an escape, three types, an empty tensor, a scalar, spaces behind. */
std::string sample() {
  return test::safetensors_builder()
      .raw(R"("__metadata__":{"format":"pt","k\n":""})")
      .add("w", "F32", {2, 2}, test::bytes_from<float>({1, 2, 3, 4}))
      .add("\\u00e9", "BF16", {3}, "abcdef")
      .add("none", "U8", {0, 5}, "")
      .add("flag", "BOOL", {}, std::string(1, '\1'))
      .bytes();
}

}  // namespace

TEST_CASE("io/safetensors: tensors are views into the file, in the order of their bytes") {
  const test::temporary_folder folder;
  const std::string path = folder.write("m.safetensors", test::safetensors_builder()
                                                             .raw(R"("__metadata__":{"format":"pt","a":"b"})")
                                                             .add("late", "F32", {2, 3}, test::bytes_from<float>({1, 2, 3, 4, 5, 6}))
                                                             .add("h", "BF16", {2}, test::bytes_from<std::uint16_t>({0x3f80, 0x4000}))
                                                             .add("s", "I64", {}, test::bytes_from<std::int64_t>({-7}))
                                                             .bytes(/*spaces=*/4));
  // 4 more spaces put the data at 4 modulo 8: F32 and BF16 are aligned, and the I64 at 4 + 24 + 4 = 32 is as well.
  const safetensors f = safetensors::open(path);
  CHECK(f.path() == path);
  CHECK(f.bytes_copied() == 0);
  REQUIRE(f.tensors().size() == 3);
  CHECK(f.tensors()[0].name() == "late");
  CHECK(f.tensors()[1].name() == "h");
  CHECK(f.tensors()[2].name() == "s");
  const auto w = f["late"].as<const float, 2>();
  CHECK(w.extent(0) == 2);
  CHECK(w(1, 2) == 6.0f);
  CHECK(static_cast<float>(f["h"].as<const lora::bfloat16, 1>()[1]) == 2.0f);
  CHECK(*f["s"].as<const std::int64_t, 0>().data() == -7);
  CHECK(f["late"].read_only());
  CHECK(f.tensors()[1].offset() == f.tensors()[0].offset() + 24);
  CHECK(f.tensors()[1].size_bytes() == 4);
  CHECK(f.tensors()[1].type() == lora::dtype::bf16);

  REQUIRE(f.metadata().size() == 2);
  CHECK(f.metadata()[0].key == "format");
  CHECK(f.metadata()[0].value == "pt");
  CHECK(f.metadata()[1].key == "a");

  CHECK(f.find("missing") == nullptr);
  CHECK(f.find("") == nullptr);
  CHECK(f.find("lat") == nullptr);
  CHECK(test::refusal<lora::io_error>([&] { (void)f["missing"]; }) == "'" + path + "': there is no tensor 'missing'");
}

TEST_CASE("io/safetensors: header order does not matter; empty tensors keep the header's order") {
  const test::exact_bytes b(test::safetensors_bytes(
      R"({"z":{"dtype":"U8","shape":[2],"data_offsets":[2,4]},"e2":{"dtype":"U8","shape":[0],"data_offsets":[2,2]},)"
      R"("e1":{"dtype":"U8","shape":[3,0],"data_offsets":[2,2]},"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})",
      "abcd"));
  const safetensors f = parse(b);
  std::vector<std::string> names;
  for (const auto& t : f.tensors()) names.emplace_back(t.name());
  CHECK(names == std::vector<std::string>{"a", "e2", "e1", "z"});
  CHECK(f["z"].as<const std::uint8_t, 1>()[0] == 'c');
  CHECK(f["e1"].size() == 0);
}

TEST_CASE("io/safetensors: all 22 dtypes are carried") {
  for (std::size_t i = 0; i < lora::dtype_count; ++i) {
    const auto type = static_cast<lora::dtype>(i);
    CAPTURE(lora::name_of(type));
    const std::size_t size = 4 * lora::bits_of(type) / 8;
    const test::exact_bytes b(
        test::safetensors_builder().add("a", lora::detail::dtype_table[i].safetensors_name, {2, 2}, std::string(size, '\1')).bytes());
    const safetensors f = parse(b);
    CHECK(f["a"].type() == type);
    CHECK(f["a"].size_bytes() == size);
    CHECK(touch(f) == size);
  }
}

TEST_CASE("io/safetensors: the table survives being moved, the elements survive the table") {
  std::shared_ptr<const void> owner;
  lora::any_view w;
  {
    const test::temporary_folder folder;
    safetensors first = safetensors::open(folder.write("m", sample()));
    const safetensors::tensor* const before = first.find("w");
    safetensors f = std::move(first);
    CHECK(f.find("w") == before);
    CHECK(first.tensors().empty());  // NOLINT(bugprone-use-after-move)
    CHECK(first.find("w") == nullptr);
    w = f["w"];
    owner = f.owner();
  }
  CHECK(w.as<const float, 2>()(1, 1) == 4.0f);
}

TEST_CASE("io/safetensors: unaligned tensors are copied once, counted, and outlive the table with their owner") {
  for (std::size_t shift = 0; shift < 9; ++shift) {
    CAPTURE(shift);
    const std::string bytes = test::safetensors_builder()
                                  .add("u", "U8", {1}, "x")
                                  .add("f", "F32", {2}, test::bytes_from<float>({1.5f, -2}))
                                  .add("e", "F64", {0}, "")
                                  .add("d", "F64", {1}, test::bytes_from<double>({0.25}))
                                  .bytes();
    auto exact = std::make_shared<const test::exact_bytes>(bytes, shift);
    std::weak_ptr<const test::exact_bytes> alive = exact;
    lora::any_view f32;
    lora::any_view f64;
    std::shared_ptr<const void> owner;
    {
      const safetensors f = safetensors::parse(exact->span(), "memory", exact);
      exact.reset();
      // Data begin at a multiple of 8 of the file. The f32 is at 1 + shift, the f64 at 9 + shift.
      const std::size_t expected = ((1 + shift) % 4 != 0 ? 8u : 0u) + ((9 + shift) % 8 != 0 ? 8u : 0u);
      CHECK(f.bytes_copied() == expected);
      CHECK(f["e"].is_aligned());
      f32 = f["f"];
      f64 = f["d"];
      owner = f.owner();
    }
    CHECK(!alive.expired());
    CHECK(f32.as<const float, 1>()[1] == -2.0f);
    CHECK(f64.as<const double, 1>()[0] == 0.25);
    owner.reset();
    CHECK(alive.expired());
  }
}

TEST_CASE("io/safetensors: several copied tensors are each aligned") {
  test::safetensors_builder b;
  b.add("u", "U8", {1}, "x");
  for (int i = 0; i < 5; ++i) b.add("h" + std::to_string(i), "F16", {1}, "ab").add("d" + std::to_string(i), "F64", {1}, "abcdefgh");
  const test::exact_bytes bytes(b.bytes());
  const safetensors f = parse(bytes);
  CHECK(f.bytes_copied() == 5 * (2 + 8));
  for (const auto& t : f.tensors()) {
    CAPTURE(t.name());
    CHECK(t.view().is_aligned());
    const std::string_view want = t.name() == "u" ? "x" : std::string_view("abcdefgh", t.size_bytes());
    CHECK(std::string_view(static_cast<const char*>(t.view().data()), t.size_bytes()) == want);
  }
}

TEST_CASE("io/safetensors: each broken rule is refused with one sentence that names file, tensor and byte") {
  using test::contains;
  // the frame
  CHECK(refused("") == "'f': a safetensors file begins with 8 bytes of length, this one has 0 (byte 0)");
  CHECK(refused(std::string_view("\2\0\0", 3)) == "'f': a safetensors file begins with 8 bytes of length, this one has 3 (byte 0)");
  CHECK(refused(std::string("\x01\xe1\xf5\x05\0\0\0\0", 8)) ==
        "'f': the header claims 100000001 bytes; at most 100000000 are allowed (byte 0)");
  CHECK(refused(std::string("\x05\0\0\0\0\0\0\0{}", 10)) ==
        "'f': the header claims 5 bytes, but the file has only 2 after the length (byte 0)");
  CHECK(refused(std::string(8, '\0')) == "'f': the header does not begin with '{' (byte 8)");
  CHECK(refused_json(" {}", "") == "'f': the header does not begin with '{' (byte 8)");
  CHECK(refused_json("[]", "") == "'f': the header does not begin with '{' (byte 8)");
  CHECK(refused_json("\xef\xbb\xbf{}", "") == "'f': the header does not begin with '{' (byte 8)");
  CHECK(refused_json("{} {}", "") == "'f': the header is not valid JSON (byte 12)");
  CHECK(refused_json(std::string("{}\0", 3), "") == "'f': the header contains a NUL byte (byte 10)");
  CHECK(contains(refused_json("{\"\xff\":1}"), "'f': the header is not valid JSON (byte "));
  CHECK(contains(refused_json("{\"a\\ud800\":1}"), "'f': the header is not valid JSON (byte "));
  CHECK(contains(refused_json(R"({"a":{"x":1e999}})"), "'f': the header holds a number that is out of range (byte "));
  CHECK(contains(refused_json("{\"a\":{\"x\":" + std::string(200, '[')),
                 "'f': the header nests arrays and objects deeper than 127 levels (byte 144)"));
  // names and metadata
  CHECK(refused_json(R"({"a\u0000b":{}})") == "'f': tensor 'a?b': its name contains a NUL (byte 19)");
  CHECK(refused_json(R"({"__metadata__":{},"__metadata__":{}})", "") == "'f': the key __metadata__ occurs twice (byte 41)");
  CHECK(refused_json(R"({"__metadata__":null})", "") == "'f': __metadata__ is null, not an object of strings (byte 28)");
  CHECK(refused_json(R"({"__metadata__":[]})", "") == "'f': __metadata__ is an array, not an object of strings (byte 25)");
  CHECK(refused_json(R"({"__metadata__":{"k":1}})", "") ==
        "'f': __metadata__ holds a number; its values are strings (a tensor cannot have that name) (byte 31)");
  CHECK(refused_json(R"({"__metadata__":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})") ==
        "'f': __metadata__ holds an array; its values are strings (a tensor cannot have that name) (byte 47)");
  CHECK(refused_json(R"({"__metadata__":{"k":"1","l":"","\u006b":"2"}})", "") == "'f': the key 'k' occurs twice in __metadata__ (byte 8)");
  CHECK(refused_json(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"\u0061":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}})") ==
        "'f': tensor 'a': the name occurs twice in the header (byte 69)");
  // entries
  CHECK(refused_json(R"({"a":null})") == "'f': tensor 'a': its entry is null, not an object (byte 17)");
  CHECK(refused_json(R"({"a":["U8",[4],[0,4]]})") == "'f': tensor 'a': its entry is an array, not an object (byte 14)");
  CHECK(refused_json(R"({"a":{"shape":[4],"data_offsets":[0,4]}})") == "'f': tensor 'a': it has no dtype (byte 47)");
  CHECK(refused_json(R"({"a":{"dtype":"U8","data_offsets":[0,4]}})") == "'f': tensor 'a': it has no shape (byte 48)");
  CHECK(refused_json(R"({"a":{"dtype":"U8","shape":[4]}})") == "'f': tensor 'a': it has no data_offsets (byte 39)");
  CHECK(contains(refused_json(R"({"a":{"dtype":"U8","dtype":"U8"}})"), "'f': tensor 'a': its field 'dtype' occurs twice (byte "));
  CHECK(contains(refused_json(R"({"a":{"shape":[],"sh\u0061pe":[]}})"), "'f': tensor 'a': its field 'shape' occurs twice (byte "));
  CHECK(contains(refused_json(R"({"a":{"data_offsets":[0,4],"data_offsets":[0,4]}})"),
                 "'f': tensor 'a': its field 'data_offsets' occurs twice (byte "));
  // dtype
  CHECK(contains(refused_json(entry("f32", "[4]", "[0,4]")),
                 "'f': tensor 'a': its dtype 'f32' is not one of the 22 of the format (byte 27)"));
  CHECK(contains(refused_json(R"({"a":{"dtype":3}})"), "tensor 'a': its dtype is a number, not a string"));
  CHECK(contains(refused_json(R"({"a":{"dtype":{"U8":null}}})"), "tensor 'a': its dtype is an object, not a string"));
  CHECK(contains(refused(test::safetensors_builder().add("m", "BOOL", {3}, std::string("\0\1\2", 3)).bytes()),
                 "'f': tensor 'm': a BOOL byte is 2, neither 0 nor 1 (byte "));
  // shape
  CHECK(contains(refused_json(entry("U8", "[1,1,1,1,1,1,1,1,1]", "[0,1]")), "tensor 'a': its shape has more than 8 dimensions"));
  CHECK(contains(refused_json(entry("U8", "[9223372036854775808]", "[0,4]")),
                 "tensor 'a': a dimension of its shape does not fit a signed 64-bit index"));
  CHECK(contains(refused_json(entry("U8", "[18446744073709551616]", "[0,4]")),
                 "tensor 'a': its shape holds a number that is not a plain unsigned 64-bit integer where an unsigned integer belongs"));
  for (const char* bad : {"[4.0]", "[4e0]", "[-4]", "[-0]"})
    CHECK(contains(refused_json(entry("U8", bad, "[0,4]")),
                   "tensor 'a': its shape holds a number that is not a plain unsigned 64-bit integer"));
  CHECK(contains(refused_json(entry("U8", "[\"4\"]", "[0,4]")), "tensor 'a': its shape holds a string where"));
  CHECK(contains(refused_json(entry("U8", "[true]", "[0,4]")), "tensor 'a': its shape holds a boolean where"));
  CHECK(contains(refused_json(entry("U8", "[[4]]", "[0,4]")), "tensor 'a': its shape holds an array where"));
  CHECK(contains(refused_json(entry("U8", "4", "[0,4]")), "tensor 'a': its shape is a number, not an array of integers"));
  CHECK(contains(refused_json(entry("U8", "{}", "[0,4]")), "tensor 'a': its shape is an object, not an array of integers"));
  // sizes
  for (const char* huge :
       {"[4294967296,4294967296]", "[4611686018427387905,4]", "[0,1099511627776,1099511627776]", "[1099511627776,1099511627776,0]"})
    CHECK(contains(refused_json(entry("U8", huge, "[0,4]")), " of u8 does not fit the address space (byte 12)"));
  CHECK(contains(refused_json(entry("F32", "[2305843009213693952]", "[0,4]")),
                 "shape [2305843009213693952] of f32 does not fit the address space"));
  CHECK(contains(refused_json(entry("F4", "[3]", "[0,2]"), "12"), "tensor 'a': shape [3] of f4 does not fill whole bytes (byte 12)"));
  CHECK(contains(refused_json(entry("F32", "[2]", "[0,4]")),
                 "tensor 'a': shape [2] of f32 needs 8 bytes, but its data_offsets span 4 (byte 12)"));
  CHECK(contains(refused_json(entry("F32", "[1,1,1,1,1,1,1,1000000000]", "[0,4000000000]")),
                 "tensor 'a': its data end at offset 4000000000, but the file has only 4 bytes of data: it is truncated"));
  CHECK(contains(refused_json(entry("U8", "[4]", "[0,5]"), "12345"),
                 "tensor 'a': shape [4] of u8 needs 4 bytes, but its data_offsets span 5"));
  // offsets
  CHECK(contains(refused_json(entry("U8", "[4]", "[4]")), "tensor 'a': its data_offsets have fewer than two numbers"));
  CHECK(contains(refused_json(entry("U8", "[4]", "[0,4,4]")), "tensor 'a': its data_offsets have more than two numbers"));
  CHECK(contains(refused_json(entry("U8", "[4]", "[0,null]")), "tensor 'a': its data_offsets hold null where an unsigned integer belongs"));
  CHECK(contains(refused_json(entry("U8", "[4]", "\"04\"")), "tensor 'a': its data_offsets are a string, not an array of integers"));
  CHECK(contains(refused_json(entry("U8", "[4]", "[4,0]")), "tensor 'a': its data_offsets run backwards: [4, 0]"));
  CHECK(contains(refused_json(entry("U8", "[4]", "[1,5]"), "12345"),
                 "tensor 'a': its data begin at offset 1, but the data before end at 0: there is a hole"));
  const auto two = [](std::string_view second) {
    return R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":)" + std::string(second) +
           "}}";
  };
  CHECK(contains(refused_json(two("[5,9]"), "123456789"),
                 "tensor 'b': its data begin at offset 5, but the data before end at 4: there is a hole"));
  CHECK(contains(refused_json(two("[3,7]"), "1234567"),
                 "tensor 'b': its data begin at offset 3, but the data before end at 4: tensors overlap"));
  CHECK(contains(refused_json(two("[4,8]"), "123456789"), "'f': 1 bytes follow the last tensor (byte "));
  CHECK(contains(refused_json(two("[4,8]"), "1234567"),
                 "tensor 'b': its data end at offset 8, but the file has only 7 bytes of data: it is truncated"));
  CHECK(contains(refused_json("{}", "1"), "'f': 1 bytes follow the last tensor (byte 10)"));
}

TEST_CASE("io/safetensors: a name that is not text stays one line in a message") {
  const std::string what = refused_json(R"({"a\n\u001b[31m":{"dtype":"X"}})");
  CHECK(what.find('\n') == std::string::npos);
  CHECK(what.find('\x1b') == std::string::npos);
}

TEST_CASE("io/safetensors: verdicts agree with the reference implementation, but for the differences listed") {
  // Accepted by safetensors 0.8, refused here; the reasons stand at the top of io/safetensors.hpp.
  const std::set<std::string> stricter = {"leading space",
                                          "leading newline",
                                          "NUL in a name",
                                          "duplicate tensor",
                                          "duplicate tensor of another type",
                                          "duplicate tensor, escaped",
                                          "metadata null",
                                          "metadata with a duplicate key",
                                          "metadata with an escaped duplicate",
                                          "dtype as an object",
                                          "entry as an array",
                                          "BOOL byte 2",
                                          "rank 9",
                                          "rank 9 with a zero",
                                          "shape 0, 2^64-1",
                                          "shape 0, 2^40, 2^40"};
  std::set<std::string> differing;
  std::size_t accepted = 0;
  std::size_t cases = 0;
  for (const std::string& line : split(test::read_file(LORA_TEST_DATA_DIR "/io/safetensors_cases.txt"), '\n')) {
    if (line.empty()) continue;
    const std::vector<std::string> columns = split(line, '\t');
    REQUIRE(columns.size() == 4);
    CAPTURE(columns[0]);
    ++cases;
    const bool reference = columns[1] == "accept";
    const test::exact_bytes bytes(unhex(columns[2]));
    bool ours = false;
    const std::string what = test::refusal<lora::io_error>([&] {
      const safetensors f = parse(bytes);
      ours = true;
      (void)touch(f);
      std::vector<std::string> rows;
      for (const auto& t : f.tensors()) {
        std::string row = hex(t.name()) + ':' + lora::detail::info_of(t.type()).safetensors_name + ':';
        for (std::size_t i = 0; i < t.rank(); ++i) row += (i == 0 ? "" : ",") + std::to_string(t.shape()[i]);
        rows.push_back(row + ':' + hex({static_cast<const char*>(t.view().data()), t.size_bytes()}));
      }
      std::sort(rows.begin(), rows.end());
      std::string all;
      for (const std::string& r : rows) all += (all.empty() ? "" : ";") + r;
      CHECK(all == columns[3]);
    });
    CHECK(ours == what.empty());
    CHECK((ours || what.starts_with("'f': ")));
    CHECK_FALSE((ours && !reference));  // we never accept what the reference refuses
    if (ours != reference) differing.insert(columns[0]);
    accepted += ours ? 1 : 0;
  }
  CHECK(differing == stricter);
  CHECK(cases >= 250);
  CHECK(accepted >= 50);
}

TEST_CASE("io/safetensors: a file cut at any length is refused") {
  const std::string whole = sample();
  {
    const test::exact_bytes b(whole);
    const safetensors f = parse(b);
    CHECK(f.tensors().size() == 4);
  }
  for (std::size_t n = 0; n < whole.size(); ++n) {
    CAPTURE(n);
    CHECK(refused(whole.substr(0, n)).starts_with("'f': "));
  }
  CHECK(refused(whole + '\0').starts_with("'f': 1 bytes follow"));
}

TEST_CASE("io/safetensors: every value of every header byte is refused or leads to views inside the file") {
  const std::string whole = sample();
  const std::size_t data_at = whole.find('}', whole.find("flag")) + 1;
  std::size_t accepted = 0;
  for (std::size_t i = 0; i < data_at; ++i) {
    std::string mutant = whole;
    for (int value = 0; value < 256; ++value) {
      mutant[i] = static_cast<char>(value);
      const test::exact_bytes b(mutant);
      const std::string what = test::refusal<lora::io_error>([&] {
        const safetensors f = parse(b);
        (void)touch(f);
        ++accepted;
      });
      if (!what.empty() && !what.starts_with("'f': ")) FAIL("byte " << i << " = " << value << ": " << what);
    }
  }
  CHECK(accepted > data_at);  // at least the unchanged file, once for each byte
  CHECK(accepted < data_at * 256);
}

TEST_CASE("io/safetensors: a header of a hundred thousand tensors") {
  test::safetensors_builder b;
  constexpr std::size_t n = 100000;
  for (std::size_t i = 0; i < n; ++i)
    b.add("model.layers." + std::to_string(i) + ".weight", "U8", {1}, std::string(1, static_cast<char>(i % 251)));
  const std::string bytes = b.bytes();
  const safetensors f = safetensors::parse(test::bytes_of(bytes), "many");
  REQUIRE(f.tensors().size() == n);
  for (std::size_t i = 0; i < n; i += 997) {
    const safetensors::tensor* const t = f.find("model.layers." + std::to_string(i) + ".weight");
    REQUIRE(t != nullptr);
    CHECK(t == &f.tensors()[i]);
    CHECK(*static_cast<const unsigned char*>(t->view().data()) == i % 251);
  }
  static_assert(sizeof(safetensors::tensor) <= 64, "a record of the table must stay compact");

  b.add("model.layers.77777.weight", "U8", {1}, "x");
  const std::string twice = b.bytes();
  CHECK(test::contains(refused(twice), "tensor 'model.layers.77777.weight': the name occurs twice in the header"));
}

TEST_CASE("io/safetensors: names that collide in the hash are told apart") {
  // The two long names have the same 64-bit FNV-1a hash, which the table is sorted by.
  const test::exact_bytes bytes(test::safetensors_builder()
                                    .add("GReLUrM4wMqfg9yzV3KQ", "U8", {1}, "1")
                                    .add("x", "U8", {1}, "2")
                                    .add("8yn0iYCKYHlIj4-BwPqk", "U8", {1}, "3")
                                    .bytes());
  const safetensors f = parse(bytes);
  CHECK(*static_cast<const char*>(f["GReLUrM4wMqfg9yzV3KQ"].data()) == '1');
  CHECK(*static_cast<const char*>(f["8yn0iYCKYHlIj4-BwPqk"].data()) == '3');
}

TEST_CASE("io/contract: linear modules are the two-dimensional tensors <name>.weight") {
  const test::exact_bytes bytes(test::safetensors_builder()
                                    .zeros("fc1.weight", {3, 2})
                                    .zeros("fc1.bias", {3})
                                    .zeros("norm.weight", {3})
                                    .zeros("conv.weight", {2, 2, 1})
                                    .zeros(".weight", {2, 2})
                                    .zeros("weight", {2, 2})
                                    .zeros("model.embed.weight", {5, 4}, "BF16", 2)
                                    .zeros("fc2.weight_scale", {2, 2})
                                    .bytes());
  const lora::model_contract c = lora::io::contract_of(parse(bytes));
  REQUIRE(c.size() == 2);
  CHECK(c[0].name == "fc1");
  CHECK(c[0].out == 3);
  CHECK(c[0].in == 2);
  CHECK(c[1].name == "model.embed");
  CHECK(c.find("model.embed") == 1);
}
