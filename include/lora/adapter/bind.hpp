// SPDX-License-Identifier: Apache-2.0
//
// bind: checks an adapter against the contract of a base model and gives a bound_adapter, the only form that can be computed with. There
// is no other way to make one, so an unchecked adapter cannot reach a kernel.
//
//   lora::bound_adapter checked = lora::bind(file.adapter, model);      // throws bind_error naming source, module and both shapes
#ifndef LORA_ADAPTER_BIND_HPP
#define LORA_ADAPTER_BIND_HPP

#include <lora/adapter/adapter.hpp>
#include <lora/adapter/contract.hpp>
#include <lora/linalg/forward.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace lora::inline v0 {

class bound_adapter;

struct bind_options {
  /** Refuse an adapter that holds a NaN or an infinity: one pass over A and B. */
  bool require_finite = false;
};

[[nodiscard]] bound_adapter bind(const adapter& source, const model_contract& model, const bind_options& options = {});

/** One module of a bound adapter: which module of the contract it changes, and how. The name tells contracts of equal shapes apart. */
struct bound_module {
  std::size_t module;
  low_rank_term term;  ///< of rank 0 where the adapter has no A and B
  std::string name;
  float_view<1> bias{};          ///< of B, or none
  float_view<1> magnitude{};     ///< of DoRA, or none
  float_view<1> trained_bias{};  ///< in place of the base's, or none
  float_view<2> rows{};          ///< [n, width], in place of the rows `row_indices` of the tensor, or none
  std::vector<index_t> row_indices{};
  float_view<2> weight{};      ///< [out, in], in place of the base's, or none
  bool weight_is_own = false;  ///< see low_rank
};

/** An adapter that was checked against a contract. Immutable, move-only; share it by std::shared_ptr, between sets and threads. */
class bound_adapter {
 public:
  bound_adapter(bound_adapter&&) noexcept = default;
  bound_adapter& operator=(bound_adapter&&) noexcept = default;
  bound_adapter(const bound_adapter&) = delete;
  bound_adapter& operator=(const bound_adapter&) = delete;

  [[nodiscard]] const std::string& source() const noexcept { return source_; }
  [[nodiscard]] std::span<const bound_module> modules() const noexcept { return modules_; }
  /** Tensors of the base that are replaced whole and belong to no module's matrix. */
  [[nodiscard]] std::span<const saved_tensor> tensors() const noexcept { return tensors_; }

 private:
  friend bound_adapter bind(const adapter&, const model_contract&, const bind_options&);
  bound_adapter() = default;

  std::string source_;
  std::vector<bound_module> modules_;
  std::vector<saved_tensor> tensors_;
  std::shared_ptr<const void> owner_;
};

