// SPDX-License-Identifier: Apache-2.0
//
// The conversions, in the namespace of one tier; see convert.hpp. Vectors of N lanes; N is chosen by the caller so that the widest of the
// types involved fills a register.

/** Changes the element type of N lanes as a C++ conversion does. */
template <class To, int N, class V>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE vec_n<To, N> lanes_as(V v) noexcept {
  return __builtin_convertvector(v, vec_n<To, N>);
}
/** The same bits seen as lanes of another type of the same size. */
template <class To, int N, class V>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE vec_n<To, N> bits_as(V v) noexcept {
  return reinterpret_cast<vec_n<To, N>>(v);
}
template <class T, int N>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE vec_n<T, N> splat_n(T value) noexcept {
  return vec_n<T, N>{} + value;
}

// As detail::float16_to_float.
template <int N>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE vec_n<float, N> float16_lanes(vec_n<std::uint16_t, N> h) noexcept {
#if LORA_SIMD_TIER == 2
  if constexpr (N == 16) return bits_as<float, N>(_mm512_cvtph_ps(reinterpret_cast<__m256i>(h)));
#endif
#if LORA_SIMD_TIER >= 1
  if constexpr (N == 8) return bits_as<float, N>(_mm256_cvtph_ps(reinterpret_cast<__m128i>(h)));
  if constexpr (N == 4) {
    __m128i low{};
    __builtin_memcpy(&low, &h, sizeof h);
    return bits_as<float, N>(_mm_cvtph_ps(low));
  }
#endif
  if constexpr (LORA_SIMD_TIER == 0 || N < 4) {
    using words = vec_n<std::uint32_t, N>;
    const words wide = lanes_as<std::uint32_t, N>(h);
    const words magnitude = wide & 0x7fffu;
    const words shifted = magnitude << 13;
    const words normal = shifted + ((127u - 15u) << 23);
    const words special = (shifted | 0x7f800000u) | (magnitude > 0x7c00u ? splat_n<std::uint32_t, N>(0x00400000u) : words{});
    // An integer multiple of 2^-24: exact.
    const words small = bits_as<std::uint32_t, N>(lanes_as<float, N>(bits_as<std::int32_t, N>(magnitude)) * 0x1p-24f);
    const words value = magnitude >= 0x7c00u ? special : (magnitude >= 0x0400u ? normal : small);
    return bits_as<float, N>(value | ((wide & 0x8000u) << 16));
  }
}

// As detail::float_to_float16.
template <int N>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE vec_n<std::uint16_t, N> to_float16_lanes(vec_n<float, N> v) noexcept {
#if LORA_SIMD_TIER == 2
  if constexpr (N == 16) return bits_as<std::uint16_t, N>(_mm512_cvtps_ph(reinterpret_cast<__m512>(v), _MM_FROUND_TO_NEAREST_INT));
#endif
#if LORA_SIMD_TIER >= 1
  if constexpr (N == 8) return bits_as<std::uint16_t, N>(_mm256_cvtps_ph(reinterpret_cast<__m256>(v), _MM_FROUND_TO_NEAREST_INT));
  if constexpr (N == 4) {
    const __m128i low = _mm_cvtps_ph(reinterpret_cast<__m128>(v), _MM_FROUND_TO_NEAREST_INT);
    vec_n<std::uint16_t, N> h;
    __builtin_memcpy(&h, &low, sizeof h);
    return h;
  }
#endif
  if constexpr (LORA_SIMD_TIER == 0 || N < 4) {
    using words = vec_n<std::uint32_t, N>;
    const words u = bits_as<std::uint32_t, N>(v);
    const words magnitude = u & 0x7fffffffu;
    const words rebased = magnitude - ((127u - 15u) << 23);
    const words normal = (rebased + 0xfffu + ((rebased >> 13) & 1u)) >> 13;
    // Below 2^-14 the addition itself rounds to units of 2^-24, which is the last place of 0.5, and to even in a tie.
    const words half = bits_as<std::uint32_t, N>(splat_n<float, N>(0.5f));
    const words small = bits_as<std::uint32_t, N>(bits_as<float, N>(magnitude) + 0.5f) - half;
    const words infinite = splat_n<std::uint32_t, N>(0x7c00u);
    const words quiet = ((magnitude >> 13) & 0x3ffu) | 0x7e00u;
    words value = magnitude >= 0x38800000u ? normal : small;
    value = magnitude >= 0x477ff000u ? infinite : value;
    value = magnitude > 0x7f800000u ? quiet : value;
    return lanes_as<std::uint16_t, N>(value | ((u >> 16) & 0x8000u));
  }
}

