// SPDX-License-Identifier: Apache-2.0
//
// packed_weight, and pack() that makes one: a copy of W in which every row begins on a cache line and consecutive rows lie an odd number of
// lines apart, in huge pages. The ordinary kernels read it as they read any W, so the bits are those of W in place.
//
//   const lora::packed_weight<float> w = lora::pack(table["fc1.weight"].as<const float, 2>());
//   lora::forward(y, x, w, terms, {}, scratch);
//   lora::linear fc1(w);                                               // a view: w must outlive it
//
// When: for a W whose columns are not contiguous (every second column, columns reversed: 1.6 to 17 times as fast, because forward gathers
// such a W on each call), for one that lies transposed (up to 1.9), and for one that stays in L2 and starts off a line (up to 1.5 at one
// token). A W in C order that comes from memory gains only what huge pages bring. docs/memory.md has the tables.
//
// Not here: blocks of rows interleaved to one linear stream, as matrix libraries pack. Measured with these kernels it is no faster at one
// token and 5 to 25 % slower at 4 to 16 (docs/memory.md): several rows read at once keep more of the memory's requests under way than one
// stream does. Pairs of bfloat16 need no order of their own either: consecutive k already are the 32-bit units of precision::native.
#ifndef LORA_LINALG_PACK_HPP
#define LORA_LINALG_PACK_HPP

#include <lora/linalg/merge.hpp>

#include <cstddef>
#include <span>
#include <utility>

namespace lora::inline v0 {

namespace detail {

/** Elements from one row to the next: whole lines, an odd number of them, so that the rows of a block do not all want one place in L1. */
template <class W>
[[nodiscard]] constexpr index_t packed_stride(index_t in) noexcept {
  constexpr index_t line = static_cast<index_t>(allocation_alignment / sizeof(W));
  return ((in + (line - 1)) / line | 1) * line;
}

struct packed_access;

}  // namespace detail

/**
 * W [out, in] of float, bfloat16 or float16 in the order that the products read best. Made by pack(), immutable, move-only: put it into a
 * snapshot payload, or beside the views that are made from it.
 *
 * @par Threads   Any number of readers. Moving and destroying need the object to themselves.
 */
template <float_element W>
class packed_weight {
 public:
  using weight_type = W;

  packed_weight() noexcept = default;
  packed_weight(packed_weight&& other) noexcept : memory_(std::move(other.memory_)), view_(std::exchange(other.view_, {})) {}
  packed_weight& operator=(packed_weight&& other) noexcept {
    if (this != &other) {
      memory_ = std::move(other.memory_);
      view_ = std::exchange(other.view_, {});
    }
    return *this;
  }
  packed_weight(const packed_weight&) = delete;
  packed_weight& operator=(const packed_weight&) = delete;

  [[nodiscard]] index_t out() const noexcept { return view_.extent(0); }
  [[nodiscard]] index_t in() const noexcept { return view_.extent(1); }
  /** Of the copy, the ends of its rows included. */
  [[nodiscard]] std::size_t size_bytes() const noexcept { return memory_.size(); }

  /** [out, in], unit column stride. Valid as long as this object is neither moved nor destroyed. */
  [[nodiscard]] ndview<const W, 2> view() const& noexcept LORA_LIFETIMEBOUND { return view_; }
  operator ndview<const W, 2>() const& noexcept LORA_LIFETIMEBOUND { return view_; }
  void view() const&& = delete;                    // lora: a view of a temporary packed_weight would dangle; name it
  operator ndview<const W, 2>() const&& = delete;  // lora: a view of a temporary packed_weight would dangle; name it

 private:
  friend detail::packed_access;

