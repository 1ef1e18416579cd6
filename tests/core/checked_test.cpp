// SPDX-License-Identifier: Apache-2.0
#include <lora/core/checked.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <initializer_list>
#include <limits>

namespace {

__extension__ typedef __int128 wide;  // `using` cannot carry __extension__, and -Wpedantic wants it

template <class T>
bool fits(wide v) {
  return v >= wide(std::numeric_limits<T>::min()) && v <= wide(std::numeric_limits<T>::max());
}

template <class T>
void check_against_wide() {
  using limits = std::numeric_limits<T>;
  const T values[] = {limits::min(),
                      static_cast<T>(limits::min() + 1),
                      static_cast<T>(limits::min() / 2),
                      T(0),
                      T(1),
                      T(2),
                      T(3),
                      static_cast<T>(T(1) << (limits::digits / 2)),
                      static_cast<T>(limits::max() / 3),
                      static_cast<T>(limits::max() / 2),
                      static_cast<T>(limits::max() - 1),
                      limits::max()};
  for (const T a : values) {
    for (const T b : values) {
      CAPTURE(a);
      CAPTURE(b);
      // The product of two unsigned 64-bit values need not fit the signed wide type: divide instead.
      const bool fits_product =
          a == 0 || b == 0 || (limits::is_signed ? fits<T>(wide(a) * wide(b)) : wide(a) <= wide(limits::max()) / wide(b));
      T out = 0;
      CHECK(lora::checked_mul(a, b, out) == fits_product);
      if (fits_product) CHECK((b == 0 ? out == 0 : out % b == 0 && out / b == a));
      const wide sum = wide(a) + wide(b);
      CHECK(lora::checked_add(a, b, out) == fits<T>(sum));
      if (fits<T>(sum)) CHECK((wide(out) == sum));
    }
  }
}

bool addressable(std::initializer_list<std::ptrdiff_t> extents, std::size_t element_size) {
  return lora::addressable(extents.begin(), extents.size(), element_size);
}

}  // namespace

TEST_CASE("core/checked: sums and products agree with 128-bit arithmetic") {
  check_against_wide<std::ptrdiff_t>();
  check_against_wide<std::size_t>();
  check_against_wide<std::uint32_t>();
  check_against_wide<std::int32_t>();
}

TEST_CASE("core/checked: addressable means that the non-zero extents and the element fit PTRDIFF_MAX bytes") {
  constexpr std::ptrdiff_t big = std::ptrdiff_t{1} << 40;
  constexpr std::ptrdiff_t most = PTRDIFF_MAX;
  CHECK(addressable({}, 8));
  CHECK(addressable({most}, 1));
  CHECK_FALSE(addressable({most}, 2));
  CHECK(addressable({most / 4}, 4));
  CHECK_FALSE(addressable({most / 4 + 1}, 4));
  CHECK(addressable({0, big}, 4));
  CHECK_FALSE(addressable({0, big, big}, 4));  // a zero does not excuse the others
  CHECK_FALSE(addressable({big, big, 0}, 4));
  CHECK_FALSE(addressable({-1, 2}, 4));
  CHECK(addressable({0, 0, 0}, 4));
  static_assert(lora::addressable(nullptr, 0, 4));
}
