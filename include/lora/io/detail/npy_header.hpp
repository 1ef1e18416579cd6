// SPDX-License-Identifier: Apache-2.0
//
// The dictionary in the header of a .npy file: NumPy's names of the types, and a strict parser for the one Python literal that NumPy
// writes. The writer's half is npy_layout.hpp. Not API.
//
// Grammar, with spaces allowed between any two tokens:
//   header := '{' item (',' item)* ','? '}' spaces '\n'        each of the three keys exactly once, in any order
//   item   := 'descr' ':' string | 'fortran_order' ':' ('True' | 'False') | 'shape' ':' tuple
//   tuple  := '(' ')' | '(' integer ',' ')' | '(' integer (',' integer)+ ','? ')'
//   string := text in single or double quotes, printable ASCII, no backslash;   integer := '0' or digits without a leading 0
#ifndef LORA_IO_DETAIL_NPY_HEADER_HPP
#define LORA_IO_DETAIL_NPY_HEADER_HPP

#include <lora/core/dtype.hpp>
#include <lora/core/error.hpp>
#include <lora/nd/any_view.hpp>

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace lora::inline v0::detail {

struct npy_type {
  std::string_view name;  // as NumPy's, without the byte order
  dtype type;
};

/** What .npy can hold. NumPy has no name for the other nine dtypes: bfloat16 and the types below one byte or with one byte's floats. */
inline constexpr npy_type npy_types[] = {{"f2", dtype::f16}, {"f4", dtype::f32}, {"f8", dtype::f64}, {"i1", dtype::i8},
                                         {"i2", dtype::i16}, {"i4", dtype::i32}, {"i8", dtype::i64}, {"u1", dtype::u8},
                                         {"u2", dtype::u16}, {"u4", dtype::u32}, {"u8", dtype::u64}, {"b1", dtype::boolean},
                                         {"c8", dtype::c64}};

struct npy_header {
  dtype type = dtype::u8;
  bool swapped = false;  // big-endian, of more than one byte
  order layout = order::C;
  index_t shape[max_rank] = {};
  std::size_t rank = 0;
};

class npy_header_parser {
 public:
  /** `first_byte` is where `dictionary` begins in the file. Big-endian types are refused unless `swap`. */
  npy_header_parser(std::string_view file, std::string_view dictionary, std::size_t first_byte, bool swap) noexcept
      : file_(file), text_(dictionary), first_byte_(first_byte), swap_(swap) {}

  /** @throws io_error naming the file, what was expected, and the byte. */
  [[nodiscard]] npy_header parse() {
    expect('{', "a dictionary that begins with '{'");
    bool closed = take('}');
    while (!closed) {
      item();
      if (take(',')) {
        closed = take('}');
      } else {
        expect('}', "',' or '}'");
        closed = true;
      }
    }
    skip_spaces();
    if (at_ + 1 != text_.size() || text_[at_] != '\n') refuse("only spaces and one newline may follow the dictionary");
    if (!descr_seen_) refuse("the key 'descr' is missing");
    if (!order_seen_) refuse("the key 'fortran_order' is missing");
    if (!shape_seen_) refuse("the key 'shape' is missing");
    return out_;
  }

 private:
  [[noreturn]] void refuse(const char* sentence) const {
    text t;
    t << quote(file_) << ": " << sentence << " (byte " << first_byte_ + at_ << ")";
    raise<io_error>(t);
  }
  [[noreturn]] void refuse_descr(std::string_view descr, const char* sentence) const {
    text t;
    t << quote(file_) << ": dtype " << quote(descr) << " " << sentence << " (byte " << first_byte_ + at_ << ")";
    raise<io_error>(t);
  }

  void skip_spaces() noexcept {
    while (at_ < text_.size() && text_[at_] == ' ') ++at_;
  }
  [[nodiscard]] bool take(char c) noexcept {
    skip_spaces();
    if (at_ == text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  void expect(char c, const char* what) {
    if (take(c)) return;
    text t;
    t << quote(file_) << ": " << what << " was expected (byte " << first_byte_ + at_ << ")";
    raise<io_error>(t);
  }

  [[nodiscard]] std::string_view string() {
    skip_spaces();
    if (at_ == text_.size() || (text_[at_] != '\'' && text_[at_] != '"')) refuse("a quoted string was expected");
    const char quotation = text_[at_++];
    const std::size_t begin = at_;
    for (; at_ < text_.size() && text_[at_] != quotation; ++at_)
      if (text_[at_] == '\\' || text_[at_] < 0x20 || text_[at_] > 0x7e)
        refuse("a string holds a backslash or a character that is not printable ASCII");
    if (at_ == text_.size()) refuse("a string does not end");
    return text_.substr(begin, at_++ - begin);
  }

  void item() {
    const std::string_view key = string();
    bool* const seen = key == "descr" ? &descr_seen_ : key == "fortran_order" ? &order_seen_ : key == "shape" ? &shape_seen_ : nullptr;
    if (seen == nullptr) refuse("a key is none of 'descr', 'fortran_order' and 'shape'");
    if (*seen) refuse("a key occurs twice");
    *seen = true;
    expect(':', "':'");
    if (seen == &descr_seen_) descr();
    if (seen == &order_seen_) fortran_order();
    if (seen == &shape_seen_) shape();
  }

  void descr() {
    skip_spaces();
    if (at_ < text_.size() && (text_[at_] == '[' || text_[at_] == '(')) refuse("structured arrays are not supported");
    const std::string_view s = string();
    const std::string_view kind = s.empty() ? s : s.substr(1);
    if (kind.empty()) refuse_descr(s, "is not supported");
    if (kind[0] == 'O') refuse_descr(s, "stands for pickled Python objects, which are never read");
    if (kind[0] == 'V') refuse_descr(s, "stands for a structured or void type, which is not supported");
    for (const npy_type& k : npy_types) {
      if (kind != k.name) continue;
      const bool one_byte = size_of(k.type) == 1;
      if (s[0] == '>' && !swap_) refuse_descr(s, "is big-endian; npy_options{.swap = true} reads it, into a swapped copy");
      // '|' means that byte order does not apply: true of single bytes alone.
      if (s[0] != '<' && s[0] != '>' && !(s[0] == '|' && one_byte)) refuse_descr(s, "does not begin with '<' (or '|' for single bytes)");
      out_.type = k.type;
      out_.swapped = s[0] == '>' && !one_byte;
      return;
    }
    refuse_descr(s, "is not supported; supported: f2 f4 f8 i1 i2 i4 i8 u1 u2 u4 u8 b1 c8");
  }

  void fortran_order() {
    skip_spaces();
    const std::string_view rest = text_.substr(at_);
    const bool yes = rest.starts_with("True");
    if (!yes && !rest.starts_with("False")) refuse("'fortran_order' is neither True nor False");
    at_ += yes ? 4 : 5;
    out_.layout = yes ? order::F : order::C;
  }

  void shape() {
    expect('(', "a tuple that begins with '('");
    if (take(')')) return;
    for (;;) {
      const index_t extent = integer();
      if (out_.rank == max_rank) refuse("the array has more than 8 dimensions, the most that are supported");
      out_.shape[out_.rank++] = extent;
      if (take(',')) {
        if (take(')')) return;
      } else {
        // Without a comma Python reads (3) as the number 3, which is no shape.
        if (out_.rank == 1) refuse("a ',' was expected: a tuple of one number is written (3,)");
        expect(')', "',' or ')'");
        return;
      }
    }
  }

  [[nodiscard]] index_t integer() {
    skip_spaces();
    const std::size_t begin = at_;
    index_t value = 0;
    for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_)
      if (!checked_mul(value, index_t{10}, value) || !checked_add(value, static_cast<index_t>(text_[at_] - '0'), value))
        refuse("a dimension does not fit a signed 64-bit index");
    if (at_ == begin) refuse("a dimension is not a plain unsigned integer");
    if (text_[begin] == '0' && at_ - begin > 1) refuse("a dimension has leading zeros");
    return value;
  }

  std::string_view file_;
  std::string_view text_;
  std::size_t first_byte_;
  std::size_t at_ = 0;
  npy_header out_;
  bool swap_;
  bool descr_seen_ = false;
  bool order_seen_ = false;
  bool shape_seen_ = false;
};

}  // namespace lora::inline v0::detail

#endif
