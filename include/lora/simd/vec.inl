// SPDX-License-Identifier: Apache-2.0
//
// The vocabulary of the element-wise kernels, in the namespace of one tier; see vec.hpp.

template <class T, int Bytes = register_bytes>
struct vec_type {
  typedef T type __attribute__((vector_size(Bytes)));
};
/** The signed integer of T's size: what a comparison of lanes gives. */
template <class T>
using word_of = typename word_of_size<sizeof(T)>::type;
/** A full register of T. */
template <class T>
using vec = typename vec_type<T>::type;
/** N elements of T, which may be more or less than a register. */
template <class T, int N>
using vec_n = typename vec_type<T, N* static_cast<int>(sizeof(T))>::type;

template <class T>
inline constexpr int lanes_of = register_bytes / static_cast<int>(sizeof(T));

template <class V, class T>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE V load_as(const T* p) noexcept {
  V v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
template <class T>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE vec<T> load(const T* p) noexcept {
  return load_as<vec<T>>(p);
}
template <class T, class V>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE void store(T* p, V v) noexcept {
  __builtin_memcpy(p, &v, sizeof v);
}
template <class T>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE vec<T> splat(T value) noexcept {
  return vec<T>{} + value;  // -0 becomes +0: no kernel asks for it
}

/** The first `n` elements of T, n < N, in the front of a vector; zeros behind them. Reads no byte more. */
template <class T, int N>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE vec_n<T, N> load_part(const T* p, count n) noexcept {
  constexpr int bytes = N * static_cast<int>(sizeof(T));
  const auto size = static_cast<unsigned>(n) * static_cast<unsigned>(sizeof(T));
  vec_n<T, N> v{};
#if LORA_SIMD_TIER == 2
  // Masked-off bytes are not read: they may lie on a page that is not there.
  if constexpr (bytes == 64) {
    const __m512i m = _mm512_maskz_loadu_epi8(__mmask64{~0ull >> (64 - size)}, p);
    __builtin_memcpy(&v, &m, sizeof v);
  } else if constexpr (bytes == 32) {
    const __m256i m = _mm256_maskz_loadu_epi8(static_cast<__mmask32>((1ull << size) - 1), p);
    __builtin_memcpy(&v, &m, sizeof v);
  } else {
    const __m128i m = _mm_maskz_loadu_epi8(static_cast<__mmask16>((1u << size) - 1u), p);
    __builtin_memcpy(&v, &m, sizeof v);
  }
#else
  alignas(16) char part[bytes] = {};
  const char* from = reinterpret_cast<const char*>(p);
  unsigned at = 0;
#pragma GCC unroll 8
  for (unsigned step = static_cast<unsigned>(bytes) / 2; step > 0; step /= 2) {
    if ((size & step) != 0) {
      for (unsigned i = 0; i < step; ++i) part[at + i] = from[at + i];
      at += step;
    }
  }
  __builtin_memcpy(&v, part, sizeof v);
#endif
  return v;
}

/** Writes the first `n` elements of a vector, n < N, and no byte behind them. */
template <class T, int N>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE void store_part(T* p, vec_n<T, N> v, count n) noexcept {
  constexpr int bytes = N * static_cast<int>(sizeof(T));
  const auto size = static_cast<unsigned>(n) * static_cast<unsigned>(sizeof(T));
#if LORA_SIMD_TIER == 2
  if constexpr (bytes == 64) {
    __m512i m;
    __builtin_memcpy(&m, &v, sizeof v);
    _mm512_mask_storeu_epi8(p, __mmask64{~0ull >> (64 - size)}, m);
  } else if constexpr (bytes == 32) {
    __m256i m;
    __builtin_memcpy(&m, &v, sizeof v);
    _mm256_mask_storeu_epi8(p, static_cast<__mmask32>((1ull << size) - 1), m);
  } else {
    __m128i m{};
    __builtin_memcpy(&m, &v, sizeof v);
    _mm_mask_storeu_epi8(p, static_cast<__mmask16>((1u << size) - 1u), m);
  }
#else
  alignas(16) char part[bytes];
  __builtin_memcpy(part, &v, sizeof v);
  char* to = reinterpret_cast<char*>(p);
  unsigned at = 0;
#pragma GCC unroll 8
  for (unsigned step = static_cast<unsigned>(bytes) / 2; step > 0; step /= 2) {
    if ((size & step) != 0) {
      for (unsigned i = 0; i < step; ++i) to[at + i] = part[at + i];
      at += step;
    }
  }
#endif
}

/** Elements O, O + 1, ... of v. */
template <class V, int O, unsigned long... I>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE auto part_of(V v, places<I...>) noexcept {
  return __builtin_shufflevector(v, v, (O + static_cast<int>(I))...);
}
