// SPDX-License-Identifier: Apache-2.0
//
// What save_peft writes of an adapter: the tensors under PEFT's names, and what the configuration must say of all of them together. Everything
// that can be refused is refused here. Not API.
//
//   linear      M.lora_A.weight [rank, in]            M.lora_B.weight [out, rank]      M.lora_B.bias  M.lora_magnitude_vector [out]
//   embedding   M.lora_embedding_A [rank, tokens]     M.lora_embedding_B [width, rank]                M.lora_magnitude_vector [width]
//   conv2d      M.lora_A.weight [rank, channels, height, width]   M.lora_B.weight [out, rank, 1, 1]   M.lora_magnitude_vector [1, out, 1, 1]
//   any         M.base_layer.weight, .bias of an adapted M; M.weight, .bias of another; M.token_adapter.trainable_tokens_delta [n, width]
//
// Source: PEFT 0.21.2, tuners/lora/layer.py and utils/save_and_load.py; docs/formats.md.
#ifndef LORA_IO_DETAIL_PEFT_LAYOUT_HPP
#define LORA_IO_DETAIL_PEFT_LAYOUT_HPP

#include <lora/core/bytes.hpp>
#include <lora/io/detail/conv_factors.hpp>
#include <lora/io/safetensors_writer.hpp>

#include <algorithm>

namespace lora::inline v0::detail {

[[nodiscard]] inline bool has_pair(const low_rank& w) noexcept { return w.a.data() != nullptr || w.b.data() != nullptr; }

class peft_layout {
 public:
  /** @throws value_error naming the module or tensor. */
  explicit peft_layout(const adapter& source) {
    if (source.modules.empty() && source.tensors.empty()) raise<value_error>(text() << "save_peft: the adapter has no modules");
    for (const adapted_module& m : source.modules) look_at(m);
    if (first == nullptr)
      raise<value_error>(text() << "save_peft: module "
                                << quote(source.modules.empty() ? source.tensors.front().name : source.modules.front().name)
                                << ": neither it nor any other has A and B; PEFT has no LoRA that adapts nothing");
    if (use_dora && without_dora_ != nullptr)
      raise<value_error>(text() << "save_peft: module " << quote(with_dora_->name) << " has a magnitude of DoRA and module "
                                << quote(without_dora_->name) << " has none; PEFT's use_dora holds for all modules of an adapter");
    if (lora_bias && use_dora)
      raise<value_error>(text() << "save_peft: module " << quote(with_dora_->name)
                                << " has a magnitude of DoRA and another one a bias of B: PEFT does not define lora_bias with DoRA");
    if (lora_bias && embedding_ != nullptr)
      raise<value_error>(text() << "save_peft: module " << quote(embedding_->name)
                                << ": is an embedding, for which PEFT has no lora_bias, and another module has a bias of B");
    for (const adapted_module& m : source.modules) add(m);
    for (const saved_tensor& t : source.tensors) add(t, source);
    check_saved_names(source);
  }

  std::vector<io::named_view> tensors;
  std::vector<std::string_view> modules_to_save;
  const low_rank* first = nullptr;  ///< with A and B
  bool use_dora = false;
  bool lora_bias = false;
  bool trains_bias = false;

 private:
  [[noreturn, gnu::cold, gnu::noinline]] static void refuse(const adapted_module& m, const text& problem) {
    raise<value_error>(text() << "save_peft: module " << quote(m.name) << ": " << problem.c_str());
  }

  /** The part of a name between dots that PEFT would take for its own mark, or empty. */
  [[nodiscard]] static std::string_view peft_mark(std::string_view name) noexcept {
    for (std::size_t begin = 0; begin <= name.size();) {
      const std::size_t end = std::min(name.find('.', begin), name.size());
      const std::string_view part = name.substr(begin, end - begin);
      for (const std::string_view mark : {"base_layer", "token_adapter", "original_module", "modules_to_save"})
        if (part == mark) return part;
      if (part.starts_with("lora_")) return part;
      begin = end + 1;
    }
    return {};
  }

