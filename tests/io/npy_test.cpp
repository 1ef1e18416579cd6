// SPDX-License-Identifier: Apache-2.0
#include "files.hpp"

#include <lora/io/npy.hpp>

#include <doctest/doctest.h>

namespace {

using lora::io::npy;

/** A .npy file of this dictionary, padded as NumPy pads, or not at all. */
std::string npy_bytes(std::string dictionary, std::string_view data = {}, int major = 1, bool padded = true) {
  const std::size_t before = major == 1 ? 10 : 12;
  if (padded) {
    while ((before + dictionary.size() + 1) % 64 != 0) dictionary += ' ';
    dictionary += '\n';
  }
  std::string out = "\x93NUMPY";
  out += static_cast<char>(major);
  out += '\0';
  const auto length = static_cast<std::uint32_t>(dictionary.size());
  std::string length_bytes(4, '\0');
  std::memcpy(length_bytes.data(), &length, 4);
  out += length_bytes.substr(0, before - 8);
  return out.append(dictionary).append(data);
}

std::string dictionary(std::string_view descr, std::string_view shape, std::string_view fortran = "False") {
  return "{'descr': '" + std::string(descr) + "', 'fortran_order': " + std::string(fortran) + ", 'shape': " + std::string(shape) + ", }";
}

std::string refused(std::string_view bytes) {
  const test::exact_bytes exact(bytes);
  return test::refusal<lora::io_error>([&] { (void)npy::parse(exact.span(), "f"); });
}
std::string refused_dictionary(const std::string& d, std::string_view data = "1234") { return refused(npy_bytes(d, data)); }

unsigned touch(const npy& f) {
  const lora::any_view& v = f.view();
  REQUIRE(v.is_aligned());
  unsigned sum = 0;
  const auto* const p = static_cast<const unsigned char*>(v.data());
  for (std::size_t i = 0; i < v.size_bytes(); ++i) sum += p[i];
  return sum;
}

}  // namespace

TEST_CASE("io/npy: an array in C order is a view into the file") {
  const test::temporary_folder folder;
  const std::string path = folder.write("x.npy", npy_bytes(dictionary("<f4", "(2, 3)"), test::bytes_from<float>({1, 2, 3, 4, 5, 6})));
  const npy f = npy::open(path);
  CHECK(f.path() == path);
  CHECK(f.bytes_copied() == 0);
  const auto x = f.view().as<const float, 2>();
  CHECK(x.extent(0) == 2);
  CHECK(x.extent(1) == 3);
  CHECK(x(1, 0) == 4.0f);
  CHECK(f.view().read_only());
}

TEST_CASE("io/npy: an array in Fortran order is a view with Fortran strides") {
  const test::exact_bytes b(npy_bytes(dictionary("<f4", "(2, 3)", "True"), test::bytes_from<float>({1, 4, 2, 5, 3, 6})));
  const npy f = npy::parse(b.span(), "f");
  const auto x = f.view().as<const float, 2>();
  CHECK(x.stride(0) == 1);
  CHECK(x.stride(1) == 2);
  CHECK(x(0, 1) == 2.0f);
  CHECK(x(1, 0) == 4.0f);
  CHECK(f.view().is_contiguous(lora::order::F));
}

TEST_CASE("io/npy: files that NumPy itself wrote") {
  // x of the first fixture: three rows of 12. The numbers are compared by the tests of the adapters; here: shape, type, no copy.
  const npy f = npy::open(LORA_TEST_DATA_DIR "/peft/plain/x_model.layers.0.q_proj.npy");
  const auto x = f.view().as<const float, 2>();
  CHECK(x.extent(0) == 3);
  CHECK(x.extent(1) == 12);
  CHECK(f.bytes_copied() == 0);
}

