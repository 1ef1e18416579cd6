// SPDX-License-Identifier: Apache-2.0
//
// linear: the LoRA module. A frozen weight and bias, and a forward that adds the terms it is given: y = W x + b + sum s_i B_i (A_i x).
// The weight is never written; which adapters apply is an argument of each call, so that requests with different adapters share it.
//
//   lora::linear fc1{table["fc1.weight"].as<const float, 2>(), table["fc1.bias"].as<const float, 1>()};
//   fc1.forward(hidden, x, pinned->set[0], scratch);
#ifndef LORA_ADAPTER_LINEAR_HPP
#define LORA_ADAPTER_LINEAR_HPP

#include <lora/adapter/adapter_set.hpp>

namespace lora::inline v0 {

/** A frozen linear module whose weight has elements of W: float (lora::linear), bfloat16 or float16. */
template <float_element W>
class basic_linear {
 public:
  using weight_type = W;

  basic_linear() noexcept = default;

  /** weight [out, in], bias [out] or {} for none. @throws shape_error when they disagree. The views must outlive the module. */
  explicit basic_linear(ndview<const W, 2> weight, float_view<1> bias = {}) : weight_(weight), bias_(bias) {
    if (bias.data() != nullptr && bias.extent(0) != weight.extent(0))
      detail::raise<shape_error>(detail::text()
                                 << "linear: bias is " << detail::shape_of(bias) << " but weight is " << detail::shape_of(weight));
  }

  [[nodiscard]] const ndview<const W, 2>& weight() const noexcept { return weight_; }
  [[nodiscard]] const float_view<1>& bias() const noexcept { return bias_; }
  [[nodiscard]] index_t out() const noexcept { return weight_.extent(0); }
  [[nodiscard]] index_t in() const noexcept { return weight_.extent(1); }

  // The class is one type for the whole program, the kernels belong to one set of -m flags: hence the first template argument.
  /** y [n, out] = x [n, in] through the module and what an adapter_set says of it, or a list of terms. Errors, cost, accuracy, bits and threads as lora::forward. */
  template <class Isa = simd::isa_tag, int Checks = LORA_CHECKS, class Y, class X>
  void forward(Y&& y, const X& x, const low_rank_update& update, workspace& scratch, const forward_options& options = {}) const {
    lora::forward<Checks>(y, x, weight_, update, bias_, scratch, options);
  }
  template <class Isa = simd::isa_tag, int Checks = LORA_CHECKS, class Y, class X, executor E>
  void forward(Y&& y, const X& x, const low_rank_update& update, workspace& scratch, E& ex, const forward_options& options = {}) const {
    lora::forward<Checks>(y, x, weight_, update, bias_, scratch, ex, options);
  }

 private:
  ndview<const W, 2> weight_;
  float_view<1> bias_;
};

using linear = basic_linear<float>;

}  // namespace lora::inline v0

#endif
