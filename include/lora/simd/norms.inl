// SPDX-License-Identifier: Apache-2.0
//
// Squared norms of the rows of W + C A in double, once for each tier; included by generic.hpp, avx2.hpp and avx512.hpp in their namespaces,
// behind tile.inl.

// Blocks of R rows and C registers of doubles, of the width of this tier: each element of the panel of A is loaded once for R rows. Vectors
// of the compiler, because no tier has registers of doubles otherwise.
LORA_SIMD_TARGET inline void run_norms(const norm_job& t) {
  constexpr int half = lanes / 2;
  constexpr int C = 4;
  constexpr int R = lanes == 16 ? 4 : 2;
  using doubles = double __attribute__((vector_size(half * sizeof(double))));
  for (count n = 0; n < t.rows; n += R) {
    const float* w[R];
    const double* c[R];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {  // behind the last row it is summed again, for nothing
      const count row = n + r < t.rows ? n + r : t.rows - 1;
      w[r] = t.w + row * t.w_stride;
      c[r] = t.c + row * t.rank;
    }
    doubles total[R] = {};
    count k = 0;
    for (; k + C * half <= t.depth; k += C * half) {
      doubles sum[R][C];
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
        for (int i = 0; i < C; ++i)
#pragma GCC unroll 8
          for (int l = 0; l < half; ++l) sum[r][i][l] = static_cast<double>(w[r][k + i * half + l]);
      const double* a = t.a + k;
      for (count j = 0; j < t.rank; ++j, a += t.a_stride) {
        doubles v[C];
#pragma GCC unroll 4
        for (int i = 0; i < C; ++i) __builtin_memcpy(&v[i], a + i * half, sizeof(doubles));
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
          for (int i = 0; i < C; ++i) sum[r][i] += c[r][j] * v[i];
      }
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
        for (int i = 0; i < C; ++i) total[r] += sum[r][i] * sum[r][i];
    }
    const int rows = t.rows - n < R ? static_cast<int>(t.rows - n) : R;
    for (int r = 0; r < rows; ++r) {
      double rest = 0;
      for (count i = k; i < t.depth; ++i) {
        double sum = static_cast<double>(w[r][i]);
        for (count j = 0; j < t.rank; ++j) sum += c[r][j] * t.a[j * t.a_stride + i];
        rest += sum * sum;
      }
      for (int l = 0; l < half; ++l) rest += total[r][l];
      t.sums[n + r] += rest;
    }
  }
}
