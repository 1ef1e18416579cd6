// SPDX-License-Identifier: Apache-2.0
//
// What the reductions do with single registers, in the namespace of one tier; see reduce.hpp: elements made ready, two registers joined,
// NaN watched for, lanes folded into one number.

/** Elements of a register of lanes L, taken from memory and made ready for Op. */
template <class Op, class L, class T, int N>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE vec_n<L, N> prepared(vec_n<stored<T>, N> v) noexcept {
  if constexpr (is_same<Op, op_count>) {
    if constexpr (is_half_bits<T>) {
      return prepared<Op, L, std::uint16_t, N>(v & 0x7fffu);
    } else {
      const auto set = v != 0;  // NaN is not 0
      using word = word_of<stored<T>>;
      return -widen<word, L, N>(bits_as<word, N>(set));
    }
  } else if constexpr (is_same<L, std::uint64_t>) {
    return bits_as<std::uint64_t, N>(widen<T, std::int64_t, N>(v));
  } else {
    const vec_n<L, N> x = widen<T, L, N>(v);
    if constexpr (is_same<Op, op_sum_squares>) {
      return x * x;
    } else if constexpr (is_same<Op, op_sum_abs> || is_same<Op, op_max_abs>) {
      using word = word_of<L>;
      constexpr word magnitude = sizeof(L) == 4 ? static_cast<word>(INT32_MAX) : static_cast<word>(INT64_MAX);
      return bits_as<L, N>(bits_as<word, N>(x) & magnitude);
    } else {
      return x;
    }
  }
}

template <class Op>
inline constexpr bool picks = is_same<Op, op_max> || is_same<Op, op_min> || is_same<Op, op_max_abs>;
/** Whether NaN must be looked for: the CPU's maximum forgets one. */
template <class Op, class L>
inline constexpr bool watches_nan = picks<Op> && (is_same<L, float> || is_same<L, double>);

/** Two vectors or numbers into one. Of NaN and a number, the first operand. */
template <class Op, class V>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE V joined(V a, V b) noexcept {
  if constexpr (is_same<Op, op_max> || is_same<Op, op_max_abs>) {
    return b > a ? b : a;
  } else if constexpr (is_same<Op, op_min>) {
    return b < a ? b : a;
  } else if constexpr (is_same<Op, op_product>) {
    return a * b;
  } else {
    return a + b;
  }
}
/** As joined, but NaN wins. */
template <class Op, class L, class V>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE V joined_nan(V a, V b) noexcept {
  if constexpr (watches_nan<Op, L>) {
    const V larger = joined<Op>(a, b);
    return b != b ? b : larger;
  } else {
    return joined<Op>(a, b);
  }
}

/** Leaves every number as it is when joined with it: -0 for sums, so that a sum of nothing but -0 stays -0. */
template <class Op, class L>
[[nodiscard]] LORA_ALWAYS_INLINE constexpr L neutral() noexcept {
  if constexpr (is_same<Op, op_product>) {
    return L(1);
  } else if constexpr (is_same<Op, op_max>) {
    if constexpr (is_same<L, float>)
      return -__builtin_inff();
    else if constexpr (is_same<L, double>)
      return -__builtin_inf();
    else if constexpr (is_same<L, std::uint8_t>)
      return 0;
    else
      return static_cast<L>(std::int64_t{-1} << (8 * sizeof(L) - 1));
  } else if constexpr (is_same<Op, op_min>) {
    if constexpr (is_same<L, float>)
      return __builtin_inff();
    else if constexpr (is_same<L, double>)
      return __builtin_inf();
    else if constexpr (is_same<L, std::uint8_t>)
      return 255;
    else
      return static_cast<L>(~(std::int64_t{-1} << (8 * sizeof(L) - 1)));
  } else if constexpr (is_same<L, float> || is_same<L, double>) {
    return is_same<Op, op_max_abs> ? L(0) : -L(0);
  } else {
    return 0;
  }
}
template <class Op, class L, int N>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE vec_n<L, N> neutral_lanes() noexcept {
  if constexpr (neutral<Op, L>() == 0 && (is_same<L, float> || is_same<L, double>)&&!is_same<Op, op_max_abs>)
    return -vec_n<L, N>{};
  else
    return splat_n<L, N>(neutral<Op, L>());
}

