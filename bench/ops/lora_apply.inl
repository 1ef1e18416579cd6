// SPDX-License-Identifier: Apache-2.0
//
// 2 * src into dst by lora::apply, for lora_apply.cpp (the preset's optimisation) and o2/lora_apply.cpp (-O2).
#include "ops.hpp"

#include <lora/ops/apply.hpp>

namespace {

template <std::size_t R>
void scale(const bench::task& t, const void* from, void* to) {
  std::array<lora::index_t, R> shape{};
  std::array<lora::index_t, R> from_stride{};
  std::array<lora::index_t, R> to_stride{};
  for (std::size_t k = 0; k < R; ++k) {
    shape[k] = t.shape[k];
    from_stride[k] = t.from_stride[k];
    to_stride[k] = t.to_stride[k];
  }
  const lora::ndview<const float, R> x(static_cast<const float*>(from), lora::extents<R>(shape), lora::strides<R>(from_stride));
  const lora::ndview<float, R> y(static_cast<float*>(to), lora::extents<R>(shape), lora::strides<R>(to_stride));
  lora::apply(
      y, [](float v) { return 2 * v; }, x);
}

}  // namespace
