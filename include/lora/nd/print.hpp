// SPDX-License-Identifier: Apache-2.0
//
// to_string: a view, an array or an any_view as text, character for character as NumPy 2 prints the same numbers: columns aligned, digits
// the shortest that tell numbers apart, a summary where there are more than 1000 elements. operator<< is in nd/ostream.hpp.
//
//   std::string s = lora::to_string(a);                                     // str(a):  "[[0. 1.]\n [2. 3.]]"
//   s = lora::to_string(a, {.style = lora::print_style::repr});             // repr(a): "array([[0., 1.],\n       [2., 3.]], dtype=float32)"
//   s = lora::to_string(a, {.precision = 3, .suppress_small = true});
//
// bfloat16, which NumPy does not have, prints as the same values in float32. Types that are carried without being decoded (f4, f6, f8,
// c64) print as a sentence with dtype and shape.
#ifndef LORA_ND_PRINT_HPP
#define LORA_ND_PRINT_HPP

#include <lora/nd/array.hpp>
#include <lora/nd/print_element.hpp>

namespace lora::inline v0 {

namespace detail {

/** Brackets, separators and line breaks around the elements. */
class array_printer {
 public:
  array_printer(const any_view& v, const print_options& o, const element_printer& elements)
      : view_(v), edge_(o.edgeitems), elements_(elements), separator_(o.style == print_style::repr ? ", " : " ") {}

  /** The part of the array that starts at `offset` and has the axes from `axis` on. `indent` is the column of its first bracket's inside. */
  [[nodiscard]] std::string operator()(std::size_t axis, index_t offset, std::size_t indent, index_t width) const {
    if (axis == view_.rank()) return elements_(offset);
    const index_t n = view_.extent(axis);
    const bool cut = elements_.summarise() && 2 * edge_ < n;
    const std::string bare_separator = separator_[0] == ',' ? "," : "";
    std::string s = "[";
    if (axis + 1 == view_.rank()) {
      std::size_t line = indent;  // columns of the line that is being written
      const auto word = [&](const std::string& w) {
        const index_t room = width - 1;  // for a bracket, or the comma of the separator
        if (static_cast<index_t>(line + w.size()) > room && line > indent) {
          while (s.back() == ' ') s.pop_back();
          s += '\n' + std::string(indent, ' ');
          line = indent;
        }
        s += w;
        line += w.size();
      };
      for (index_t i = 0; i < n; ++i) {
        if (cut && i == edge_) {
          word("...");
          s += separator_;
          line += separator_.size();
          i = n - edge_;
        }
        word(elements_(offset + i * view_.stride(axis)));
        if (i + 1 < n) {
          s += separator_;
          line += separator_.size();
        }
      }
    } else {
      const std::string between = bare_separator + std::string(view_.rank() - axis - 1, '\n') + std::string(indent, ' ');
      for (index_t i = 0; i < n; ++i) {
        if (cut && i == edge_) {
          s += "..." + between;
          i = n - edge_;
        }
        s += (*this)(axis + 1, offset + i * view_.stride(axis), indent + 1, width - 1);
        if (i + 1 < n) s += between;
      }
    }
    return s + "]";
  }

 private:
  const any_view& view_;
  index_t edge_;
  const element_printer& elements_;
  std::string separator_;
};

[[nodiscard]] inline const char* numpy_name(dtype t) noexcept {
  switch (t) {
    case dtype::u8:
      return "uint8";
    case dtype::i8:
      return "int8";
    case dtype::i16:
      return "int16";
    case dtype::u16:
      return "uint16";
    case dtype::f16:
      return "float16";
    case dtype::bf16:
      return "bfloat16";
    case dtype::i32:
      return "int32";
    case dtype::u32:
      return "uint32";
    case dtype::f32:
      return "float32";
    case dtype::f64:
      return "float64";
    case dtype::i64:
      return "int64";
    case dtype::u64:
      return "uint64";
    default:
      return name_of(t);
  }
}

[[nodiscard]] inline std::string tuple_text(const any_view& v) {
  std::string s = "(";
  for (std::size_t i = 0; i < v.rank(); ++i) s += (i == 0 ? "" : ", ") + std::to_string(v.extent(i));
  return s + (v.rank() == 1 ? ",)" : ")");
}

[[nodiscard]] inline bool is_printable(dtype t) noexcept {
  switch (t) {
    case dtype::f4:
    case dtype::f6_e2m3:
    case dtype::f6_e3m2:
    case dtype::f8_e5m2:
    case dtype::f8_e4m3:
    case dtype::f8_e8m0:
    case dtype::f8_e4m3fnuz:
    case dtype::f8_e5m2fnuz:
    case dtype::c64:
      return false;
    default:
      return true;
  }
}

}  // namespace detail

/**
 * The text of an array, as NumPy's str(a) or repr(a) with the same print options.
 *
 * @param v        any_view; or a view or ndarray of an element type, of rank <= 8
 * @throws value_error when an option is out of its range; std::bad_alloc.
 * @par Cost       Only the elements that are shown are read; three passes over them. For people and tests, not for writing data to files.
 */
[[nodiscard]] inline std::string to_string(const any_view& v, const print_options& options = {}) {
  if (options.precision < 0) detail::raise_print_option("precision", options.precision, "it is 0 or more");
  if (options.edgeitems < 1) detail::raise_print_option("edgeitems", options.edgeitems, "it is 1 or more");
  if (options.sign != '-' && options.sign != '+' && options.sign != ' ')
    detail::raise_print_option("sign (its character code)", options.sign, "it is '-', '+' or ' '");
  const bool repr = options.style == print_style::repr;
  if (!detail::is_printable(v.type())) {
    detail::text t;
    t << "<array of " << name_of(v.type()) << ", shape " << detail::shape_text{v.shape(), v.rank()}
      << ": elements of this type are carried, not shown>";
    return t.c_str();
  }

  const detail::element_printer elements(v, options);
  if (!repr && v.rank() == 0) return elements.scalar_text();
  std::string s = "[]";
  if (v.size() != 0) s = detail::array_printer(v, options, elements)(0, 0, repr ? 7 : 1, options.linewidth - (repr ? 1 : 0));
  if (!repr) return s;

  // What cannot be seen from the numbers: the shape of an empty or a summarised array, and the dtype unless it is Python's own.
  std::string more;
  if ((v.size() == 0 && !(v.rank() == 1)) || v.size() > options.threshold) more = "shape=" + detail::tuple_text(v);
  const bool implied = v.type() == dtype::f64 || v.type() == dtype::i64 || v.type() == dtype::boolean;
  if (!implied || v.size() == 0) more += (more.empty() ? "dtype=" : ", dtype=") + std::string(detail::numpy_name(v.type()));
  s = "array(" + s;
  if (more.empty()) return s + ")";
  s += ",";
  const std::size_t line = s.size() - (s.rfind('\n') + 1);  // npos + 1 is 0
  const bool fits = static_cast<index_t>(line + more.size() + 2) <= options.linewidth;
  return s + (fits ? " " : "\n      ") + more + ")";
}

template <element T, std::size_t R>
[[nodiscard]] std::string to_string(const ndview<T, R>& v, const print_options& options = {}) {
  static_assert(R <= max_rank, "lora: to_string takes views of at most 8 axes; reshape the view first");
  return to_string(any_view(v), options);
}
template <element T, std::size_t R>
[[nodiscard]] std::string to_string(const ndarray<T, R>& a, const print_options& options = {}) {
  return to_string(any_view(a.view()), options);
}

}  // namespace lora::inline v0

#endif
