// SPDX-License-Identifier: Apache-2.0
//
// softmax and log_softmax along one axis of a view.
//
//   lora::softmax(scores, scores, -1);                         // from, to, axis: in place
//   lora::log_softmax(logits_bf16, log_probabilities_f32, 1);
//
// The largest element of a line is subtracted first, so that nothing overflows. As in PyTorch: -infinity counts as e^-infinity = 0 (a masked
// position); a line with nothing but -infinity, with +infinity or with NaN becomes NaN as a whole.
#ifndef LORA_OPS_SOFTMAX_HPP
#define LORA_OPS_SOFTMAX_HPP

#include <lora/ops/apply.hpp>
#include <lora/ops/rows.hpp>
#include <lora/simd/isa.hpp>

namespace lora::inline v0 {

namespace detail::inline LORA_ISA_TAG {

[[noreturn, gnu::cold, gnu::noinline]] inline void raise_softmax_axis(const char* what, index_t axis, const index_t* shape,
                                                                      std::size_t rank) {
  text t;
  t << what << ": axis " << axis << " is out of bounds for shape " << shape_text{shape, rank};
  raise<index_error>(t);
}

/** One line of n elements. Log: the logarithm of the result. */
template <bool Log, class F, class T>
void softmax_line(const F* from, index_t from_step, T* to, index_t to_step, index_t n) noexcept {
  using C = computed_in<T>;
  const auto k = rows_of<C>();
  C in[block_size];
  C out[block_size];
  const auto blocks = [&](auto one) {
    for (index_t i = 0; i < n; i += block_size) {
      const index_t length = n - i < block_size ? n - i : block_size;
      one(take(from + i * from_step, from_step, length, in), to + i * to_step, length);
    }
  };
  C most = -static_cast<C>(__builtin_inf());
  blocks([&](const C* x, T*, index_t length) {
    const C m = k.max(x, length);
    most = m > most ? m : most;
  });
  // Where the output can hold the terms, they are kept there; otherwise they are computed again.
  const bool kept = !Log && std::is_same_v<C, T> && to_step == 1;
  double sum = 0;
  blocks([&](const C* x, T* t, index_t length) {
    sum += static_cast<double>(k.exp_sum(x, kept ? place(t, to_step, out) : nullptr, length, most));
  });
  const auto total = static_cast<C>(Log ? __builtin_log(sum) : sum);
  if (kept) {
    C* const y = place(to, to_step, out);
    k.divide(y, y, &total, true, n);
    return;
  }
  blocks([&](const C* x, T* t, index_t length) {
    C* const y = place(t, to_step, out);
    if constexpr (Log) {
      k.normalize(x, y, length, most, total, 1, nullptr, nullptr);
    } else {
      (void)k.exp_sum(x, y, length, most);
      k.divide(y, y, &total, true, length);
    }
    put(y, t, to_step, length);
  });
}

/** `columns` <= block_size / 4 lines of n elements, side by side. */
template <bool Log, class F, class T>
void softmax_columns(const F* from, index_t from_step, T* to, index_t to_step, index_t n, index_t columns) noexcept {
  constexpr index_t most_columns = block_size / 4;
  const auto& k = simd::rows<>();
  float in[most_columns];
  float out[most_columns];
  float most[most_columns];
  float sum[most_columns];
  double total[most_columns];
  for (index_t c = 0; c < columns; ++c) {
    most[c] = -__builtin_inff();
    sum[c] = 0;
    total[c] = 0;
  }
  for (index_t i = 0; i < n; ++i) k.columns_max(take(from + i * from_step, 1, columns, in), most, columns);
  const bool kept = !Log && std::is_same_v<float, T>;
  for (index_t i = 0; i < n; ++i) {
    k.columns_exp_sum(take(from + i * from_step, 1, columns, in), kept ? place(to + i * to_step, 1, out) : nullptr, most, sum, columns);
    if (i % 64 != 63 && i + 1 != n) continue;
    for (index_t c = 0; c < columns; ++c) {
      total[c] += static_cast<double>(sum[c]);
      sum[c] = 0;
    }
  }
  for (index_t c = 0; c < columns; ++c) sum[c] = static_cast<float>(Log ? __builtin_log(total[c]) : total[c]);
  float unused[most_columns];
  for (index_t i = 0; i < n; ++i) {
    T* const t = to + i * to_step;
    float* const y = place(t, 1, out);
    if constexpr (Log) {
      const float* const x = take(from + i * from_step, 1, columns, in);
      for (index_t c = 0; c < columns; ++c) y[c] = (x[c] - most[c]) - sum[c];
    } else {
      if (!kept) {
        for (index_t c = 0; c < columns; ++c) unused[c] = 0;
        k.columns_exp_sum(take(from + i * from_step, 1, columns, in), y, most, unused, columns);
      }
      k.divide(y, y, sum, false, columns);
    }
    put(y, t, 1, columns);
  }
}

template <bool Log, class From, class To>
void softmax_views(const char* what, const From& from, To&& to, index_t axis) {
  const auto f = as_view(from);
  const auto t = as_view(to);
  using source = std::remove_const_t<decltype(f)>;
  using target = std::remove_const_t<decltype(t)>;
  using F = typename source::value_type;
  using T = typename target::value_type;
  constexpr std::size_t rank = target::rank();
  static_assert(is_math_element<F> && is_math_element<T>,
                "lora: softmax takes float, double, float16 and bfloat16; cast other elements first");
  static_assert(std::is_same_v<F, double> == std::is_same_v<T, double>, "lora: softmax does not mix double with smaller types; cast first");
  static_assert(!std::is_const_v<typename target::element_type>,
                "lora: softmax writes to a read-only view (const elements, or a broadcast)");
  static_assert(source::rank() == rank && rank != 0, "lora: softmax takes two views of one rank, with at least one axis");
  if (axis < -static_cast<index_t>(rank) || axis >= static_cast<index_t>(rank))
    raise_softmax_axis(what, axis, t.shape().array().data(), rank);
  if (may_overlap_itself(t)) raise_output_overlaps_itself(what, t.shape().array().data(), t.stride().array().data(), rank);
  check_input(what, 0, t, f);
  if (t.empty()) return;
  const auto along = static_cast<std::size_t>(axis < 0 ? axis + static_cast<index_t>(rank) : axis);
  const index_t n = t.extent(along);
  const index_t from_step = f.stride(along);
  const index_t to_step = t.stride(along);
  auto lines = t.shape().array();  // where lines begin: the axis itself is walked inside
  lines[along] = 1;
  const loop_plan<2> plan(extents<rank>(lines), t.stride(), f.stride());
  plan.for_each_block([&](const loop_block<2>& b) {
    const bool side_by_side = b.stride[0] == 1 && b.stride[1] == 1 && b.count >= 4 && from_step != 1 && to_step != 1;
    for (index_t r = 0; r < b.rows; ++r) {
      const F* const x = f.data() + b.offset[1] + r * b.row_stride[1];
      T* const y = t.data() + b.offset[0] + r * b.row_stride[0];
      if constexpr (!std::is_same_v<T, double>) {
        if (side_by_side) {
          constexpr index_t step = block_size / 4;
          for (index_t c = 0; c < b.count; c += step)
            softmax_columns<Log>(x + c, from_step, y + c, to_step, n, b.count - c < step ? b.count - c : step);
          continue;
        }
      }
      for (index_t c = 0; c < b.count; ++c) softmax_line<Log>(x + c * b.stride[1], from_step, y + c * b.stride[0], to_step, n);
    }
  });
}

}  // namespace detail::inline LORA_ISA_TAG

inline namespace LORA_ISA_TAG {

/**
 * to = e^(from - m) / sum of e^(from - m) along `axis`, m the largest element there.
 *
 * @param from  view or ndarray of any layout: float, double, float16, bfloat16
 * @param to    view or ndarray of the same shape: the very same elements (in place) or no byte shared. Its type may differ among float,
 *              float16 and bfloat16.
 * @param axis  negative values length from the end
 * @throws index_error when there is no such axis; shape_error naming both shapes when they differ or the views overlap in part. Nothing is
 *         written then.
 * @par Cost      Three passes over a line, exp computed once for float outputs and twice for others; no allocation.
 * @par Accuracy  Computed in float (doubles in double), rounded once. For float, u = 2^-24: |y - exact| <= (h + 10 + |from - m|) u exact +
 *                2^-149, where exp costs 2 u above and below, the difference from - m costs u |from - m| above and at most u below, and h is the
 *                number of roundings in a block's sum: 1024 / lanes + log2(lanes) (68 on AVX-512, 258 on the generic tier) along a contiguous
 *                line, 64 across lines that lie side by side. Blocks are added in double: h does not grow with the line.
 * @par Threads   Safe beside any call that writes other elements and not `from`.
 */
template <detail::viewable From, detail::named_array_or_view To>
void softmax(const From& from, To&& to, index_t axis) {
  detail::softmax_views<false>("softmax", from, to, axis);
}

/** to = from - m - log(sum of e^(from - m)) along `axis`. Otherwise as softmax. */
template <detail::viewable From, detail::named_array_or_view To>
void log_softmax(const From& from, To&& to, index_t axis) {
  detail::softmax_views<true>("log_softmax", from, to, axis);
}

}  // namespace LORA_ISA_TAG
}  // namespace lora::inline v0

#endif
