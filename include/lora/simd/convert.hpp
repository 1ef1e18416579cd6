// SPDX-License-Identifier: Apache-2.0
//
// Conversions of rows of elements, at the speed of memory whatever the -m flags of the caller. Each is bit for bit what detail::convert
// (ops/cast.hpp) gives for one element, in every tier: NaN payloads, subnormals and values out of range included. Raw pointers; no checks.
//
//   lora::simd::converter<float, lora::bfloat16>()(from, 0, to, 0, 1, n);       // one row of n
//
// The CPU's own conversion to bfloat16 (AVX512_BF16) is not used: it flushes subnormals to zero.
#ifndef LORA_SIMD_CONVERT_HPP
#define LORA_SIMD_CONVERT_HPP

#include <lora/simd/active.hpp>
#include <lora/simd/vec.hpp>

namespace lora::inline v0::simd {

template <class T>
inline constexpr bool is_half_bits = is_same<T, float16> || is_same<T, bfloat16>;
template <class T>
inline constexpr bool is_real = is_half_bits<T> || is_same<T, float> || is_same<T, double>;

template <class T>
struct type_is {
  using type = T;
};

/**
 * The type in which an element is while it is neither From nor To: all of From fits, and one rounding leads from it to To. Halves are
 * reached from double or from what fits a float, so that nothing is rounded twice.
 */
template <class To, class From>
[[nodiscard]] constexpr auto between() noexcept {
  if constexpr (is_same<From, std::int64_t>) {
    return type_is<std::int64_t>{};
  } else if constexpr (!is_real<From> && !is_real<To>) {
    if constexpr (is_same<To, std::int64_t>)
      return type_is<std::int64_t>{};
    else
      return type_is<std::int32_t>{};
  } else if constexpr (is_same<From, std::int32_t> && is_same<To, float>) {
    return type_is<std::int32_t>{};
  } else if constexpr (is_same<From, double> || is_same<To, double> || is_same<To, std::int64_t> || is_same<From, std::int32_t>) {
    return type_is<double>{};
  } else {
    return type_is<float>{};
  }
}

/** Whether there is a kernel. std::int64_t to the 16-bit floats has none: it needs a rounding of its own, and nobody stores such weights. */
template <class To, class From>
inline constexpr bool has_converter = !is_same<To, From> && !(is_same<From, std::int64_t> && is_half_bits<To>);

/** to[r * to_step + i] = from[r * from_step + i] for `rows` rows of `n` elements; no byte of `to` is one of `from`. */
template <class To, class From>
using convert_kernel = void (*)(const From* from, count from_step, To* to, count to_step, count rows, count n);

}  // namespace lora::inline v0::simd

#define LORA_SIMD_BODY <lora/simd/convert.inl>
#include <lora/simd/for_each_tier.inl>

namespace lora::inline v0::simd::inline LORA_ISA_TAG {

/** The kernel of `wanted`, or of the active tier where that is lower. */
template <class To, class From>
[[nodiscard]] convert_kernel<To, From> converter(tier wanted = tier::avx512) noexcept {
  static_assert(has_converter<To, From>);
#if LORA_X86
  switch (usable_tier(wanted)) {
    case tier::avx512_bf16:
    case tier::avx512:
      return &vec_avx512::convert_rows<To, From>;
    case tier::avx2:
      return &vec_avx2::convert_rows<To, From>;
    case tier::generic:
      break;
  }
#endif
  (void)wanted;
  return &vec_generic::convert_rows<To, From>;
}

}  // namespace lora::inline v0::simd::inline LORA_ISA_TAG

#endif
