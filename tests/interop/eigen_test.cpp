// SPDX-License-Identifier: Apache-2.0
//
// The only file of this program that includes Eigen: it counts Eigen's allocations through eigen_assert, and makes Eigen take every
// temporary from the heap, however small, so that none escapes the count.
#include <cstddef>
#include <string_view>

namespace {

std::size_t allocations = 0;        // asked for while they were not allowed
std::size_t failed_assertions = 0;  // all others

void note_failed(std::string_view condition) {
  ++(condition.find("is_malloc_allowed") != std::string_view::npos ? allocations : failed_assertions);
}

}  // namespace

#define eigen_assert(condition) (static_cast<bool>(condition) ? void() : note_failed(#condition))
#define EIGEN_RUNTIME_NO_MALLOC
#define EIGEN_STACK_ALLOCATION_LIMIT 0
#include <lora/interop/eigen.hpp>
#include <lora/nd/array.hpp>

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace {

using lora::_, lora::all, lora::range;

/** How often Eigen asks for memory in `action`. */
template <class Action>
std::size_t allocations_of(Action&& action) {
  allocations = 0;
  Eigen::internal::set_is_malloc_allowed(false);
  action();
  Eigen::internal::set_is_malloc_allowed(true);
  return allocations;
}

template <class Action>
std::string refusal(Action&& action) {
  try {
    action();
  } catch (const lora::shape_error& e) {
    return e.what();
  }
  return "";
}

/** 0, 1, 2, ... in the order of memory. */
template <class... Extents>
auto counted(Extents... extents) {
  auto a = lora::uninit<float>(extents...);
  for (lora::index_t i = 0; i < a.size(); ++i) a.data()[i] = static_cast<float>(i);
  return a;
}

template <class Map, class T>
bool same(const Map& m, lora::ndview<T, 2> v) {
  bool equal = m.rows() == v.extent(0) && m.cols() == v.extent(1);
  for (lora::index_t i = 0; i < v.extent(0) && equal; ++i)
    for (lora::index_t j = 0; j < v.extent(1); ++j) equal = equal && &m.coeffRef(i, j) == &v(i, j);
  return equal;
}

}  // namespace

TEST_CASE("interop/eigen: a matrix of contiguous rows, with any distance between them, is a map of the same elements") {
  auto a = counted(6, 8);
  const auto v = a.view();
  CHECK(same(lora::as_eigen(a), v));
  for (const auto& s : {v, v(range(1, 5)), v(all, range(2, 7)), v(range(_, _, 2)), v(range(1, _, 3), range(3, 4)), v(range(2, 3)),
                        v(range(2, 3), range(1, _, 1)), v(all, range(0, 1)), v(range(_, _, 5), range(7, 8))}) {
    CAPTURE(s.extent(0));
    CAPTURE(s.extent(1));
    CHECK(same(lora::as_eigen(s), s));
    CHECK(same(lora::as_eigen_columns(s.transpose()), s.transpose()));
  }
  lora::as_eigen(v(all, range(2, 4))).setZero();  // written through, and nothing beside it
  CHECK(a(5, 1) == 41.0f);
  CHECK(a(5, 2) == 0.0f);
  CHECK(a(5, 4) == 44.0f);
  // A column of a matrix is an [n, 1] matrix; a row of any stride in a view of one row.
  CHECK(lora::as_eigen(v(all, range(3, 4))).outerStride() == 8);
  CHECK(lora::as_eigen_columns(v(range(3, 4))).outerStride() == 1);
}

TEST_CASE("interop/eigen: const views give maps of const, arrays are taken by name") {
  auto a = counted(2, 3);
  const auto& c = a;
  static_assert(std::is_same_v<decltype(*lora::as_eigen(a).data()), float&>);
  static_assert(std::is_same_v<decltype(*lora::as_eigen(c).data()), const float&>);
  static_assert(std::is_same_v<decltype(*lora::as_eigen(c(0)).data()), const float&>);
  static_assert(std::is_same_v<decltype(*lora::as_eigen_columns(c.view().transpose()).data()), const float&>);
  static_assert(std::is_same_v<decltype(*lora::as_eigen_strided(c(all, 0)).data()), const float&>);
  static_assert(decltype(lora::as_eigen(a))::IsRowMajor && !decltype(lora::as_eigen_columns(a))::IsRowMajor);
  CHECK(lora::as_eigen(c).sum() == 15.0f);
}

