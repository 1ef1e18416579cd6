// SPDX-License-Identifier: Apache-2.0
//
// What the readers and writers of adapter files share: the checks on a pair of A and B as it stands in a file, on an alpha and on the
// scale that comes of it, and the way back from a scale to an alpha. Not API.
#ifndef LORA_IO_DETAIL_FACTORS_HPP
#define LORA_IO_DETAIL_FACTORS_HPP

#include <lora/adapter/adapter.hpp>
#include <lora/io/detail/safetensors_header.hpp>

#include <cfloat>
#include <charconv>
#include <cmath>

namespace lora::inline v0::detail {

/** One tensor of an adapter file, whatever its container. */
struct file_tensor {
  std::string_view name;
  any_view view;
  std::size_t offset;  // of its bytes in the file
};

/** "'file': tensor 'name': ... (byte N)" */
[[noreturn, gnu::cold, gnu::noinline]] inline void refuse_tensor(std::string_view file, const file_tensor& t, const text& problem) {
  text m = about_tensor(file, t.name);
  m << problem.c_str();
  refuse_at(m, t.offset);
}

inline void require_factor(std::string_view file, const file_tensor& t) {
  if (t.view.type() != dtype::f32 && t.view.type() != dtype::f16 && t.view.type() != dtype::bf16)
    refuse_tensor(file, t, text() << "dtype " << name_of(t.view.type()) << " is not one of f32, f16 and bf16");
  const shape_text shape{t.view.shape(), t.view.rank()};
  if (t.view.rank() != 2) refuse_tensor(file, t, text() << "shape " << shape << " is not that of a matrix");
}

/** A [rank, in] and B [out, rank] of one module; gives the rank. */
[[nodiscard]] inline index_t checked_rank(std::string_view file, const file_tensor& a, const file_tensor& b) {
  require_factor(file, a);
  require_factor(file, b);
  if (a.view.extent(0) != b.view.extent(1))
    refuse_tensor(file, a,
                  text() << "shape " << shape_text{a.view.shape(), 2} << " [rank, in] and " << quote(b.name) << " "
                         << shape_text{b.view.shape(), 2} << " [out, rank] have different ranks");
  if (a.view.extent(0) == 0) refuse_tensor(file, a, text() << "has rank 0");
  return a.view.extent(0);
}

/** alpha / rank; refuses what is not finite. */
[[nodiscard]] inline float checked_scale(std::string_view file, std::string_view module, double alpha, index_t rank,
                                         scale_rule rule = scale_rule::alpha_over_rank) {
  if (!(std::abs(alpha) <= static_cast<double>(FLT_MAX)))
    raise<io_error>(text() << quote(file) << ": the alpha of module " << quote(module) << " does not fit a float");
  return scale_for(alpha, rank, rule);
}

/** The value of a tensor of one element, shape [] or [1]. */
[[nodiscard]] inline double scalar_of(std::string_view file, const file_tensor& t) {
  const any_view& v = t.view;
  if (v.rank() > 1 || v.size() != 1)
    refuse_tensor(file, t, text() << "shape " << shape_text{v.shape(), v.rank()} << " is not that of one number");
  double value = 0;
  if (v.type() == dtype::f32 || v.type() == dtype::f16 || v.type() == dtype::bf16 || v.type() == dtype::f64 || v.type() == dtype::i32 ||
      v.type() == dtype::i64) {
    const any_view one(v.data(), v.type(), nullptr, 0);
    value = dispatch<0, float, float16, bfloat16, double, std::int32_t, std::int64_t>(one, [](auto x) {
      using type = std::remove_cvref_t<decltype(x())>;
      if constexpr (std::is_same_v<type, float16> || std::is_same_v<type, bfloat16>)
        return static_cast<double>(static_cast<float>(x()));
      else
        return static_cast<double>(x());
    });
  } else {
    refuse_tensor(file, t, text() << "dtype " << name_of(v.type()) << " is not one of f32, f16, bf16, f64, i32 and i64");
  }
  if (!std::isfinite(value)) refuse_tensor(file, t, text() << "is not finite");
  return value;
}

/** What every writer asks of a module before it writes the first byte: A, B and the scale as bind() would take them. */
inline void require_writable(const char* operation, const adapted_module& m) {
  const auto refuse = [&](const text& problem) {
    raise<value_error>(text() << operation << ": module " << quote(m.name) << ": " << problem.c_str());
  };
  if (m.kind == module_kind::embedding) refuse(text() << "it is an embedding, which is not written in this format");
  for (const any_view* v : {&m.weights.a, &m.weights.b}) {
    const char* const which = v == &m.weights.a ? "A" : "B";
    if (v->type() != dtype::f32 && v->type() != dtype::f16 && v->type() != dtype::bf16)
      refuse(text() << which << " has dtype " << name_of(v->type()) << ", not f32, f16 or bf16");
    if (v->rank() != 2) refuse(text() << which << " has shape " << shape_text{v->shape(), v->rank()} << ", not that of a matrix");
  }
  if (m.weights.a.extent(0) != m.weights.b.extent(1) || m.weights.a.extent(0) == 0)
    refuse(text() << "A " << shape_text{m.weights.a.shape(), 2} << " [rank, in] and B " << shape_text{m.weights.b.shape(), 2}
                  << " [out, rank] do not fit together");
  if (!std::isfinite(m.weights.scale)) refuse(text() << "the scale is not finite");
  if (!m.weights.is_plain())
    refuse(text() << "it has "
                  << (m.weights.magnitude.size() != 0 ? "a magnitude of DoRA"
                      : m.weights.bias.size() != 0    ? "a bias of B"
                      : m.weights.weight.size() != 0  ? "a replaced weight"
                      : m.weights.rows.size() != 0    ? "trained token rows"
                                                      : "a trained bias")
                  << ", which is not written in this format");
  if (m.name.empty()) refuse(text() << "it has no name");
  if (m.name.ends_with(']')) refuse(text() << "it is one of the experts of a parameter, which are not written");
}

/** For formats that hold matrices only. */
inline void require_no_convolution(const char* operation, const adapted_module& m) {
  if (m.kind == module_kind::conv2d)
    raise<value_error>(text() << operation << ": module " << quote(m.name) << ": it is a convolution, which is not written in this format");
}

inline void require_modules(const char* operation, const adapter& source) {
  if (source.modules.empty()) raise<value_error>(text() << operation << ": the adapter has no modules");
  if (!source.tensors.empty())
    raise<value_error>(text() << operation << ": the adapter replaces the tensor " << quote(source.tensors.front().name)
                              << ", which is not written in this format");
}

/**
 * The alpha to write: alpha / rank, divided in double and rounded to float, is exactly the scale. The decimals of the nearest float are
 * tried first, because they are what was meant: 7, not 6.999999761581421. The product itself always does: it is exact, 24 bits times at
 * most 29.
 */
[[nodiscard]] inline double alpha_of(const low_rank& w) {
  const auto rank = static_cast<double>(w.a.extent(0));
  const double exact = static_cast<double>(w.scale) * rank;
  char digits[32];
  const auto end = std::to_chars(digits, digits + sizeof digits, static_cast<float>(exact));
  double meant = 0;
  const auto read = std::from_chars(digits, end.ptr, meant);
  return read.ec == std::errc() && static_cast<float>(meant / rank) == w.scale ? meant : exact;
}

/** A float alpha for which alpha / rank is exactly the scale; false when there is none. */
[[nodiscard]] inline bool float_alpha_of(const low_rank& w, float& alpha) {
  const auto rank = static_cast<double>(w.a.extent(0));
  const auto nearest = static_cast<float>(static_cast<double>(w.scale) * rank);
  for (const float candidate : {nearest, std::nextafter(nearest, -INFINITY), std::nextafter(nearest, INFINITY)})
    if (std::isfinite(candidate) && static_cast<float>(static_cast<double>(candidate) / rank) == w.scale) {
      alpha = candidate;
      return true;
    }
  return false;
}

}  // namespace lora::inline v0::detail

#endif
