// SPDX-License-Identifier: Apache-2.0
//
// Overlap against sets of bytes: exact for slices of one array, never falsely negative for any strides.
#include <lora/nd/array.hpp>
#include <lora/nd/overlap.hpp>

#include <doctest/doctest.h>

#include <array>
#include <bitset>
#include <cstdint>
#include <random>
#include <type_traits>

using lora::_;
using lora::all;
using lora::index_t;
using lora::ndview;
using lora::range;

namespace {

constexpr std::size_t memory_size = 1024;
alignas(64) unsigned char memory[memory_size];

using bytes = std::bitset<memory_size>;

template <class T>
bytes bytes_of(ndview<T, 2> v, bool& repeats) {
  bytes b;
  repeats = false;
  for (index_t i = 0; i < v.extent(0); ++i)
    for (index_t j = 0; j < v.extent(1); ++j) {
      const auto at = static_cast<std::size_t>(reinterpret_cast<unsigned char*>(v.data() + i * v.stride(0) + j * v.stride(1)) - memory);
      repeats = repeats || b.test(at);
      for (std::size_t k = 0; k < sizeof(T); ++k) b.set(at + k);
    }
  return b;
}

struct random_views {
  std::mt19937 engine{20250101};
  index_t between(index_t low, index_t high) { return low + static_cast<index_t>(engine() % static_cast<std::uint32_t>(high - low + 1)); }

  template <class T>
  ndview<T, 2> any() {
    // In the middle of the memory, with a reach that stays inside it for elements of up to 8 bytes.
    T* const origin = reinterpret_cast<T*>(memory + 512) + between(-4, 4);
    return ndview<T, 2>(origin, {between(0, 4), between(0, 5)}, {between(-9, 9), between(-5, 5)});
  }

  range sub(index_t n) {
    const index_t start = between(0, n - 1);
    return range(start, between(start, n), between(1, 3));
  }
  template <class T>
  ndview<T, 2> slice(ndview<T, 2> v) {
    auto s = v(sub(v.extent(0)), sub(v.extent(1)));
    if (between(0, 3) == 0) s = s(range(_, _, -1));
    if (between(0, 3) == 0) s = s(all, range(_, _, -1));
    if (between(0, 3) == 0) s = s.transpose();
    return s;
  }
};

template <class A, class B>
void check_random(bool slices) {
  random_views r;
  int missed = 0;
  int careful = 0;
  int overlapping = 0;
  int apart = 0;
  for (int i = 0; i < 20000; ++i) {
    ndview<A, 2> a = r.any<A>();
    ndview<B, 2> b = r.any<B>();
    if (slices) {
      const ndview<A, 2> base(reinterpret_cast<A*>(memory), {7, 11});
      a = r.slice(base);
      b = r.slice(ndview<B, 2>(reinterpret_cast<B*>(memory), {9, 8}));
      if constexpr (std::is_same_v<A, B>) b = r.slice(base);
    }
    bool a_repeats = false;
    bool b_repeats = false;
    const bytes in_a = bytes_of(a, a_repeats);
    const bool truth = (in_a & bytes_of(b, b_repeats)).any();
    const bool said = lora::may_overlap(a, b);
    missed += truth && !said ? 1 : 0;
    careful += !truth && said ? 1 : 0;
    (truth ? overlapping : apart) += 1;
    if (lora::may_overlap(b, a) != said) ++missed;
    // Of itself: never missed; exact for slices.
    missed += a_repeats && !lora::may_overlap_itself(a) ? 1 : 0;
    if (slices) careful += !a_repeats && lora::may_overlap_itself(a) ? 1 : 0;
  }
  CHECK(missed == 0);
  CHECK(careful == 0);  // the bound on the work is not reached by views as small as these
  CHECK(overlapping > 300);
  CHECK(apart > 300);
}

}  // namespace

TEST_CASE("nd/overlap: slices of one array") {
  check_random<float, float>(true);
  check_random<double, double>(true);
}