  static void require_floats(const adapted_module& m, const any_view& v, const char* which) {
    if (v.type() != dtype::f32 && v.type() != dtype::f16 && v.type() != dtype::bf16)
      refuse(m, text() << which << " has dtype " << name_of(v.type()) << ", not f32, f16 or bf16");
  }
  static void require_vector(const adapted_module& m, const any_view& v, const char* which, index_t out) {
    if (v.size() == 0) return;
    require_floats(m, v, which);
    if (v.rank() != 1 || (out >= 0 && v.extent(0) != out)) {
      text problem;
      problem << which << " has shape " << shape_text{v.shape(), v.rank()};
      if (out >= 0)
        problem << ", not [" << out << "]";
      else
        problem << ", not that of a bias";
      refuse(m, problem);
    }
  }

  /** The checks on one module, and what it asks of the configuration. */
  void look_at(const adapted_module& m) {
    const low_rank& w = m.weights;
    if (m.name.empty()) refuse(m, text() << "it has no name");
    if (m.name.ends_with(']')) refuse(m, text() << "it is one of the experts of a parameter, which are not written");
    const bool pair = has_pair(w);
    if (pair && m.name.ends_with(']')) refuse(m, text() << "it is one of the experts of a parameter, which are not written");
    if (const std::string_view mark = peft_mark(m.name); !mark.empty())
      refuse(m, text() << "its name has " << quote(mark) << " in it, by which PEFT tells its own tensors");
    if (pair) look_at_pair(m);
    if (!pair && (w.bias.size() != 0 || w.magnitude.size() != 0))
      refuse(m, text() << "it has a bias of B or a magnitude, but neither A nor B");
    if (w.weight.size() != 0) {
      require_floats(m, w.weight, "the replaced weight");
      if (w.weight.rank() != 2 && w.weight.rank() != 4)
        refuse(m, text() << "the replaced weight has shape " << shape_text{w.weight.shape(), w.weight.rank()} << ", not two axes or four");
    }
    require_vector(m, w.trained_bias, "the trained bias", pair ? w.b.extent(0) : -1);
    if (w.trained_bias.size() != 0 && w.weight.size() == 0) trains_bias = true;
    if (w.rows.size() != 0) {
      require_floats(m, w.rows, "the trained rows");
      if (w.rows.rank() != 2 || w.rows.extent(0) != static_cast<index_t>(w.row_indices.size()))
        refuse(m, text() << "its " << w.row_indices.size() << " row_indices are not those of the trained rows "
                         << shape_text{w.rows.shape(), w.rows.rank()});
      if (pair || w.weight.size() != 0)
        refuse(m, text() << "it has trained rows and is adapted or replaced whole too, which PEFT does not save for one embedding");
    }
    if (!pair && w.weight.size() == 0 && w.trained_bias.size() == 0 && w.rows.size() == 0) refuse(m, text() << "it has nothing to save");
  }

  void look_at_pair(const adapted_module& m) {
    const low_rank& w = m.weights;
    for (const any_view* v : {&w.a, &w.b}) {
      const char* const which = v == &w.a ? "A" : "B";
      require_floats(m, *v, which);
      if (v->rank() != 2) refuse(m, text() << which << " has shape " << shape_text{v->shape(), v->rank()} << ", not that of a matrix");
    }
    if (w.a.extent(0) != w.b.extent(1) || w.a.extent(0) == 0)
      refuse(m, text() << "A " << shape_text{w.a.shape(), 2} << " [rank, in] and B " << shape_text{w.b.shape(), 2}
                       << " [out, rank] do not fit together");
    if (!std::isfinite(w.scale)) refuse(m, text() << "the scale is not finite");
    if (m.kind == module_kind::conv2d) {
      index_t patch = 0;
      const bool sane = m.kernel[0] > 0 && m.kernel[1] > 0 && checked_mul(m.kernel[0], m.kernel[1], patch);
      if (!sane || w.a.extent(1) % patch != 0)
        refuse(m,
               text() << "the columns of A " << shape_text{w.a.shape(), 2} << " are no channels of a kernel " << shape_text{m.kernel, 2});
    }
    require_vector(m, w.bias, "the bias of B", w.b.extent(0));
    require_vector(m, w.magnitude, "the magnitude", w.b.extent(0));
    if (first == nullptr) first = &w;
    if (m.kind == module_kind::embedding) embedding_ = &m;
    if (w.bias.size() != 0) lora_bias = true;
    use_dora = use_dora || w.magnitude.size() != 0;
    (w.magnitude.size() != 0 ? with_dora_ : without_dora_) = &m;
  }