/** Lanes that have seen a NaN, for one register of L. A comparison is spent on every second vector only. */
template <class Op, class L, int N, bool Watches = watches_nan<Op, L>>
struct nan_watch {
  LORA_SIMD_TARGET LORA_ALWAYS_INLINE void look(vec_n<L, N>, vec_n<L, N>) noexcept {}
  LORA_SIMD_TARGET LORA_ALWAYS_INLINE vec_n<L, N> applied(vec_n<L, N> v) const noexcept { return v; }
};
template <class Op, class L, int N>
struct nan_watch<Op, L, N, true> {
#if LORA_SIMD_TIER == 2
  unsigned char seen8 = 0;
  unsigned short seen16 = 0;
  LORA_SIMD_TARGET LORA_ALWAYS_INLINE void look(vec_n<L, N> a, vec_n<L, N> b) noexcept {
    if constexpr (is_same<L, float>)
      seen16 =
          static_cast<unsigned short>(seen16 | _mm512_cmp_ps_mask(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b), _CMP_UNORD_Q));
    else
      seen8 =
          static_cast<unsigned char>(seen8 | _mm512_cmp_pd_mask(reinterpret_cast<__m512d>(a), reinterpret_cast<__m512d>(b), _CMP_UNORD_Q));
  }
  LORA_SIMD_TARGET LORA_ALWAYS_INLINE vec_n<L, N> applied(vec_n<L, N> v) const noexcept {
    if constexpr (is_same<L, float>)
      return reinterpret_cast<vec_n<L, N>>(_mm512_mask_mov_ps(reinterpret_cast<__m512>(v), seen16, _mm512_set1_ps(__builtin_nanf(""))));
    else
      return reinterpret_cast<vec_n<L, N>>(_mm512_mask_mov_pd(reinterpret_cast<__m512d>(v), seen8, _mm512_set1_pd(__builtin_nan(""))));
  }
#else
  vec_n<word_of<L>, N> seen{};
  LORA_SIMD_TARGET LORA_ALWAYS_INLINE void look(vec_n<L, N> a, vec_n<L, N> b) noexcept {
#if LORA_SIMD_TIER == 1
    if constexpr (is_same<L, float>)
      seen |= reinterpret_cast<vec_n<word_of<L>, N>>(_mm256_cmp_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b), _CMP_UNORD_Q));
    else
      seen |=
          reinterpret_cast<vec_n<word_of<L>, N>>(_mm256_cmp_pd(reinterpret_cast<__m256d>(a), reinterpret_cast<__m256d>(b), _CMP_UNORD_Q));
#else
    seen |= bits_as<word_of<L>, N>(a != a) | bits_as<word_of<L>, N>(b != b);
#endif
  }
  LORA_SIMD_TARGET LORA_ALWAYS_INLINE vec_n<L, N> applied(vec_n<L, N> v) const noexcept {
    return seen != 0 ? splat_n<L, N>(L(__builtin_nan(""))) : v;
  }
#endif
};

template <class Op, class L, int N>
LORA_SIMD_TARGET LORA_ALWAYS_INLINE L fold_lanes(vec_n<L, N> v) noexcept {
  if constexpr (N == 1) {
    return v[0];
  } else if constexpr (N == 2) {
    return joined_nan<Op, L>(static_cast<L>(v[0]), static_cast<L>(v[1]));
  } else {
    using half = typename first_places<N / 2>::type;
    return fold_lanes<Op, L, N / 2>(joined_nan<Op, L>(part_of<vec_n<L, N>, 0>(v, half{}), part_of<vec_n<L, N>, N / 2>(v, half{})));
  }
}
