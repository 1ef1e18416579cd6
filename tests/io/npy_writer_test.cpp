// SPDX-License-Identifier: Apache-2.0
#include "files.hpp"

#include <lora/io/npy.hpp>
#include <lora/io/npy_writer.hpp>
#include <lora/nd/array.hpp>

#include <doctest/doctest.h>

#include <sstream>

namespace {

using lora::io::npy;
using lora::io::save_npy;

std::size_t files_in(const std::string& folder) {
  std::size_t n = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder)) ++n;
  return n;
}

lora::dtype dtype_of_name(const std::string& numpy) {
  const struct {
    const char* name;
    lora::dtype type;
  } names[] = {{"bool", lora::dtype::boolean}, {"int8", lora::dtype::i8},     {"int16", lora::dtype::i16},   {"int32", lora::dtype::i32},
               {"int64", lora::dtype::i64},    {"uint8", lora::dtype::u8},    {"uint16", lora::dtype::u16},  {"uint32", lora::dtype::u32},
               {"uint64", lora::dtype::u64},   {"float16", lora::dtype::f16}, {"float32", lora::dtype::f32}, {"float64", lora::dtype::f64},
               {"complex64", lora::dtype::c64}};
  for (const auto& n : names)
    if (numpy == n.name) return n.type;
  FAIL("unknown type " << numpy);
  return lora::dtype::u8;
}

/** The elements of a typed view in C order. */
template <class T>
std::vector<T> elements(lora::ndview<const T, 3> v) {
  std::vector<T> out;
  for (lora::index_t i = 0; i < v.extent(0); ++i)
    for (lora::index_t j = 0; j < v.extent(1); ++j)
      for (lora::index_t k = 0; k < v.extent(2); ++k) out.push_back(v(i, j, k));
  return out;
}

}  // namespace

TEST_CASE("io/npy_writer: headers are NumPy's own, byte for byte") {
  std::ifstream table(LORA_TEST_DATA_DIR "/io/npz/headers.txt");
  std::size_t lines = 0;
  for (std::string line; std::getline(table, line); ++lines) {
    std::istringstream in(line);
    std::string type, order, shape_text, fortran, length, want;
    std::getline(in, type, '\t');
    std::getline(in, order, '\t');
    std::getline(in, shape_text, '\t');
    std::getline(in, fortran, '\t');
    std::getline(in, length, '\t');
    std::getline(in, want);
    CAPTURE(line);
    std::vector<lora::index_t> shape;
    if (shape_text != "-") {
      std::istringstream extents(shape_text);
      for (std::string e; std::getline(extents, e, 'x');) shape.push_back(std::stol(e));
    }
    const lora::any_view v(nullptr, dtype_of_name(type), shape.data(), shape.size(), true, order == "F" ? lora::order::F : lora::order::C);
    const std::string header = lora::detail::npy_layout(v, "f").header();
    REQUIRE(header.size() == std::stoul(length));
    CHECK(header.substr(0, 8) == std::string("\x93NUMPY\x01\0", 8));
    CHECK(static_cast<unsigned char>(header[8]) + 256u * static_cast<unsigned char>(header[9]) == header.size() - 10);
    CHECK(header.substr(10, want.size()) == want);
    CHECK(header.substr(10 + want.size()) == std::string(header.size() - 11 - want.size(), ' ') + '\n');
  }
  CHECK(lines == 13 * 11 * 2);
}

TEST_CASE("io/npy_writer: what is written is read back: any strides, C order unless F is contiguous") {
  const test::temporary_folder folder;
  const std::string path = folder.path() + "/x.npy";
  // The last axis straddles the 64 KiB in which strided elements are gathered: 2 * 3 * 8193 floats are three pieces.
  for (const lora::index_t n : {1, 7, 8193}) {
    auto a = lora::uninit<float>(2, 3, n);
    for (lora::index_t i = 0; i < a.size(); ++i) a.data()[i] = static_cast<float>(i);
    const auto v = a.view();
    using lora::_;
    const lora::ndview<const float, 3> views[] = {v,
                                                  v.transpose(),
                                                  v.permute<1, 0, 2>(),
                                                  v(lora::all, lora::all, lora::range(_, _, -1)),
                                                  v(lora::range(_, _, -1), lora::range(0, 2), lora::range(_, _, 2)),
                                                  v(lora::range(1, _)),
                                                  v(lora::all, lora::range(1, 1)),
                                                  v(lora::range(0, 1), lora::range(2, 3))};
    for (const auto& view : views) {
      CAPTURE(n);
      CAPTURE(&view - views);
      save_npy(path, view);
      const npy f = npy::open(path);
      const auto back = f.view().as<const float, 3>();
      CHECK(back.shape() == view.shape());
      CHECK(elements(back) == elements(view));
      CHECK(f.bytes_copied() == 0);
      CHECK(f.view().is_contiguous(lora::order::C) == (view.is_contiguous() || !view.is_contiguous(lora::order::F)));
    }
  }
  CHECK(files_in(folder.path()) == 1);
}

