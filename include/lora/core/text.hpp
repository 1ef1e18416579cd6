// SPDX-License-Identifier: Apache-2.0
//
// detail::text: builds a message in a fixed buffer, without <string> and without allocation, so that a header which can only fail
// stays cheap to include. Too long a message is cut and ends in "...". Not a formatting library: it knows text, integers, shapes.
//
//   detail::text t; t << "copy: source is " << detail::shape_text{p, 2} << " but ...";
#ifndef LORA_CORE_TEXT_HPP
#define LORA_CORE_TEXT_HPP

#include <lora/config.hpp>

#include <cstddef>
#include <type_traits>

namespace lora::inline v0::detail {

/** `rank` numbers to be written as "[4, 5, 6]". Refers to the numbers, does not own them. */
struct shape_text {
  const std::ptrdiff_t* values;
  std::size_t rank;
};

/** A path or a name from outside: long ones keep their end, control characters become '?', so that a message stays one line. */
struct quoted {
  const char* data;
  std::size_t size;
};

class text {
 public:
  static constexpr std::size_t capacity = 1024;

  text() noexcept = default;

  [[nodiscard]] const char* c_str() const noexcept { return buffer_; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }

  text& operator<<(const char* s) noexcept {
    while (*s != '\0') put(*s++);
    return *this;
  }

  template <class Integer>
    requires(std::is_integral_v<Integer> && !std::is_same_v<Integer, bool> && !std::is_same_v<Integer, char>)
  text& operator<<(Integer value) noexcept {
    if constexpr (std::is_signed_v<Integer>) {
      if (value < 0) put('-');
      // Negated in the unsigned type: the most negative value has no positive counterpart.
      const auto bits = static_cast<unsigned long long>(value);
      return digits(value < 0 ? 0ULL - bits : bits);
    } else {
      return digits(static_cast<unsigned long long>(value));
    }
  }

  text& operator<<(shape_text s) noexcept {
    put('[');
    for (std::size_t i = 0; i < s.rank; ++i) {
      if (i != 0) *this << ", ";
      *this << s.values[i];
    }
    put(']');
    return *this;
  }

  text& operator<<(quoted q) noexcept {
    constexpr std::size_t longest = 200;
    put('\'');
    std::size_t i = 0;
    if (q.size > longest) {
      *this << "...";
      i = q.size - longest;
    }
    for (; i < q.size; ++i) {
      const auto c = static_cast<unsigned char>(q.data[i]);
      put(c < 0x20 || c == 0x7f ? '?' : q.data[i]);
    }
    put('\'');
    return *this;
  }

 private:
  text& digits(unsigned long long value) noexcept {
    char reversed[20];
    std::size_t n = 0;
    do {
      reversed[n++] = static_cast<char>('0' + value % 10);
      value /= 10;
    } while (value != 0);
    while (n != 0) put(reversed[--n]);
    return *this;
  }

  void put(char c) noexcept {
    if (size_ + 1 < capacity) {
      buffer_[size_++] = c;
      buffer_[size_] = '\0';
    } else {
      for (std::size_t i = 2; i < 5; ++i) buffer_[capacity - i] = '.';
    }
  }

  char buffer_[capacity] = {};
  std::size_t size_ = 0;
};

/** Any contiguous text (std::string, std::string_view) as a quoted piece, without naming those types here. */
template <class String>
[[nodiscard]] constexpr quoted quote(const String& s) noexcept {
  return {s.data(), s.size()};
}

}  // namespace lora::inline v0::detail

#endif