namespace detail {

[[noreturn, gnu::cold, gnu::noinline]] inline void raise_bind(const adapter& source, const std::string& module, const text& problem) {
  text t;
  t << "adapter " << quote(source.source) << ", module " << quote(module) << ": " << problem.c_str();
  raise<bind_error>(t);
}

/** Refuses a tensor of which any element lies outside the memory that the adapter owns. Offsets, not addresses: nothing can wrap. */
inline void check_region(const any_view& v, const char* which, const adapter& source, const std::string& module) {
  const auto reach = span_of(v.shape(), v.strides(), v.rank());
  if (source.region.empty() || reach.size == 0) return;
  const std::size_t element = size_of(v.type());
  const std::size_t before = static_cast<std::size_t>(reach.below) * element;  // fits: any_view checked it
  const std::size_t after = static_cast<std::size_t>(reach.size - reach.below) * element;
  const auto begin = reinterpret_cast<std::uintptr_t>(source.region.data());
  const auto first = reinterpret_cast<std::uintptr_t>(v.data());
  const std::size_t size = source.region.size();
  const bool inside = first >= begin && first - begin <= size && before <= first - begin && after <= size - (first - begin);
  if (!inside)
    raise_bind(source, module,
               text() << which << " " << shape_text{v.shape(), v.rank()} << " takes " << before + after
                      << " bytes, not all of them inside the " << size << " bytes that the adapter owns");
}

/** A, B or a vector in place, as what a product takes. */
template <std::size_t R>
float_view<R> as_factor(const any_view& v, const char* which, const adapter& source, const std::string& module) {
  if (v.rank() != R)
    raise_bind(source, module,
               text() << which << " has shape " << shape_text{v.shape(), v.rank()} << (R == 2 ? ", not two axes" : ", not one axis"));
  if (!v.is_aligned()) raise_bind(source, module, text() << which << " is not aligned for its elements");
  check_region(v, which, source, module);
  switch (v.type()) {
    case dtype::f32:
      return v.as<const float, R>();
    case dtype::f16:
      return v.as<const float16, R>();
    case dtype::bf16:
      return v.as<const bfloat16, R>();
    default:
      raise_bind(source, module, text() << which << " has dtype " << name_of(v.type()) << "; supported: f32 f16 bf16");
  }
}

/** The kernels of a convolution: [2, 6] and [3, 4] make the same matrix of different patches. A product is a kernel of [1, 1]. */
inline void check_kernel(const adapter& source, const adapted_module& given, const module_contract& m) {
  if (given.kernel[0] != m.kernel[0] || given.kernel[1] != m.kernel[1])
    raise_bind(source, given.name,
               text() << "its kernel is " << shape_text{given.kernel, 2} << " but the base's is " << shape_text{m.kernel, 2});
}

inline void check_finite(const float_view<2>& factor, const char* which, const adapter& source, const std::string& module) {
  factor.visit([&](const auto& v) {
    for (index_t i = 0; i < v.extent(0); ++i)
      for (index_t j = 0; j < v.extent(1); ++j)
        if (!std::isfinite(static_cast<float>(v(i, j))))
          raise_bind(source, module, text() << which << " holds a NaN or an infinity at [" << i << ", " << j << "]");
  });
}

/** A vector [out] of a module, or none. */
inline float_view<1> as_vector(const any_view& v, const char* which, index_t out, bool finite, const adapter& source,
                               const std::string& module) {
  if (v.size() == 0) return {};
  const float_view<1> vector = as_factor<1>(v, which, source, module);
  if (vector.extent(0) != out)
    raise_bind(source, module, text() << which << " " << shape_of(vector) << " does not fit the " << out << " outputs of the module");
  for (index_t i = 0; finite && i < out; ++i)
    if (!std::isfinite(vector(i))) raise_bind(source, module, text() << which << " holds a NaN or an infinity at [" << i << "]");
  return vector;
}

/** A table of the shape of a missing linear module's weight, which may be tied to it: for a hint in a message, hence by its name too. */
[[nodiscard]] inline const module_contract* table_of_shape(const model_contract& model, const adapted_module& given) noexcept {
  const low_rank& w = given.weights;
  if (given.kind != module_kind::linear || w.a.rank() != 2 || w.b.rank() != 2) return nullptr;
  for (std::size_t i = 0; i < model.size(); ++i) {
    const module_contract& m = model[i];
    const bool turned = m.layout == weight_layout::in_out;
    const auto has = [&](const char* part) { return m.name.find(part) != std::string::npos; };
    if ((turned ? m.in : m.out) == w.b.extent(0) && (turned ? m.out : m.in) == w.a.extent(1) &&
        (m.kind == module_kind::embedding || has("emb") || has("wte") || has("shared")))
      return &m;
  }
  return nullptr;
}

/** What an embedding cannot have, and that both sides mean one. Rows or a weight alone may belong to either: the file does not say which. */
inline void check_embedding(const adapter& source, const adapted_module& given, const module_contract& m) {
  const low_rank& w = given.weights;
  const bool pair = w.a.data() != nullptr || w.b.data() != nullptr;
  const bool here = m.kind == module_kind::embedding;
  if (pair && here != (given.kind == module_kind::embedding))
    raise_bind(source, given.name,
               text() << "is " << (here ? "no embedding in the adapter, but one" : "an embedding in the adapter, but none")
                      << " in the contract; io::contract_of(file, adapter) makes one that agrees");
  if (here && (w.bias.size() != 0 || w.trained_bias.size() != 0)) raise_bind(source, given.name, text() << "is an embedding with a bias");
}

/** Checks the trained token rows of a module: [n, width], with as many indices of the tensor's rows, each once. */
inline void check_rows(const adapter& source, const adapted_module& given, const module_contract& m, bool finite, bound_module& out) {
  const low_rank& w = given.weights;
  const std::vector<index_t>& at = w.row_indices;
  if (w.rows.size() == 0 && at.empty()) return;
  const bool table = m.kind == module_kind::embedding;
  const index_t tokens = table ? m.in : m.out;
  const index_t width = table ? m.out : m.in;
  if (m.kind == module_kind::conv2d) raise_bind(source, given.name, text() << "is a convolution with trained token rows");
  if (w.a.data() != nullptr || w.b.data() != nullptr || w.weight.size() != 0)
    raise_bind(source, given.name,
               text() << "has trained token rows and also " << (w.weight.size() != 0 ? "a whole weight" : "lora_A and lora_B")
                      << ", which PEFT refuses to combine in one module");
  out.rows = as_factor<2>(w.rows, "the trained token rows", source, given.name);
  const shape_text shape = shape_of(out.rows);
  if (out.rows.extent(1) != width)
    raise_bind(source, given.name, text() << "the trained token rows " << shape << " do not fit rows of " << width << " elements");
  if (static_cast<std::size_t>(out.rows.extent(0)) != at.size())
    raise_bind(source, given.name, text() << "the trained token rows " << shape << " come with " << at.size() << " token indices");
  for (const index_t i : at)
    if (i < 0 || i >= tokens) raise_bind(source, given.name, text() << "token index " << i << " is outside the " << tokens << " tokens");
  out.row_indices = at;
  std::sort(out.row_indices.begin(), out.row_indices.end());
  const auto twice = std::adjacent_find(out.row_indices.begin(), out.row_indices.end());
  if (twice != out.row_indices.end()) raise_bind(source, given.name, text() << "token index " << *twice << " occurs twice");
  out.row_indices = at;
  if (finite) check_finite(out.rows, "the tensor of trained token rows", source, given.name);
}

/** A replaced weight, shaped as the base's lies in its file, as [out, in]; or none. */
inline float_view<2> as_replacement(const any_view& v, const module_contract& m, bool finite, const adapter& source) {
  if (v.size() == 0) return {};
  const auto refuse = [&](const text& problem) {
    raise_bind(source, m.name, text() << "the replaced weight " << shape_text{v.shape(), v.rank()} << problem.c_str());
  };
  any_view matrix = v;
  if (v.rank() == 4) {  // [out, channels, height, width]: the last three axes are one when nothing lies between them
    if (m.kind == module_kind::conv2d && (v.extent(2) != m.kernel[0] || v.extent(3) != m.kernel[1]))
      refuse(text() << " does not have the kernel " << shape_text{m.kernel, 2} << " of the module");
    index_t step = 1;
    index_t inner = 1;
    for (const std::size_t axis : {3u, 2u, 1u}) {
      if (v.extent(axis) == 1) continue;
      if (inner == 1) step = v.stride(axis);
      if (v.stride(axis) != inner * step) refuse(text() << " has gaps between its channels");
      inner *= v.extent(axis);
    }
    const index_t shape[2] = {v.extent(0), inner};
    const index_t strides[2] = {v.stride(0), step};
    matrix = any_view(v.data(), v.type(), shape, 2, strides);
  } else if (m.layout == weight_layout::in_out) {
    matrix = v.transpose();
  }
  const float_view<2> weight = as_factor<2>(matrix, "the replaced weight", source, m.name);
  const index_t w_shape[2] = {m.out, m.in};
  if (weight.extent(0) != m.out || weight.extent(1) != m.in)
    refuse(text() << " is not that of the module, whose matrix is " << shape_text{w_shape, 2}
                  << "; where a vocabulary was resized, the contract is that of the resized base");
  if (finite) check_finite(weight, "the replaced weight", source, m.name);
  return weight;
}

/** Names that occur once, are not those of modules' weights and biases (which bind by module), and elements inside the region. */
inline void check_saved_tensors(const adapter& source, const model_contract& model) {
  std::vector<std::string_view> names;
  for (const saved_tensor& t : source.tensors) {
    const std::string_view name = t.name;
    const auto refuse = [&](const char* problem) {
      raise<bind_error>(text() << "adapter " << quote(source.source) << ", tensor " << quote(name) << ": " << problem);
    };
    if (name.empty()) refuse("it has no name");
    if (!t.value.is_aligned()) refuse("it is not aligned for its elements");
    check_region(t.value, "the replaced tensor", source, t.name);
    for (const std::string_view suffix : {".weight", ".bias"}) {
      const std::size_t at = name.ends_with(suffix) ? model.find(name.substr(0, name.size() - suffix.size())) : model_contract::not_found;
      if (at != model_contract::not_found && model[at].in != 0)
        refuse(suffix == ".weight" ? "it is the weight of a module, which low_rank::weight replaces"
                                   : "it is the bias of a module, which low_rank::trained_bias replaces");
    }
    names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  for (std::size_t i = 1; i < names.size(); ++i)
    if (names[i] == names[i - 1])
      raise<bind_error>(text() << "adapter " << quote(source.source) << ", tensor " << quote(names[i]) << ": is replaced twice");
}

}  // namespace detail

/**
 * Checks every module of `source` against `model`: the name exists and comes once, both mean an embedding or neither, kernels agree, A is
 * [rank, in], B is [out, rank], biases and magnitudes are [out], a replaced weight is that of the module, trained token rows are [n, width] with n
 * different indices inside the table, the dtypes can be
 * computed with, the scale is finite, each tensor lies inside the region that the adapter owns (if it says one), and the adapter was
 * trained on this base (if both say which). Nothing is left out: a module that does not fit refuses the whole adapter.
 *
 * @throws bind_error naming the adapter, the module and both shapes; also when the adapter has no modules and no tensors at all.
 * @par Cost   O(modules): tensors of f32, f16 and bf16 are used where they lie.
 */
inline bound_adapter bind(const adapter& source, const model_contract& model, const bind_options& options) {
  using detail::text;
  if (source.modules.empty() && source.tensors.empty())
    detail::raise<bind_error>(text() << "adapter " << detail::quote(source.source) << " has no modules: it would change nothing");
  if (source.base.known() && model.identity().known() && source.base != model.identity())
    detail::raise<bind_error>(text() << "adapter " << detail::quote(source.source) << " was trained on the base "
                                     << source.base.hex().data() << ", this one is " << model.identity().hex().data());
  bound_adapter bound;
  bound.source_ = source.source;
  bound.owner_ = source.owner;
  detail::check_saved_tensors(source, model);
  bound.tensors_ = source.tensors;
  std::vector<bool> seen(model.size());
  for (const adapted_module& given : source.modules) {
    const std::string& name = given.name;
    const low_rank& weights = given.weights;
    const std::size_t index = model.find(name);
    if (index == model_contract::not_found) {
      text problem = text() << "the model has no module of this name";
      if (const module_contract* m = detail::table_of_shape(model, given))
        problem << "; if its weight is that of " << detail::quote(m->name)
                << ", as of a tied lm_head, say so by io::contract_options::tied";
      detail::raise_bind(source, name, problem);
    }
    if (seen[index]) detail::raise_bind(source, name, text() << "is adapted twice");
    seen[index] = true;
    const module_contract& m = model[index];
    const bool finite = options.require_finite;
    bound_module b_module{index, {}, name};
    b_module.trained_bias = detail::as_vector(weights.trained_bias, "the trained bias", m.out, finite, source, name);
    detail::check_embedding(source, given, m);
    detail::check_rows(source, given, m, finite, b_module);
    b_module.weight = detail::as_replacement(weights.weight, m, finite, source);
    b_module.weight_is_own = weights.weight_is_own;
    const bool something = b_module.trained_bias.data() != nullptr || b_module.rows.data() != nullptr || b_module.weight.data() != nullptr;
    if (weights.a.data() == nullptr && weights.b.data() == nullptr && something) {
      if (weights.bias.size() != 0 || weights.magnitude.size() != 0)
        detail::raise_bind(source, name, text() << "has a bias of B or a magnitude, but neither A nor B");
      bound.modules_.push_back(std::move(b_module));
      continue;
    }
    const auto a = detail::as_factor<2>(weights.a, "lora_A", source, name);
    const auto b = detail::as_factor<2>(weights.b, "lora_B", source, name);
    const index_t w_shape[2] = {m.out, m.in};
    if (a.extent(1) != m.in || b.extent(0) != m.out || a.extent(0) != b.extent(1))
      detail::raise_bind(source, name,
                         text() << "lora_A " << detail::shape_of(a) << " and lora_B " << detail::shape_of(b) << " do not fit the weight "
                                << detail::shape_text{w_shape, 2});
    detail::check_kernel(source, given, m);
    if (a.extent(0) == 0) detail::raise_bind(source, name, text() << "has rank 0");
    if (!std::isfinite(weights.scale)) detail::raise_bind(source, name, text() << "the scale is not finite");
    if (finite) {
      detail::check_finite(a, "lora_A", source, name);
      detail::check_finite(b, "lora_B", source, name);
    }
    b_module.term = {a, b, weights.scale};
    b_module.bias = detail::as_vector(weights.bias, "the bias of B", m.out, finite, source, name);
    b_module.magnitude = detail::as_vector(weights.magnitude, "the magnitude", m.out, finite, source, name);
    if (b_module.bias.data() != nullptr && b_module.magnitude.data() != nullptr)
      detail::raise_bind(source, name, text() << "has both a bias of B and a magnitude: PEFT does not define lora_bias with DoRA");
    bound.modules_.push_back(std::move(b_module));
  }
  return bound;
}

}  // namespace lora::inline v0

#endif
