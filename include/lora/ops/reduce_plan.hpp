// SPDX-License-Identifier: Apache-2.0
//
// axes, and detail: the walk that every reduction takes over a view of any rank. The loop plan sorts and joins the axes of the input; what
// is left is cut into pieces that a kernel of simd/ does in one call (rows along a reduced axis, or columns across one), and the results of
// the pieces are joined as a balanced tree, which is what keeps the rounding error of a long sum small. The operations are in ops/reduce.hpp.
//
//   lora::axes{1, -1}                                  // the second axis and the last one
#ifndef LORA_OPS_REDUCE_PLAN_HPP
#define LORA_OPS_REDUCE_PLAN_HPP

#include <lora/nd/array.hpp>
#include <lora/nd/loop.hpp>
#include <lora/nd/overlap.hpp>
#include <lora/simd/reduce.hpp>

namespace lora::inline v0 {

/** Axes that an operation works along, in any order; negative ones count from the end. */
template <std::size_t N>
class axes {
 public:
  constexpr axes() noexcept = default;
  template <class... Integers>
    requires(sizeof...(Integers) == N && (detail::is_index_word<Integers> && ...) && N != 0)
  constexpr axes(Integers... values) : values_{detail::to_index(values, "axis", true)...} {}
  template <class... Numbers>
    requires(sizeof...(Numbers) == N && (std::is_arithmetic_v<Numbers> && ...) && !(detail::is_index_word<Numbers> && ...))
  axes(Numbers...) = delete;  // lora: axes are integers

  [[nodiscard]] constexpr index_t operator[](std::size_t i) const noexcept { return values_[i]; }
  [[nodiscard]] constexpr const std::array<index_t, N>& array() const& noexcept { return values_; }
  [[nodiscard]] constexpr std::array<index_t, N> array() const&& noexcept { return values_; }

