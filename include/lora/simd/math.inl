// SPDX-License-Identifier: Apache-2.0
//
// Transcendental functions on vectors of floats and the row kernels built on them, in the namespace of one tier; see math.hpp.
//
// The polynomials are minimax (Remez, 120 bits), rounded to float. Nothing relies on fused multiply-adds: the constants of the argument
// reductions are short enough for the products to be exact without them, so that the generic tier keeps the bounds of math.hpp.

using math_f = vec<float>;
using math_i = vec<std::int32_t>;

LORA_SIMD_TARGET LORA_ALWAYS_INLINE math_f as_floats(math_i v) noexcept {
  math_f f;
  __builtin_memcpy(&f, &v, sizeof f);
  return f;
}
LORA_SIMD_TARGET LORA_ALWAYS_INLINE math_i as_bits(math_f v) noexcept {
  math_i i;
  __builtin_memcpy(&i, &v, sizeof i);
  return i;
}
LORA_SIMD_TARGET LORA_ALWAYS_INLINE math_f choose(math_i where, math_f yes, math_f no) noexcept {
  return as_floats((where & as_bits(yes)) | (~where & as_bits(no)));
}
LORA_SIMD_TARGET LORA_ALWAYS_INLINE math_f magnitude(math_f x) noexcept { return as_floats(as_bits(x) & 0x7fffffff); }
LORA_SIMD_TARGET LORA_ALWAYS_INLINE math_f with_sign_of(math_f x, math_f sign) noexcept {
  return as_floats(as_bits(x) | (as_bits(sign) & static_cast<std::int32_t>(0x80000000u)));
}
// NaN passes through both: a comparison with it is false.
LORA_SIMD_TARGET LORA_ALWAYS_INLINE math_f at_most(math_f x, float high) noexcept { return choose(x > high, splat(high), x); }
LORA_SIMD_TARGET LORA_ALWAYS_INLINE math_f at_least(math_f x, float low) noexcept { return choose(x < low, splat(low), x); }

/** e^x as value * half * rest: each factor is a normal number even where the product is not, so that a caller can put its own factors in between. */
struct exp_parts {
  math_f value;
  math_f half;
  math_f rest;
};

/** e^(x + low), for x in [-120, 120] and a correction |low| < 1; NaN gives NaN. */
LORA_SIMD_TARGET LORA_ALWAYS_INLINE exp_parts exp_of(math_f x, math_f low) noexcept {
  // Adding 1.5 * 2^23 rounds to an integer, which is then also in the low bits. ln 2 in two parts: 15 bits (times n exact), and the rest.
  const math_f shifted = (x + low) * 0x1.715476p+0f + 0x1.8p+23f;
  const math_f n = shifted - 0x1.8p+23f;
  const math_f r = ((x - n * 0x1.62e4p-1f) - n * 0x1.7f7d1cp-20f) + low;
  math_f p = splat(0x1.6a2352p-10f);
  p = p * r + 0x1.123a6cp-7f;
  p = p * r + 0x1.5558f4p-5f;
  p = p * r + 0x1.55549p-3f;
  p = p * r + 0x1.fffffcp-2f;
  const math_i exponent = as_bits(shifted) - 0x4b400000;
  const math_i half = exponent >> 1;
  return {(p * (r * r) + r) + 1.0f, as_floats((half + 127) << 23), as_floats((exponent - half + 127) << 23)};
}

/** Phi(-u) e^(u u / 2) (u + 4.25) for u >= 0, where Phi is the normal distribution: a smooth function, here in (u - 4.25) / (u + 4.25). */
LORA_SIMD_TARGET LORA_ALWAYS_INLINE math_f normal_tail(math_f u) noexcept {
  const math_f t = (u - 4.25f) / (u + 4.25f);
  math_f p = splat(0x1.7cb012p-17f);
  p = p * t + -0x1.b6c7e4p-13f;
  p = p * t + -0x1.74ec3ap-12f;
  p = p * t + 0x1.1c9482p-9f;
  p = p * t + -0x1.8e1386p-11f;
  p = p * t + -0x1.3d461cp-6f;
  p = p * t + 0x1.5d4828p-4f;
  p = p * t + -0x1.c39d8cp-3f;
  p = p * t + 0x1.ac43dp-2f;
  p = p * t + -0x1.401104p-1f;
  p = p * t + 0x1.84e44ap-1f;
  return p;
}

/** e^(-x x scale) for |x| <= 20, scale 1 or 1/2. x in two parts, because the error of a rounded square would be multiplied by it. */
LORA_SIMD_TARGET LORA_ALWAYS_INLINE exp_parts exp_minus_square(math_f x, float scale) noexcept {
  const math_f high = as_floats(as_bits(x) & static_cast<std::int32_t>(0xfffff000u));  // 12 bits: its square is exact
  return exp_of(at_least(high * high * -scale, -120.0f), (x - high) * (x + high) * -scale);
}