  aligned_bytes memory_;
  ndview<const W, 2> view_;
};

namespace detail {

/** What pack() may do and nobody else: make one whose elements are not there yet, and write them. */
struct packed_access {
  /** @throws shape_error, std::bad_alloc. */
  template <class W>
  [[nodiscard]] static packed_weight<W> make(extents<2> shape, pages wanted) {
    // A view with stride 0 can have more elements than memory.
    std::size_t bytes = 0;
    const bool fits =
        shape[1] < PTRDIFF_MAX / 8 &&
        checked_mul(static_cast<std::size_t>(shape[0]), static_cast<std::size_t>(packed_stride<W>(shape[1])) * sizeof(W), bytes) &&
        bytes <= static_cast<std::size_t>(PTRDIFF_MAX);
    if (!fits)
      raise<shape_error>(text() << "pack: w of shape " << shape_text{shape.array().data(), 2} << " does not fit the address space");
    packed_weight<W> packed;
    packed.memory_ = aligned_bytes(shape[1] == 0 ? 0 : bytes, wanted);
    packed.view_ = ndview<const W, 2>(static_cast<const W*>(packed.memory_.data()), shape, strides<2>(packed_stride<W>(shape[1]), 1));
    return packed;
  }
  template <class W>
  [[nodiscard]] static W* data(packed_weight<W>& packed) noexcept {
    return static_cast<W*>(packed.memory_.data());
  }
};

}  // namespace detail

inline namespace LORA_ISA_TAG {

namespace detail_pack {

/**
 * Rows [first, last) of `from` into `to`. Blocks of 64 x 64, so that either side of a transposed copy stays in L1; the elements from the end of
 * a row to the next one become zero, so that no byte of the copy is left over from other use.
 */
template <class W>
void pack_rows(const ndview<const W, 2>& from, W* to, index_t stride, index_t first, index_t last) noexcept {
  constexpr index_t block = 64;
  const index_t in = from.extent(1);
  const index_t row_step = from.stride(0);
  const index_t step = from.stride(1);
  for (index_t n = first; n < last; n += block) {
    const index_t rows = last - n < block ? last - n : block;
    for (index_t k = 0; k < in && step != 1; k += block) {
      const index_t columns = in - k < block ? in - k : block;
      for (index_t c = 0; c < columns; ++c)
        for (index_t r = 0; r < rows; ++r) to[(n + r) * stride + k + c] = from.data()[(n + r) * row_step + (k + c) * step];
    }
    for (index_t r = n; r < n + rows; ++r) {
      if (step == 1 && in != 0) __builtin_memcpy(to + r * stride, from.data() + r * row_step, static_cast<std::size_t>(in) * sizeof(W));
      __builtin_memset(static_cast<void*>(to + r * stride + in), 0, static_cast<std::size_t>(stride - in) * sizeof(W));
    }
  }
}

}  // namespace detail_pack

/**
 * Copies W [out, in] once, with any strides, into a packed_weight of the same element type.
 *
 * @param weight  view or array of float, bfloat16 or float16
 * @param ex      copies ranges of rows, so that on machines with several memories the pages lie near who will read them
 * @param wanted  the pages to ask for: see core/pages.hpp
 * @throws shape_error  when the copy does not fit the address space; std::bad_alloc.
 * @par Cost      One pass over W and one allocation of out * (in rounded up to an odd number of cache lines); done when weights are loaded, not
 *                in a request.
 * @par Accuracy  Copies are exact. A product with it has the bits of the product with a C-order W at the same tier, precision and number of
 *                tokens; with a W that lies transposed it agrees within the bound of forward, whose kernels sum that one in another order.
 */
template <detail::viewable V, executor E>
[[nodiscard]] auto pack(const V& weight, E& ex, pages wanted = pages::huge) {
  const auto w = detail::as_view(weight);
  using T = typename decltype(w)::value_type;
  static_assert(float_element<T> && decltype(w)::rank() == 2, "lora: pack() takes a matrix of float, bfloat16 or float16");
  packed_weight<T> packed = detail::packed_access::make<T>(w.shape(), wanted);
  if (w.size() == 0) return packed;
  const index_t out = w.extent(0);
  const index_t stride = packed.view().stride(0);
  const ndview<const T, 2> from = w;
  T* const to = detail::packed_access::data(packed);
  const std::size_t most = static_cast<std::size_t>(out);
  const std::size_t tasks = ex.concurrency() < most ? ex.concurrency() : most;
  const auto first_of = [=](std::size_t task) {  // without out * task, which may not fit
    return out / static_cast<index_t>(tasks) * static_cast<index_t>(task) +
           out % static_cast<index_t>(tasks) * static_cast<index_t>(task) / static_cast<index_t>(tasks);
  };
  ex.run(tasks, [&](std::size_t task) { detail_pack::pack_rows(from, to, stride, first_of(task), first_of(task + 1)); });
  return packed;
}
template <detail::viewable V>
[[nodiscard]] auto pack(const V& weight, pages wanted = pages::huge) {
  inline_executor here;
  return pack(weight, here, wanted);
}

/** forward() with a packed W: everything as with its view(). */
template <int Checks = LORA_CHECKS, detail_forward::matrix Y, detail_forward::matrix X, float_element W, executor E>
void forward(Y&& y, const X& x, const packed_weight<W>& w, const low_rank_update& update, float_view<1> bias, workspace& scratch, E& ex,
             const forward_options& options = {}) {
  forward<Checks>(y, x, w.view(), update, bias, scratch, ex, options);
}
template <int Checks = LORA_CHECKS, detail_forward::matrix Y, detail_forward::matrix X, float_element W>
void forward(Y&& y, const X& x, const packed_weight<W>& w, const low_rank_update& update, float_view<1> bias, workspace& scratch,
             const forward_options& options = {}) {
  forward<Checks>(y, x, w.view(), update, bias, scratch, options);
}

/** forward_workspace_bytes() for a packed W. */
template <class X = void, class Y = float, float_element W>
[[nodiscard]] std::size_t forward_workspace_bytes(index_t n, const packed_weight<W>& w, const low_rank_update& update,
                                                  std::size_t concurrency = 1, const forward_options& options = {}) {
  return forward_workspace_bytes<X, Y>(n, w.view(), update, concurrency, options);
}

/** merged() from a packed W; its result is an ordinary array in C order, which asks for huge pages too. */
template <float_element W>
[[nodiscard]] ndarray<W, 2> merged(const packed_weight<W>& w, const low_rank_update& update, const forward_options& options = {}) {
  return merged(w.view(), update, options);
}

}  // namespace LORA_ISA_TAG
}  // namespace lora::inline v0

#endif