template <int N>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE vec_n<float, N> bfloat16_lanes(vec_n<std::uint16_t, N> h) noexcept {
  return bits_as<float, N>(lanes_as<std::uint32_t, N>(h) << 16);
}

// As detail::float_to_bfloat16.
template <int N>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE vec_n<std::uint16_t, N> to_bfloat16_lanes(vec_n<float, N> v) noexcept {
  using words = vec_n<std::uint32_t, N>;
  const words u = bits_as<std::uint32_t, N>(v);
  const words rounded = u + 0x7fffu + ((u >> 16) & 1u);
  const words value = ((u & 0x7fffffffu) > 0x7f800000u ? (u | 0x00400000u) : rounded) >> 16;
#if LORA_SIMD_TIER == 2
  if constexpr (N == 16) return bits_as<std::uint16_t, N>(_mm512_cvtepi32_epi16(reinterpret_cast<__m512i>(value)));
#endif
  return lanes_as<std::uint16_t, N>(value);
}

// As detail::rounded_to_odd.
template <int N>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE vec_n<float, N> rounded_to_odd_lanes(vec_n<double, N> v) noexcept {
  using words = vec_n<std::uint32_t, N>;
  const vec_n<float, N> nearest = lanes_as<float, N>(v);
  const vec_n<double, N> back = lanes_as<double, N>(nearest);
  // NaN differs from itself but is to stay as it is.
  const auto inexact = lanes_as<std::int32_t, N>((back != v) & (v == v));
  const auto away = lanes_as<std::int32_t, N>((v > 0 ? back : -back) > (v > 0 ? v : -v));
  const words bits = bits_as<std::uint32_t, N>(nearest);
  const words odd = (bits + bits_as<std::uint32_t, N>(away)) | 1u;  // a lane of `away` is 0 or -1
  return bits_as<float, N>(inexact != 0 ? odd : bits);
}

/** N elements as they lie in memory to a type in which every value of From is exact. */
template <class From, class To, int N>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE vec_n<To, N> widen(vec_n<stored<From>, N> v) noexcept {
  if constexpr (is_same<stored<From>, To>) {
    return v;
  } else if constexpr (is_half_bits<From>) {
    vec_n<float, N> f;
    if constexpr (is_same<From, float16>)
      f = float16_lanes<N>(v);
    else
      f = bfloat16_lanes<N>(v);
    return widen<float, To, N>(f);
  } else if constexpr (sizeof(From) == 1) {
#if LORA_SIMD_TIER == 2
    if constexpr (N == 16 && sizeof(To) == 4) {
      __m128i bytes;
      __builtin_memcpy(&bytes, &v, sizeof v);
      const __m512i wide = is_same<From, std::int8_t> ? _mm512_cvtepi8_epi32(bytes) : _mm512_cvtepu8_epi32(bytes);
      return widen<std::int32_t, To, N>(reinterpret_cast<vec_n<std::int32_t, N>>(wide));
    }
#endif
#if LORA_SIMD_TIER >= 1
    if constexpr (N == 8 && sizeof(To) >= 4) {
      __m128i bytes{};
      __builtin_memcpy(&bytes, &v, sizeof v);
      const __m256i wide = is_same<From, std::int8_t> ? _mm256_cvtepi8_epi32(bytes) : _mm256_cvtepu8_epi32(bytes);
      return widen<std::int32_t, To, N>(reinterpret_cast<vec_n<std::int32_t, N>>(wide));
    }
#endif
    // In steps of two: g++ 12 takes longer ones apart into single elements.
    if constexpr (is_same<From, std::int8_t>)
      return widen<std::int16_t, To, N>(lanes_as<std::int16_t, N>(v));
    else
      return widen<std::int16_t, To, N>(bits_as<std::int16_t, N>(lanes_as<std::uint16_t, N>(v)));
  } else if constexpr (is_same<From, std::int16_t>) {
    return widen<std::int32_t, To, N>(lanes_as<std::int32_t, N>(v));
  } else {
    return lanes_as<To, N>(v);
  }
}

template <class To, class C, int N>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE vec_n<C, N> clamped(vec_n<C, N> v, C low, C high) noexcept {
  const vec_n<C, N> lows = splat_n<C, N>(low);
  const vec_n<C, N> highs = splat_n<C, N>(high);
  v = v < lows ? lows : v;
  return v > highs ? highs : v;
}

template <class T>
struct limits;
template <>
struct limits<std::uint8_t> {
  static constexpr std::int64_t low = 0, high = 255;
};
template <>
struct limits<std::int8_t> {
  static constexpr std::int64_t low = -128, high = 127;
};
template <>
struct limits<std::int16_t> {
  static constexpr std::int64_t low = -32768, high = 32767;
};
template <>
struct limits<std::int32_t> {
  static constexpr std::int64_t low = INT32_MIN, high = INT32_MAX;
};

