// SPDX-License-Identifier: Apache-2.0
//
// dtype: the element types that a tensor can be stored in. All 22 of the safetensors format are named and carried, so that a file
// round-trips; arithmetic is offered for those that map to a C++ type here (dtype_of<T>), and refused by name for the others.
//
//   lora::dtype_of<float> == lora::dtype::f32;  lora::bits_of(lora::dtype::f6_e2m3) == 6;  lora::name_of(lora::dtype::bf16)  // "bf16"
#ifndef LORA_CORE_DTYPE_HPP
#define LORA_CORE_DTYPE_HPP

#include <lora/core/half.hpp>

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace lora::inline v0 {

enum class dtype : std::uint8_t {
  boolean,
  f4,
  f6_e2m3,
  f6_e3m2,
  u8,
  i8,
  f8_e5m2,
  f8_e4m3,
  f8_e8m0,
  f8_e4m3fnuz,
  f8_e5m2fnuz,
  i16,
  u16,
  f16,
  bf16,
  i32,
  u32,
  f32,
  c64,
  f64,
  i64,
  u64,
};

inline constexpr std::size_t dtype_count = 22;

namespace detail {

struct dtype_info {
  const char* name;              // ours, as in messages
  const char* safetensors_name;  // as in a safetensors header
  std::uint8_t bits;
  std::uint8_t alignment;  // of one element in memory; 1 for sub-byte types, which are addressed by their packed bytes
};

inline constexpr dtype_info dtype_table[dtype_count] = {
    {"bool", "BOOL", 8, 1},
    {"f4", "F4", 4, 1},
    {"f6_e2m3", "F6_E2M3", 6, 1},
    {"f6_e3m2", "F6_E3M2", 6, 1},
    {"u8", "U8", 8, 1},
    {"i8", "I8", 8, 1},
    {"f8_e5m2", "F8_E5M2", 8, 1},
    {"f8_e4m3", "F8_E4M3", 8, 1},
    {"f8_e8m0", "F8_E8M0", 8, 1},
    {"f8_e4m3fnuz", "F8_E4M3FNUZ", 8, 1},
    {"f8_e5m2fnuz", "F8_E5M2FNUZ", 8, 1},
    {"i16", "I16", 16, 2},
    {"u16", "U16", 16, 2},
    {"f16", "F16", 16, 2},
    {"bf16", "BF16", 16, 2},
    {"i32", "I32", 32, 4},
    {"u32", "U32", 32, 4},
    {"f32", "F32", 32, 4},
    {"c64", "C64", 64, 4},
    {"f64", "F64", 64, 8},
    {"i64", "I64", 64, 8},
    {"u64", "U64", 64, 8},
};

[[nodiscard]] constexpr const dtype_info& info_of(dtype t) noexcept { return dtype_table[static_cast<std::size_t>(t)]; }

template <class T>
struct dtype_of_impl;  // no definition: a type without a dtype does not compile
template <>
struct dtype_of_impl<bool> {
  static constexpr dtype value = dtype::boolean;
};
template <>
struct dtype_of_impl<std::uint8_t> {
  static constexpr dtype value = dtype::u8;
};
template <>
struct dtype_of_impl<std::int8_t> {
  static constexpr dtype value = dtype::i8;
};
template <>
struct dtype_of_impl<std::int16_t> {
  static constexpr dtype value = dtype::i16;
};
template <>
struct dtype_of_impl<std::uint16_t> {
  static constexpr dtype value = dtype::u16;
};
template <>
struct dtype_of_impl<float16> {
  static constexpr dtype value = dtype::f16;
};
template <>
struct dtype_of_impl<bfloat16> {
  static constexpr dtype value = dtype::bf16;
};
template <>
struct dtype_of_impl<std::int32_t> {
  static constexpr dtype value = dtype::i32;
};
template <>
struct dtype_of_impl<std::uint32_t> {
  static constexpr dtype value = dtype::u32;
};
template <>
struct dtype_of_impl<float> {
  static constexpr dtype value = dtype::f32;
};
template <>
struct dtype_of_impl<double> {
  static constexpr dtype value = dtype::f64;
};
template <>
struct dtype_of_impl<std::int64_t> {
  static constexpr dtype value = dtype::i64;
};
template <>
struct dtype_of_impl<std::uint64_t> {
  static constexpr dtype value = dtype::u64;
};

}  // namespace detail

/** The dtype of a C++ element type; const is ignored. */
template <class T>
inline constexpr dtype dtype_of = detail::dtype_of_impl<std::remove_cv_t<T>>::value;

/** A C++ type that stands for one of the dtypes. */
template <class T>
concept element = requires { detail::dtype_of_impl<std::remove_cv_t<T>>::value; };

[[nodiscard]] constexpr const char* name_of(dtype t) noexcept { return detail::info_of(t).name; }

/** Bits of one element: 4, 6, 8, 16, 32 or 64. */
[[nodiscard]] constexpr std::size_t bits_of(dtype t) noexcept { return detail::info_of(t).bits; }

/** Bytes of one element; 0 for the sub-byte types, whose elements have no address of their own. */
[[nodiscard]] constexpr std::size_t size_of(dtype t) noexcept { return bits_of(t) % 8 == 0 ? bits_of(t) / 8 : 0; }

[[nodiscard]] constexpr std::size_t alignment_of(dtype t) noexcept { return detail::info_of(t).alignment; }

}  // namespace lora::inline v0

#endif