TEST_CASE("io/npy: every supported type, in versions 1.0, 2.0 and 3.0") {
  const struct {
    const char* descr;
    lora::dtype type;
    std::size_t size;
  } types[] = {{"<f2", lora::dtype::f16, 2},     {"<f4", lora::dtype::f32, 4}, {"<f8", lora::dtype::f64, 8}, {"|i1", lora::dtype::i8, 1},
               {"<i1", lora::dtype::i8, 1},      {"<i2", lora::dtype::i16, 2}, {"<i4", lora::dtype::i32, 4}, {"<i8", lora::dtype::i64, 8},
               {"|u1", lora::dtype::u8, 1},      {"<u2", lora::dtype::u16, 2}, {"<u4", lora::dtype::u32, 4}, {"<u8", lora::dtype::u64, 8},
               {"|b1", lora::dtype::boolean, 1}, {"<c8", lora::dtype::c64, 8}};
  for (const auto& t : types)
    for (int major = 1; major <= 3; ++major) {
      CAPTURE(t.descr);
      CAPTURE(major);
      const test::exact_bytes b(npy_bytes(dictionary(t.descr, "(3,)"), std::string(3 * t.size, '\1'), major));
      const npy f = npy::parse(b.span(), "f");
      CHECK(f.view().type() == t.type);
      CHECK(f.view().rank() == 1);
      CHECK(f.view().extent(0) == 3);
      CHECK(touch(f) == 3 * t.size);
    }
}

TEST_CASE("io/npy: scalars, empty arrays, rank 8") {
  const auto shape_of = [](const std::string& shape, std::string_view data) {
    const test::exact_bytes b(npy_bytes(dictionary("|u1", shape), data));
    const npy f = npy::parse(b.span(), "f");
    (void)touch(f);
    return std::vector<lora::index_t>(f.view().shape(), f.view().shape() + f.view().rank());
  };
  CHECK(shape_of("()", "1").empty());
  CHECK(shape_of("( )", "1").empty());
  CHECK(shape_of("(0,)", "") == std::vector<lora::index_t>{0});
  CHECK(shape_of("(3, 0)", "") == std::vector<lora::index_t>{3, 0});
  CHECK(shape_of("(1,1,1,1,1,1,1,2)", "12").size() == 8);
  CHECK(shape_of("(1, 2, )", "12") == std::vector<lora::index_t>{1, 2});
}

TEST_CASE("io/npy: any key order, either quote, spaces anywhere, no comma at the end") {
  for (const std::string& d : {std::string("{'shape': (4,), 'fortran_order': False, 'descr': '|u1'}"),
                               std::string("{\"descr\":\"|u1\",\"fortran_order\":False,\"shape\":(4,)}"),
                               std::string("  { 'fortran_order' : False , 'shape' : ( 4 , ) , 'descr' : '|u1' , } ")}) {
    CAPTURE(d);
    CHECK(refused_dictionary(d) == "");
  }
}

TEST_CASE("io/npy: data that are not aligned are copied once and counted") {
  for (std::size_t shift = 0; shift < 8; ++shift) {
    CAPTURE(shift);
    auto exact = std::make_shared<const test::exact_bytes>(npy_bytes(dictionary("<f8", "(2,)"), test::bytes_from<double>({0.5, 7})), shift);
    std::weak_ptr<const test::exact_bytes> alive = exact;
    lora::any_view v;
    std::shared_ptr<const void> owner;
    {
      const npy f = npy::parse(exact->span(), "f", exact);
      exact.reset();
      CHECK(f.bytes_copied() == (shift == 0 ? 0 : 16));
      CHECK(alive.expired() == (shift != 0));  // a copy does not keep the file
      v = f.view();
      owner = f.owner();
    }
    CHECK(v.as<const double, 1>()[1] == 7);
    owner.reset();
    CHECK(alive.expired());
  }
}

TEST_CASE("io/npy: big-endian elements are swapped on request, into a copy that is counted") {
  const auto swapped = [](const char* descr, std::string_view data, bool aligned = true) {
    auto exact = std::make_shared<const test::exact_bytes>(npy_bytes(dictionary(descr, "(2,)", "True"), data), aligned ? 0 : 1);
    return npy::parse(exact->span(), "f", exact, {.swap = true});
  };
  for (const bool aligned : {true, false}) {
    CAPTURE(aligned);
    const npy i2 = swapped(">i2", std::string("\x01\x02\xff\xfe", 4), aligned);
    CHECK(i2.view().as<const std::int16_t, 1>()[0] == 0x0102);
    CHECK(i2.view().as<const std::int16_t, 1>()[1] == -2);
    CHECK(i2.bytes_copied() == 4);
    const npy f8 = swapped(">f8", std::string("\x40\x04\0\0\0\0\0\0\xbf\xf0\0\0\0\0\0\0", 16), aligned);
    CHECK(f8.view().as<const double, 1>()[0] == 2.5);
    CHECK(f8.view().as<const double, 1>()[1] == -1);
    const npy c8 = swapped(">c8", std::string("\x3f\x80\0\0\x40\0\0\0\x40\x40\0\0\x40\x80\0\0", 16), aligned);
    float parts[4];
    std::memcpy(parts, c8.view().data(), 16);
    for (int i = 0; i < 4; ++i) CHECK(parts[i] == static_cast<float>(i + 1));  // each half by itself
    const npy little = swapped("<i2", std::string("\x01\x02\xff\xfe", 4));
    CHECK(little.view().as<const std::int16_t, 1>()[0] == 0x0201);
    CHECK(little.bytes_copied() == 0);
    const npy one_byte = swapped(">u1", "ab");
    CHECK(one_byte.view().as<const std::uint8_t, 1>()[1] == 'b');
    CHECK(one_byte.bytes_copied() == 0);
  }
}

