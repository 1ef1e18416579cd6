// SPDX-License-Identifier: Apache-2.0
//
// mdspan with layout_stride, in nested loops, compiled with -march=native: the standard's where there is one, else Kokkos' (mdspan/mdspan.hpp on the
// include path), else nothing. Elements by a call operator or by [i, j, k, l], whichever it has.
#include "ops.hpp"

#include <version>

#if defined(__cpp_lib_mdspan)
#include <mdspan>
#define LORA_BENCH_MDSPAN "std::mdspan"
namespace md = std;
#elif __has_include(<mdspan/mdspan.hpp>)
#include <mdspan/mdspan.hpp>
#define LORA_BENCH_MDSPAN "Kokkos::mdspan"
namespace md = Kokkos;
#endif

#if defined(LORA_BENCH_MDSPAN)
#include <array>

namespace bench {
namespace {

using shape = md::dextents<index, 4>;
using layout = md::layout_stride::mapping<shape>;

// Arithmetic on the mapping is what either operator does.
template <class Span>
auto& element(const Span& s, index i, index j, index k, index l) {
  return s.data_handle()[s.mapping()(i, j, k, l)];
}

void scale(const task& t, const void* from, void* to) {
  const shape n(t.shape[0], t.shape[1], t.shape[2], t.shape[3]);
  const md::mdspan<const float, shape, md::layout_stride> x(
      static_cast<const float*>(from),
      layout(n, std::array<index, 4>{t.from_stride[0], t.from_stride[1], t.from_stride[2], t.from_stride[3]}));
  const md::mdspan<float, shape, md::layout_stride> y(
      static_cast<float*>(to), layout(n, std::array<index, 4>{t.to_stride[0], t.to_stride[1], t.to_stride[2], t.to_stride[3]}));
  for (index i = 0; i < x.extent(0); ++i)
    for (index j = 0; j < x.extent(1); ++j)
      for (index k = 0; k < x.extent(2); ++k)
        for (index l = 0; l < x.extent(3); ++l) element(y, i, j, k, l) = 2 * element(x, i, j, k, l);
}

}  // namespace

void mdspan(const task& t, peer_list& out) {
  if (t.what == op::scale && t.rank == 4)
    out.push_back({"mdspan", LORA_BENCH_MDSPAN " with layout_stride in nested loops, -march=native", scale});
}

}  // namespace bench
#else
void bench::mdspan(const task&, peer_list&) {}
#endif