TEST_CASE("nd/overlap: slices of one block of memory as different element types") {
  check_random<double, float>(true);
  check_random<std::uint8_t, double>(true);
}

TEST_CASE("nd/overlap: strides made by hand") {
  check_random<float, float>(false);
  check_random<std::uint16_t, double>(false);
}

TEST_CASE("nd/overlap: halves, interleaved columns and a matrix with its transpose") {
  auto a = lora::zeros<float>(64, 128);
  CHECK_FALSE(lora::may_overlap(a(all, range(0, 64)), a(all, range(64, 128))));
  CHECK(lora::may_overlap(a(all, range(0, 65)), a(all, range(64, 128))));
  CHECK_FALSE(lora::may_overlap(a(all, range(_, _, 2)), a(all, range(1, _, 2))));
  CHECK_FALSE(lora::may_overlap(a(range(_, _, 2)), a(range(1, _, 2))));
  CHECK(lora::may_overlap(a.view(), a.view().transpose()));
  CHECK_FALSE(lora::may_overlap(a(range(0, 0)), a.view()));
  CHECK_FALSE(lora::may_overlap(ndview<float, 2>(), a.view()));
  auto b = lora::zeros<float>(4);
  CHECK_FALSE(lora::may_overlap(a.view(), b.view()));
}

TEST_CASE("nd/overlap: large views are decided at once, and hopeless ones carefully") {
  // No memory behind these: only addresses are compared.
  auto* const p = reinterpret_cast<float*>(std::uintptr_t{1} << 32);
  const index_t n = index_t{1} << 20;
  const ndview<float, 2> left(p, {n, n / 2}, {n, 1});
  const ndview<float, 2> right(p + n / 2, {n, n / 2}, {n, 1});
  CHECK_FALSE(lora::may_overlap(left, right));
  CHECK(lora::may_overlap(left, ndview<float, 2>(p + n / 2 - 1, {n, n / 2}, {n, 1})));
  const ndview<float, 2> far(p, {2, 2}, {PTRDIFF_MAX, 1});
  CHECK(lora::may_overlap(far, left));
  CHECK(lora::may_overlap_itself(ndview<float, 2>(p, {2, 2}, {PTRDIFF_MIN, 1})));
  CHECK(lora::may_overlap_itself(ndview<float, 3>(p, {2, 2, 2}, {PTRDIFF_MAX, PTRDIFF_MAX - 1, 1})));
  // A knapsack of eight unrelated steps a side: whatever is said, it is said soon.
  std::array<index_t, 8> shape{};
  std::array<index_t, 8> steps{999983, 999979, 999961, 999959, 999953, 999931, 999917, 999907};
  shape.fill(1000);
  const lora::detail::footprint odd{1 << 20, 1, shape.data(), steps.data(), 8};
  for (index_t& s : steps) s += 2;
  (void)lora::detail::may_overlap(odd, {(1 << 20) + 1234567, 1, shape.data(), steps.data(), 8});
}

TEST_CASE("nd/overlap: the same elements") {
  auto a = lora::zeros<float>(4, 5);
  const auto& ca = a;
  CHECK(lora::same_elements(a.view(), ca.view()));
  CHECK_FALSE(lora::same_elements(a(range(0, 3)), a(range(1, 4))));
  CHECK_FALSE(lora::same_elements(a(all, range(0, 4)), ndview<float, 2>(a.data(), {4, 4})));
  CHECK(lora::same_elements(a(range(0, 1)), ndview<float, 2>(a.data(), {1, 5}, {77, 1})));
  CHECK_FALSE(lora::same_elements(a.view(), ndview<std::int32_t, 2>(reinterpret_cast<std::int32_t*>(a.data()), {4, 5})));
  CHECK(lora::same_elements(a(range(0, 0)), ndview<float, 2>(nullptr, {0, 5})));
}
