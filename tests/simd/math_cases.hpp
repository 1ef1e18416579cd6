// SPDX-License-Identifier: Apache-2.0
//
// The functions of simd/math.hpp, their values in double, and the bounds that math.hpp states: shared by the sample and the full sweep.
#ifndef LORA_TESTS_SIMD_MATH_CASES_HPP
#define LORA_TESTS_SIMD_MATH_CASES_HPP

#include <lora/simd/math.hpp>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

namespace test {

struct math_case {
  const char* name;
  double (*exact)(double);  // to far better than an ulp of a float
  void (*run)(const float*, float*, std::ptrdiff_t, lora::simd::tier) noexcept;
  double bound;  // in ulp, as math.hpp states it
};

constexpr double infinity = std::numeric_limits<double>::infinity();

inline const math_case math_cases[] = {
    {"exp", [](double x) { return std::exp(x); }, &lora::simd::map<lora::simd::math_op::exp>, 1.1},
    {"log", [](double x) { return std::log(x); }, &lora::simd::map<lora::simd::math_op::log>, 1.0},
    {"erf", [](double x) { return std::erf(x); }, &lora::simd::map<lora::simd::math_op::erf>, 1.4},
    {"tanh", [](double x) { return std::tanh(x); }, &lora::simd::map<lora::simd::math_op::tanh>, 1.5},
    {"silu", [](double x) { return x == -infinity ? -0.0 : x / (1 + std::exp(-x)); }, &lora::simd::map<lora::simd::math_op::silu>, 3.5},
    {"gelu", [](double x) { return x == -infinity ? -0.0 : x * 0.5 * std::erfc(x * -0.70710678118654752440); },
     &lora::simd::map<lora::simd::math_op::gelu>, 5.75},
    {"gelu_tanh",
     [](double x) {
       return x == -infinity ? -0.0 : x / (1 + std::exp(-2 * std::sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x)));
     },
     &lora::simd::map<lora::simd::math_op::gelu_tanh>, 3.5},
};

/** Distance in ulp of the exact value rounded to float; 0 for equal infinities and for two NaN, infinity for what must not differ. */
inline double ulp_error(float got, double exact) {
  if (std::isnan(exact) || std::isnan(got)) return std::isnan(exact) && std::isnan(got) ? 0 : infinity;
  const auto rounded = static_cast<float>(exact);
  if (std::isinf(exact) || exact == 0) return got == rounded && std::signbit(got) == std::signbit(rounded) ? 0 : infinity;
  constexpr double largest = std::numeric_limits<float>::max();
  const double g = std::isinf(got) ? std::copysign(largest + 0x1p104, static_cast<double>(got)) : static_cast<double>(got);
  if (std::isinf(got) && std::isinf(rounded)) return g * exact > 0 ? 0 : infinity;
  const double magnitude = std::fabs(exact) < 0x1p-126 ? 0x1p-126 : std::fabs(exact) > largest ? largest : std::fabs(exact);
  return std::fabs(g - exact) / std::ldexp(1.0, std::ilogb(magnitude) - 23);
}

inline float from_bits(std::uint32_t bits) {
  float f = 0;
  std::memcpy(&f, &bits, sizeof f);
  return f;
}

}  // namespace test

#endif
