// SPDX-License-Identifier: Apache-2.0
//
// The options of printing, and detail::element_printer, which reads the elements of one array, finds the width and notation of their column
// and writes each of them. Brackets and lines are in nd/print.hpp, digits in nd/digits.hpp.
//
//   lora::detail::element_printer e(v, options);  // looks at every element that is shown
//   e(offset);                                    // " 1.5 ": padded to the column
#ifndef LORA_ND_PRINT_ELEMENT_HPP
#define LORA_ND_PRINT_ELEMENT_HPP

#include <lora/nd/any_view.hpp>
#include <lora/nd/digits.hpp>

namespace lora::inline v0 {

/** NumPy's str(a), for people, or repr(a), which names what the numbers do not show. */
enum class print_style : unsigned char { str, repr };

/** NumPy's floatmode: at most `precision` digits behind the point, the same for all, as many as it takes, or always `precision`. */
enum class float_mode : unsigned char { maxprec, maxprec_equal, unique, fixed };

/** The names and defaults of numpy.set_printoptions. */
struct print_options {
  int precision = 8;            ///< digits behind the point; >= 0
  index_t threshold = 1000;     ///< more elements than this are summarised
  index_t edgeitems = 3;        ///< shown at each end of a summarised axis; >= 1
  index_t linewidth = 75;       ///< columns before a line is broken
  bool suppress_small = false;  ///< no scientific notation because of small numbers: they become 0
  char sign = '-';              ///< '-', or '+' before positive numbers too, or ' ' in their place
  float_mode floatmode = float_mode::maxprec;
  print_style style = print_style::str;
};

namespace detail {

[[noreturn, gnu::cold, gnu::noinline]] inline void raise_print_option(const char* name, long long value, const char* rule) {
  text t;
  t << "to_string: " << name << " is " << value << "; " << rule;
  raise<value_error>(t);
}

/** Reads, measures and writes the elements of one array. Made once for an array; everything here is compiled once, whatever its type. */
class element_printer {
 public:
  element_printer(const any_view& v, const print_options& options) : view_(v), options_(options) {
    summarise_ = v.size() > options.threshold;
    switch (v.type()) {
      case dtype::f16:
        kind_ = float_kind::f16;
        break;
      case dtype::bf16:
      case dtype::f32:
        kind_ = float_kind::f32;
        break;
      case dtype::f64:
        kind_ = float_kind::f64;
        break;
      default:
        floating_ = false;
    }
    if (v.size() == 0) return;
    if (floating_) {
      measure_floats();
    } else if (v.type() != dtype::boolean) {
      measure_integers();
    }
  }

  [[nodiscard]] bool summarise() const noexcept { return summarise_; }

  /** Padded to the width of the column. */
  [[nodiscard]] std::string operator()(index_t offset) const {
    if (floating_) return float_text(float_at(offset));
    if (view_.type() == dtype::boolean) return boolean_at(offset) ? (view_.rank() == 0 ? "True" : " True") : "False";
    std::string s = integer_text(offset);
    return s.size() < width_ ? std::string(width_ - s.size(), ' ') + s : s;
  }

  /** The element of an array of rank 0 by itself, as str() of a NumPy scalar. */
  [[nodiscard]] std::string scalar_text() const {
    if (!floating_) return view_.type() == dtype::boolean ? (boolean_at(0) ? "True" : "False") : integer_digits(0);
    const double value = float_at(0);
    if (!std::isfinite(value)) return std::isnan(value) ? "nan" : value < 0 ? "-inf" : "inf";
    const double size = std::fabs(value);
    // The exact 1e-4, not the element type's: str(numpy.float32(1e-4)) is 1e-04.
    std::string s;
    if (size == 0 || (1e-4 <= size && size < scalar_limit())) {
      s = positional(size, kind_, {});
      if (s.back() == '.') s += '0';
    } else {
      s = scientific(size, kind_, {}, 2);
      const std::size_t point = s.find('.');
      if (s[point + 1] == 'e') s.erase(point, 1);
    }
    return std::signbit(value) ? "-" + s : s;
  }

