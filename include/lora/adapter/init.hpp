// SPDX-License-Identifier: Apache-2.0
//
// A fresh adapter: A random by one of the usual rules, B zero, so that it changes nothing until it is trained. The numbers depend on the
// seed only: not on the standard library's generators, the compiler or the thread. The two normal rules call the C library's log and cos
// in double; where those differ in the last bit between machines, the rounding to float shows it in about one element of 10^8.
//
//   auto fresh = lora::fresh_adapter(out, in, rank, lora::init_rule::kaiming_uniform, seed);   // fresh.a [rank, in], fresh.b [out, rank]
#ifndef LORA_ADAPTER_INIT_HPP
#define LORA_ADAPTER_INIT_HPP

#include <lora/nd/array.hpp>

#include <cmath>
#include <cstdint>

namespace lora::inline v0 {

/** How A is drawn. */
enum class init_rule : unsigned char {
  normal,           ///< N(0, 0.02^2), as transformer weights
  gaussian,         ///< N(0, (1/rank)^2), PEFT's init_lora_weights = "gaussian"
  kaiming_uniform,  ///< U(-1/sqrt(in), 1/sqrt(in)), PEFT's default: kaiming_uniform_ with a = sqrt(5)
};

/** A [rank, in] and B [out, rank] that own their elements. */
struct low_rank_arrays {
  ndarray<float, 2> a;
  ndarray<float, 2> b;
};

namespace detail {

/** SplitMix64 (Steele, Lea, Flood 2014): one 64-bit counter, equidistributed, no state worth saving. */
class split_mix {
 public:
  explicit constexpr split_mix(std::uint64_t seed) noexcept : state_(seed) {}

  constexpr std::uint64_t next() noexcept {
    state_ += 0x9e3779b97f4a7c15u;
    std::uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }

  /** In (0, 1): 53 random bits, centred, so that a logarithm of it is finite. */
  constexpr double uniform() noexcept { return (static_cast<double>(next() >> 11) + 0.5) * 0x1p-53; }

 private:
  std::uint64_t state_;
};

}  // namespace detail

/** Fills A [rank, in] by a rule. @par Cost one pass; some 20 ns an element. */
inline void init_a(ndview<float, 2> a, init_rule rule, std::uint64_t seed) {
  detail::split_mix random(seed);
  const auto rank = static_cast<double>(a.extent(0));
  const auto in = static_cast<double>(a.extent(1));
  const double bound = 1.0 / std::sqrt(in);
  const double deviation = rule == init_rule::gaussian ? 1.0 / rank : 0.02;
  for (index_t i = 0; i < a.extent(0); ++i)
    for (index_t j = 0; j < a.extent(1); ++j) {
      double value = 0;
      if (rule == init_rule::kaiming_uniform) {
        value = (2.0 * random.uniform() - 1.0) * bound;
      } else {
        // Box and Muller's transform; its second value is not kept, so that each element takes the same two draws.
        const double radius = std::sqrt(-2.0 * std::log(random.uniform()));
        value = deviation * radius * std::cos(2.0 * 3.141592653589793 * random.uniform());
      }
      a.data()[i * a.stride(0) + j * a.stride(1)] = static_cast<float>(value);
    }
}

/**
 * A new adapter for one module: A by `rule`, B zero.
 * @throws shape_error when an extent is negative or too large; value_error when rank is 0; std::bad_alloc.
 */
[[nodiscard]] inline low_rank_arrays fresh_adapter(index_t out, index_t in, index_t rank, init_rule rule = init_rule::kaiming_uniform,
                                                   std::uint64_t seed = 0) {
  if (rank == 0) detail::raise<value_error>(detail::text() << "fresh_adapter: rank must be at least 1");
  low_rank_arrays fresh{uninit<float>(rank, in), zeros<float>(out, rank)};
  init_a(fresh.a, rule, seed);
  return fresh;
}

}  // namespace lora::inline v0

#endif