TEST_CASE("interop/eigen: axes of length 1 may have any stride, empty matrices any strides; what Eigen sees is never stride 0") {
  auto a = counted(4, 5);
  float* const p = a.data();
  for (const lora::index_t odd : {0, -7, 1, 3, 1000}) {
    CAPTURE(odd);
    const lora::ndview<float, 2> row(p, {1, 5}, {odd, 1});
    const lora::ndview<float, 2> column(p, {4, 1}, {5, odd});
    const lora::ndview<float, 2> element(p, {1, 1}, {odd, odd});
    for (const auto& v : {row, column, element}) {
      CHECK(same(lora::as_eigen(v), v));
      CHECK(lora::as_eigen(v).outerStride() >= lora::as_eigen(v).cols());
      CHECK(same(lora::as_eigen_columns(v.transpose()), v.transpose()));
    }
    for (const auto& shape : {lora::extents{0, 5}, lora::extents{4, 0}, lora::extents{0, 0}}) {
      const lora::ndview<float, 2> v(nullptr, shape, {odd, odd});
      CHECK(lora::as_eigen(v).rows() == shape[0]);
      CHECK(lora::as_eigen(v).cols() == shape[1]);
      CHECK(lora::as_eigen(v).outerStride() > 0);
      CHECK(lora::as_eigen_columns(v).outerStride() > 0);
    }
    const lora::ndview<float, 1> one(p, {1}, {odd});
    CHECK(&lora::as_eigen(one).coeffRef(0) == p);
    CHECK(lora::as_eigen_strided(one).innerStride() == 1);
    CHECK(lora::as_eigen(lora::ndview<float, 1>(nullptr, {0}, {odd})).size() == 0);
  }
  // An empty product through them: [4, 0] times [0, 5] is zero.
  const lora::ndview<float, 2> thin(nullptr, {4, 0});
  const lora::ndview<float, 2> flat(nullptr, {0, 5});
  lora::as_eigen(a).noalias() = lora::as_eigen(thin) * lora::as_eigen(flat);
  CHECK(lora::as_eigen(a).cwiseAbs().maxCoeff() == 0.0f);
}

TEST_CASE("interop/eigen: what a map would copy or misread is refused, with shape, strides and the remedy") {
  auto a = counted(4, 6);
  const auto v = a.view();
  using test = std::string;
  CHECK(refusal([&] { (void)lora::as_eigen(v.transpose()); }) ==
        "as_eigen: shape [6, 4] with strides [1, 6] lies in memory by columns; use as_eigen_columns()");
  CHECK(refusal([&] { (void)lora::as_eigen_columns(v); }) ==
        "as_eigen_columns: shape [4, 6] with strides [6, 1] lies in memory by rows; use as_eigen()");
  CHECK(refusal([&] { (void)lora::as_eigen(v(all, range(_, _, 2))); }) ==
        "as_eigen: shape [4, 3] with strides [6, 2] has gaps inside its rows and its columns, so that Eigen's products would copy it; "
        "contiguous() copies it once");
  CHECK(refusal([&] { (void)lora::as_eigen(v(all, range(_, _, -1))); }).find("runs backwards, which Eigen's maps cannot") != test::npos);
  CHECK(refusal([&] { (void)lora::as_eigen(v(range(_, _, -1))); }).find("shape [4, 6] with strides [-6, 1] runs backwards") != test::npos);
  CHECK(refusal([&] {
          (void)lora::as_eigen(lora::broadcast_to(a(0), lora::extents{3, 6}));
        }) ==
        "as_eigen: shape [3, 6] with strides [0, 1] repeats its elements (stride 0), which Eigen reads wrongly; contiguous() makes a full "
        "copy");
  CHECK(refusal([&] { (void)lora::as_eigen(lora::ndview<float, 2>(a.data(), {4, 6}, {1, 0})); }).find("stride 0") != test::npos);
  CHECK(refusal([&] { (void)lora::as_eigen(lora::ndview<float, 2>(a.data(), {4, 6}, {2, 1})); }).find("lines that overlap") != test::npos);
  CHECK(refusal([&] { (void)lora::as_eigen(v(all, 0)); }) ==
        "as_eigen: shape [4] with strides [6] is not contiguous, so that Eigen's products would copy it; as_eigen_strided() maps it, "
        "contiguous() copies it once");
  CHECK(refusal([&] { (void)lora::as_eigen_strided(v(range(_, _, -1), 0)); }).find("runs backwards") != test::npos);
  CHECK(refusal([&] { (void)lora::as_eigen_strided(lora::ndview<float, 1>(a.data(), {3}, {0})); }).find("repeats one element") !=
        test::npos);
  CHECK(lora::as_eigen_strided(v(all, 1)).sum() == 1.0f + 7 + 13 + 19);
}

