// SPDX-License-Identifier: Apache-2.0
//
// What the vector math of ops/ shares: elements of any floating point type are computed as floats (doubles as doubles), a block of a row at a
// time. A row of contiguous floats is taken where it lies; anything else goes through a block on the stack. Not API.
//
//   const float* x = detail::take(p, stride, n, block);        // p itself, or the block
//   float* y = detail::place(q, stride, block);  ...;  detail::put(y, q, stride, n);
#ifndef LORA_OPS_ROWS_HPP
#define LORA_OPS_ROWS_HPP

#include <lora/core/half.hpp>
#include <lora/nd/shape.hpp>
#include <lora/simd/math.hpp>

#include <type_traits>

namespace lora::inline v0::detail::inline LORA_ISA_TAG {

/** Elements of a block: 4 KB of floats. Sums are carried in double from block to block, so that their error does not grow with the row. */
inline constexpr index_t block_size = 1024;

template <class T>
inline constexpr bool is_math_element =
    std::is_same_v<T, float> || std::is_same_v<T, double> || std::is_same_v<T, float16> || std::is_same_v<T, bfloat16>;

/** What elements of type T are computed in. */
template <class T>
using computed_in = std::conditional_t<std::is_same_v<T, double>, double, float>;

#if defined(__GNUC__) && !defined(__clang__)
#define LORA_VECTORISED [[gnu::noinline, gnu::optimize("vect-cost-model=dynamic")]]  // as in apply.hpp
#else
#define LORA_VECTORISED
#endif

template <class C, class T, class Isa = simd::isa_tag>
LORA_VECTORISED void widen(const T* p, index_t stride, index_t n, C* block) noexcept {
  if (stride == 1) {
    for (index_t i = 0; i < n; ++i) block[i] = static_cast<C>(p[i]);
  } else {
    for (index_t i = 0; i < n; ++i) block[i] = static_cast<C>(p[i * stride]);
  }
}
template <class C, class T, class Isa = simd::isa_tag>
LORA_VECTORISED void narrow(const C* block, T* p, index_t stride, index_t n) noexcept {
  if (stride == 1) {
    for (index_t i = 0; i < n; ++i) p[i] = static_cast<T>(block[i]);
  } else {
    for (index_t i = 0; i < n; ++i) p[i * stride] = static_cast<T>(block[i]);
  }
}
#undef LORA_VECTORISED

/** n elements as C: where they lie, or copied to `block`. */
template <class C, class T>
[[nodiscard]] const C* take(const T* p, index_t stride, index_t n, C* block) noexcept {
  if constexpr (std::is_same_v<C, T>) {
    if (stride == 1) return p;
  }
  widen(p, stride, n, block);
  return block;
}
/** Where to compute results for p: at p itself, or in `block`. */
template <class C, class T>
[[nodiscard]] C* place(T* p, index_t stride, C* block) noexcept {
  if constexpr (std::is_same_v<C, T>) {
    if (stride == 1) return p;
  }
  return block;
}
/** Brings results from where place() put them to p, each rounded once. */
template <class C, class T>
void put(const C* computed, T* p, index_t stride, index_t n) noexcept {
  if (static_cast<const void*>(computed) != static_cast<const void*>(p)) narrow(computed, p, stride, n);
}

/** The passes of simd::row_kernels for doubles: plain loops on libm, whose exp decides the time anyway. */
struct double_rows {
  static double max(const double* x, index_t n) noexcept {
    double m = -__builtin_inf();
    for (index_t i = 0; i < n; ++i) m = x[i] > m ? x[i] : m;
    return m;
  }
  static double exp_sum(const double* x, double* to, index_t n, double shift) noexcept {
    double sum = 0;
    for (index_t i = 0; i < n; ++i) {
      const double e = __builtin_exp(x[i] - shift);
      sum += e;
      if (to != nullptr) to[i] = e;
    }
    return sum;
  }
  static double sum(const double* x, index_t n, double high, double low) noexcept {
    double s = 0;
    for (index_t i = 0; i < n; ++i) s += (x[i] - high) - low;
    return s;
  }
  static double squares(const double* x, index_t n, double high, double low) noexcept {
    double s = 0;
    for (index_t i = 0; i < n; ++i) s += ((x[i] - high) - low) * ((x[i] - high) - low);
    return s;
  }
  static void normalize(const double* x, double* to, index_t n, double high, double low, double factor, const double* weight,
                        const double* bias) noexcept {
    for (index_t i = 0; i < n; ++i) {
      double v = ((x[i] - high) - low) * factor;
      if (weight != nullptr) v *= weight[i];
      if (bias != nullptr) v += bias[i];
      to[i] = v;
    }
  }
  static void divide(const double* x, double* to, const double* by, bool, index_t n) noexcept {
    for (index_t i = 0; i < n; ++i) to[i] = x[i] / *by;
  }
};

/** The passes for C. */
template <class C>
[[nodiscard]] auto rows_of() noexcept {
  if constexpr (std::is_same_v<C, double>) {
    return double_rows{};
  } else {
    return simd::rows<>();
  }
}

}  // namespace lora::inline v0::detail::inline LORA_ISA_TAG

#endif
