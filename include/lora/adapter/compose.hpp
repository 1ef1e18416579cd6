// SPDX-License-Identifier: Apache-2.0
//
// composed: several adapters with weights as one adapter, exactly their sum: A's on top of each other, B's beside each other, ranks added.
// Nothing is approximated, so the rank grows; what combines factors at equal rank (and brings cross terms) is something else.
//
//   lora::adapter both = lora::composed({{{&style, 1.0f}, {&facts, 0.5f}}});
//   lora::io::save_peft("both", both);
#ifndef LORA_ADAPTER_COMPOSE_HPP
#define LORA_ADAPTER_COMPOSE_HPP

#include <lora/adapter/adapter.hpp>
#include <lora/core/bytes.hpp>
#include <lora/core/checked.hpp>
#include <lora/core/error.hpp>

#include <algorithm>
#include <cmath>
#include <string_view>

namespace lora::inline v0 {

/** One summand; the adapter must live until composed() returns. */
struct composed_part {
  const adapter* source = nullptr;
  float weight = 1.0f;
};

namespace detail {

/** What one part gives to one module. */
struct composed_piece {
  const adapter* source;
  const low_rank* weights;
  float factor;  // scale times weight, rounded as adapter_set does
};

struct composed_module {
  std::string_view name;
  std::vector<composed_piece> pieces;
  const adapted_module* first = nullptr;  // whose kind and kernel all others have
};

/** The memory of the new factors, and what keeps the views alive that were taken over. */
struct composed_memory {
  std::vector<aligned_bytes> blocks;
  std::vector<std::shared_ptr<const void>> owners;
};

[[nodiscard]] inline text about_composed(const adapter& source, std::string_view module) {
  return text() << "composed: adapter " << quote(source.source) << ", module " << quote(module) << ": ";
}

/** What a module has that no sum of pairs can say; null when there is none. */
[[nodiscard]] inline const char* not_composable(const low_rank& w) noexcept {
  return w.magnitude.size() != 0      ? "a magnitude of DoRA"
         : w.weight.size() != 0       ? "a replaced weight"
         : w.trained_bias.size() != 0 ? "a trained bias"
         : w.rows.size() != 0         ? "trained rows"
                                      : nullptr;
}

inline void check_composed(const adapter& source, const adapted_module& m, const composed_module& into) {
  const any_view& a = m.weights.a;
  const any_view& b = m.weights.b;
  for (const any_view* v : {&a, &b}) {
    if (v->type() != dtype::f32 && v->type() != dtype::f16 && v->type() != dtype::bf16)
      raise<dtype_error>(about_composed(source, m.name)
                         << (v == &a ? "A" : "B") << " has dtype " << name_of(v->type()) << ", not f32, f16 or bf16");
    if (v->rank() != 2)
      raise<shape_error>(about_composed(source, m.name)
                         << (v == &a ? "A" : "B") << " has shape " << shape_text{v->shape(), v->rank()} << ", not two axes");
  }
  const any_view& bias = m.weights.bias;
  if (bias.size() != 0 && bias.type() != dtype::f32 && bias.type() != dtype::f16 && bias.type() != dtype::bf16)
    raise<dtype_error>(about_composed(source, m.name) << "the bias of B has dtype " << name_of(bias.type()) << ", not f32, f16 or bf16");
  if (bias.size() != 0 && (bias.rank() != 1 || bias.extent(0) != b.extent(0)))
    raise<shape_error>(about_composed(source, m.name)
                       << "the bias of B " << shape_text{bias.shape(), bias.rank()} << " does not fit B " << shape_text{b.shape(), 2});
  if (a.extent(0) != b.extent(1))
    raise<shape_error>(about_composed(source, m.name)
                       << "A " << shape_text{a.shape(), 2} << " and B " << shape_text{b.shape(), 2} << " have different ranks");
  if (into.pieces.empty()) return;
  const composed_piece& first = into.pieces.front();
  if (into.first->kind != m.kind)
    raise<value_error>(about_composed(source, m.name) << "is another kind of module than in " << quote(first.source->source));
  if (first.source == &source && first.weights != &m.weights) raise<value_error>(about_composed(source, m.name) << "is adapted twice");
  if (first.weights->a.extent(1) != a.extent(1) || first.weights->b.extent(0) != b.extent(0))
    raise<shape_error>(about_composed(source, m.name) << "A " << shape_text{a.shape(), 2} << " and B " << shape_text{b.shape(), 2}
                                                      << " do not fit A " << shape_text{first.weights->a.shape(), 2} << " and B "
                                                      << shape_text{first.weights->b.shape(), 2} << " of " << quote(first.source->source));
  if (m.kernel[0] != into.first->kernel[0] || m.kernel[1] != into.first->kernel[1])
    raise<shape_error>(about_composed(source, m.name) << "its kernel is " << shape_text{m.kernel, 2} << " but that of "
                                                      << quote(first.source->source) << " is " << shape_text{into.first->kernel, 2});
}

/** `from` times `ratio`, each element rounded once, into rows `stride` apart. */
template <class To>
void append_factor(const any_view& from, double ratio, To* to, index_t stride) {
  dispatch<2, float, float16, bfloat16>(from, [&](auto v) {
    for (index_t i = 0; i < v.extent(0); ++i)
      for (index_t j = 0; j < v.extent(1); ++j) {
        if constexpr (std::is_same_v<To, float>)
          to[i * stride + j] = static_cast<float>(ratio * static_cast<double>(static_cast<float>(v(i, j))));
        else if constexpr (std::is_same_v<std::remove_cvref_t<decltype(v(i, j))>, To>)
          to[i * stride + j] = v(i, j);
      }
  });
}

/** All A's on top of each other (beside = false), or all B's beside each other. */
[[nodiscard]] inline any_view concatenated(const std::vector<composed_piece>& pieces, const std::vector<double>& ratios, bool beside,
                                           composed_memory& memory) {
  const auto factor = [&](const composed_piece& p) -> const any_view& { return beside ? p.weights->b : p.weights->a; };
  const any_view& first = factor(pieces.front());
  index_t shape[2] = {first.extent(0), first.extent(1)};
  shape[beside ? 1 : 0] = 0;
  bool same = true;  // every element is taken as it is
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    const any_view& v = factor(pieces[i]);
    if (!checked_add(shape[beside ? 1 : 0], v.extent(beside ? 1 : 0), shape[beside ? 1 : 0]))
      raise<shape_error>(text() << "composed: the ranks do not fit an index");
    same = same && v.type() == first.type() && (!beside || ratios[i] == 1);
  }
  if (pieces.size() == 1 && same) return first;
  const dtype type = same ? first.type() : dtype::f32;
  if (!addressable(shape, 2, size_of(type)))
    raise<shape_error>(text() << "composed: a factor of " << shape_text{shape, 2} << " does not fit the address space");
  memory.blocks.emplace_back(static_cast<std::size_t>(shape[0]) * static_cast<std::size_t>(shape[1]) * size_of(type));
  void* const data = memory.blocks.back().data();
  index_t at = 0;
  const auto copy_into = [&](auto* to) {
    for (std::size_t i = 0; i < pieces.size(); ++i) {
      const any_view& v = factor(pieces[i]);
      append_factor(v, beside ? ratios[i] : 1.0, to + (beside ? at : at * shape[1]), shape[1]);
      at += v.extent(beside ? 1 : 0);
    }
  };
  if (type == dtype::f32)
    copy_into(static_cast<float*>(data));
  else if (type == dtype::f16)
    copy_into(static_cast<float16*>(data));
  else
    copy_into(static_cast<bfloat16*>(data));
  return any_view(data, type, shape, 2);
}

/** The bias of the sum, with the scale that all ranks share taken out: sum of ratio_i b_i, rounded once. Empty when no part has one. */
[[nodiscard]] inline any_view summed_bias(const std::vector<composed_piece>& pieces, const std::vector<double>& ratios,
                                          composed_memory& memory) {
  if (pieces.size() == 1) return pieces.front().weights->bias;
  const index_t out = pieces.front().weights->b.extent(0);
  std::vector<double> sum;
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    const any_view& bias = pieces[i].weights->bias;
    if (bias.size() == 0) continue;
    sum.resize(static_cast<std::size_t>(out));
    dispatch<1, float, float16, bfloat16>(bias, [&](auto v) {
      for (index_t k = 0; k < out; ++k) sum[static_cast<std::size_t>(k)] += ratios[i] * static_cast<double>(static_cast<float>(v(k)));
    });
  }
  if (sum.empty()) return {};
  memory.blocks.emplace_back(sum.size() * sizeof(float));
  auto* const to = static_cast<float*>(memory.blocks.back().data());
  for (std::size_t k = 0; k < sum.size(); ++k) to[k] = static_cast<float>(sum[k]);
  return any_view(to, dtype::f32, &out, 1);
}

