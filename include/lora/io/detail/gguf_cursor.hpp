// SPDX-License-Identifier: Apache-2.0
//
// Reading the front of a GGUF file: little-endian numbers, strings with a 64-bit length, and values that are told by a type number, none
// of them beyond the end. And the table of ggml's tensor types. Not API.
#ifndef LORA_IO_DETAIL_GGUF_CURSOR_HPP
#define LORA_IO_DETAIL_GGUF_CURSOR_HPP

#include <lora/core/checked.hpp>
#include <lora/io/detail/safetensors_header.hpp>

#include <cstring>
#include <span>

namespace lora::inline v0::detail {

/** Every size and count is compared with what is left of the file before it is believed. */
class gguf_cursor {
 public:
  // As in safetensors: what stands in front of the tensors is at most so long.
  static constexpr std::size_t max_header = 100'000'000;

  gguf_cursor(std::span<const std::byte> bytes, std::string_view file) noexcept : bytes_(bytes), file_(file) {}

  [[nodiscard]] std::size_t position() const noexcept { return at_; }
  [[nodiscard]] std::uint64_t left() const noexcept { return bytes_.size() - at_; }

  template <class T>
  [[nodiscard]] T take(const char* what) {
    T value;
    std::memcpy(&value, skip(sizeof(T), what), sizeof(T));
    return value;
  }

  /** `plain` strings are names and texts: C programs, and every log, would see another one than was checked if there were a NUL in it. */
  [[nodiscard]] std::string_view string(const char* what, bool plain = true) {
    const std::size_t from = at_;
    const auto size = take<std::uint64_t>(what);
    if (size > left()) refuse_at(about() << what << " claims " << size << " bytes, but the file has only " << left() << " more", from);
    const auto* const p = reinterpret_cast<const char*>(skip(static_cast<std::size_t>(size), what));
    if (plain && std::memchr(p, 0, static_cast<std::size_t>(size)) != nullptr) refuse_at(about() << what << " contains a NUL", from);
    return {p, static_cast<std::size_t>(size)};
  }

  /** `count` elements of `size` bytes; a count that cannot fit is refused before it is multiplied into anything. */
  const std::byte* skip_elements(std::uint64_t count, std::size_t size, const char* what) {
    std::uint64_t bytes = 0;
    if (!checked_mul(count, std::uint64_t{size}, bytes) || bytes > left())
      refuse_at(about() << what << " claims " << count << " elements, but the file has only " << left() << " more bytes", at_);
    return skip(static_cast<std::size_t>(bytes), what);
  }

  [[nodiscard]] text about() const noexcept { return text() << quote(file_) << ": "; }

 private:
  const std::byte* skip(std::size_t size, const char* what) {
    if (size > left()) refuse_at(about() << "the file ends inside " << what, at_);
    if (size > max_header || at_ + size > max_header)
      refuse_at(about() << "the header is longer than " << max_header << " bytes, the most that is read", at_);
    const std::byte* const p = bytes_.data() + at_;
    at_ += size;
    return p;
  }

  std::span<const std::byte> bytes_;
  std::string_view file_;
  std::size_t at_ = 0;
};

/** ggml's plain types; the others, all of them quantised, are only named. */
struct ggml_plain_type {
  std::uint32_t number;
  dtype type;
};
inline constexpr ggml_plain_type ggml_plain_types[] = {{0, dtype::f32},  {1, dtype::f16},  {24, dtype::i8},  {25, dtype::i16},
                                                       {26, dtype::i32}, {27, dtype::i64}, {28, dtype::f64}, {30, dtype::bf16}};

[[nodiscard]] inline bool plain_ggml_type(std::uint32_t number, dtype& out) noexcept {
  for (const ggml_plain_type& t : ggml_plain_types)
    if (t.number == number) {
      out = t.type;
      return true;
    }
  return false;
}

/** The name of a quantised type, or null when ggml has none of that number. */
[[nodiscard]] inline const char* quantised_ggml_type(std::uint32_t number) noexcept {
  constexpr const char* names[] = {nullptr, nullptr,  "Q4_0",  "Q4_1",  nullptr, nullptr,   "Q5_0",   "Q5_1",    "Q8_0",  "Q8_1",   "Q2_K",
                                   "Q3_K",  "Q4_K",   "Q5_K",  "Q6_K",  "Q8_K",  "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S",
                                   "IQ2_S", "IQ4_XS", nullptr, nullptr, nullptr, nullptr,   nullptr,  "IQ1_M",   nullptr, nullptr,  nullptr,
                                   nullptr, "TQ1_0",  "TQ2_0", nullptr, nullptr, nullptr,   "MXFP4",  "NVFP4",   "Q1_0"};
  return number < sizeof names / sizeof names[0] ? names[number] : nullptr;
}

}  // namespace lora::inline v0::detail

#endif