 private:
  std::array<index_t, N> values_{};
};
template <class... Integers>
  requires(std::is_arithmetic_v<Integers> && ...)
axes(Integers...) -> axes<sizeof...(Integers)>;

namespace detail {

/** Marks the axes named; the message says which operation refused which axis of which shape. */
inline void mark_axes(const char* what, const index_t* named, std::size_t count, const index_t* shape, std::size_t rank, bool* marked) {
  const auto n = static_cast<index_t>(rank);
  for (std::size_t i = 0; i < rank; ++i) marked[i] = false;
  for (std::size_t i = 0; i < count; ++i) {
    text t;
    if (named[i] < -n || named[i] >= n) {
      t << what << ": axis " << named[i] << " is out of bounds for shape " << shape_text{shape, rank};
      raise<index_error>(t);
    }
    const auto axis = static_cast<std::size_t>(named[i] < 0 ? named[i] + n : named[i]);
    if (marked[axis]) {
      t << what << ": axis " << axis << " is named twice in " << shape_text{named, count} << ", for shape " << shape_text{shape, rank};
      raise<shape_error>(t);
    }
    marked[axis] = true;
  }
}

[[noreturn, gnu::cold, gnu::noinline]] inline void raise_nothing(const char* what, const index_t* shape, std::size_t rank) {
  text t;
  t << what << ": there is no element to choose from in shape " << shape_text{shape, rank};
  raise<shape_error>(t);
}

[[noreturn, gnu::cold, gnu::noinline]] inline void raise_reduced_shape(const char* what, const index_t* shape, std::size_t rank,
                                                                       const index_t* wanted, const index_t* out, std::size_t out_rank) {
  text t;
  t << what << ": shape " << shape_text{shape, rank} << " reduces to " << shape_text{wanted, out_rank} << " but out is "
    << shape_text{out, out_rank};
  raise<shape_error>(t);
}

[[noreturn, gnu::cold, gnu::noinline]] inline void raise_reduced_overlap(const char* what, const index_t* shape, std::size_t rank) {
  text t;
  t << what << ": out, shape " << shape_text{shape, rank} << ", overlaps the input or itself";
  raise<shape_error>(t);
}

inline namespace LORA_ISA_TAG {

/** Positions along some axes of a plan, the first one running fastest. */
struct axis_walk {
  std::size_t rank = 0;
  index_t extent[max_rank];
  index_t in_stride[max_rank];
  index_t out_stride[max_rank];
  index_t position[max_rank];
  index_t in = 0;
  index_t out = 0;

  void add(index_t n, index_t in_step, index_t out_step) noexcept {
    extent[rank] = n;
    in_stride[rank] = in_step;
    out_stride[rank] = out_step;
    position[rank++] = 0;
  }
  void drop_first() noexcept {
    for (std::size_t i = 1; i < rank; ++i) {
      extent[i - 1] = extent[i];
      in_stride[i - 1] = in_stride[i];
      out_stride[i - 1] = out_stride[i];
    }
    --rank;
  }
  [[nodiscard]] index_t size() const noexcept { return product(extent, rank); }
  /** Steps to the next position; false, and back at the first, behind the last. */
  bool next() noexcept {
    for (std::size_t i = 0; i < rank; ++i) {
      in += in_stride[i];
      out += out_stride[i];
      if (++position[i] != extent[i]) return true;
      position[i] = 0;
      in -= in_stride[i] * extent[i];
      out -= out_stride[i] * extent[i];
    }
    return false;
  }
};

/**
 * Calls put(offset in out, total) for each element of the result. The plan is of the input and the output, whose stride is 0 along the
 * axes to be reduced; it is not empty.
 */
template <class Op, class T, class Put>
void reduce_planned(const loop_plan<2>& plan, const T* in, simd::tier tier, Put&& put) {
  using A = simd::total_of<Op, T>;
  const auto& kernels = simd::reducer<Op, T>(tier);
  // Partial results, one run of them a level of the tree. 32 KiB: they stay in L1 beside the rows that stream through, and on any stack.
  constexpr index_t room = 32768 / static_cast<index_t>(sizeof(A));
  alignas(64) A memory[room];
  in += plan.offset(0);

  axis_walk kept;
  axis_walk reduced;
  bool kept_inside = false;  // whether a kept axis is inside a reduced one
  for (std::size_t axis = 1; axis < plan.rank(); ++axis) {
    const bool reduces = plan.stride(axis, 1) == 0;
    if (reduces && kept.rank != 0) kept_inside = true;
    (reduces ? reduced : kept).add(plan.extent(axis), plan.stride(axis, 0), plan.stride(axis, 1));
  }
  const index_t n = plan.rank() == 0 ? 1 : plan.extent(0);
  const index_t step = plan.rank() == 0 ? 1 : plan.stride(0, 0);
  const bool inner_reduced = plan.rank() == 0 || plan.stride(0, 1) == 0;

  // After p pieces the tree holds as many parts as p has digits set: never more than p has digits.
  const auto levels_for = [](index_t pieces) {
    index_t levels = 1;
    for (; pieces > 1; pieces /= 2) ++levels;
    return levels;
  };
  // Rows too short to be worth a reduction each are added as columns first, if there are many and all go into one result.
  constexpr index_t short_row = 512;
  const bool fold = inner_reduced && !kept_inside && reduced.rank != 0 && n <= short_row && n <= room / levels_for(reduced.size());
  const bool columns = fold || !inner_reduced;

  index_t width = n;  // results of one piece, and how far they are apart
  index_t width_in = step;
  index_t width_out = inner_reduced ? 0 : plan.stride(0, 1);
  index_t run = 1;  // rows of a piece of columns
  index_t run_stride = 0;
  if (columns) {
    if (reduced.rank != 0) {
      run = reduced.extent[0];
      run_stride = reduced.in_stride[0];
      reduced.drop_first();
    }
  } else {
    width = 1;
    width_in = 0;
    if (kept.rank != 0 && (kept_inside || reduced.rank == 0)) {
      width = kept.extent[0];
      width_in = kept.in_stride[0];
      width_out = kept.out_stride[0];
      kept.drop_first();
    }
  }
  const index_t most = columns ? simd::columns_most_rows : 1;
  const index_t levels = levels_for(reduced.size() * ((run + most - 1) / most));
  constexpr index_t line = 64 / static_cast<index_t>(sizeof(A));
  const index_t tile = width <= room / levels ? width : room / levels / line * line;

  do {
    for (index_t first = 0; first < width; first += tile) {
      const index_t here = width - first < tile ? width - first : tile;
      const T* const from = in + kept.in + first * width_in;
      index_t depth = 0;
      index_t pieces = 0;
      do {
        for (index_t r = 0; r < run; r += most) {
          A* const to = memory + depth * tile;
          const T* const piece = from + reduced.in + r * run_stride;
          if (columns)
            kernels.columns(piece, run_stride, run - r < most ? run - r : most, here, width_in, to);
          else
            kernels.rows(piece, n, step, here, width_in, to);
          ++depth;
          for (index_t q = ++pieces; (q & 1) == 0; q /= 2, --depth)
            kernels.combine(memory + (depth - 2) * tile, memory + (depth - 1) * tile, here);
        }
      } while (reduced.next());
      for (; depth > 1; --depth) kernels.combine(memory + (depth - 2) * tile, memory + (depth - 1) * tile, here);
      if (fold) {
        put(plan.offset(1) + kept.out, kernels.fold(memory, here));
      } else {
        for (index_t i = 0; i < here; ++i) put(plan.offset(1) + kept.out + (first + i) * width_out, memory[i]);
      }
    }
  } while (kept.next());
}

}  // namespace LORA_ISA_TAG
}  // namespace detail
}  // namespace lora::inline v0

#endif