TEST_CASE("interop/eigen: every combination of small extents and strides is mapped exactly, or refused") {
  std::vector<float> memory(200);
  std::size_t mapped = 0;
  std::size_t refused = 0;
  for (lora::index_t rows = 0; rows < 4; ++rows)
    for (lora::index_t columns = 0; columns < 4; ++columns)
      for (lora::index_t s0 = -5; s0 <= 5; ++s0)
        for (lora::index_t s1 = -5; s1 <= 5; ++s1) {
          const lora::ndview<float, 2> v(memory.data() + 100, {rows, columns}, {s0, s1});
          bool exact = true;
          const auto tried = [&](auto&& map) {
            return refusal([&] {
                     const auto m = map();
                     exact = same(m, v);
                     // Eigen::Ref takes a stride of 0 for "natural"; through our maps it must see the same elements.
                     Eigen::Ref<Eigen::Matrix<float, -1, -1, decltype(map())::IsRowMajor ? Eigen::RowMajor : Eigen::ColMajor>, 0,
                                Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>>
                         ref(map());
                     exact = exact && same(ref, v);
                   }) == "";
          };
          const bool by_rows = tried([&] { return lora::as_eigen(v); });
          const bool by_columns = tried([&] { return lora::as_eigen_columns(v); });
          REQUIRE(exact);
          // The rule, said once more: lines contiguous and apart, axes of length 1 ignored.
          const bool none = rows == 0 || columns == 0;
          REQUIRE(by_rows == (none || ((columns == 1 || s1 == 1) && (rows == 1 || s0 >= columns))));
          REQUIRE(by_columns == (none || ((rows == 1 || s0 == 1) && (columns == 1 || s1 >= rows))));
          ++(by_rows || by_columns ? mapped : refused);
        }
  CHECK(mapped > 500);
  CHECK(refused > 500);
  CHECK(failed_assertions == 0);
}

TEST_CASE("interop/eigen: products use the elements where they are") {
  const lora::index_t n = 96;
  auto a = counted(n, n + 32);
  auto b = counted(n, n + 32);
  auto c = counted(n, n + 32);
  auto x = counted(n);
  auto y = counted(n);
  const auto square = range(0, n);
  const auto w = lora::as_eigen(a(all, square));
  const auto wt = lora::as_eigen_columns(a(all, square).transpose());
  auto out = lora::as_eigen(c(all, square));
  auto out_t = lora::as_eigen_columns(c(all, square).transpose());
  // Matrix times vector needs no memory at all.
  CHECK(allocations_of([&] { lora::as_eigen(y).noalias() = w * lora::as_eigen(x); }) == 0);
  CHECK(allocations_of([&] { lora::as_eigen(y).noalias() += 2.0f * w * lora::as_eigen(x); }) == 0);
  CHECK(allocations_of([&] { lora::as_eigen(y).noalias() = wt * lora::as_eigen(x); }) == 0);
  CHECK(allocations_of([&] { lora::as_eigen(y).noalias() = w.transpose() * lora::as_eigen(x); }) == 0);
  // Matrix times matrix packs blocks, as it does for Eigen's own matrices: not once more.
  using rows = Eigen::Matrix<float, -1, -1, Eigen::RowMajor>;
  const rows own_w = w, own_b = lora::as_eigen(b(all, square));
  rows own_out(n, n);
  const std::size_t own = allocations_of([&] { own_out.noalias() = own_w * own_b; });
  const auto bm = lora::as_eigen(b(all, square));
  CHECK(allocations_of([&] { out.noalias() = w * bm; }) == own);
  CHECK(allocations_of([&] { out_t.noalias() = bm * wt; }) == own);
  CHECK(allocations_of([&] { out.noalias() = wt * bm.transpose(); }) == own);
  CHECK(failed_assertions == 0);
}