/** Lanes of int32 or int64 within To's limits, to To. */
template <class To, class C, int N>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE vec_n<To, N> shortened(vec_n<C, N> v) noexcept {
#if LORA_SIMD_TIER == 2
  if constexpr (N == 16 && sizeof(C) == 4 && sizeof(To) == 1)
    return reinterpret_cast<vec_n<To, N>>(_mm512_cvtepi32_epi8(reinterpret_cast<__m512i>(v)));
  if constexpr (N == 16 && sizeof(C) == 4 && sizeof(To) == 2)
    return reinterpret_cast<vec_n<To, N>>(_mm512_cvtepi32_epi16(reinterpret_cast<__m512i>(v)));
#endif
  if constexpr (is_same<To, C>) {
    return v;
  } else if constexpr (sizeof(C) == 8) {
    return shortened<To, std::int32_t, N>(lanes_as<std::int32_t, N>(v));
  } else if constexpr (sizeof(To) == 2) {
    return lanes_as<To, N>(v);
  } else {
    return lanes_as<To, N>(lanes_as<std::int16_t, N>(v));
  }
}

/** N lanes of what between() chose to To, as it lies in memory. */
template <class To, class C, int N>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE vec_n<stored<To>, N> narrow(vec_n<C, N> v) noexcept {
  if constexpr (is_same<To, bool>) {
    const auto set = v != 0;  // -1 or 0, in integers of C's size
    using word = word_of<C>;
    return bits_as<std::uint8_t, N>(shortened<std::int8_t, word, N>(bits_as<word, N>(set)) & 1);
  } else if constexpr (is_same<To, C>) {
    return v;
  } else if constexpr (is_half_bits<To>) {
    vec_n<float, N> f;
    if constexpr (is_same<C, double>)
      f = rounded_to_odd_lanes<N>(v);
    else
      f = v;
    if constexpr (is_same<To, float16>)
      return to_float16_lanes<N>(f);
    else
      return to_bfloat16_lanes<N>(f);
  } else if constexpr (is_real<To>) {
    return lanes_as<To, N>(v);
  } else if constexpr (!is_real<C>) {
    return shortened<To, C, N>(clamped<To, C, N>(v, static_cast<C>(limits<To>::low), static_cast<C>(limits<To>::high)));
  } else if constexpr (is_same<To, std::int64_t> || (is_same<To, std::int32_t> && is_same<C, float>)) {
    // The largest integer is not in C: the lanes that reach one past it are set by hand.
    using word = To;
    constexpr C beyond = sizeof(To) == 8 ? C(0x1p63) : C(0x1p31);
    const vec_n<C, N> number = v == v ? v : vec_n<C, N>{};
    const auto over = bits_as<word, N>(number >= beyond);
    const vec_n<C, N> inside = number >= beyond ? vec_n<C, N>{} : clamped<To, C, N>(number, -beyond, beyond);
    const vec_n<word, N> whole = lanes_as<word, N>(inside);
    return over != 0 ? splat_n<word, N>(sizeof(To) == 8 ? static_cast<word>(INT64_MAX) : static_cast<word>(INT32_MAX)) : whole;
  } else {
    const vec_n<C, N> number = v == v ? v : vec_n<C, N>{};
    const auto inside = clamped<To, C, N>(number, static_cast<C>(limits<To>::low), static_cast<C>(limits<To>::high));
    return shortened<To, std::int32_t, N>(lanes_as<std::int32_t, N>(inside));
  }
}

template <class To, class From>
LORA_SIMD_TARGET void convert_rows(const From* from, count from_step, To* to, count to_step, count rows, count n) {
  using C = typename decltype(between<To, From>())::type;
  using F = stored<From>;
  using T = stored<To>;
  constexpr int N = lanes_of<C>;
  for (count r = 0; r < rows; ++r) {
    const F* in = reinterpret_cast<const F*>(from + r * from_step);
    T* out = reinterpret_cast<T*>(to + r * to_step);
    count i = 0;
    for (; i + N <= n; i += N) store(out + i, narrow<To, C, N>(widen<From, C, N>(load_as<vec_n<F, N>>(in + i))));
    if (i == n) continue;
    if (n >= N) {  // the last N again: the same values into the same places
      i = n - N;
      store(out + i, narrow<To, C, N>(widen<From, C, N>(load_as<vec_n<F, N>>(in + i))));
    } else {
      store_part<T, N>(out, narrow<To, C, N>(widen<From, C, N>(load_part<F, N>(in, n))), n);
    }
  }
}