// One structure a function: y = f(x) for a register of floats.
template <math_op Op>
struct function;

template <>
struct function<math_op::exp> {
  LORA_SIMD_TARGET LORA_ALWAYS_INLINE static math_f run(math_f x) noexcept {
    const exp_parts e = exp_of(at_least(at_most(x, 120.0f), -120.0f), math_f{});
    return e.value * e.half * e.rest;
  }
};

template <>
struct function<math_op::log> {
  LORA_SIMD_TARGET LORA_ALWAYS_INLINE static math_f run(math_f x) noexcept {
    const math_i tiny = x < 0x1p-126f;
    // Counted from sqrt(1/2); a negative x, whose difference would overflow, is answered below.
    const math_i bits = (as_bits(choose(tiny, x * 0x1p23f, x)) & 0x7fffffff) - 0x3f3504f3;
    const math_f e = __builtin_convertvector((bits >> 23) - (tiny & 23), math_f);
    const math_f f = as_floats((bits & 0x7fffff) + 0x3f3504f3) - 1.0f;
    math_f p = splat(0x1.145786p-4f);
    p = p * f + -0x1.de5116p-4f;
    p = p * f + 0x1.e6fbb6p-4f;
    p = p * f + -0x1.fc1fa6p-4f;
    p = p * f + 0x1.23368cp-3f;
    p = p * f + -0x1.555c54p-3f;
    p = p * f + 0x1.99a4cp-3f;
    p = p * f + -0x1.000006p-2f;
    p = p * f + 0x1.555548p-2f;
    const math_f square = f * f;
    math_f y = p * (f * square) + e * 0x1.7f7d1cp-20f;
    y = (f + (y - 0.5f * square)) + e * 0x1.62e4p-1f;
    y = choose(x == __builtin_inff(), x, y);
    y = choose(x == 0.0f, splat(-__builtin_inff()), y);
    return choose(x >= 0.0f, y, choose(x < 0.0f, splat(__builtin_nanf("")), x));
  }
};

template <>
struct function<math_op::erf> {
  LORA_SIMD_TARGET LORA_ALWAYS_INLINE static math_f run(math_f x) noexcept {
    const math_f z = x * x;
    math_f p = splat(0x1.496a3ap-14f);
    p = p * z + -0x1.a3f702p-11f;
    p = p * z + 0x1.5405b2p-8f;
    p = p * z + -0x1.b7f90ep-6f;
    p = p * z + 0x1.ce2cf8p-4f;
    p = p * z + -0x1.81273ep-2f;
    p = p * z + 0x1.06eba8p-3f;  // 2 / sqrt(pi) - 1: what is added to x last is small, and so is its error
    const math_f a = at_most(magnitude(x), 10.0f);
    const exp_parts e = exp_minus_square(a, 1.0f);
    const math_f u = a * 0x1.6a09e6p+0f;  // sqrt 2
    const math_f far = 1.0f - 2.0f * (normal_tail(u) * e.value / (u + 4.25f)) * e.half * e.rest;
    return with_sign_of(choose(a < 1.0f, a + a * p, far), x);
  }
};

template <>
struct function<math_op::tanh> {
  LORA_SIMD_TARGET LORA_ALWAYS_INLINE static math_f run(math_f x) noexcept {
    const math_f z = x * x;
    math_f p = splat(0x1.197b7ap-9f);
    p = p * z + -0x1.0c2146p-7f;
    p = p * z + 0x1.6394dap-6f;
    p = p * z + -0x1.b9ef7cp-5f;
    p = p * z + 0x1.11106cp-3f;
    p = p * z + -0x1.555554p-2f;
    const math_f a = at_most(magnitude(x), 20.0f);
    const exp_parts e = exp_of(a + a, math_f{});
    const math_f far = 1.0f - 2.0f / (e.value * e.half * e.rest + 1.0f);
    return with_sign_of(choose(a < 0.625f, a + a * (z * p), far), x);  // -0 stays -0
  }
};

/** x / (1 + e^-z) with z = high + low of x's sign. From e^-|z|, which does not overflow; for z < 0 the result is x e^z / (1 + e^z). */
LORA_SIMD_TARGET LORA_ALWAYS_INLINE math_f times_logistic(math_f x, math_f high, math_f low) noexcept {
  const math_i negative = as_bits(high) >> 31;
  const math_f sign = with_sign_of(splat(1.0f), high);
  const exp_parts e = exp_of(at_least(-magnitude(high), -120.0f), -low * sign);
  const math_f sum = e.value * e.half * e.rest + 1.0f;
  const math_f clamped = at_least(x, -200.0f);  // at -inf the limit is -0
  return choose(negative, clamped * e.value / sum * e.half * e.rest, x / sum);
}

