// SPDX-License-Identifier: Apache-2.0
//
// xtensor with xsimd, compiled with -march=native: strided views of adapted memory, assigned without a temporary (xt::noalias). Adaptors and views
// are built on every call, as lora's are. g++ only: clang 14 does not compile its headers.
#include "ops.hpp"

#if defined(LORA_BENCH_HAVE_XTENSOR) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Warray-bounds"
#pragma GCC diagnostic ignored "-Wstringop-overflow"
#define XTENSOR_USE_XSIMD 1
#include <xtensor/xadapt.hpp>
#include <xtensor/xmath.hpp>
#include <xtensor/xnoalias.hpp>
#include <xtensor/xview.hpp>

#include <array>

namespace bench {
namespace {

template <std::size_t R, class T>
auto adapted(T* p, const std::array<std::size_t, R>& whole) {
  std::size_t size = 1;
  for (const std::size_t n : whole) size *= n;
  return xt::adapt(p, size, xt::no_ownership(), whole);
}

// Not const float: its assignment takes the vector path for operands of one and the same value type only.
float* readable(const void* p) { return const_cast<float*>(static_cast<const float*>(p)); }

std::array<std::size_t, 4> whole(const task& t) {
  const auto at = [](index n) { return static_cast<std::size_t>(n); };
  return {at(t.from_count / t.from_stride[0]), at(t.from_stride[0] / t.from_stride[1]), at(t.from_stride[1] / t.from_stride[2]),
          at(t.from_stride[2])};
}

void scale_flat(const task& t, const void* from, void* to) {
  const std::array<std::size_t, 1> shape{static_cast<std::size_t>(t.from_count)};
  const auto x = adapted(readable(from), shape);
  auto y = adapted(static_cast<float*>(to), shape);
  xt::noalias(y) = 2.0f * x;
}

void scale_whole(const task& t, const void* from, void* to) {
  const auto x = adapted(readable(from), whole(t));
  auto y = adapted(static_cast<float*>(to), whole(t));
  xt::noalias(y) = 2.0f * x;
}

void scale(const task& t, const void* from, void* to) {
  const auto x = adapted(readable(from), whole(t));
  auto y = adapted(static_cast<float*>(to), whole(t));
  const auto cut = [&](auto& a, auto b, auto c, auto d) { return xt::view(a, xt::all(), b, c, d); };
  const std::size_t n1 = static_cast<std::size_t>(t.shape[1]);
  const std::size_t n2 = static_cast<std::size_t>(t.shape[2]);
  const std::size_t n3 = static_cast<std::size_t>(t.shape[3]);
  const auto full = whole(t);
  // The words that its users would write: all() for a whole axis, which keeps more of the layout than a range does.
  if (n3 != full[3]) {
    auto v = cut(y, xt::all(), xt::all(), xt::range(std::size_t{0}, n3));
    xt::noalias(v) = 2.0f * cut(x, xt::all(), xt::all(), xt::range(std::size_t{0}, n3));
  } else if (n2 != full[2]) {
    auto v = cut(y, xt::all(), xt::range(std::size_t{0}, n2), xt::all());
    xt::noalias(v) = 2.0f * cut(x, xt::all(), xt::range(std::size_t{0}, n2), xt::all());
  } else {
    auto v = cut(y, xt::range(std::size_t{0}, n1), xt::all(), xt::all());
    xt::noalias(v) = 2.0f * cut(x, xt::range(std::size_t{0}, n1), xt::all(), xt::all());
  }
}

void transpose(const task& t, const void* from, void* to) {
  const auto at = [](index n) { return static_cast<std::size_t>(n); };
  const auto x = adapted(readable(from), std::array<std::size_t, 2>{at(t.shape[0]), at(t.shape[1])});
  auto y = adapted(static_cast<float*>(to), std::array<std::size_t, 2>{at(t.shape[1]), at(t.shape[0])});
  xt::noalias(y) = xt::transpose(x);
}

}  // namespace

void xtensor(const task& t, peer_list& out) {
  const std::string how = "xtensor " + std::to_string(XTENSOR_VERSION_MAJOR) + "." + std::to_string(XTENSOR_VERSION_MINOR) + "." +
                          std::to_string(XTENSOR_VERSION_PATCH) + " with xsimd, -march=native";
  if (t.what == op::scale) {
    index size = 1;
    for (const index n : t.shape) size *= n;
    out.push_back({"xtensor", how, t.rank == 1 ? scale_flat : size == t.from_count ? scale_whole : scale});
  }
  if (t.what == op::transpose) out.push_back({"xtensor", how, transpose});
}

}  // namespace bench
#pragma GCC diagnostic pop
#else
void bench::xtensor(const task&, peer_list&) {}
#endif
