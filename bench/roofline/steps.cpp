// SPDX-License-Identifier: Apache-2.0
//
// What stands between reading W and multiplying it: loops of the shape that the kernels have (simd/tile.inl), each with one thing more
// than the one before. Of lora they have only the distances at which rows are fetched: no tails, no low-rank term, no y. Compiled with
// -march=native.
#include "limits.hpp"

#include <lora/linalg/rows.hpp>

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__)
// g++ 12 reports its own AVX-512 header as using uninitialised variables.
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>

#include <cstdint>

namespace bench {
namespace {

constexpr std::ptrdiff_t in = steps_in;
constexpr std::ptrdiff_t out = steps_out;
constexpr lora::simd::ahead_by ahead = lora::detail::fetch_twice;

template <int T>
__m512 spread(const float* p) {
  if constexpr (T == 1) return _mm512_loadu_ps(p);
  if constexpr (T == 2) return _mm512_broadcast_f32x8(_mm256_loadu_ps(p));
  if constexpr (T == 4) return _mm512_broadcast_f32x4(_mm_loadu_ps(p));
}
// bfloat16 is the upper half of a float.
template <int T>
__m512 spread(const std::uint16_t* p) {
  static_assert(T <= 2);
  if constexpr (T == 1) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))), 16));
  } else {
    const __m512i v = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    const __m512i order = _mm512_set_epi8(15, 14, -1, -1, 13, 12, -1, -1, 11, 10, -1, -1, 9, 8, -1, -1,  //
                                          7, 6, -1, -1, 5, 4, -1, -1, 3, 2, -1, -1, 1, 0, -1, -1,        //
                                          15, 14, -1, -1, 13, 12, -1, -1, 11, 10, -1, -1, 9, 8, -1, -1,  //
                                          7, 6, -1, -1, 5, 4, -1, -1, 3, 2, -1, -1, 1, 0, -1, -1);
    return _mm512_castsi512_ps(_mm512_shuffle_epi8(v, order));
  }
}

// T tokens a register, R rows, C registers of tokens; every row fetched as in linalg/rows.hpp (fetch_twice), on into the next R.
template <class W, int T, int R, int C, step S>
void run(const void* weights, const float* tokens, float* sums) {
  constexpr std::ptrdiff_t line = 64 / static_cast<std::ptrdiff_t>(sizeof(W));
  constexpr std::ptrdiff_t P = 16 / T;
  constexpr auto size = static_cast<std::ptrdiff_t>(sizeof(W));
  constexpr std::ptrdiff_t to_next = (R - 1) * in * size;
  for (std::ptrdiff_t n = 0; n + R <= out; n += R) {
    const W* row[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) row[r] = static_cast<const W*>(weights) + (n + r) * in;
    __m512 sum[R][C];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) sum[r][c] = _mm512_setzero_ps();
    const float* x = tokens;
    __m512 token[C];
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) {
      token[c] = _mm512_loadu_ps(x + 16 * c);
      asm("" : "+v"(token[c]));
    }
    for (std::ptrdiff_t k = 0; k < in; k += line) {
      const std::ptrdiff_t l1 = ahead.l1 + (k * size + ahead.l1 < in * size ? 0 : to_next);
      const std::ptrdiff_t l2 = ahead.l2 + (k * size + ahead.l2 < in * size ? 0 : to_next);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {  // as numbers: behind the last row the address belongs to nothing
        const auto at = reinterpret_cast<std::uintptr_t>(row[r]);
        __builtin_prefetch(reinterpret_cast<const void*>(at + static_cast<std::uintptr_t>(l2)), 0, 2);
        __builtin_prefetch(reinterpret_cast<const void*>(at + static_cast<std::uintptr_t>(l1)), 0, 3);
      }
#pragma GCC unroll 8
      for (std::ptrdiff_t j = 0; j < line; j += P) {
        if constexpr (S >= step::tokens_in_l1) {
#pragma GCC unroll 8
          for (int c = 0; c < C; ++c) token[c] = _mm512_loadu_ps(x + 16 * c);
          x += 16 * C;
        }
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          const __m512 w = spread<T>(row[r] + j);
          if constexpr (S == step::rows) {
            asm volatile("" ::"v"(w));
          } else {
#pragma GCC unroll 8
            for (int c = 0; c < C; ++c) sum[r][c] = _mm512_fmadd_ps(w, token[c], sum[r][c]);
          }
        }
      }
      if constexpr (S == step::tokens_in_l1)
        if (x - tokens >= steps_near) x = tokens;
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) row[r] += line;
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) _mm512_storeu_ps(sums + 16 * (r * C + c), sum[r][c]);
  }
}

template <class W, int T, int R, int C>
constexpr form_steps steps_of(const char* name) {
  return {name,
          T * C,
          sizeof(W),
          {run<W, T, R, C, step::rows>, run<W, T, R, C, step::multiplied>, run<W, T, R, C, step::tokens_in_l1>,
           run<W, T, R, C, step::tokens_as_packed>}};
}
constexpr form_steps forms[] = {
    steps_of<float, 1, 8, 1>("f32 T1 8x1"),          steps_of<float, 2, 6, 2>("f32 T2 6x2"),
    steps_of<float, 2, 6, 4>("f32 T2 6x4"),          steps_of<float, 4, 6, 4>("f32 T4 6x4"),
    steps_of<std::uint16_t, 1, 8, 1>("bf16 T1 8x1"), steps_of<std::uint16_t, 2, 6, 2>("bf16 T2 6x2"),
    steps_of<std::uint16_t, 2, 6, 4>("bf16 T2 6x4"),
};

}  // namespace

std::span<const form_steps> forms_in_steps() { return forms; }

}  // namespace bench

#else

namespace bench {
std::span<const form_steps> forms_in_steps() { return {}; }
}  // namespace bench

#endif