template <>
struct function<math_op::silu> {
  LORA_SIMD_TARGET LORA_ALWAYS_INLINE static math_f run(math_f x) noexcept { return times_logistic(x, x, math_f{}); }
};

template <>
struct function<math_op::gelu> {
  LORA_SIMD_TARGET LORA_ALWAYS_INLINE static math_f run(math_f x) noexcept {
    const math_f u = at_most(magnitude(x), 20.0f);
    const exp_parts e = exp_minus_square(u, 0.5f);
    const math_f far = u * e.value * normal_tail(u) / (u + 4.25f) * e.half * e.rest;  // u Phi(-u)
    // Near 0, Phi(x) = 1/2 + x p(x x) is the more accurate way.
    const math_f z = x * x;
    math_f p = splat(-0x1.f4d39p-18f);
    p = p * z + 0x1.d9c17ap-14f;
    p = p * z + -0x1.36d8aep-10f;
    p = p * z + 0x1.46cc3ep-7f;
    p = p * z + -0x1.105826p-4f;
    p = p * z + 0x1.988454p-2f;
    return choose(u < 0.75f, x * (x * p + 0.5f), choose(as_bits(x) < 0, -far, x - far));
  }
};

template <>
struct function<math_op::gelu_tanh> {
  using part = vec_n<float, lanes_of<float> / 2>;
  using wide = vec_n<double, lanes_of<float> / 2>;
  struct half_floats {
    part high;
    part low;
  };
  template <int From, int... I>
  LORA_SIMD_TARGET LORA_ALWAYS_INLINE static part half_of(math_f v, std::integer_sequence<int, I...>) noexcept {
    return __builtin_shufflevector(v, v, (From + I)...);
  }
  template <int... I>
  LORA_SIMD_TARGET LORA_ALWAYS_INLINE static math_f joined(part a, part b, std::integer_sequence<int, I...>) noexcept {
    return __builtin_shufflevector(a, b, I...);
  }
  /** 2 sqrt(2 / pi) (x + 0.044715 x^3), in two floats. */
  LORA_SIMD_TARGET LORA_ALWAYS_INLINE static half_floats argument(part x) noexcept {
    const wide d = __builtin_convertvector(x, wide);
    const wide z = d * (d * d * 0.07135481627260025 + 1.5957691216057308);
    const part high = __builtin_convertvector(z, part);
    return {high, __builtin_convertvector(z - __builtin_convertvector(high, wide), part)};
  }

  LORA_SIMD_TARGET LORA_ALWAYS_INLINE static math_f run(math_f x) noexcept {
    // x / (1 + e^-z), with z from double, because e^z multiplies an error of z by z.
    constexpr auto first = std::make_integer_sequence<int, lanes_of<float> / 2>{};
    const math_f a = at_least(at_most(x, 30.0f), -30.0f);
    const half_floats left = argument(half_of<0>(a, first));
    const half_floats right = argument(half_of<lanes_of<float> / 2>(a, first));
    constexpr auto all = std::make_integer_sequence<int, lanes_of<float>>{};
    const math_f h = joined(left.high, right.high, all);
    const math_f l = joined(left.low, right.low, all);
    return times_logistic(x, h, choose(magnitude(h) < 120.0f, l, math_f{}));
  }
};

/** n <= lanes floats, the rest `padding`. */
LORA_SIMD_TARGET LORA_ALWAYS_INLINE math_f load_some(const float* p, std::ptrdiff_t n, float padding) noexcept {
  constexpr int lanes = lanes_of<float>;
  if (n >= lanes) return load(p);
  float part[lanes];
  for (int i = 0; i < lanes; ++i) part[i] = i < n ? p[i] : padding;
  return load(part);
}
LORA_SIMD_TARGET LORA_ALWAYS_INLINE void store_some(float* p, math_f v, std::ptrdiff_t n) noexcept {
  constexpr int lanes = lanes_of<float>;
  if (n >= lanes) return store(p, v);
  float part[lanes];
  store(part, v);
  for (int i = 0; i < n; ++i) p[i] = part[i];
}

/** to = f(from). One body for whole registers and for the rest: an element's bits do not depend on where it stands. */
template <math_op Op>
LORA_SIMD_TARGET void map(const float* from, float* to, std::ptrdiff_t n) noexcept {
  for (std::ptrdiff_t i = 0; i < n; i += lanes_of<float>) store_some(to + i, function<Op>::run(load_some(from + i, n - i, 0.0f)), n - i);
}

LORA_SIMD_TARGET LORA_ALWAYS_INLINE float fold_sum(math_f v) noexcept {
  float part[lanes_of<float>];
  store(part, v);
  for (int half = lanes_of<float> / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) part[i] += part[i + half];
  return part[0];
}

