// SPDX-License-Identifier: Apache-2.0
//
// The way between a tensor of a base file and the matrix [out, in] of a module: which module a tensor stands for, and where the module's
// elements lie in it. Not API: io/contract.hpp.
#ifndef LORA_IO_DETAIL_BASE_MATRIX_HPP
#define LORA_IO_DETAIL_BASE_MATRIX_HPP

#include <lora/adapter/adapter.hpp>
#include <lora/adapter/contract.hpp>
#include <lora/core/checked.hpp>
#include <lora/nd/any_view.hpp>

#include <optional>
#include <string_view>

namespace lora::inline v0::detail {

/** The module of a tensor `<name>.weight` of two axes, or of four: a convolution [out, channels, height, width]. */
[[nodiscard]] inline std::optional<module_contract> module_of_tensor(std::string_view name, const index_t* shape, std::size_t rank) {
  constexpr std::string_view suffix = ".weight";
  if ((rank != 2 && rank != 4) || name.size() <= suffix.size() || !name.ends_with(suffix)) return std::nullopt;
  module_contract m{std::string(name.substr(0, name.size() - suffix.size())), shape[0], shape[1]};
  if (rank == 4) {
    m.kind = module_kind::conv2d;
    m.kernel[0] = shape[2];
    m.kernel[1] = shape[3];
    m.in = shape[1] * shape[2] * shape[3];  // fits: the file's reader checked it
  }
  return m;
}

/**
 * The matrix [out, in] of a module in its tensor, in place: a convolution's last three axes as one, one of several matrices, turned where the
 * file holds [in, out], and the module's rows of a fused one. Nothing where the tensor has not the axes that the module needs.
 * @throws shape_error when a fused module's rows, or its matrix, are not in the tensor.
 */
[[nodiscard]] inline any_view matrix_in(const any_view& tensor, const module_contract& m, std::string_view name) {
  any_view v = tensor;
  if (m.kind == module_kind::conv2d) {
    if (v.rank() != 4 || !v.is_contiguous()) return {};
    const index_t shape[2] = {v.extent(0), v.extent(1) * v.extent(2) * v.extent(3)};
    v = any_view(v.data(), v.type(), shape, 2);
  } else if (v.rank() == 3) {
    if (m.matrix < 0 || m.matrix >= v.extent(0))
      raise<shape_error>(text() << "weights_of: module " << quote(m.name) << " is matrix " << m.matrix << " of the tensor " << quote(name)
                                << ", which has shape " << shape_text{v.shape(), v.rank()});
    const auto* data = static_cast<const unsigned char*>(v.data()) + m.matrix * v.stride(0) * static_cast<index_t>(size_of(v.type()));
    v = any_view(data, v.type(), v.shape() + 1, 2, v.strides() + 1);
  }
  if (v.rank() != 2) return {};
  if (m.layout == weight_layout::in_out) v = v.transpose();
  if (m.first_row == 0 && (m.tensor.empty() || v.extent(0) <= m.out)) return v;  // fewer rows: tied, and the adapter brings a longer table
  if (m.first_row < 0 || m.first_row > v.extent(0) || m.out > v.extent(0) - m.first_row)
    raise<shape_error>(text() << "weights_of: module " << quote(m.name) << " has rows " << m.first_row << " to " << m.first_row + m.out
                              << " of the tensor " << quote(name) << ", which has shape " << shape_text{tensor.shape(), tensor.rank()});
  const index_t shape[2] = {m.out, v.extent(1)};
  const auto* data = static_cast<const unsigned char*>(v.data()) + m.first_row * v.stride(0) * static_cast<index_t>(size_of(v.type()));
  return any_view(data, v.type(), shape, 2, v.strides());
}

/** "layers.0.experts.down_proj[7]": 'layers.0.experts.down_proj' and 7; index -1 for a name without an index. */
struct expert_name {
  std::string_view parameter;
  index_t index = -1;
};
[[nodiscard]] inline expert_name parse_expert_name(std::string_view name) noexcept {
  const std::size_t bracket = name.ends_with(']') ? name.rfind('[') : std::string_view::npos;
  if (bracket == std::string_view::npos || name.size() - bracket < 3 || name.size() - bracket > 12) return {name, -1};
  index_t index = 0;
  for (const char c : name.substr(bracket + 1, name.size() - bracket - 2)) {
    if (c < '0' || c > '9') return {name, -1};
    index = index * 10 + (c - '0');
  }
  return {name.substr(0, bracket), index};
}

/** A parameter of the base that an adapter changes, and as how many matrices. */
struct adapted_parameter {
  std::string_view name;
  index_t matrices;
  index_t out;
  index_t in;
  const index_t* shape;  // in the base, of `rank` axes
  std::size_t rank;
  [[nodiscard]] std::string_view module() const noexcept {
    const std::size_t dot = name.rfind('.');
    return name.substr(0, dot == std::string_view::npos ? 0 : dot);
  }
  [[nodiscard]] bool is_square() const noexcept { return shape[rank - 2] == shape[rank - 1]; }
  [[nodiscard]] bool is_turned() const noexcept { return matrices > 1 && shape[1] == in && shape[2] == out && !is_square(); }
};

/**
 * Adds the modules of bare parameters (PEFT's target_parameters) that `source` adapts and `file` has: a matrix [out, in], or a tensor with one
 * for each expert, NAME[0], NAME[1] and so on. Whether those are [out, in] or [in, out] (is_transposed, an attribute of the model's class) is
 * read off the shapes, of a square one off those of another parameter of the same module.
 * @throws io_error when a square one has no such neighbour, or when the numbers of experts differ.
 */
template <class File>
void add_parameters(model_contract& contract, const File& file, const adapter& source) {
  std::vector<adapted_parameter> parameters;
  for (const adapted_module& m : source.modules) {
    if (m.weights.a.rank() != 2 || m.weights.b.rank() != 2 || m.kind != module_kind::linear) continue;
    const expert_name e = parse_expert_name(m.name);
    if (!parameters.empty() && parameters.back().name == e.parameter) {
      if (e.index == parameters.back().matrices) ++parameters.back().matrices;
      continue;  // another index than the next one: bind() says what is wrong
    }
    if (contract.find(m.name) != model_contract::not_found) continue;
    const auto* const t = file.find(e.parameter);
    if (t == nullptr || (e.index < 0 ? t->rank() != 2 && !(t->rank() == 3 && t->shape()[0] == 1) : t->rank() != 3)) continue;
    parameters.push_back({e.parameter, 1, m.weights.b.extent(0), m.weights.a.extent(1), t->shape(), t->rank()});
  }
  for (const adapted_parameter& p : parameters) {
    if (p.rank == 3 && p.matrices != p.shape[0])
      raise<io_error>(text() << quote(source.source) << ": adapts " << p.matrices << " experts of " << quote(p.name)
                             << ", but in the base it has shape " << shape_text{p.shape, p.rank});
    bool turned = p.is_turned();
    if (p.matrices > 1 && p.is_square()) {
      const adapted_parameter* told = nullptr;
      for (const adapted_parameter& q : parameters)
        if (q.matrices > 1 && !q.is_square() && q.module() == p.module()) told = &q;
      if (told == nullptr)
        raise<io_error>(text() << quote(source.source) << ": whether the square matrices of " << quote(p.name)
                               << " lie as [out, in] or as [in, out] cannot be told; the contract must be made by hand");
      turned = told->is_turned();
    }
    const index_t rows = p.shape[p.rank - 2];
    const index_t columns = p.shape[p.rank - 1];
    for (index_t i = 0; i < p.matrices; ++i) {
      std::string name(p.name);
      if (p.matrices > 1) name.append("[").append(std::to_string(i)).append("]");
      module_contract m{std::move(name), turned ? columns : rows, turned ? rows : columns};
      m.layout = turned ? weight_layout::in_out : weight_layout::out_in;
      m.tensor = p.name;
      m.matrix = i;
      if (contract.find(m.name) == model_contract::not_found) contract.add(std::move(m));
    }
  }
}

}  // namespace lora::inline v0::detail

#endif
