// SPDX-License-Identifier: Apache-2.0
//
// view_sequence: what rows(), row_spans(), split() and chunk() return. A fixed number of views (or spans), each computed when it is asked
// for; nothing is stored but the recipe, so there is no heap and no <vector>. Range-for, indexing and the algorithms work on it.
//
//   auto parts = lora::split(a, 3);                       // nd/split.hpp
//   for (auto part : parts) use(part);
//   use(parts[2], parts.size());
#ifndef LORA_ND_SEQUENCE_HPP
#define LORA_ND_SEQUENCE_HPP

#include <lora/nd/shape.hpp>

#include <iterator>

namespace lora::inline v0 {

/**
 * `size()` values, the i-th of which is recipe(i). Copies of a sequence, and iterators after it is gone, stay good as long as the elements
 * live: each holds the recipe itself.
 *
 * Iterators are random access by C++20's rules. By the rules before it they are input iterators, because `*it` is a value and not a
 * reference; std::vector(first, last) and range-for do not mind.
 */
template <class Recipe>
class view_sequence {
 public:
  using value_type = decltype(std::declval<const Recipe&>()(index_t{0}));
  using size_type = std::size_t;
  using difference_type = index_t;

  class iterator {
   public:
    using value_type = view_sequence::value_type;
    using difference_type = index_t;
    using reference = value_type;
    using pointer = void;
    using iterator_category = std::input_iterator_tag;
    using iterator_concept = std::random_access_iterator_tag;

    constexpr iterator() noexcept = default;
    constexpr iterator(const Recipe& recipe, index_t at) noexcept : recipe_(recipe), at_(at) {}

    [[nodiscard]] constexpr value_type operator*() const noexcept { return recipe_(at_); }
    [[nodiscard]] constexpr value_type operator[](index_t n) const noexcept { return recipe_(at_ + n); }
    constexpr iterator& operator++() noexcept { return *this += 1; }
    constexpr iterator& operator--() noexcept { return *this += -1; }
    constexpr iterator operator++(int) noexcept {
      const iterator before = *this;
      ++at_;
      return before;
    }
    constexpr iterator operator--(int) noexcept {
      const iterator before = *this;
      --at_;
      return before;
    }
    constexpr iterator& operator+=(index_t n) noexcept {
      at_ += n;
      return *this;
    }
    constexpr iterator& operator-=(index_t n) noexcept { return *this += -n; }
    [[nodiscard]] friend constexpr iterator operator+(iterator i, index_t n) noexcept { return i += n; }
    [[nodiscard]] friend constexpr iterator operator+(index_t n, iterator i) noexcept { return i += n; }
    [[nodiscard]] friend constexpr iterator operator-(iterator i, index_t n) noexcept { return i -= n; }
    [[nodiscard]] friend constexpr index_t operator-(const iterator& a, const iterator& b) noexcept { return a.at_ - b.at_; }
    // Positions alone: the rows of a broadcast view all have one address.
    [[nodiscard]] friend constexpr bool operator==(const iterator& a, const iterator& b) noexcept { return a.at_ == b.at_; }
    [[nodiscard]] friend constexpr auto operator<=>(const iterator& a, const iterator& b) noexcept { return a.at_ <=> b.at_; }

   private:
    Recipe recipe_{};
    index_t at_ = 0;
  };

  constexpr view_sequence() noexcept = default;
  constexpr view_sequence(const Recipe& recipe, index_t count) noexcept : recipe_(recipe), count_(count) {}

  [[nodiscard]] constexpr std::size_t size() const noexcept { return static_cast<std::size_t>(count_); }
  [[nodiscard]] constexpr bool empty() const noexcept { return count_ == 0; }
  [[nodiscard]] constexpr iterator begin() const noexcept { return iterator(recipe_, 0); }
  [[nodiscard]] constexpr iterator end() const noexcept { return iterator(recipe_, count_); }

  /** The i-th; negative i counts from the end. @throws index_error. */
  [[nodiscard]] constexpr value_type operator[](index_t i) const {
    if (i < -count_ || i >= count_) raise_position(i, count_);
    return recipe_(i < 0 ? i + count_ : i);
  }

 private:
  [[noreturn, gnu::cold, gnu::noinline]] static void raise_position(index_t i, index_t count) {
    detail::text t;
    t << "index " << i << " is out of bounds for a sequence of " << count << " views";
    detail::raise<index_error>(t);
  }

  Recipe recipe_{};
  index_t count_ = 0;
};

}  // namespace lora::inline v0

#endif
