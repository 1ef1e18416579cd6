// SPDX-License-Identifier: Apache-2.0
//
// lora: sum, max and argmax. Every task is a view of rank 3, with axes of length 1 in front where it has fewer.
#include "ops.hpp"

#include <lora/ops/argmax.hpp>

namespace bench {
namespace {

template <op What, class T>
void reduce(const task& t, const void* from, void* to) {
  lora::index_t shape[3] = {1, 1, 1};
  const std::size_t added = 3 - t.rank;
  for (std::size_t k = 0; k < t.rank; ++k) shape[added + k] = t.shape[k];
  const lora::ndview<const T, 3> v(static_cast<const T*>(from), {shape[0], shape[1], shape[2]});
  const auto run = [&](const auto& f, auto result) {
    using R = decltype(result);
    if (t.axis < 0) {
      *static_cast<R*>(to) = f(v);
      return;
    }
    const auto axis = static_cast<std::size_t>(t.axis) + added;
    const lora::ndview<R, 2> out(static_cast<R*>(to), {axis == 0 ? shape[1] : shape[0], axis == 2 ? shape[1] : shape[2]});
    f(v, lora::axes{static_cast<lora::index_t>(axis)}, out);
  };
  if constexpr (What == op::sum)
    run([](const auto&... a) { return lora::sum(a...); }, lora::detail::sum_type<T>{});
  else if constexpr (What == op::max)
    run([](const auto&... a) { return lora::max(a...); }, T{});
  else
    run([](const auto&... a) { return lora::argmax(a...); }, std::int64_t{});
}

template <op What>
void add(const task& t, peer_list& out) {
  if (t.what != What) return;
  const char* how = What == op::sum ? "sum(v, axes, out)" : What == op::max ? "max(v, axes, out)" : "argmax(v, axes, out)";
  out.push_back({"lora", how,
                 t.from_type == type::f32   ? reduce<What, float>
                 : t.from_type == type::f64 ? reduce<What, double>
                                            : reduce<What, std::int32_t>});
}

}  // namespace

void lora_reduce(const task& t, peer_list& out) {
  add<op::sum>(t, out);
  add<op::max>(t, out);
  add<op::argmax>(t, out);
}

}  // namespace bench
