// SPDX-License-Identifier: Apache-2.0
//
// The pair (A, B) of a module as files hold it, a convolution's included: A [rank, channels, height, width] and B [out, rank, 1, 1] are, as
// they lie, the matrices [rank, channels x height x width] and [out, rank] of the same product over patches. And the way back, for writers.
// PEFT (lora.Conv2d), kohya and diffusers agree on these shapes. Not API.
#ifndef LORA_IO_DETAIL_CONV_FACTORS_HPP
#define LORA_IO_DETAIL_CONV_FACTORS_HPP

#include <lora/io/detail/factors.hpp>
#include <lora/io/safetensors.hpp>

namespace lora::inline v0::detail {

/** Matrices, with what a convolution's were. */
struct factor_pair {
  any_view a;
  any_view b;
  module_kind kind = module_kind::linear;
  index_t kernel[2] = {1, 1};

  [[nodiscard]] adapted_module module(std::string name, float scale) const {
    adapted_module m{std::move(name), {a, b, scale}, kind};
    m.kernel[0] = kernel[0];
    m.kernel[1] = kernel[1];
    return m;
  }
};

/** Axes of a Conv1d's, a Conv2d's and a Conv3d's A. */
[[nodiscard]] constexpr bool is_convolution(std::size_t axes) noexcept { return axes == 3 || axes == 4 || axes == 5; }

/** All axes but the first as one; of a file's tensors, which lie in C order. */
[[nodiscard]] inline any_view as_matrix(const any_view& v) {
  if (v.rank() != 4 || !v.is_contiguous()) return v;
  const index_t shape[2] = {v.extent(0), v.extent(1) * v.extent(2) * v.extent(3)};
  return any_view(v.data(), v.type(), shape, 2);
}

/** A and B of one module, matrices or a convolution's, as matrices of one rank that is not 0. */
[[nodiscard]] inline factor_pair checked_pair(std::string_view file, file_tensor a, file_tensor b) {
  for (const file_tensor* t : {&a, &b})
    if (t->view.rank() == 3 || t->view.rank() == 5)
      refuse_tensor(file, *t,
                    text() << "shape " << shape_text{t->view.shape(), t->view.rank()}
                           << " is that of a Conv1d or Conv3d; of convolutions only Conv2d is supported");
  factor_pair pair;
  if (b.view.rank() == 4 && (b.view.extent(2) != 1 || b.view.extent(3) != 1))
    refuse_tensor(file, b, text() << "shape " << shape_text{b.view.shape(), 4} << " is not [out, rank, 1, 1]");
  if (a.view.rank() == 4) {
    if (b.view.rank() == 4 && b.view.extent(1) > 0 && a.view.extent(0) > b.view.extent(1) && a.view.extent(0) % b.view.extent(1) == 0)
      refuse_tensor(file, a,
                    text() << "shape " << shape_text{a.view.shape(), 4} << " has " << a.view.extent(0) / b.view.extent(1)
                           << " times the rank of " << quote(b.name) << " " << shape_text{b.view.shape(), 4}
                           << ", as for a convolution in groups, which is not supported");
    if (a.view.extent(2) == 0 || a.view.extent(3) == 0)
      refuse_tensor(file, a, text() << "shape " << shape_text{a.view.shape(), 4} << " has a kernel without elements");
    pair.kind = module_kind::conv2d;
    pair.kernel[0] = a.view.extent(2);
    pair.kernel[1] = a.view.extent(3);
  }
  a.view = as_matrix(a.view);
  b.view = as_matrix(b.view);
  (void)checked_rank(file, a, b);
  pair.a = a.view;
  pair.b = b.view;
  return pair;
}

/** DoRA's magnitude [1, out, 1, 1] of a convolution as [out]; empty when the file has none. */
[[nodiscard]] inline any_view conv_magnitude(const io::safetensors& file, const std::string& name, index_t out) {
  const io::safetensors::tensor* const t = file.find(name);
  if (t == nullptr) return {};
  const file_tensor magnitude{t->name(), t->view(), t->offset()};
  if (t->type() != dtype::f32 && t->type() != dtype::f16 && t->type() != dtype::bf16)
    refuse_tensor(file.path(), magnitude, text() << "dtype " << name_of(t->type()) << " is not one of f32, f16 and bf16");
  const index_t* const s = t->shape();
  if (t->rank() != 4 || s[0] != 1 || s[1] != out || s[2] != 1 || s[3] != 1 || out == 0)
    refuse_tensor(file.path(), magnitude,
                  text() << "shape " << shape_text{s, t->rank()} << " is not [1, " << out << ", 1, 1], the outputs of its lora_B");
  return any_view(magnitude.view.data(), magnitude.view.type(), &out, 1);
}

/** A as a file holds it: of a convolution with its four axes, any strides. */
[[nodiscard]] inline any_view file_a(const adapted_module& m) {
  const any_view& a = m.weights.a;
  if (m.kind != module_kind::conv2d) return a;
  const index_t height = m.kernel[0];
  const index_t width = m.kernel[1];
  index_t pixels = 0;
  if (height < 1 || width < 1 || !checked_mul(height, width, pixels) || a.extent(1) % pixels != 0)
    raise<value_error>(text() << "module " << quote(m.name) << ": A " << shape_text{a.shape(), 2} << " is not that of a kernel of "
                              << shape_text{m.kernel, 2});
  const index_t shape[4] = {a.extent(0), a.extent(1) / pixels, height, width};
  const index_t strides[4] = {a.stride(0), a.stride(1) * pixels, a.stride(1) * width, a.stride(1)};
  return any_view(a.data(), a.type(), shape, 4, strides);
}

/** B likewise: [out, rank, 1, 1]. */
[[nodiscard]] inline any_view file_b(const adapted_module& m) {
  const any_view& b = m.weights.b;
  if (m.kind != module_kind::conv2d) return b;
  const index_t shape[4] = {b.extent(0), b.extent(1), 1, 1};
  const index_t strides[4] = {b.stride(0), b.stride(1), 1, 1};
  return any_view(b.data(), b.type(), shape, 4, strides);
}

/** DoRA's magnitude likewise: [1, out, 1, 1]. */
[[nodiscard]] inline any_view file_magnitude(const adapted_module& m) {
  const any_view& v = m.weights.magnitude;
  if (m.kind != module_kind::conv2d || v.size() == 0) return v;
  const index_t shape[4] = {1, v.extent(0), 1, 1};
  const index_t strides[4] = {1, v.stride(0), 1, 1};
  return any_view(v.data(), v.type(), shape, 4, strides);
}

}  // namespace lora::inline v0::detail

#endif