 private:
  template <class T>
  [[nodiscard]] T read(index_t offset) const noexcept {
    T value;  // by bytes: an any_view may be misaligned
    __builtin_memcpy(&value, static_cast<const char*>(view_.data()) + offset * static_cast<index_t>(sizeof(T)), sizeof(T));
    return value;
  }

  /** A byte from outside may be neither 0 nor 1, and must not be read as a bool then. */
  [[nodiscard]] bool boolean_at(index_t offset) const noexcept { return read<unsigned char>(offset) != 0; }

  [[nodiscard]] double float_at(index_t offset) const noexcept {
    switch (view_.type()) {
      case dtype::f16:
        return static_cast<double>(static_cast<float>(read<float16>(offset)));
      case dtype::bf16:
        return static_cast<double>(static_cast<float>(read<bfloat16>(offset)));
      case dtype::f32:
        return static_cast<double>(read<float>(offset));
      default:
        return read<double>(offset);
    }
  }

  [[nodiscard]] std::string integer_digits(index_t offset) const {
    switch (view_.type()) {
      case dtype::i8:
        return std::to_string(read<std::int8_t>(offset));
      case dtype::u8:
        return std::to_string(read<std::uint8_t>(offset));
      case dtype::i16:
        return std::to_string(read<std::int16_t>(offset));
      case dtype::u16:
        return std::to_string(read<std::uint16_t>(offset));
      case dtype::i32:
        return std::to_string(read<std::int32_t>(offset));
      case dtype::u32:
        return std::to_string(read<std::uint32_t>(offset));
      case dtype::i64:
        return std::to_string(read<std::int64_t>(offset));
      default:
        return std::to_string(read<std::uint64_t>(offset));
    }
  }

  [[nodiscard]] std::string integer_text(index_t offset) const {
    std::string s = integer_digits(offset);
    if (s[0] != '-' && sign_ != '-') s.insert(s.begin(), sign_);
    return s;
  }

  /** Calls f with the offset of each element that is shown. */
  template <class F>
  void for_each_shown(F&& f, std::size_t axis = 0, index_t offset = 0) const {
    if (axis == view_.rank()) return f(offset);
    const index_t n = view_.extent(axis);
    const bool cut = summarise_ && n > 2 * options_.edgeitems;
    for (index_t i = 0; i < n; ++i) {
      if (cut && i == options_.edgeitems) i = n - options_.edgeitems;
      for_each_shown(f, axis + 1, offset + i * view_.stride(axis));
    }
  }

  void measure_integers() {
    bool negative = false;
    for_each_shown([&](index_t offset) { negative = negative || integer_digits(offset)[0] == '-'; });
    sign_ = options_.sign == ' ' && negative ? '-' : options_.sign;
    for_each_shown([&](index_t offset) {
      const std::size_t n = integer_text(offset).size();
      width_ = n > width_ ? n : width_;
    });
  }

  /** A constant as the type of the elements has it: NumPy compares in that type. */
  [[nodiscard]] double rounded(double value) const noexcept {
    switch (kind_) {
      case float_kind::f16:
        return static_cast<double>(static_cast<float>(float16(static_cast<float>(value))));
      case float_kind::f32:
        return static_cast<double>(static_cast<float>(value));
      default:
        return value;
    }
  }

  /** From here on a table is in scientific notation: as many digits as the type surely holds, and eight at most. */
  [[nodiscard]] double table_limit() const noexcept { return kind_ == float_kind::f16 ? 1e3 : kind_ == float_kind::f32 ? 1e6 : 1e8; }
  [[nodiscard]] double scalar_limit() const noexcept { return kind_ == float_kind::f64 ? 1e16 : table_limit(); }