/** fan_in_fan_out of the sum: PEFT's flag decides where a square W cannot tell, so parts that disagree there have no sum. */
[[nodiscard]] inline bool composed_flag(std::span<const composed_part> parts) {
  const adapter& first = *parts.front().source;
  for (const composed_part& p : parts) {
    if (p.source->fan_in_fan_out == first.fan_in_fan_out) continue;
    for (const adapter* a : {&first, p.source})
      for (const adapted_module& m : a->modules)
        if (m.weights.a.rank() == 2 && m.weights.b.rank() == 2 && m.weights.a.extent(1) == m.weights.b.extent(0))
          raise<value_error>(about_composed(*a, m.name) << "has a square weight, and fan_in_fan_out of " << quote(first.source) << " and "
                                                        << quote(p.source->source) << " disagree on how it lies");
  }
  return first.fan_in_fan_out;
}

}  // namespace detail

/**
 * The sum of weight_i times adapter i, module by module, in the order in which modules first occur.
 *
 * With c_i = scale_i x weight_i, rounded to float as adapter_set rounds it, the new scale of a module is the c_i of largest magnitude, and B_i
 * is multiplied by c_i / scale. So one adapter's B is taken over as it is; A always is. Factors keep their type when nothing had to be
 * multiplied and all parts have the same one; else they become f32, which holds f16 and bf16 exactly. Biases of B (lora_bias) add up to one
 * bias, the sum of c_i / scale times b_i, formed in double and rounded once. A part whose c_i is 0 is left out, like
 * the modules that only such parts have.
 *
 * @throws value_error for a null or empty list, a weight or c_i that is not finite, a module that one adapter adapts twice, a magnitude of DoRA, and
 *         whatever replaces something of the base, or when nothing is left; shape_error naming both adapters' shapes when a module's do not fit; dtype_error. Nothing is checked against a model: bind().
 * @par Cost      A copy of every factor of modules that several parts adapt.
 * @par Accuracy  Each element of B is rounded once: relative 2^-24 (1 + 2^-28), exact when c_i / scale is a power of two or 1, barring
 *                underflow. A and the scale are exact.
 * @par Lifetime  The result keeps alive what it still refers to.
 */
