// SPDX-License-Identifier: Apache-2.0
#include "cases.hpp"

#include <lora/nd/ostream.hpp>

#include <doctest/doctest.h>

#include <sstream>

using lora::index_t;

namespace {

const char* const print_text[] = {
#include "../data/nd_views/print.inc"
};

lora::dtype dtype_of_case(const std::string& name) {
  const char* const names[] = {"f8", "f4", "f2", "b2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1"};
  const lora::dtype types[] = {lora::dtype::f64, lora::dtype::f32, lora::dtype::f16, lora::dtype::bf16, lora::dtype::i64, lora::dtype::i32,
                               lora::dtype::i16, lora::dtype::i8,  lora::dtype::u64, lora::dtype::u32,  lora::dtype::u16, lora::dtype::u8};
  for (std::size_t i = 0; i < 12; ++i)
    if (name == names[i]) return types[i];
  return lora::dtype::boolean;
}

lora::float_mode mode_of_case(const std::string& name) {
  if (name == "maxprec") return lora::float_mode::maxprec;
  if (name == "maxprec_equal") return lora::float_mode::maxprec_equal;
  return name == "unique" ? lora::float_mode::unique : lora::float_mode::fixed;
}

/** A view of rank R over `memory` in the layout of the case; its elements are bit patterns of type T. */
template <class T, std::size_t R>
std::string print(const std::vector<index_t>& shape, const std::vector<T>& table, char layout, const lora::print_options& options) {
  std::array<index_t, R> n{};
  std::array<index_t, R> stride{};
  for (std::size_t i = 0; i < R; ++i) n[i] = shape[i];
  lora::detail::fill_strides(n.data(), R, layout == 'F' ? lora::order::F : lora::order::C, stride.data());
  const index_t size = lora::detail::product(n.data(), R);
  std::vector<T> memory(static_cast<std::size_t>(2 * size + 2));
  T* origin = memory.data();
  for (std::size_t i = 0; i < R; ++i) {
    if (layout == 's') stride[i] *= 2;
    if (layout == 'r' && n[i] > 0) {
      origin += (n[i] - 1) * stride[i];
      stride[i] = -stride[i];
    }
  }
  for (index_t at = 0; at < size; ++at) {
    index_t rest = at;
    index_t offset = 0;
    for (std::size_t i = R; i-- > 0; rest /= n[i]) offset += rest % n[i] * stride[i];
    origin[offset] = table[static_cast<std::size_t>(at) % table.size()];
  }
  return lora::to_string(lora::ndview<const T, R>(size == 0 ? memory.data() : origin, lora::extents<R>(n), lora::strides<R>(stride)),
                         options);
}

template <class T, class Word>
std::string print_ranks(const std::vector<index_t>& shape, const std::vector<unsigned long long>& words, char layout,
                        const lora::print_options& options) {
  std::vector<T> table(words.size());
  for (std::size_t i = 0; i < words.size(); ++i) {
    const auto w = static_cast<Word>(words[i]);
    __builtin_memcpy(static_cast<void*>(&table[i]), &w, sizeof w);
  }
  switch (shape.size()) {
    case 0:
      return print<T, 0>(shape, table, layout, options);
    case 1:
      return print<T, 1>(shape, table, layout, options);
    case 2:
      return print<T, 2>(shape, table, layout, options);
    case 3:
      return print<T, 3>(shape, table, layout, options);
    default:
      return print<T, 4>(shape, table, layout, options);
  }
}

std::vector<unsigned long long> hexadecimal(const std::string& field) {
  std::vector<unsigned long long> words;
  for (const auto& s : test::split(field, ',')) words.push_back(std::strtoull(s.c_str(), nullptr, 16));
  return words;
}

struct alignas(1) boolean {  // std::vector<bool> holds no bools
  bool value;
};

}  // namespace

namespace lora::inline v0::detail {
template <>
struct dtype_of_impl<boolean> {
  static constexpr dtype value = dtype::boolean;
};
}  // namespace lora::inline v0::detail

TEST_CASE("nd/print: NumPy's text of random arrays of every type, layout and option") {
  int checked = 0;
  for (const char* const part : print_text) {
    for (const std::string& line : test::split(part, '\n')) {
      if (line.empty() || line[0] != 'P') continue;
      const std::size_t bar = line.find('|');
      const auto f = test::split(line.substr(0, bar), ' ');
      std::string want = line.substr(bar + 1);
      for (char& c : want) c = c == '~' ? '\n' : c;
      lora::print_options o;
      o.style = f.at(2) == "str" ? lora::print_style::str : lora::print_style::repr;
      o.precision = std::atoi(f.at(3).c_str());
      o.threshold = std::atol(f.at(4).c_str());
      o.edgeitems = std::atol(f.at(5).c_str());
      o.linewidth = std::atol(f.at(6).c_str());
      o.suppress_small = f.at(7) == "1";
      o.sign = f.at(8) == "s" ? ' ' : f.at(8)[0];
      o.floatmode = mode_of_case(f.at(9));
      const char layout = f.at(10)[0];
      const auto shape = test::numbers(f.at(11));
      auto words = hexadecimal(f.at(12));
      std::string got;
      switch (dtype_of_case(f.at(1))) {
        case lora::dtype::f64:
          got = print_ranks<double, std::uint64_t>(shape, words, layout, o);
          break;
        case lora::dtype::f32:
          got = print_ranks<float, std::uint32_t>(shape, words, layout, o);
          break;
        case lora::dtype::f16:
          got = print_ranks<lora::float16, std::uint16_t>(shape, words, layout, o);
          break;
        case lora::dtype::bf16:
          for (auto& w : words) w >>= 16;
          got = print_ranks<lora::bfloat16, std::uint16_t>(shape, words, layout, o);
          break;
        case lora::dtype::i64:
          got = print_ranks<std::int64_t, std::uint64_t>(shape, words, layout, o);
          break;
        case lora::dtype::u64:
          got = print_ranks<std::uint64_t, std::uint64_t>(shape, words, layout, o);
          break;
        case lora::dtype::i32:
          got = print_ranks<std::int32_t, std::uint32_t>(shape, words, layout, o);
          break;
        case lora::dtype::u32:
          got = print_ranks<std::uint32_t, std::uint32_t>(shape, words, layout, o);
          break;
        case lora::dtype::i16:
          got = print_ranks<std::int16_t, std::uint16_t>(shape, words, layout, o);
          break;
        case lora::dtype::u16:
          got = print_ranks<std::uint16_t, std::uint16_t>(shape, words, layout, o);
          break;
        case lora::dtype::i8:
          got = print_ranks<std::int8_t, std::uint8_t>(shape, words, layout, o);
          break;
        case lora::dtype::u8:
          got = print_ranks<std::uint8_t, std::uint8_t>(shape, words, layout, o);
          break;
        default:
          got = print_ranks<boolean, std::uint8_t>(shape, words, layout, o);
      }
      ++checked;
      if (got != want) {
        CAPTURE(line.substr(0, bar));
        CHECK(got == want);
      }
    }
  }
  CHECK(checked > 800);
}

