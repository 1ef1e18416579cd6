// SPDX-License-Identifier: Apache-2.0
//
// lora: the transposing copy, conversions, and the vector math of models.
#include "ops.hpp"

#include <lora/ops/activation.hpp>
#include <lora/ops/cast.hpp>
#include <lora/ops/copy.hpp>
#include <lora/ops/normalize.hpp>
#include <lora/ops/softmax.hpp>

namespace bench {
namespace {

using lora::ndview;

ndview<const float, 2> input(const task& t, const void* p) { return {static_cast<const float*>(p), {t.shape[0], t.shape[1]}}; }
ndview<float, 2> output(const task& t, void* p) { return {static_cast<float*>(p), {t.shape[0], t.shape[1]}}; }

void transpose(const task& t, const void* from, void* to) {
  lora::copy(input(t, from).transpose(), ndview<float, 2>(static_cast<float*>(to), {t.shape[1], t.shape[0]}));
}

template <class From, class To>
void convert(const task& t, const void* from, void* to) {
  lora::cast(ndview<const From, 1>(static_cast<const From*>(from), {t.shape[0]}), ndview<To, 1>(static_cast<To*>(to), {t.shape[0]}));
}

void softmax(const task& t, const void* from, void* to) { lora::softmax(input(t, from), output(t, to), -1); }
void gelu(const task& t, const void* from, void* to) { lora::gelu(input(t, from), output(t, to)); }
void layer_norm(const task& t, const void* from, void* to) {
  const ndview<const float, 1> w(weights(), {t.shape[1]});
  const ndview<const float, 1> b(biases(), {t.shape[1]});
  lora::layer_norm(input(t, from), w, b, epsilon, output(t, to));
}

}  // namespace

void lora_math(const task& t, peer_list& out) {
  if (t.what == op::transpose) out.push_back({"lora", "copy(v.transpose(), out)", transpose});
  if (t.what == op::convert)
    out.push_back({"lora", "cast",
                   t.from_type == type::f16    ? convert<lora::float16, float>
                   : t.from_type == type::bf16 ? convert<lora::bfloat16, float>
                   : t.to_type == type::f16    ? convert<float, lora::float16>
                                               : convert<float, lora::bfloat16>});
  if (t.what == op::softmax) out.push_back({"lora", "softmax(x, y, -1)", softmax});
  if (t.what == op::gelu) out.push_back({"lora", "gelu (exact, with erf)", gelu});
  if (t.what == op::layer_norm) out.push_back({"lora", "layer_norm", layer_norm});
}

}  // namespace bench