TEST_CASE("io/npy: each broken rule is refused with one sentence") {
  using test::contains;
  const std::string good = dictionary("|u1", "(4,)");
  REQUIRE(refused_dictionary(good) == "");
  CHECK(refused("") == "'f': is not a .npy file: it does not begin with \\x93NUMPY (byte 0)");
  CHECK(contains(refused("PK\3\4 an archive"), "'f': is not a .npy file"));
  CHECK(refused(npy_bytes(good, "1234", 4)) == "'f': version 4.0 is not one of 1.0, 2.0 and 3.0 (byte 6)");
  std::string minor = npy_bytes(good, "1234");
  minor[7] = 1;
  CHECK(refused(minor) == "'f': version 1.1 is not one of 1.0, 2.0 and 3.0 (byte 6)");
  CHECK(refused(npy_bytes(good, "1234").substr(0, 9)) == "'f': ends inside the length of its header (byte 9)");
  CHECK(refused(npy_bytes(good, "1234").substr(0, 100)) == "'f': the header claims 118 bytes, but only 90 follow (byte 8)");
  CHECK(refused(npy_bytes(good, "1234").substr(0, 127)) == "'f': the header claims 118 bytes, but only 117 follow (byte 8)");
  // types
  CHECK(contains(refused_dictionary(dictionary(">f4", "(1,)")),
                 "'f': dtype '>f4' is big-endian; npy_options{.swap = true} reads it, into a swapped copy (byte "));
  CHECK(contains(refused_dictionary(dictionary("|O", "(1,)")), "dtype '|O' stands for pickled Python objects, which are never read"));
  CHECK(contains(refused_dictionary(dictionary("|V8", "(1,)")), "dtype '|V8' stands for a structured or void type"));
  CHECK(contains(refused_dictionary("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}"),
                 "structured arrays are not supported"));
  CHECK(contains(refused_dictionary("{'descr': ('<f4', (2,)), 'fortran_order': False, 'shape': (1,)}"),
                 "structured arrays are not supported"));
  CHECK(contains(refused_dictionary(dictionary("|f4", "(1,)")), "dtype '|f4' does not begin with '<'"));
  CHECK(contains(refused_dictionary(dictionary("=f4", "(1,)")), "dtype '=f4' does not begin with '<'"));
  for (const char* descr : {"<f16", "<c16", "<U4", "|S4", "<M8[ns]", "<f3", "", "<", "f4", "<f4 "})
    CHECK(contains(refused_dictionary(dictionary(descr, "(1,)")), "is not supported"));
  // shape
  CHECK(contains(refused_dictionary(dictionary("|u1", "(4)")), "a ',' was expected: a tuple of one number is written (3,)"));
  CHECK(contains(refused_dictionary(dictionary("|u1", "(-4,)")), "a dimension is not a plain unsigned integer"));
  CHECK(contains(refused_dictionary(dictionary("|u1", "(4.0,)")), "a ',' was expected"));
  CHECK(contains(refused_dictionary(dictionary("|u1", "(4L,)")), "a ',' was expected"));
  CHECK(contains(refused_dictionary(dictionary("|u1", "(04,)")), "a dimension has leading zeros"));
  CHECK(contains(refused_dictionary(dictionary("|u1", "(,)")), "a dimension is not a plain unsigned integer"));
  CHECK(contains(refused_dictionary(dictionary("|u1", "[4]")), "a tuple that begins with '(' was expected"));
  CHECK(contains(refused_dictionary(dictionary("|u1", "(9223372036854775808,)")), "a dimension does not fit a signed 64-bit index"));
  CHECK(contains(refused_dictionary(dictionary("|u1", "(1,1,1,1,1,1,1,1,1)")), "the array has more than 8 dimensions"));
  for (const char* huge : {"(4294967296, 4294967296)", "(9223372036854775807, 2)", "(0, 1099511627776, 1099511627776)"})
    CHECK(contains(refused_dictionary(dictionary("|u1", huge)), " of u8 does not fit the address space"));
  CHECK(contains(refused_dictionary(dictionary("<f8", "(2305843009213693952,)")),
                 "shape [2305843009213693952] of f64 does not fit the address space"));
  // keys and grammar
  CHECK(contains(refused_dictionary("{'descr': '|u1', 'fortran_order': False}"), "the key 'shape' is missing"));
  CHECK(contains(refused_dictionary("{'descr': '|u1', 'shape': (4,)}"), "the key 'fortran_order' is missing"));
  CHECK(contains(refused_dictionary("{'fortran_order': False, 'shape': (4,)}"), "the key 'descr' is missing"));
  CHECK(contains(refused_dictionary("{}"), "the key 'descr' is missing"));
  CHECK(contains(refused_dictionary("{'descr': '|u1', 'descr': '|u1', 'fortran_order': False, 'shape': (4,)}"), "a key occurs twice"));
  CHECK(contains(refused_dictionary("{'descr': '|u1', 'fortran_order': False, 'shape': (4,), 'x': 1}"), "a key is none of"));
  CHECK(contains(refused_dictionary("{'descr': '|u1', 'fortran_order': 0, 'shape': (4,)}"), "'fortran_order' is neither True nor False"));
  CHECK(contains(refused_dictionary("{'descr': '|u1', 'fortran_order': Falsey, 'shape': (4,)}"), "',' or '}' was expected"));
  CHECK(contains(refused_dictionary("{'descr': '|u1' 'fortran_order': False, 'shape': (4,)}"), "',' or '}' was expected"));
  CHECK(contains(refused_dictionary("{'descr'; '|u1', 'fortran_order': False, 'shape': (4,)}"), "':' was expected"));
  CHECK(contains(refused_dictionary("{'de\\x73cr': '|u1'}"), "a string holds a backslash"));
  CHECK(contains(refused(npy_bytes("{'descr", "", 1, /*padded=*/false)), "a string does not end"));
  CHECK(contains(refused_dictionary("{descr: 1}"), "a quoted string was expected"));
  CHECK(contains(refused_dictionary("['descr']"), "a dictionary that begins with '{' was expected"));
  CHECK(contains(refused_dictionary(good + " x"), "only spaces and one newline may follow the dictionary"));
  CHECK(contains(refused(npy_bytes(good, "1234", 1, /*padded=*/false)), "only spaces and one newline may follow the dictionary"));
  CHECK(contains(refused(npy_bytes(good + "\n\n", "1234", 1, false)), "only spaces and one newline may follow the dictionary"));
  CHECK(contains(refused_dictionary("{,}"), "a quoted string was expected"));
  // length and content
  CHECK(refused_dictionary(good, "123") == "'f': shape [4] of u8 needs 4 bytes, but only 3 follow: truncated (byte 131)");
  CHECK(refused_dictionary(good, "12345") == "'f': 1 bytes follow the array (byte 132)");
  CHECK(contains(refused_dictionary(dictionary("|b1", "(2,)"), std::string("\0\2", 2)), "a bool byte is 2, neither 0 nor 1 (byte 129)"));
}

TEST_CASE("io/npy: a file cut at any length is refused, every other header byte is refused or leads to views inside the file") {
  const std::string whole = npy_bytes(dictionary("<f4", "(2, 2)"), test::bytes_from<float>({1, 2, 3, 4}));
  for (std::size_t n = 0; n < whole.size(); ++n) CHECK(refused(whole.substr(0, n)).starts_with("'f': "));
  std::size_t accepted = 0;
  for (std::size_t i = 0; i < 128; ++i) {
    std::string mutant = whole;
    for (int value = 0; value < 256; ++value) {
      mutant[i] = static_cast<char>(value);
      const test::exact_bytes b(mutant);
      const std::string what = test::refusal<lora::io_error>([&] {
        const npy f = npy::parse(b.span(), "f");
        (void)touch(f);
        ++accepted;
      });
      if (!what.empty() && !what.starts_with("'f': ")) FAIL("byte " << i << " = " << value << ": " << what);
    }
  }
  CHECK(accepted > 128);
  CHECK(accepted < 1000);
}