  void add(const adapted_module& m) {
    const low_rank& w = m.weights;
    const std::string path = "base_model.model." + m.name;
    const auto put = [&](const char* suffix, const any_view& v) {
      if (v.size() != 0) tensors.push_back({path + suffix, v});
    };
    const bool pair = has_pair(w);
    if (pair && m.kind == module_kind::embedding) {
      tensors.push_back({path + ".lora_embedding_A", w.a});
      tensors.push_back({path + ".lora_embedding_B", w.b});
      put(".lora_magnitude_vector", w.magnitude);
    } else if (pair) {
      tensors.push_back({path + ".lora_A.weight", file_a(m)});
      tensors.push_back({path + ".lora_B.weight", file_b(m)});
      put(".lora_magnitude_vector", file_magnitude(m));
      if (lora_bias) tensors.push_back({path + ".lora_B.bias", w.bias.size() != 0 ? w.bias : zeros(w.b.extent(0))});
    }
    put(pair ? ".base_layer.weight" : ".weight", w.weight);
    put(pair ? ".base_layer.bias" : ".bias", w.trained_bias);
    put(".token_adapter.trainable_tokens_delta", w.rows);
    if (!pair && w.weight.size() != 0) modules_to_save.push_back(m.name);
  }

  void add(const saved_tensor& t, const adapter& source) {
    const std::size_t dot = t.name.rfind('.');
    const auto refuse_tensor = [&](const char* problem) {
      raise<value_error>(text() << "save_peft: tensor " << quote(t.name) << ": " << problem);
    };
    if (dot == std::string::npos || dot == 0) refuse_tensor("belongs to no module, and PEFT's modules_to_save names modules");
    if (!peft_mark(t.name).empty()) refuse_tensor("has a part in its name by which PEFT tells its own tensors");
    if (t.name.ends_with(".weight") && (t.value.rank() == 2 || t.value.rank() == 4))
      refuse_tensor("is the weight of a module, which low_rank::weight replaces");
    if (t.name.ends_with(".bias") && t.value.rank() == 1) {
      const std::string weight = t.name.substr(0, dot) + ".weight";
      if (std::none_of(source.tensors.begin(), source.tensors.end(), [&](const saved_tensor& s) { return s.name == weight; }))
        refuse_tensor("is a bias whose weight is not replaced, which low_rank::trained_bias is for");
    }
    tensors.push_back({"base_model.model." + t.name, t.value});
    modules_to_save.push_back(std::string_view(t.name).substr(0, dot));
  }

  /** PEFT takes the entries for ends of names, and leaves modules that are saved, or lie in one, without A and B. */
  void check_saved_names(const adapter& source) {
    std::sort(modules_to_save.begin(), modules_to_save.end());
    modules_to_save.erase(std::unique(modules_to_save.begin(), modules_to_save.end()), modules_to_save.end());
    for (const adapted_module& m : source.modules) {
      if (!has_pair(m.weights)) continue;
      const std::string framed = "." + m.name + ".";
      for (const std::string_view name : modules_to_save)
        if (m.name.ends_with(name) || framed.find(std::string(".").append(name).append(".")) != std::string::npos)
          refuse(m, text() << "is adapted, but PEFT's modules_to_save would take it for the replaced module " << quote(name));
    }
  }

  [[nodiscard]] any_view zeros(index_t n) {
    zeros_.emplace_back(static_cast<std::size_t>(n) * sizeof(float));
    std::memset(zeros_.back().data(), 0, static_cast<std::size_t>(n) * sizeof(float));
    return any_view(zeros_.back().data(), dtype::f32, &n, 1);
  }

  const adapted_module* with_dora_ = nullptr;
  const adapted_module* without_dora_ = nullptr;
  const adapted_module* embedding_ = nullptr;
  std::vector<aligned_bytes> zeros_;
};

}  // namespace lora::inline v0::detail

#endif