TEST_CASE("io/npy_writer: rank 0, broadcast, arrays, temporaries, unaligned views") {
  const test::temporary_folder folder;
  const std::string path = folder.path() + "/x.npy";
  const double x = 2.5;
  save_npy(path, lora::ndview<const double, 0>(&x, lora::extents<0>{}));
  CHECK(npy::open(path).owner() != nullptr);
  {
    const npy f = npy::open(path);
    CHECK(f.view().as<const double, 0>()() == 2.5);
  }
  const float row[] = {1, 2, 3};
  save_npy(path, lora::broadcast_to(lora::ndview<const float, 1>(row, {3}), lora::extents{2, 3}));
  {
    const npy f = npy::open(path);
    CHECK(f.view().as<const float, 2>()(1, 2) == 3.0f);
  }
  save_npy(path, lora::full(lora::extents{4}, std::int16_t{-3}));
  {
    const npy f = npy::open(path);
    CHECK(f.view().as<const std::int16_t, 1>()[3] == -3);
  }
  alignas(8) char bytes[17] = {};
  const lora::index_t shape[] = {2};
  const double two[] = {1.5, -1};
  std::memcpy(bytes + 1, two, 16);
  save_npy(path, lora::any_view(bytes + 1, lora::dtype::f64, shape, 1));
  {
    const npy f = npy::open(path);
    CHECK(f.view().as<const double, 1>()[1] == -1);
    save_npy(path, f);  // over the file that is mapped: the mapping keeps the old one
    CHECK(f.view().as<const double, 1>()[0] == 1.5);
  }
}

TEST_CASE("io/npy_writer: types that .npy lacks are refused by name, and nothing is written") {
  const test::temporary_folder folder;
  const std::string path = folder.path() + "/x.npy";
  const lora::index_t shape[] = {2};
  alignas(8) const unsigned char bytes[16] = {};
  std::size_t refused = 0;
  for (std::size_t t = 0; t < lora::dtype_count; ++t) {
    const auto type = static_cast<lora::dtype>(t);
    const std::string what = test::refusal<lora::dtype_error>([&] { save_npy(path, lora::any_view(bytes, type, shape, 1)); });
    if (what.empty()) {
      std::filesystem::remove(path);
      continue;
    }
    ++refused;
    CHECK(test::contains(what, std::string("the .npy format has no type ") + lora::name_of(type) + "; cast to one that it has"));
  }
  CHECK(refused == 9);
  CHECK(files_in(folder.path()) == 0);
}

TEST_CASE("io/npy_writer: a failure leaves the old file and nothing else") {
  const test::temporary_folder folder;
  const auto a = lora::zeros<float>(3);
  CHECK(test::contains(test::refusal<lora::io_error>([&] { save_npy(folder.path() + "/missing/x.npy", a); }),
                       "/missing/x.npy': cannot create a file beside it: "));
  std::filesystem::create_directory(folder.path() + "/x.npy");
  CHECK(test::contains(test::refusal<lora::io_error>([&] { save_npy(folder.path() + "/x.npy", a); }),
                       "cannot rename the finished file to it: "));
  CHECK(test::contains(test::refusal<lora::io_error>([&] { save_npy(std::string("a\0b", 3), a); }), "a path cannot contain a NUL byte"));
  CHECK(files_in(folder.path()) == 1);
  {
    lora::detail::atomic_file unfinished(folder.path() + "/y");
    unfinished.write("abc", 3);
    CHECK(files_in(folder.path()) == 2);
  }
  CHECK(files_in(folder.path()) == 1);
}
