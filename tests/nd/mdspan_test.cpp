// SPDX-License-Identifier: Apache-2.0
//
// Where <mdspan> exists, the real one. This toolchain's floor has none, so a stand-in with the members that the functions use takes its
// place; it proves the library's side only.
#include <lora/nd/array.hpp>
#include <lora/nd/mdspan.hpp>

#include <doctest/doctest.h>

using lora::_, lora::all, lora::index_t, lora::range;

namespace stand_in {

template <class Index, std::size_t R, std::size_t First = static_cast<std::size_t>(-1)>
struct extents {
  using index_type = Index;
  using rank_type = std::size_t;
  std::array<Index, R> values{};
  extents() = default;
  explicit extents(const std::array<Index, R>& v) : values(v) {}
  static constexpr std::size_t rank() { return R; }
  static constexpr std::size_t static_extent(std::size_t i) { return i == 0 ? First : static_cast<std::size_t>(-1); }
};

template <class Extents>
struct stride_mapping {
  Extents e;
  std::array<typename Extents::index_type, Extents::rank()> s{};
  stride_mapping(const Extents& extents, const std::array<typename Extents::index_type, Extents::rank()>& strides)
      : e(extents), s(strides) {}
  static constexpr bool is_always_strided() { return true; }
  typename Extents::index_type stride(std::size_t i) const
    requires(Extents::rank() > 0)
  {
    return s[i];
  }
};

template <class T, class Extents>
struct mdspan {
  using element_type = T;
  using extents_type = Extents;
  using mapping_type = stride_mapping<Extents>;
  using rank_type = std::size_t;
  T* p;
  mapping_type m;
  mdspan(T* data, const mapping_type& mapping) : p(data), m(mapping) {}
  static constexpr std::size_t rank() { return Extents::rank(); }
  T* data_handle() const { return p; }
  typename Extents::index_type extent(std::size_t i) const { return m.e.values[i]; }
  const mapping_type& mapping() const { return m; }
};

}  // namespace stand_in

#if defined(__cpp_lib_mdspan)
template <class T, std::size_t R, class Index = index_t, std::size_t = 0>
using mdspan = std::mdspan<T, std::dextents<Index, R>, std::layout_stride>;
template <class T>
using mdspan_of_4_rows = std::mdspan<T, std::extents<index_t, 4, std::dynamic_extent>, std::layout_stride>;
#else
template <class T, std::size_t R, class Index = index_t>
using mdspan = stand_in::mdspan<T, stand_in::extents<Index, R>>;
template <class T>
using mdspan_of_4_rows = stand_in::mdspan<T, stand_in::extents<index_t, 2, 4>>;
#endif

TEST_CASE("nd/mdspan: there and back, whatever the layout that mdspan allows") {
  auto a = lora::zeros<float>(4, 5, 6);
  for (const auto& v : {a.view(), a.view().permute<2, 0, 1>(), a(range(_, _, 2), range(1, 4), range(_, _, 3)), a(all, range(0, 1)),
                        a(all, range(0, 0), range(_, _, -1)), a(range(0, 1), all, all).permute<1, 0, 2>()}) {
    const auto m = lora::to_mdspan_of<mdspan<float, 3>>(v);
    const auto back = lora::from_mdspan(m);
    static_assert(std::is_same_v<decltype(back), const lora::ndview<float, 3>>);
    CHECK(back.data() == v.data());
    CHECK(back.shape() == v.shape());
    for (std::size_t i = 0; i < 3; ++i) {
      CHECK(back.stride(i) > 0);
      if (v.extent(i) > 1 && !v.empty()) CHECK(back.stride(i) == v.stride(i));
    }
  }
  const auto& read_only = a;
  const auto m = lora::to_mdspan_of<mdspan<const float, 3, int>>(read_only);
  static_assert(std::is_same_v<decltype(lora::from_mdspan(m)), lora::ndview<const float, 3>>);
  CHECK(lora::from_mdspan(lora::to_mdspan_of<mdspan<float, 0>>(lora::ndview<float, 0>(a.data() + 7, {}))).data() == a.data() + 7);
}

TEST_CASE("nd/mdspan: what layout_stride cannot say is refused, with the reason") {
  auto a = lora::zeros<float>(4, 5);
  CHECK_THROWS_WITH_AS(
      (void)(lora::to_mdspan_of<mdspan<const float, 2>>(lora::broadcast_to(a(0), lora::extents{3, 5}))),
      "to_mdspan: shape [3, 5] with strides [0, 1], axis 0: its elements are repeated, and layout_stride has no stride of 0; "
      "copy it first",
      lora::shape_error);
  CHECK_THROWS_WITH(
      (void)(lora::to_mdspan_of<mdspan<float, 2>>(a(all, range(_, _, -1)))),
      "to_mdspan: shape [4, 5] with strides [5, -1], axis 1: it is reversed, and layout_stride has no negative strides; flip() it, "
      "or copy it");
  CHECK_THROWS_AS((void)(lora::to_mdspan_of<mdspan<float, 2>>(lora::ndview<float, 2>(a.data(), {3, 2}, {1, 1}))), lora::shape_error);
  CHECK_THROWS_AS((void)(lora::to_mdspan_of<mdspan<float, 2>>(lora::ndview<float, 2>(a.data(), {3, 2}, {2, 3}))), lora::shape_error);
  // Unique all the same, but not nested: 3 < 2 * 2.
  CHECK_THROWS_AS((void)(lora::to_mdspan_of<mdspan<float, 2>>(lora::ndview<float, 2>(a.data(), {2, 2}, {2, 3}))), lora::shape_error);
  CHECK(lora::to_mdspan_of<mdspan<float, 2>>(lora::ndview<float, 2>(a.data(), {2, 2}, {2, 4})).extent(0) == 2);
  CHECK_THROWS_AS((void)(lora::to_mdspan_of<mdspan<float, 2, signed char>>(lora::ndview<float, 2>(a.data(), {2, 2}, {200, 1}))),
                  lora::shape_error);
  CHECK(lora::to_mdspan_of<mdspan_of_4_rows<float>>(a).extent(1) == 5);
  CHECK_THROWS_AS((void)lora::to_mdspan_of<mdspan_of_4_rows<float>>(a(range(0, 3))), lora::shape_error);
}

#if defined(__cpp_lib_mdspan)
TEST_CASE("nd/mdspan: std::mdspan itself") {
  auto a = lora::zeros<int>(4, 5);
  a(2, 3) = 7;
  const auto m = lora::to_mdspan(a);
  CHECK(m.mapping()(2, 3) == 13);
  CHECK(m.data_handle()[m.mapping()(2, 3)] == 7);
  std::mdspan<int, std::extents<int, 4, 5>, std::layout_left> left(a.data());
  CHECK(lora::from_mdspan(left).stride() == lora::strides{1, 4});
  CHECK(lora::from_mdspan(std::mdspan<int, std::dextents<int, 2>>(a.data(), 4, 5)).stride() == lora::strides{5, 1});
}
#endif