  void measure_floats() {
    double largest = 0;
    double smallest = HUGE_VAL;
    bool any_finite = false;
    bool any_other = false;
    bool minus_infinity = false;
    bool any_negative = false;
    for_each_shown([&](index_t offset) {
      const double value = float_at(offset);
      if (!std::isfinite(value)) {
        any_other = true;
        minus_infinity = minus_infinity || value < 0;
        return;
      }
      any_finite = true;
      any_negative = any_negative || std::signbit(value);
      const double size = std::fabs(value);
      if (size == 0) return;
      largest = size > largest ? size : largest;
      smallest = size < smallest ? size : smallest;
    });
    if (largest != 0)
      exponential_ =
          largest >= table_limit() || (!options_.suppress_small && (smallest < rounded(1e-4) || rounded(largest / smallest) > 1000));

    const bool fixed = options_.floatmode == float_mode::fixed;
    places_ = {!fixed, options_.floatmode == float_mode::unique ? -1 : options_.precision, 0};
    std::size_t behind = 0;
    std::size_t exponent = 0;
    if (any_finite) {
      for_each_shown([&](index_t offset) {
        const double value = float_at(offset);
        if (!std::isfinite(value)) return;
        const std::string s = bare_text(value, !fixed);
        const std::size_t point = s.find('.');
        const std::size_t e = exponential_ ? s.find('e') : s.size();
        left_ = point > left_ ? point : left_;
        behind = e - point - 1 > behind ? e - point - 1 : behind;
        if (exponential_) exponent = s.size() - e - 2 > exponent ? s.size() - e - 2 : exponent;
      });
      right_ = behind;
      if (exponential_) {
        exponent_digits_ = static_cast<int>(exponent);
        right_ = exponent + 2 + behind;
      }
      if (exponential_ || fixed || options_.floatmode == float_mode::maxprec_equal) {
        places_.most = places_.least = static_cast<int>(behind);
        trim_ = false;
      }
      if (options_.sign == ' ' && !any_negative) ++left_;
    } else if (options_.sign == ' ') {
      ++left_;
    }
    if (any_other) {
      const std::size_t infinity = 3 + (options_.sign != '-' || minus_infinity ? 1u : 0u);
      while (left_ + right_ + 1 < infinity) ++left_;
    }
  }

  /** Sign and digits, without padding. */
  [[nodiscard]] std::string bare_text(double value, bool trim) const {
    const double size = std::fabs(value);
    std::string s = exponential_ ? scientific(size, kind_, places_, exponent_digits_) : positional(size, kind_, places_);
    if (trim) trim_zeros(s);
    if (std::signbit(value)) return "-" + s;
    return options_.sign == '+' ? "+" + s : s;
  }

  [[nodiscard]] std::string float_text(double value) const {
    std::string s;
    if (std::isfinite(value)) {
      s = bare_text(value, trim_);
      const std::size_t point = s.find('.');
      if (point < left_) s.insert(0, left_ - point, ' ');
      if (!exponential_) s.resize(left_ + 1 + right_ > s.size() ? left_ + 1 + right_ : s.size(), ' ');
      return s;
    }
    if (std::isnan(value)) {
      s = options_.sign == '+' ? "+nan" : "nan";
    } else {
      s = value < 0 ? "-inf" : options_.sign == '+' ? "+inf" : "inf";
    }
    const std::size_t width = left_ + right_ + 1;
    return s.size() < width ? std::string(width - s.size(), ' ') + s : s;
  }

  const any_view& view_;
  const print_options& options_;
  bool summarise_ = false;
  bool floating_ = true;
  float_kind kind_ = float_kind::f64;
  // Integers.
  char sign_ = '-';
  std::size_t width_ = 0;
  // Floating point: characters before and behind the point.
  bool exponential_ = false;
  bool trim_ = true;
  int exponent_digits_ = 2;
  places places_;
  std::size_t left_ = 0;
  std::size_t right_ = 0;
};

}  // namespace detail
}  // namespace lora::inline v0

#endif
