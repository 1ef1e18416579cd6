// SPDX-License-Identifier: Apache-2.0
//
// Vectors for the kernels that walk over elements (conversions, reductions, transcendental functions): one namespace a tier, each with the
// same names at another width. Written with the compilers' vector extensions, so that one text serves every element type; what a compiler
// cannot be led to by them (conversions of binary16) is an intrinsic of the tier.
//
// A group of kernels is written once, in <lora/simd/NAME.inl>, and compiled into each of these namespaces:
//
//   #define LORA_SIMD_BODY <lora/simd/reduce.inl>
//   #include <lora/simd/for_each_tier.inl>
//
// Every function there begins with LORA_SIMD_TARGET (helpers also LORA_ALWAYS_INLINE), takes raw pointers and counts, and calls nothing
// of std::. No lambdas: they do not inherit the target.
#ifndef LORA_SIMD_VEC_HPP
#define LORA_SIMD_VEC_HPP

#include <lora/core/half.hpp>
#include <lora/simd/isa.hpp>

#include <cstddef>
#include <cstdint>

#if LORA_X86
#if !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#if !defined(__clang__)
#pragma GCC diagnostic pop
#endif
#endif

namespace lora::inline v0::simd {

using count = std::ptrdiff_t;

/** Numbers of lanes, to name the places of a shuffle. Types only: nothing of std:: may leave code in a kernel. */
template <unsigned long... I>
struct places {};
template <unsigned N, unsigned long... I>
struct first_places : first_places<N - 1, N - 1, I...> {};
template <unsigned long... I>
struct first_places<0, I...> {
  using type = places<I...>;
};

/** How an element lies in memory: the 16-bit floats and bool as the integer of their size. */
template <class T>
struct stored_as {
  using type = T;
};
template <>
struct stored_as<float16> {
  using type = std::uint16_t;
};
template <>
struct stored_as<bfloat16> {
  using type = std::uint16_t;
};
template <>
struct stored_as<bool> {
  using type = std::uint8_t;
};
template <class T>
using stored = typename stored_as<T>::type;

template <unsigned long Size>
struct word_of_size;
template <>
struct word_of_size<1> {
  using type = std::int8_t;
};
template <>
struct word_of_size<2> {
  using type = std::int16_t;
};
template <>
struct word_of_size<4> {
  using type = std::int32_t;
};
template <>
struct word_of_size<8> {
  using type = std::int64_t;
};

template <class A, class B>
inline constexpr bool is_same = false;
template <class A>
inline constexpr bool is_same<A, A> = true;

}  // namespace lora::inline v0::simd

namespace lora::inline v0::simd::inline LORA_ISA_TAG {

// Bytes of a register. The generic tier uses what the including file is compiled for.
namespace vec_generic {
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)
inline constexpr int register_bytes = 64;
#elif defined(__AVX2__)
inline constexpr int register_bytes = 32;
#else
inline constexpr int register_bytes = 16;
#endif
}  // namespace vec_generic
#if LORA_X86
namespace vec_avx2 {
inline constexpr int register_bytes = 32;
}  // namespace vec_avx2
namespace vec_avx512 {
inline constexpr int register_bytes = 64;
}  // namespace vec_avx512
#endif

}  // namespace lora::inline v0::simd::inline LORA_ISA_TAG

#define LORA_SIMD_BODY <lora/simd/vec.inl>
#include <lora/simd/for_each_tier.inl>

#endif
