// SPDX-License-Identifier: Apache-2.0
//
// Views as Eigen maps and Eigen objects as views, without a copy in either direction, and without the two traps that Eigen's own strided
// maps set: a dynamic inner stride makes products copy the operand in silence, and Eigen::Ref takes a stride of 0 for "natural" and reads
// the wrong elements. The map types here are those that Eigen's products use in place; what they cannot describe is a shape_error that
// says what to do. CMake target lora::eigen.
//
//   Eigen::VectorXf y = lora::as_eigen(w) * lora::as_eigen(x);         // w rows in memory, any leading dimension
//   lora::as_eigen_columns(f).noalias() += a * b;                      // f in F order, written through
//   lora::ndview<float, 2> v = lora::as_view(matrix);                  // an Eigen::MatrixXf: its own storage, F strides
#ifndef LORA_INTEROP_EIGEN_HPP
#define LORA_INTEROP_EIGEN_HPP

#include <lora/nd/broadcast.hpp>
#include <lora/nd/view.hpp>

#include <Eigen/Core>

namespace lora::inline v0 {

namespace detail {

/** Eigen's matrix type of the elements of a view, const as they are. */
template <class T, int Rows, int Columns, int Options>
struct eigen_matrix {
  static_assert(!std::is_class_v<T>,
                "lora: Eigen has 16-bit floats of its own, and no map can turn lora's into them; cast to float first (ops/cast.hpp)");
  static_assert(sizeof(Eigen::Index) >= sizeof(index_t), "lora: Eigen's index type was redefined to be smaller than ptrdiff_t");
  using plain = Eigen::Matrix<std::remove_const_t<T>, Rows, Columns, Options>;
  using type = std::conditional_t<std::is_const_v<T>, const plain, plain>;
};

[[noreturn, gnu::cold, gnu::noinline]] inline void raise_eigen(const char* operation, const index_t* shape, const index_t* stride,
                                                               std::size_t rank, const char* why) {
  text t;
  t << operation << ": shape " << shape_text{shape, rank} << " with strides " << shape_text{stride, rank} << " " << why;
  raise<shape_error>(t);
}

/**
 * The stride between the lines (rows or columns) of a matrix whose lines are contiguous. `along` is the axis inside a line. Axes of
 * length 1 and 0 may have any stride; what is returned for them can never be taken for a broadcast.
 */
[[nodiscard]] inline index_t eigen_outer_stride(const char* operation, const char* other, const index_t* shape, const index_t* stride,
                                                std::size_t along) {
  const std::size_t across = 1 - along;
  const index_t n = shape[along];
  const index_t lines = shape[across];
  const index_t natural = n > 0 ? n : 1;
  if (n == 0 || lines == 0) return natural;
  const index_t inner = stride[along];
  const index_t outer = stride[across];
  const auto refuse = [&](const char* why) { raise_eigen(operation, shape, stride, 2, why); };
  if ((n > 1 && inner == 0) || (lines > 1 && outer == 0))
    refuse("repeats its elements (stride 0), which Eigen reads wrongly; contiguous() makes a full copy");
  if ((n > 1 && inner < 0) || (lines > 1 && outer < 0))
    refuse("runs backwards, which Eigen's maps cannot; map the forward view and use Eigen's reverse(), or contiguous()");
  if (n > 1 && inner != 1)
    refuse(lines == 1 || (outer == 1 && inner >= lines)
               ? other
               : "has gaps inside its rows and its columns, so that Eigen's products would copy it; contiguous() copies it once");
  if (lines > 1 && outer < n) refuse("has lines that overlap each other; contiguous() makes a full copy");
  return lines > 1 ? outer : natural;
}

}  // namespace detail

/** The map of a view of rank 1: contiguous. */
template <class T>
using eigen_vector = Eigen::Map<typename detail::eigen_matrix<T, Eigen::Dynamic, 1, Eigen::ColMajor>::type>;
/** A vector with a stride. Element-wise work runs in place; a product may copy it first. */
template <class T>
using eigen_strided =
    Eigen::Map<typename detail::eigen_matrix<T, Eigen::Dynamic, 1, Eigen::ColMajor>::type, Eigen::Unaligned, Eigen::InnerStride<>>;
/** A matrix whose rows, or whose columns, are contiguous, with any distance between them. */
template <class T>
using eigen_rows = Eigen::Map<typename detail::eigen_matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>::type, Eigen::Unaligned,
                              Eigen::OuterStride<>>;
template <class T>
using eigen_columns = Eigen::Map<typename detail::eigen_matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::ColMajor>::type, Eigen::Unaligned,
                                 Eigen::OuterStride<>>;

/**
 * A vector of Eigen over the same elements: const where they are.
 *
 * @param v      [n], contiguous
 * @throws shape_error naming the strides when they leave gaps; as_eigen_strided then maps it, contiguous() (ops/copy.hpp) copies it.
 * @par Cost     None: two words. Products, too, use the elements where they are.
 */
template <class T>
[[nodiscard]] eigen_vector<T> as_eigen(ndview<T, 1> v) {
  if (!v.is_contiguous())
    detail::raise_eigen(
        "as_eigen", v.shape().array().data(), v.stride().array().data(), 1,
        "is not contiguous, so that Eigen's products would copy it; as_eigen_strided() maps it, contiguous() copies it once");
  return eigen_vector<T>(v.data(), v.extent(0));
}

/**
 * A row-major matrix of Eigen over the same elements.
 *
 * @param v      [rows, columns], rows contiguous and apart from each other by at least their length
 * @throws shape_error naming shape and strides for gaps inside a row, columns in memory (as_eigen_columns takes those), a stride that
 *         is negative or 0, and rows that overlap.
 * @par Cost     None: three words. Products, too, use the elements where they are.
 */
template <class T>
[[nodiscard]] eigen_rows<T> as_eigen(ndview<T, 2> v) {
  const index_t outer = detail::eigen_outer_stride("as_eigen", "lies in memory by columns; use as_eigen_columns()",
                                                   v.shape().array().data(), v.stride().array().data(), 1);
  return eigen_rows<T>(v.data(), v.extent(0), v.extent(1), Eigen::OuterStride<>(outer));
}

/** The same for a matrix that lies in memory by columns (F order, or the transpose of rows), as a column-major matrix of Eigen. */
template <class T>
[[nodiscard]] eigen_columns<T> as_eigen_columns(ndview<T, 2> v) {
  const index_t outer = detail::eigen_outer_stride("as_eigen_columns", "lies in memory by rows; use as_eigen()", v.shape().array().data(),
                                                   v.stride().array().data(), 0);
  return eigen_columns<T>(v.data(), v.extent(0), v.extent(1), Eigen::OuterStride<>(outer));
}

/**
 * A vector with a stride, for sums, element-wise work and assignment. A product may copy it first: hence the name of its own.
 * @throws shape_error for a stride that is negative or 0.
 */
template <class T>
[[nodiscard]] eigen_strided<T> as_eigen_strided(ndview<T, 1> v) {
  const bool walked = v.extent(0) > 1;
  if (walked && v.stride(0) <= 0)
    detail::raise_eigen("as_eigen_strided", v.shape().array().data(), v.stride().array().data(), 1,
                        v.stride(0) == 0 ? "repeats one element, which Eigen reads wrongly; contiguous() makes a full copy"
                                         : "runs backwards, which Eigen's maps cannot; map the forward view and use Eigen's reverse()");
  return eigen_strided<T>(v.data(), v.extent(0), Eigen::InnerStride<>(walked ? v.stride(0) : 1));
}

template <detail::gives_view Owner>
[[nodiscard]] auto as_eigen(Owner& owner LORA_LIFETIMEBOUND) {
  return as_eigen(owner.view());
}
template <detail::gives_view Owner>
void as_eigen(const Owner&&) = delete;  // lora: a map of a temporary array would dangle; name the array
template <detail::gives_view Owner>
[[nodiscard]] auto as_eigen_columns(Owner& owner LORA_LIFETIMEBOUND) {
  return as_eigen_columns(owner.view());
}
template <detail::gives_view Owner>
void as_eigen_columns(const Owner&&) = delete;  // lora: a map of a temporary array would dangle; name the array
template <detail::gives_view Owner>
[[nodiscard]] auto as_eigen_strided(Owner& owner LORA_LIFETIMEBOUND) {
  return as_eigen_strided(owner.view());
}
template <detail::gives_view Owner>
void as_eigen_strided(const Owner&&) = delete;  // lora: a map of a temporary array would dangle; name the array

namespace detail {

template <class M>
concept eigen_object = std::is_base_of_v<Eigen::EigenBase<std::remove_const_t<M>>, std::remove_const_t<M>>;

}  // namespace detail

/**
 * The elements of a named Matrix, Array, Map, Ref or Block as a view: of rank 1 for what is a vector at compile time, else of rank 2
 * [rows, columns] with Eigen's strides (a MatrixXf gives F strides). Read-only for const objects and for maps of const.
 *
 * @par Lifetime   As the elements: resizing an Eigen::Matrix ends it.
 */
template <detail::eigen_object M>
[[nodiscard]] auto as_view(M& m LORA_LIFETIMEBOUND) {
  using plain = std::remove_const_t<M>;
  if constexpr (requires { m.data(); } && (static_cast<int>(Eigen::internal::traits<plain>::Flags) & Eigen::DirectAccessBit) != 0) {
    using T = std::remove_pointer_t<decltype(m.data())>;
    if constexpr (plain::IsVectorAtCompileTime) {
      return ndview<T, 1>(m.data(), {m.size()}, lora::strides<1>(static_cast<index_t>(m.innerStride())));
    } else {
      return ndview<T, 2>(m.data(), {m.rows(), m.cols()},
                          lora::strides<2>(static_cast<index_t>(m.rowStride()), static_cast<index_t>(m.colStride())));
    }
  } else {
    static_assert(sizeof(M) == 0, "lora: an expression of Eigen has no elements in memory; evaluate it into a Matrix and view that");
  }
}
template <detail::eigen_object M>
void as_view(const M&&) = delete;  // lora: a view of a temporary Eigen object would dangle; name the object

}  // namespace lora::inline v0

#endif
