// SPDX-License-Identifier: Apache-2.0
//
// apply: computes every element of a view from the elements at the same position of other views, in one pass and without a temporary.
// Layouts are free (any strides, either sign); shapes must be equal, because nothing broadcasts by itself: broadcast_to spells it out.
//
//   lora::apply(y, [](float a, float b) { return a + b; }, x, lora::broadcast_to(bias, x.shape()));
//   lora::apply(y, [](float a) { return a > 0 ? a : 0; }, y);                      // in place
#ifndef LORA_OPS_APPLY_HPP
#define LORA_OPS_APPLY_HPP

#include <lora/nd/array.hpp>
#include <lora/nd/loop.hpp>
#include <lora/nd/overlap.hpp>
#include <lora/simd/active.hpp>
#include <lora/simd/stream.hpp>

namespace lora::inline v0 {

namespace detail::inline LORA_ISA_TAG {

[[noreturn, gnu::cold, gnu::noinline]] inline void raise_apply_shape(const char* what, std::size_t input, const index_t* shape,
                                                                     const index_t* out_shape, std::size_t rank) {
  text t;
  t << what << ": input " << input << " is " << shape_text{shape, rank} << " but the output is " << shape_text{out_shape, rank};
  raise<shape_error>(t);
}

[[noreturn, gnu::cold, gnu::noinline]] inline void raise_overlap(const char* what, std::size_t input, const index_t* shape,
                                                                 const index_t* stride, const index_t* out_stride, std::size_t rank) {
  text t;
  t << what << ": input " << input << ", shape " << shape_text{shape, rank} << " and strides " << shape_text{stride, rank}
    << ", overlaps the output, strides " << shape_text{out_stride, rank} << ", without being the same view; clone() it first";
  raise<shape_error>(t);
}

[[noreturn, gnu::cold, gnu::noinline]] inline void raise_output_overlaps_itself(const char* what, const index_t* shape,
                                                                                const index_t* stride, std::size_t rank) {
  text t;
  t << what << ": elements of the output share addresses: shape " << shape_text{shape, rank} << ", strides " << shape_text{stride, rank};
  raise<shape_error>(t);
}

template <class Out, class In, std::size_t R>
void check_input(const char* what, std::size_t input, const ndview<Out, R>& out, const ndview<In, R>& in) {
  if (!(in.shape() == out.shape())) raise_apply_shape(what, input, in.shape().array().data(), out.shape().array().data(), R);
  if (!same_elements(out, in) && may_overlap(out, in))
    raise_overlap(what, input, in.shape().array().data(), in.stride().array().data(), out.stride().array().data(), R);
}

/** How far an operand moves in the inner loop: a step known at compile time, or any. */
enum class pace : unsigned char { one, zero, any };

template <pace Pace>
[[nodiscard]] LORA_ALWAYS_INLINE constexpr index_t moved(index_t i, [[maybe_unused]] index_t stride) noexcept {
  if constexpr (Pace == pace::one) {
    return i;
  } else if constexpr (Pace == pace::zero) {
    return 0;
  } else {
    return i * stride;
  }
}

/** The loop over one row, for one choice of paces; Count is the number of elements where that is known, or 0. */
template <pace OutPace, pace... InPaces>
struct apply_row {
  template <index_t Count, class F, std::size_t... I, class Out, class... In>
  LORA_ALWAYS_INLINE static void run(F& f, index_t length, const index_t* stride, std::index_sequence<I...>, Out* out, const In*... in) {
    // Copied: `out` may point to index_t too, and the compiler would read the strides again after each store.
    const index_t s[] = {stride[0], stride[I + 1]...};
    const index_t n = Count == 0 ? length : Count;
    // ivdep is true because the operands were checked: each is the output itself or apart from it.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC ivdep
#endif
    for (index_t i = 0; i < n; ++i) out[moved<OutPace>(i, s[0])] = static_cast<Out>(f(in[moved<InPaces>(i, s[I + 1])]...));
  }
};

template <class Row, index_t Count = 0, class F, std::size_t... I, class Out, class... In>
LORA_ALWAYS_INLINE void apply_rows(F& f, const loop_block<sizeof...(In) + 1>& b, std::index_sequence<I...> inputs, Out* out,
                                   const In*... in) {
  for (index_t r = 0; r < b.rows; ++r)
    Row::template run<Count>(f, b.count, b.stride, inputs, out + (b.offset[0] + r * b.row_stride[0]),
                             (in + (b.offset[I + 1] + r * b.row_stride[I + 1]))...);
}

// g++ -O2 vectorises only loops whose length is known to be a multiple of the vector's: its cost model, which a function can change. Measured
// with 2 * x, g++ 12 -O2, Xeon with AVX-512, against the same function without the attribute: rows of 30 floats 2.1 times as fast, rows of 4
// 1.5 times. (clang vectorises at -O2.)
#if defined(__GNUC__) && !defined(__clang__)
#define LORA_VECTORISED gnu::noinline, gnu::optimize("vect-cost-model=dynamic")
#else
#define LORA_VECTORISED gnu::noinline
#endif

/** Rows that are contiguous or stand still, at the vectors of the including file. */
template <class Row, class Isa = simd::isa_tag, class F, std::size_t... I, class Out, class... In>
[[LORA_VECTORISED]] void apply_rows_narrow(F& f, const loop_block<sizeof...(In) + 1>& b, std::index_sequence<I...> inputs, Out* out,
                                           const In*... in) {
  // Rows this short are the pixels and points of the world; a loop of unknown length takes 1.4 times as long for them.
  if (b.count == 2) return apply_rows<Row, 2>(f, b, inputs, out, in...);
  if (b.count == 3) return apply_rows<Row, 3>(f, b, inputs, out, in...);
  apply_rows<Row>(f, b, inputs, out, in...);
}

#if LORA_X86 && !defined(__AVX2__)
/**
 * The same for CPUs with AVX2, in a file compiled without it: a caller's f that has no target of its own can be inlined here, and then runs at
 * twice the width. Without FMA on purpose: a * b + c in f keeps its two roundings, and the result its bits.
 */
template <class Row, class Isa = simd::isa_tag, class F, std::size_t... I, class Out, class... In>
[[gnu::target("avx2"), LORA_VECTORISED]] void apply_rows_wide(F& f, const loop_block<sizeof...(In) + 1>& b,
                                                              std::index_sequence<I...> inputs, Out* out, const In*... in) {
  apply_rows<Row>(f, b, inputs, out, in...);
}
#endif
#undef LORA_VECTORISED

template <class Row, class Isa = simd::isa_tag, class F, std::size_t... I, class Out, class... In>
LORA_ALWAYS_INLINE void apply_unit_rows(F& f, const loop_block<sizeof...(In) + 1>& b, std::index_sequence<I...> inputs, Out* out,
                                        const In*... in) {
#if LORA_X86 && !defined(__AVX2__)
  // Wide stores that cross cache lines cost more than they save: only where rows begin at a multiple of their width.
  const auto start = reinterpret_cast<std::uintptr_t>(out + b.offset[0]) | static_cast<std::uintptr_t>(b.row_stride[0]) * sizeof(Out);
  if (start % 32 == 0 && b.count * static_cast<index_t>(sizeof(Out)) >= 32 && simd::active_tier() >= simd::tier::avx2)
    return apply_rows_wide<Row>(f, b, inputs, out, in...);
#endif
  apply_rows_narrow<Row>(f, b, inputs, out, in...);
}

template <pace Pace, std::size_t>
inline constexpr pace repeated = Pace;

/** Picks the loop for the layouts that are worth one of their own: all contiguous, or one of at most two inputs standing still. */
template <class F, std::size_t... I, class Out, class... In>
void apply_block(F& f, const loop_block<sizeof...(In) + 1>& b, std::index_sequence<I...> inputs, Out* out, const In*... in) {
  const index_t* const s = b.stride;
  if (s[0] == 1) {
    if (((s[I + 1] == 1) && ...)) return apply_unit_rows<apply_row<pace::one, repeated<pace::one, I>...>>(f, b, inputs, out, in...);
    if constexpr (sizeof...(In) == 1) {
      if (s[1] == 0) return apply_rows<apply_row<pace::one, pace::zero>>(f, b, inputs, out, in...);
    }
    if constexpr (sizeof...(In) == 2) {
      if (s[1] == 1 && s[2] == 0) return apply_unit_rows<apply_row<pace::one, pace::one, pace::zero>>(f, b, inputs, out, in...);
      if (s[1] == 0 && s[2] == 1) return apply_unit_rows<apply_row<pace::one, pace::zero, pace::one>>(f, b, inputs, out, in...);
    }
  }
  apply_rows<apply_row<pace::any, repeated<pace::any, I>...>>(f, b, inputs, out, in...);
}

/** One long row, contiguous in all operands; `aside` when no input is the output. */
template <class F, std::size_t... I, class Out, class... In>
void apply_flat(F& f, index_t length, [[maybe_unused]] bool aside, std::index_sequence<I...> inputs, Out* out, const In*... in) {
  using row = apply_row<pace::one, repeated<pace::one, I>...>;
  loop_block<sizeof...(In) + 1> b{};
  b.rows = 1;
  b.stride[0] = 1;
  ((b.stride[I + 1] = 1), ...);
  index_t done = 0;
  const auto run = [&](index_t n, Out* to) {
    b.count = n;
    apply_unit_rows<row>(f, b, inputs, to, (in + done)...);
    done += n;
  };
  if constexpr (sizeof(Out) <= 8 && 64 % sizeof(Out) == 0) {
    constexpr auto width = static_cast<index_t>(sizeof(Out));
    const auto past = static_cast<index_t>(reinterpret_cast<std::uintptr_t>(out) % 64);
    if (length * width >= 1024 && past % width == 0) {
      if (past != 0) run((64 - past) / width, out);  // up to a whole cache line
      if constexpr (std::is_trivially_copyable_v<Out> && std::is_trivially_default_constructible_v<Out>) {
        if (aside && static_cast<std::size_t>(length * width) >= simd::stream_from) {
          // Into a block that stays in L1, and from there past the caches.
          constexpr index_t size = 4096 / width;
          alignas(64) Out block[size];
          while (length - done >= size) {
            Out* const to = out + done;
            run(size, block);
            simd::stream(to, block, sizeof block);
          }
          simd::stream_end();
        }
      }
    }
  }
  if (length != done) run(length - done, out + done);
}

/** For an input contiguous like the output: whether it is the output or lies apart from it, told from the addresses alone. */
template <class Out, class In>
[[nodiscard]] bool same_or_apart(const Out* out, const In* in, index_t length) noexcept {
  const auto a = reinterpret_cast<std::uintptr_t>(out);
  const auto b = reinterpret_cast<std::uintptr_t>(in);
  const auto n = static_cast<std::uintptr_t>(length);
  return (a == b && std::is_same_v<Out, In>) || a + n * sizeof(Out) <= b || b + n * sizeof(In) <= a;
}

/** Checks, plans and runs; `what` is the operation's name in messages. */
template <class F, class Out, std::size_t R, class... In>
void apply_views(const char* what, F& f, const ndview<Out, R>& out, const ndview<In, R>&... in) {
  // The common case first, without a plan: some nanoseconds for a few elements.
  if (out.is_contiguous() && ((in.shape() == out.shape() && in.is_contiguous()) && ...)) {
    const index_t length = out.size();
    if ((same_or_apart<Out, std::remove_const_t<In>>(out.data(), in.data(), length) && ...)) {
      const bool aside = ((static_cast<const void*>(in.data()) != static_cast<const void*>(out.data())) && ...);
      return apply_flat(f, length, aside, std::index_sequence_for<In...>{}, out.data(), static_cast<const In*>(in.data())...);
    }
  }
  if (may_overlap_itself(out)) raise_output_overlaps_itself(what, out.shape().array().data(), out.stride().array().data(), R);
  [[maybe_unused]] std::size_t input = 0;
  (check_input(what, input++, out, in), ...);
  const loop_plan<sizeof...(In) + 1> plan(out.shape(), out.stride(), in.stride()...);
  plan.for_each_block([&](const loop_block<sizeof...(In) + 1>& b) {
    apply_block(f, b, std::index_sequence_for<In...>{}, out.data(), static_cast<const In*>(in.data())...);
  });
}

template <class View>
using element_of = typename View::element_type;
template <class View>
using value_of = typename View::value_type;

}  // namespace detail::inline LORA_ISA_TAG

inline namespace LORA_ISA_TAG {

/**
 * out[i...] = f(in[i...]...) for every position.
 *
 * @param out  view or ndarray, written; no two of its elements may share an address
 * @param f    called once for each position with one element of each input, in no particular order; its result is converted to the
 *             output's type. It must not touch the operands in another way, nor depend on the order of the calls.
 * @param in   any number of views or ndarrays of out's shape; element types may differ. Each is either the very same elements as out (in
 *             place) or shares no byte with it.
 * @throws shape_error naming both shapes when they differ, or when an input overlaps the output in part, or the output itself; nothing is
 *         written then. What f throws passes through, and leaves the output written in part.
 * @par Cost      One pass; no allocation. Rows that are contiguous in all operands run as one plain loop, which compilers vectorise.
 * @par Threads   Safe beside any call that writes other elements and no input of this one.
 */
template <detail::named_array_or_view Out, class F, detail::viewable... In>
void apply(Out&& out, F&& f, const In&... in) {
  using to = decltype(detail::as_view(out));
  using T = detail::value_of<to>;
  static_assert(!std::is_const_v<detail::element_of<to>>, "lora: apply writes to a read-only view (const elements, or a broadcast)");
  static_assert(((decltype(detail::as_view(in))::rank() == to::rank()) && ...),
                "lora: apply takes views of one rank; broadcast_to gives an input the output's shape");
  static_assert(std::is_invocable_v<F&, const detail::value_of<decltype(detail::as_view(in))>&...>,
                "lora: apply calls f with one element of each input, in order");
  using result = std::invoke_result_t<F&, const detail::value_of<decltype(detail::as_view(in))>&...>;
  static_assert(std::is_constructible_v<T, result>, "lora: what f returns does not convert to the output's element type");
  static_assert(!(std::is_integral_v<T> && std::is_floating_point_v<result>),
                "lora: f returns a floating point number for an integer output; round it in f, or use cast");
  detail::apply_views("apply", f, detail::as_view(out), detail::as_view(in)...);
}

}  // namespace LORA_ISA_TAG
}  // namespace lora::inline v0

#endif
