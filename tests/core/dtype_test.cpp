// SPDX-License-Identifier: Apache-2.0
#include <lora/core/dtype.hpp>

#include <doctest/doctest.h>

#include <cstring>
#include <string>

using lora::dtype;

namespace {

template <class T>
void check_type(dtype want) {
  CAPTURE(lora::name_of(want));
  CHECK(lora::dtype_of<T> == want);
  CHECK(lora::dtype_of<const T> == want);
  CHECK(lora::size_of(want) == sizeof(T));
  CHECK(lora::bits_of(want) == 8 * sizeof(T));
  CHECK(lora::alignment_of(want) == alignof(T));
}

}  // namespace

TEST_CASE("core/dtype: C++ types agree with the table in size and alignment") {
  check_type<bool>(dtype::boolean);
  check_type<std::uint8_t>(dtype::u8);
  check_type<std::int8_t>(dtype::i8);
  check_type<std::uint16_t>(dtype::u16);
  check_type<std::int16_t>(dtype::i16);
  check_type<lora::float16>(dtype::f16);
  check_type<lora::bfloat16>(dtype::bf16);
  check_type<std::uint32_t>(dtype::u32);
  check_type<std::int32_t>(dtype::i32);
  check_type<float>(dtype::f32);
  check_type<double>(dtype::f64);
  check_type<std::uint64_t>(dtype::u64);
  check_type<std::int64_t>(dtype::i64);
}

TEST_CASE("core/dtype: the table is in the order of the enumeration, and its names are the safetensors names in lower case") {
  // Order and widths as in the safetensors format: by size, and the format's own order within a size.
  const char* const names[] = {"BOOL",    "F4",          "F6_E2M3",     "F6_E3M2", "U8",  "I8",  "F8_E5M2", "F8_E4M3",
                               "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "I16",     "U16", "F16", "BF16",    "I32",
                               "U32",     "F32",         "C64",         "F64",     "I64", "U64"};
  const std::size_t bits[] = {8, 4, 6, 6, 8, 8, 8, 8, 8, 8, 8, 16, 16, 16, 16, 32, 32, 32, 64, 64, 64, 64};
  static_assert(sizeof(names) / sizeof(names[0]) == lora::dtype_count);
  for (std::size_t i = 0; i < lora::dtype_count; ++i) {
    const auto t = static_cast<dtype>(i);
    CAPTURE(names[i]);
    CHECK(std::string(lora::detail::info_of(t).safetensors_name) == names[i]);
    CHECK(lora::bits_of(t) == bits[i]);
    std::string lower = names[i];
    for (char& c : lower) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
    CHECK(std::string(lora::name_of(t)) == lower);
  }
  CHECK(static_cast<std::size_t>(dtype::u64) + 1 == lora::dtype_count);
  CHECK(std::strcmp(lora::name_of(dtype::bf16), "bf16") == 0);
  CHECK(std::strcmp(lora::name_of(dtype::f64), "f64") == 0);
}

TEST_CASE("core/dtype: sub-byte elements have no size of their own") {
  CHECK(lora::size_of(dtype::f4) == 0);
  CHECK(lora::size_of(dtype::f6_e2m3) == 0);
  CHECK(lora::size_of(dtype::f6_e3m2) == 0);
  CHECK(lora::size_of(dtype::f8_e4m3) == 1);
  CHECK(lora::alignment_of(dtype::f4) == 1);
  CHECK(lora::alignment_of(dtype::c64) == 4);
}

TEST_CASE("core/dtype: types without a dtype are not elements") {
  CHECK(lora::element<float>);
  CHECK(lora::element<const lora::bfloat16>);
  CHECK_FALSE(lora::element<char>);
  CHECK_FALSE(lora::element<long double>);
  CHECK_FALSE(lora::element<float*>);
}