[[nodiscard]] inline adapter composed(std::span<const composed_part> parts, std::string source = "composed") {
  using detail::text;
  std::vector<detail::composed_module> modules;
  std::vector<std::size_t> by_name;  // indices into modules, sorted by name
  const auto module_of = [&](const std::string& name) -> detail::composed_module& {
    const auto at = std::lower_bound(by_name.begin(), by_name.end(), name,
                                     [&](std::size_t i, const std::string& wanted) { return modules[i].name < wanted; });
    if (at != by_name.end() && modules[*at].name == name) return modules[*at];
    by_name.insert(at, modules.size());
    modules.push_back({name, {}});
    return modules.back();
  };
  auto memory = std::make_shared<detail::composed_memory>();
  for (const composed_part& part : parts) {
    if (part.source == nullptr) detail::raise<value_error>(text() << "composed: a null adapter");
    if (!part.source->tensors.empty())
      detail::raise<value_error>(text() << "composed: adapter " << detail::quote(part.source->source) << " replaces the tensor "
                                        << detail::quote(part.source->tensors.front().name)
                                        << "; only sums of s (B A x + b) can be composed");
    for (const adapted_module& m : part.source->modules) {
      const float factor = m.weights.scale * part.weight;
      if (!std::isfinite(part.weight) || !std::isfinite(factor))
        detail::raise<value_error>(detail::about_composed(*part.source, m.name) << "scale times weight is not finite");
      if (const char* what = detail::not_composable(m.weights))
        detail::raise<value_error>(detail::about_composed(*part.source, m.name)
                                   << "has " << what << "; only sums of s (B A x + b) can be composed");
      if (factor == 0.0f) continue;
      detail::composed_module& to = module_of(m.name);
      detail::check_composed(*part.source, m, to);
      to.pieces.push_back({part.source, &m.weights, factor});
      if (to.first == nullptr) to.first = &m;
    }
    memory->owners.push_back(part.source->owner);
  }
  if (modules.empty()) detail::raise<value_error>(text() << "composed: no module is left whose scale times weight is not 0");

  adapter out;
  out.fan_in_fan_out = detail::composed_flag(parts);
  out.source = std::move(source);
  for (const detail::composed_module& m : modules) {
    float scale = 0;
    for (const detail::composed_piece& p : m.pieces)
      if (std::abs(p.factor) > std::abs(scale)) scale = p.factor;
    std::vector<double> ratios;
    for (const detail::composed_piece& p : m.pieces) ratios.push_back(static_cast<double>(p.factor) / static_cast<double>(scale));
    low_rank weights{detail::concatenated(m.pieces, ratios, false, *memory), detail::concatenated(m.pieces, ratios, true, *memory), scale};
    weights.bias = detail::summed_bias(m.pieces, ratios, *memory);
    out.modules.push_back({std::string(m.name), std::move(weights), m.first->kind, {m.first->kernel[0], m.first->kernel[1]}});
  }
  out.owner = std::move(memory);
  return out;
}

}  // namespace lora::inline v0

#endif