TEST_CASE("nd/print: the digits of every float16, and of many floats and doubles, are NumPy's") {
  int lines = 0;
  for (const char* const part : print_text) {
    for (const std::string& line : test::split(part, '\n')) {
      if (line.empty() || line[0] != 'N') continue;
      ++lines;
      const auto f = test::split(line, ' ');
      lora::print_options o;
      o.floatmode = mode_of_case(f.at(2));
      const bool scalar = f.at(3) == "scalar";
      std::uint64_t state = std::strtoull(f.at(4).c_str(), nullptr, 10);
      const int count = std::atoi(f.at(5).c_str());
      const auto want = hexadecimal(f.at(6));
      std::uint64_t hash = 0;
      for (int i = 0; i < count; ++i) {
        if (i % 4096 == 0) hash = 0xcbf29ce484222325u;
        std::uint64_t z = state += 0x9e3779b97f4a7c15u;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        z ^= z >> 31;
        if (f.at(1) == "f2") z = static_cast<std::uint64_t>(i);
        const lora::dtype type = dtype_of_case(f.at(1));
        const index_t one = 1;
        for (const char c : lora::to_string(lora::any_view(&z, type, &one, scalar ? 0 : 1), o) + "\n")
          hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
        if (i % 4096 == 4095 && hash != want.at(static_cast<std::size_t>(i / 4096))) {
          CAPTURE(line.substr(0, 40));
          CAPTURE(i / 4096);
          CHECK(hash == want[static_cast<std::size_t>(i / 4096)]);
        }
      }
    }
  }
  CHECK(lines == 8);
}

TEST_CASE("nd/print: views, arrays, erased views and streams print alike") {
  auto a = lora::zeros<float>(2, 3);
  a(0, 1) = 1.5f;
  a(1, 2) = -0.25f;
  const std::string want = "[[ 0.    1.5   0.  ]\n [ 0.    0.   -0.25]]";
  CHECK(lora::to_string(a) == want);
  CHECK(lora::to_string(a.view()) == want);
  CHECK(lora::to_string(lora::any_view(a.view())) == want);
  CHECK(lora::to_string(lora::zeros<int>(2)) == "[0 0]");
  std::ostringstream out;
  out << a << '\n' << a.view() << '\n' << lora::any_view(a.view());
  CHECK(out.str() == want + "\n" + want + "\n" + want);
  auto b = lora::zeros<lora::bfloat16>(2);
  b(1) = lora::bfloat16(1.1f);
  CHECK(lora::to_string(b, {.style = lora::print_style::repr}) == "array([0.       , 1.1015625], dtype=bfloat16)");
}

TEST_CASE("nd/print: an erased view may be misaligned, packed, or of a type without arithmetic") {
  alignas(8) unsigned char bytes[20] = {};
  const float one = 1;
  __builtin_memcpy(bytes + 1, &one, 4);  // one byte beyond an aligned address
  const index_t shape[] = {2, 2};
  CHECK(lora::to_string(lora::any_view(bytes + 1, lora::dtype::f32, shape, 2)) == "[[1. 0.]\n [0. 0.]]");
  CHECK(lora::to_string(lora::any_view(bytes, lora::dtype::f4, shape, 2)) ==
        "<array of f4, shape [2, 2]: elements of this type are carried, not shown>");
  CHECK(lora::to_string(lora::any_view(bytes, lora::dtype::c64, shape, 2)) ==
        "<array of c64, shape [2, 2]: elements of this type are carried, not shown>");
  CHECK(lora::to_string(lora::any_view()) == "[]");
  bytes[0] = 2;  // not a bool's byte: NumPy prints True, and reading it as a bool would be undefined
  CHECK(lora::to_string(lora::any_view(bytes, lora::dtype::boolean, shape, 1)) == "[ True False]");
}

TEST_CASE("nd/print: options out of range are refused by name") {
  auto a = lora::zeros<float>(2);
  CHECK_THROWS_WITH_AS((void)lora::to_string(a, {.precision = -1}), "to_string: precision is -1; it is 0 or more", lora::value_error);
  CHECK_THROWS_WITH((void)lora::to_string(a, {.edgeitems = 0}), "to_string: edgeitems is 0; it is 1 or more");
  CHECK_THROWS_WITH((void)lora::to_string(a, {.sign = 'x'}), "to_string: sign (its character code) is 120; it is '-', '+' or ' '");
}