/** The largest of the numbers, or -infinity; NaN may or may not be seen. */
template <class Lazy>
LORA_SIMD_TARGET float row_max(const float* from, std::ptrdiff_t n) noexcept {
  math_f most = splat(-__builtin_inff());
  for (std::ptrdiff_t i = 0; i < n; i += lanes_of<float>) {
    const math_f v = load_some(from + i, n - i, -__builtin_inff());
    most = choose(v > most, v, most);
  }
  float part[lanes_of<float>];
  store(part, most);
  float m = part[0];
  for (int i = 1; i < lanes_of<float>; ++i) m = part[i] > m ? part[i] : m;
  return m;
}

/** Sum of e^(from - shift); the terms go to `to` too, unless that is null. */
template <class Lazy>
LORA_SIMD_TARGET float row_exp_sum(const float* from, float* to, std::ptrdiff_t n, float shift) noexcept {
  math_f sum{};
  for (std::ptrdiff_t i = 0; i < n; i += lanes_of<float>) {
    const math_f e = function<math_op::exp>::run(load_some(from + i, n - i, -__builtin_inff()) - shift);
    // A row of -inf only has shift -inf: its padding is NaN like the row itself, which is what softmax answers.
    sum += e;
    if (to != nullptr) store_some(to + i, e, n - i);
  }
  return fold_sum(sum);
}

/** Sum of (from - high - low)^power, power 1 or 2. */
template <int Power>
LORA_SIMD_TARGET float row_moment(const float* from, std::ptrdiff_t n, float high, float low) noexcept {
  constexpr int lanes = lanes_of<float>;
  math_f sum{};
  for (std::ptrdiff_t i = 0; i < n; i += lanes) {
    math_f v = (load_some(from + i, n - i, high) - high) - low;
    if (n - i < lanes) {  // padding must add nothing, and high - high - low may not be zero
      float part[lanes];
      store(part, v);
      for (int k = static_cast<int>(n - i); k < lanes; ++k) part[k] = 0;
      v = load(part);
    }
    sum += Power == 1 ? v : v * v;
  }
  return fold_sum(sum);
}

/** to = (from - high - low) * factor * weight + bias; a null weight is 1, a null bias 0. */
template <class Lazy>
LORA_SIMD_TARGET void row_normalize(const float* from, float* to, std::ptrdiff_t n, float high, float low, float factor,
                                    const float* weight, const float* bias) noexcept {
  for (std::ptrdiff_t i = 0; i < n; i += lanes_of<float>) {
    math_f v = ((load_some(from + i, n - i, 0.0f) - high) - low) * factor;
    if (weight != nullptr) v *= load_some(weight + i, n - i, 0.0f);
    if (bias != nullptr) v += load_some(bias + i, n - i, 0.0f);
    store_some(to + i, v, n - i);
  }
}

// The same passes over rows that lie side by side: one number a column instead of one a row.

template <class Lazy>
LORA_SIMD_TARGET void columns_max(const float* from, float* most, std::ptrdiff_t n) noexcept {
  for (std::ptrdiff_t i = 0; i < n; i += lanes_of<float>) {
    const math_f v = load_some(from + i, n - i, 0.0f);
    const math_f m = load_some(most + i, n - i, 0.0f);
    store_some(most + i, choose(v > m, v, m), n - i);
  }
}

/** sum += to = e^(from - shift); `to` may be null. */
template <class Lazy>
LORA_SIMD_TARGET void columns_exp_sum(const float* from, float* to, const float* shift, float* sum, std::ptrdiff_t n) noexcept {
  for (std::ptrdiff_t i = 0; i < n; i += lanes_of<float>) {
    const math_f e = function<math_op::exp>::run(load_some(from + i, n - i, 0.0f) - load_some(shift + i, n - i, 0.0f));
    store_some(sum + i, load_some(sum + i, n - i, 0.0f) + e, n - i);
    if (to != nullptr) store_some(to + i, e, n - i);
  }
}

/** to = from / by, element by element, or by one number. */
template <class Lazy>
LORA_SIMD_TARGET void divide(const float* from, float* to, const float* by, bool by_one, std::ptrdiff_t n) noexcept {
  for (std::ptrdiff_t i = 0; i < n; i += lanes_of<float>)
    store_some(to + i, load_some(from + i, n - i, 0.0f) / (by_one ? splat(*by) : load_some(by + i, n - i, 1.0f)), n - i);
}

template <class Lazy>
[[nodiscard]] const row_kernels& rows() noexcept {
  static constexpr row_kernels k{&row_max<Lazy>,       &row_exp_sum<Lazy>, &row_moment<1>,         &row_moment<2>,
                                 &row_normalize<Lazy>, &columns_max<Lazy>, &columns_exp_sum<Lazy>, &divide<Lazy>};
  return k;
}
