// SPDX-License-Identifier: Apache-2.0
//
// Fused projections: a base that holds q, k and v (or gate and up) as row ranges of one tensor, with an adapter for each, and an adapter
// trained on the fused module over a base that holds them apart. Both are views: no weight and no factor is copied.
//
//   const lora::model_contract parts = lora::split_fused(model, "qkv_proj", {{"q_proj", 4096}, {"k_proj", 1024}, {"v_proj", 1024}});
//   // every ...self_attn.qkv_proj is now q_proj, k_proj and v_proj beside it: bind(), adapter_set and io::weights_of know no difference
//
//   const lora::adapter apart = lora::split_rows(fused, "qkv_proj", {{"q_proj", 4096}, {"k_proj", 1024}, {"v_proj", 1024}});
#ifndef LORA_ADAPTER_FUSED_HPP
#define LORA_ADAPTER_FUSED_HPP

#include <lora/adapter/adapter.hpp>
#include <lora/core/checked.hpp>

namespace lora::inline v0 {

/** One of the matrices that lie on top of each other in a fused one. */
struct fused_part {
  std::string name;  ///< takes the place of the last component of the fused module's name
  index_t rows;      ///< outputs
};

namespace detail {

/** Whether `module` is `fused` or ends in it at a dot; an expert's [7] behind it does not count. */
[[nodiscard]] inline bool is_fused(std::string_view module, std::string_view fused) noexcept {
  if (module.ends_with(']')) module = module.substr(0, module.rfind('['));
  return module == fused ||
         (module.size() > fused.size() && module.ends_with(fused) && module[module.size() - fused.size() - 1] == '.' && !fused.empty());
}

/** layers.0.qkv_proj[7] and q_proj: layers.0.q_proj[7]. */
[[nodiscard]] inline std::string name_of_part(const std::string& module, const std::string& part) {
  const std::size_t bracket = module.ends_with(']') ? module.rfind('[') : module.size();
  const std::size_t dot = module.rfind('.', bracket);
  std::string name = dot == std::string::npos ? std::string() : module.substr(0, dot + 1);
  return name.append(part).append(module, bracket, std::string::npos);
}

/** @throws shape_error unless the parts are what `out` rows are made of. */
inline void check_parts(const char* operation, const std::string& module, index_t out, std::span<const fused_part> parts) {
  index_t sum = 0;
  bool fits = true;
  for (const fused_part& p : parts) fits = fits && p.rows > 0 && checked_add(sum, p.rows, sum);
  if (fits && sum == out) return;
  text t;
  t << operation << ": the parts of module " << quote(module) << " have";
  for (std::size_t i = 0; i < parts.size(); ++i) t << (i == 0 ? " " : " + ") << parts[i].rows;
  t << " rows, but the module has " << out;
  raise<shape_error>(t);
}

[[noreturn, gnu::cold, gnu::noinline]] inline void raise_no_fused(const char* operation, const char* where, std::string_view name) {
  raise<value_error>(text() << operation << ": " << where << " has no module that is called " << quote(name) << " or ends in it");
}

/** Rows [first, first + rows) of a matrix or a vector; nothing of nothing. */
[[nodiscard]] inline any_view rows_of(const any_view& v, index_t first, index_t rows) {
  if (v.data() == nullptr) return v;
  index_t shape[max_rank];
  for (std::size_t i = 0; i < v.rank(); ++i) shape[i] = v.shape()[i];
  shape[0] = rows;
  const auto* data = static_cast<const unsigned char*>(v.data()) + first * v.stride(0) * static_cast<index_t>(size_of(v.type()));
  return any_view(data, v.type(), shape, v.rank(), v.strides());
}

}  // namespace detail

/**
 * The contract with every module that is called `name`, or ends in ".name", replaced by its parts, in the order in which their rows lie.
 *
 * A part shares the fused module's tensor: io::weights_of gives its rows where they lie, whichever way round the tensor is stored, and
 *
 *     forward(y(all, range(m.first_row, m.first_row + m.out)), x, weights[i], set[i], bias, scratch)      // m = model[i]
 *
 * writes its columns of the fused y. There is no form of one call for all parts: their low-rank terms would be multiplied with rows that are
 * not theirs. An adapter of the fused module itself needs the contract as it was.
 *
 * @throws value_error when no module is called so, or a part's name is taken; shape_error when the rows do not add up to the module's.
 * @par Cost  A copy of the contract.
 */
[[nodiscard]] inline model_contract split_fused(const model_contract& model, std::string_view name, const std::vector<fused_part>& parts) {
  model_contract out;
  out.set_identity(model.identity());
  bool found = false;
  for (std::size_t i = 0; i < model.size(); ++i) {
    const module_contract& m = model[i];
    if (!detail::is_fused(m.name, name)) {
      out.add(m);
      continue;
    }
    found = true;
    detail::check_parts("split_fused", m.name, m.out, parts);
    module_contract part = m;
    if (part.tensor.empty()) part.tensor = m.name + ".weight";
    for (const fused_part& p : parts) {
      part.name = detail::name_of_part(m.name, p.name);
      part.out = p.rows;
      out.add(part);
      part.first_row += p.rows;
    }
  }
  if (!found) detail::raise_no_fused("split_fused", "the contract", name);
  return out;
}

/**
 * The adapter with every module that is called `name`, or ends in ".name", as one module for each part: A and the scale shared, the rows of B,
 * of biases and of the magnitude that are the part's. Exact, DoRA included, because its norms are those of rows. The result keeps alive what
 * it views; all that has another name is taken over.
 *
 * @throws value_error when no module is called so, or one has a replaced weight or rows of a table; shape_error when the rows do not add up to
 *         its outputs.
 * @par Cost  A copy of the list of modules; no element is touched.
 */
[[nodiscard]] inline adapter split_rows(const adapter& source, std::string_view name, const std::vector<fused_part>& parts) {
  adapter out = source;
  out.modules.clear();
  bool found = false;
  for (const adapted_module& m : source.modules) {
    if (!detail::is_fused(m.name, name)) {
      out.modules.push_back(m);
      continue;
    }
    found = true;
    const low_rank& w = m.weights;
    if (w.weight.data() != nullptr || w.rows.data() != nullptr)
      detail::raise<value_error>(detail::text() << "split_rows: module " << detail::quote(m.name)
                                                << " has a whole weight or rows of a table, which are not split");
    index_t rows = -1;
    for (const any_view* v : {&w.b, &w.bias, &w.magnitude, &w.trained_bias}) {
      if (v->data() == nullptr) continue;
      if (v->rank() == 0 || size_of(v->type()) == 0 || (rows >= 0 && v->extent(0) != rows))
        detail::raise<shape_error>(detail::text() << "split_rows: module " << detail::quote(m.name) << " has tensors of "
                                                  << detail::shape_text{v->shape(), v->rank()} << " and of " << rows << " outputs");
      rows = v->extent(0);
    }
    detail::check_parts("split_rows", m.name, rows < 0 ? 0 : rows, parts);
    index_t first = 0;
    for (const fused_part& p : parts) {
      adapted_module part = m;
      part.name = detail::name_of_part(m.name, p.name);
      part.weights.b = detail::rows_of(w.b, first, p.rows);
      part.weights.bias = detail::rows_of(w.bias, first, p.rows);
      part.weights.magnitude = detail::rows_of(w.magnitude, first, p.rows);
      part.weights.trained_bias = detail::rows_of(w.trained_bias, first, p.rows);
      out.modules.push_back(std::move(part));
      first += p.rows;
    }
  }
  if (!found) detail::raise_no_fused("split_rows", "the adapter", name);
  return out;
}

}  // namespace lora::inline v0

#endif