TEST_CASE("interop/eigen: the traps are real: Eigen copies through a dynamic inner stride, and Ref misreads a stride of 0") {
  // If these checks fail, Eigen has mended the traps, and the refusals above can be relaxed.
  const lora::index_t n = 96;
  auto a = counted(n, n);
  auto x = counted(n, 2);
  Eigen::VectorXf y(n);
  const auto w = lora::as_eigen(a);
  CHECK(allocations_of([&] { y.noalias() = w * lora::as_eigen_strided(x(all, 0)); }) == 1);  // the named exception: a product copies it
  using matrix = Eigen::Matrix<float, -1, -1, Eigen::RowMajor>;
  using any_stride = Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>;
  const matrix b = w;
  matrix c(n, n);
  const std::size_t in_place = allocations_of([&] { c.noalias() = w * b; });
  const Eigen::Map<matrix, 0, any_stride> trap(a.data(), n, n, any_stride(n, 1));
  CHECK(allocations_of([&] { c.noalias() = trap * b; }) == in_place + 1);

  float row[] = {1, 2, 3, 4, 5, 6};
  Eigen::Map<matrix, 0, any_stride> repeated(row, 3, 2, any_stride(0, 1));
  CHECK(repeated(1, 0) == 1.0f);
  const Eigen::Ref<matrix, 0, any_stride> misread(repeated);
  CHECK(misread(1, 0) != 1.0f);
}

TEST_CASE("interop/eigen: Eigen's objects as views: the same elements, in Eigen's order, const as they are") {
  Eigen::MatrixXf m(3, 4);
  for (int i = 0; i < 12; ++i) m.data()[i] = static_cast<float>(i);
  const auto v = lora::as_view(m);
  static_assert(std::is_same_v<decltype(v), const lora::ndview<float, 2>>);
  CHECK(v.data() == m.data());
  CHECK(v.stride(0) == 1);
  CHECK(v.stride(1) == 3);
  CHECK(same(m, v));
  v(2, 3) = -1;
  CHECK(m(2, 3) == -1.0f);
  const Eigen::MatrixXf& c = m;
  static_assert(std::is_same_v<decltype(lora::as_view(c)), lora::ndview<const float, 2>>);

  auto block = m.block(1, 1, 2, 3);
  CHECK(same(block, lora::as_view(block)));
  auto row = m.row(1);
  const auto r = lora::as_view(row);
  static_assert(std::is_same_v<decltype(r), const lora::ndview<float, 1>>);
  CHECK(r.extent(0) == 4);
  CHECK(r.stride(0) == 3);
  CHECK(r(2) == m(1, 2));
  auto transposed = m.transpose();
  CHECK(same(transposed, lora::as_view(transposed)));
  const Eigen::Map<const Eigen::MatrixXf> map(m.data(), 3, 4);
  static_assert(std::is_same_v<decltype(lora::as_view(map)), lora::ndview<const float, 2>>);
  Eigen::Map<Eigen::Matrix<float, -1, -1, Eigen::RowMajor>, 0, Eigen::OuterStride<>> rows(m.data(), 2, 3, Eigen::OuterStride<>(5));
  CHECK(same(rows, lora::as_view(rows)));
  Eigen::Ref<Eigen::MatrixXf> ref(m.leftCols(2));
  CHECK(same(ref, lora::as_view(ref)));
  Eigen::Array<double, 2, 2, Eigen::RowMajor> small;
  small << 1, 2, 3, 4;
  CHECK(lora::as_view(small)(1, 0) == 3.0);
  Eigen::VectorXi numbers = Eigen::VectorXi::LinSpaced(5, 0, 4);
  CHECK(lora::as_view(numbers)(4) == 4);
  Eigen::MatrixXf empty(0, 7);
  CHECK(lora::as_view(empty).extent(1) == 7);
  // And back again: the same map.
  CHECK(same(lora::as_eigen_columns(lora::as_view(m)), v));
  CHECK(failed_assertions == 0);
}
